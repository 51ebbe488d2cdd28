//! Beginnings and ends: exit statuses, signals, terminals, orphans, and what is left afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gateway::sandbox::Cgroup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::fixture::{Sandbox, folder};

pub(crate) const TESTS: &[Test] = &[
    ("exit statuses are the command's", exit_statuses),
    ("signals reach the command", signals),
    ("orphans are reaped and do not hold up the end", orphans),
    ("nothing is left after a normal end", clean_end),
    (
        "nothing is left after kill -9 of the gateway",
        killed_gateway,
    ),
    (
        "nothing is left after kill -9 of the first process",
        killed_init,
    ),
    ("the command works at a terminal", terminal),
    (
        "an interrupt typed at the terminal reaches the command alone",
        typed_interrupt,
    ),
    (
        "a stopped command stops its job and goes on with it",
        stopped_together,
    ),
    (
        "a stopped command that nobody could resume goes on",
        stopped_alone,
    ),
    ("by hand the init refuses to run", init_by_hand),
];

/// Long enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(100);

fn exit_statuses() {
    let work = folder();
    let sandbox = Sandbox::in_folder(work.path());
    fs::write(work.path().join("plain"), "").unwrap();
    fs::write(work.path().join("script"), "exit 9").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(work.path().join("script"), executable).unwrap();
    for (command, status) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["sh", "-c", "kill -40 $$"], 128 + 40),
        (&["./script"], 9),
        (&["no-such-command"], 127),
        (&["./plain"], 126),
        (&["/"], 126),
        (&["true"], 0),
    ] {
        let output = sandbox.run(command);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{command:?}: {output:?}"
        );
    }
}

fn signals() {
    let work = folder();
    let script = "trap 'echo got term; exit 3' TERM; trap 'echo got usr1' USR1; echo ready; \
                  while :; do sleep 0.05; done";
    let mut child = Sandbox::in_folder(work.path())
        .command(&["sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert_eq!(line(), "ready");
    signal(&child, Signal::SIGUSR1);
    assert_eq!(line(), "got usr1");
    signal(&child, Signal::SIGTERM);
    assert_eq!(line(), "got term");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

fn orphans() {
    let work = folder();
    let begun = Instant::now();
    let out = Sandbox::in_folder(work.path()).shell(
        "i=0; while [ $i -lt 200 ]; do (true &) ; i=$((i+1)); done; \
         (setsid sleep 1000 >/dev/null 2>&1 &); sleep 1; \
         grep -l '^State:.Z' /proc/[0-9]*/status | wc -l",
    );
    assert_eq!(out.trim(), "0");
    assert!(begun.elapsed() < PATIENCE);
}

fn clean_end() {
    let work = folder();
    let mut child = Sandbox::in_folder(work.path())
        .command(&["sh", "-c", "(setsid sleep 1000 &); true"])
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!runtime_directory(&child).exists() && cgroup(&child).is_none());
}

fn killed_gateway() {
    let (mut child, marker) = long_runner();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    assert_nothing_left(&child, &marker);
}

fn killed_init() {
    let (mut child, marker) = long_runner();
    let processes = fs::read_to_string(cgroup(&child).unwrap().join("cgroup.procs")).unwrap();
    let init = processes
        .lines()
        .find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("sandbox-init")
        })
        .unwrap();
    kill(Pid::from_raw(init.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert_nothing_left(&child, &marker);
}

fn terminal() {
    let work = folder();
    let inside = "test -t 0 && test -t 1 && echo terminal; stty size </dev/tty >/dev/null && echo settings; \
                  test \"$(ps -o tpgid= -p $$ | tr -d ' ')\" = $$ && echo foreground; \
                  sh -ic 'sleep 0.1 & wait; echo jobs' 2>/dev/null";
    let output = typescript(&Sandbox::in_folder(work.path()), inside, b"");
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["terminal", "settings", "foreground", "jobs"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
}

fn typed_interrupt() {
    let work = folder();
    let inside = "trap 'echo interrupted; exit 5' INT; echo ready; sleep 60 & wait; echo slept";
    let output = typescript(&Sandbox::in_folder(work.path()), inside, b"\x03");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("interrupted") && !text.contains("slept"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(5), "{text}");
}

fn stopped_together() {
    let work = folder();
    // A job of its own beneath this process, as a shell would make it: where the tests themselves are
    // a group that nobody could resume (in CI, say), a member of that group would not stop.
    let mut child = Sandbox::in_folder(work.path())
        .command(&["sh", "-c", "kill -STOP $$; exit 4"])
        .process_group(0)
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&status).unwrap().contains("State:\tT") {
        assert!(Instant::now() < deadline, "it does not stop");
        sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGCONT);
    assert_eq!(wait(&mut child), Some(4));
}

fn stopped_alone() {
    let work = folder();
    // In a session of its own there is no shell to say `fg`.
    let mut child = Sandbox::in_folder(work.path())
        .under(&["setsid", "--wait"])
        .command(&["sh", "-c", "kill -STOP $$; exit 4"])
        .spawn()
        .unwrap();
    assert_eq!(wait(&mut child), Some(4));
}

fn init_by_hand() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([gateway::sandbox::init::SUBCOMMAND, "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    fs::write(std::env::temp_dir().join("postern-still-writable"), "").unwrap();
    fs::remove_file(std::env::temp_dir().join("postern-still-writable")).unwrap();
}

/// A sandbox that would run for long, known by a word in its command's arguments.
fn long_runner() -> (Child, String) {
    let work = folder();
    let marker = format!("marker-{}-{:?}", std::process::id(), Instant::now());
    let marker: String = marker.chars().filter(char::is_ascii_alphanumeric).collect();
    let script = format!("(setsid sh -c 'sleep 1000; : {marker}' &); echo ready; sleep 1000");
    let mut child = Sandbox::in_folder(work.path())
        .command(&["sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(running(&marker) && runtime_directory(&child).exists() && cgroup(&child).is_some());
    (child, marker)
}

fn assert_nothing_left(child: &Child, marker: &str) {
    let deadline = Instant::now() + PATIENCE;
    let left = || {
        (
            runtime_directory(child).exists(),
            cgroup(child),
            running(marker),
        )
    };
    while left() != (false, None, false) {
        assert!(Instant::now() < deadline, "left: {:?}", left());
        sleep(Duration::from_millis(20));
    }
}

fn runtime_directory(fixture: &Child) -> PathBuf {
    format!("/run/postern-test-{}", fixture.id()).into()
}

/// The sandbox's cgroup, which is next to where this process would make one.
fn cgroup(fixture: &Child) -> Option<PathBuf> {
    let example = Cgroup::create_child().unwrap();
    let parent = example.path().parent().unwrap().to_owned();
    fs::remove_dir(example.path()).unwrap();
    let prefix = format!("postern-{}-", fixture.id());
    fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&prefix)
        })
}

fn running(marker: &str) -> bool {
    fs::read_dir("/proc").unwrap().any(|entry| {
        let path = entry.unwrap().path().join("cmdline");
        fs::read(path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
    })
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        sleep(Duration::from_millis(20));
    }
}

/// Runs a script in a sandbox at a terminal of its own (script(1)'s), and types once it says that it is ready.
fn typescript(sandbox: &Sandbox, inside: &str, typed: &[u8]) -> Output {
    let file = sandbox.cwd.join("inside.sh");
    fs::write(&file, inside).unwrap();
    let command = sandbox.command(&["sh", "inside.sh"]);
    let line: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let mut child = Command::new("script")
        .args(["-qec", &line.join(" "), "/dev/null"])
        .current_dir(&sandbox.cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    if !typed.is_empty() {
        while !said.ends_with(b"ready\r\n") {
            assert_ne!(stdout.read_until(b'\n', &mut said).unwrap(), 0, "{said:?}");
        }
        stdin.write_all(typed).unwrap();
    }
    stdout.read_to_end(&mut said).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = said;
    drop(stdin);
    output
}
