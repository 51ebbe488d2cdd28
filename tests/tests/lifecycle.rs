//! `postern exec` from start to end: statuses, signals, the terminal, and nothing left behind,
//! whoever is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::postern::{self, Sandbox};
use e2e::process::{Process, patient};
use e2e::{World, cgroup};
use nix::sys::signal::Signal;

#[test]
fn the_exit_status_is_the_command_s() -> Result<()> {
    let world = World::new()?;
    fs::write(world.work("data"), "not a program")?;
    for (command, status) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 128 + 15),
        (vec!["sh", "-c", "kill -KILL $$"], 128 + 9),
        (vec!["no-such-command"], 127),
        (vec!["./data"], 126),
    ] {
        let done = world.exec(command.clone()).run()?;
        assert_eq!(done.code(), status, "{command:?}: {done}");
    }
    Ok(())
}

#[test]
fn a_capability_that_is_kept_opens_nothing() -> Result<()> {
    let world = World::new()?;
    let script = "grep CapEff /proc/self/status; ip link add x type dummy && echo escaped; \
        ip route add default dev lo && echo escaped; mount -t tmpfs x /mnt && echo escaped; \
        bash -c 'exec 3<>/dev/tcp/203.0.113.9/8443' && echo escaped; exit 0";
    let mut exec = world.exec(["sh", "-c", script]);
    for capability in ["CAP_NET_RAW", "net_admin", "SYS_ADMIN", "BPF", "sys_ptrace"] {
        exec = exec.flag("--keep-cap", capability);
    }
    let done = exec.succeed()?;
    let wanted = 0x8004_05fb_u64 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 21 | 1 << 39;
    assert_eq!(
        done.out().trim(),
        format!("CapEff:\t{wanted:016x}"),
        "{done}"
    );
    let unknown = world.exec(["true"]).flag("--keep-cap", "SYS_MODULE");
    let unknown = unknown.run()?;
    assert_eq!(unknown.code(), 125, "{unknown}");
    assert!(unknown.err().contains("cannot be kept"), "{unknown}");
    let nobody = world.exec(["true"]).flag("--user", "nobody");
    let nobody = nobody.flag("--keep-cap", "BPF").run()?;
    assert_eq!(nobody.code(), 125, "{nobody}");
    assert!(nobody.err().contains("--user root"), "{nobody}");
    world.internet.saw_nothing()
}

#[test]
fn a_failure_of_its_own_is_125_and_says_why() -> Result<()> {
    let world = World::new()?;
    let done = world.exec(["true"]).flag("--gateway", "another").run()?;
    assert_eq!(done.code(), 125, "{done}");
    assert!(
        done.err().contains("another") && done.err().contains("e2e"),
        "{done}"
    );

    world.write_policy(&["kind: EgressGatewai\n".to_owned()])?;
    let done = world.exec(["touch", "ran"]).run()?;
    assert_eq!(done.code(), 125, "{done}");
    assert!(done.err().contains("policy.yaml"), "{done}");
    assert!(
        !world.work("ran").exists(),
        "the command ran without a policy"
    );

    fs::remove_file(world.path("policy").join("policy.yaml"))?;
    let done = world.exec(["touch", "ran"]).run()?;
    assert_eq!(done.code(), 125, "{done}");
    assert!(
        !world.work("ran").exists(),
        "the command ran without a policy"
    );
    Ok(())
}

#[test]
fn check_names_file_line_and_column_of_every_mistake() -> Result<()> {
    let world = World::new()?;
    let folder = world.path("policy");
    let folder = folder.to_string_lossy();
    let checked = postern::run(&["check", &folder])?;
    assert_eq!(checked.code(), 0, "{checked:#?}");
    let broken = world.standard().join("---\n");
    let broken = broken
        .replace("defaultPolicy", "defaultPolice")
        .replace("provider: openai", "provider: openia");
    world.write_policy(&[broken])?;
    let checked = postern::run(&["check", &folder])?;
    assert_ne!(checked.code(), 0, "{checked:#?}");
    let said = checked.out() + &checked.err();
    assert!(said.contains("policy.yaml:5:3"), "{said}");
    assert!(
        said.contains("defaultPolicy") && said.contains("openai"),
        "{said}"
    );
    for key in world.keys.all() {
        assert!(!said.contains(key), "a diagnostic quotes a secret");
    }
    Ok(())
}

#[test]
fn signals_reach_the_command() -> Result<()> {
    let world = World::new()?;
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 42' {name}; echo up; while :; do sleep 0.05; done"
        );
        let mut running = world.exec(["bash", "-c", &script]).start()?;
        running
            .process
            .wait_for_line(Duration::from_secs(20), |line| line == "up")?;
        running.process.signal(signal)?;
        let done = running.wait()?;
        assert_eq!(done.code(), 42, "{name}: {done}");
        assert!(done.out().contains(&format!("got {name}")), "{done}");
    }
    Ok(())
}

#[test]
fn input_output_and_the_terminal_are_the_caller_s() -> Result<()> {
    let world = World::new()?;
    let done = world
        .exec(["sh", "-c", "cat; echo complaint >&2"])
        .input("hello\n")
        .succeed()?;
    assert_eq!(done.out(), "hello\n");
    assert!(done.err().contains("complaint"));
    let command = world
        .exec([
            "sh",
            "-c",
            "test -t 0 && test -t 1 && stty size && echo is a terminal",
        ])
        .command()?;
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ");
    let mut script = std::process::Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(world.path("work"));
    let ended = Process::start(script, b"")?.wait(Duration::from_secs(30))?;
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.out().contains("is a terminal"), "{ended:#?}");
    Ok(())
}

#[test]
fn the_sandbox_works_in_the_current_folder_and_nowhere_else() -> Result<()> {
    let world = World::new()?;
    let probe = world.path("outside");
    let probe = probe.to_string_lossy();
    let script = format!(
        "echo kept > kept; mkdir -p inner/most; \
         echo gone > /tmp/postern-e2e-gone && cat /tmp/postern-e2e-gone; \
         echo gone > \"$HOME/postern-e2e-gone\" && cat \"$HOME/postern-e2e-gone\"; \
         echo no > '{probe}'; echo no > /etc/postern-e2e; echo no > /usr/postern-e2e; pwd"
    );
    let done = world.exec(["sh", "-c", &script]).run()?;
    assert_eq!(fs::read_to_string(world.work("kept"))?, "kept\n");
    assert!(world.work("inner/most").is_dir());
    assert!(
        done.out()
            .trim()
            .ends_with(&*world.path("work").to_string_lossy()),
        "{done}"
    );
    assert!(done.out().starts_with("gone\ngone\n"), "{done}");
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    for path in [
        "/tmp/postern-e2e-gone".into(),
        Path::new(&home).join("postern-e2e-gone"),
        world.path("outside"),
        "/etc/postern-e2e".into(),
        "/usr/postern-e2e".into(),
    ] {
        assert!(!path.exists(), "{} is on the host", path.display());
    }
    Ok(())
}

#[test]
fn variables_given_by_env_arrive_and_proxies_of_the_caller_do_not() -> Result<()> {
    let world = World::new()?;
    let mut command = world
        .exec(["env"])
        .env("GREETING", "hello = world")
        .command()?;
    command
        .env("https_proxy", "http://127.0.0.1:3128")
        .env("HTTP_PROXY", "http://127.0.0.1:3128");
    let ended = Process::start(command, b"")?.wait(Duration::from_secs(30))?;
    assert!(
        ended.out().contains("GREETING=hello = world\n"),
        "{ended:#?}"
    );
    assert!(!ended.out().contains("3128"), "{ended:#?}");
    Ok(())
}

#[test]
fn orphans_end_with_the_sandbox() -> Result<()> {
    let world = World::new()?;
    let script =
        "for i in 1 2 3 4 5; do setsid sh -c 'sleep 8271 & sleep 8271' & done; sleep 0.3; exit 3";
    let before = Traces::now()?;
    let done = world.exec(["sh", "-c", script]).run()?;
    assert_eq!(done.code(), 3, "{done}");
    assert!(with_argument("8271")?.is_empty(), "orphans live on");
    before.are_all_there_is()
}

#[test]
fn an_ordinary_end_leaves_nothing_behind() -> Result<()> {
    let world = World::new()?;
    let before = Traces::now()?;
    world
        .curl(&["--fail", "-o", "/dev/null", "https://echo.test/"])
        .succeed()?;
    world.exec(["false"]).run()?;
    world.exec(["no-such-command"]).run()?;
    before.are_all_there_is()
}

/// A sandbox whose command has said that it runs, and the host's view of its namespaces.
fn settled(world: &World, script: &str) -> Result<(Sandbox, String)> {
    let script = format!("readlink /proc/self/ns/net; {script}");
    let mut running = world
        .exec(["sh", "-c", &script])
        .on_the_host_network()
        .start()?;
    running
        .process
        .wait_for_line(Duration::from_secs(20), |line| line.starts_with("net:"))?;
    Ok((running, script))
}

#[test]
fn kill_9_of_exec_leaves_no_group_process_folder_or_mount() -> Result<()> {
    let world = World::new()?;
    let before = Traces::now()?;
    let (running, _) = settled(&world, "setsid sleep 8272 & sleep 8272")?;
    let during = Traces::now()?;
    let made = during.groups.difference(&before.groups).count();
    assert!(made > 0, "no group was made");
    running.process.signal(Signal::SIGKILL)?;
    let done = running.wait()?;
    assert_eq!(done.code(), 128 + 9);
    before.are_all_there_is()?;
    assert!(with_argument("8272")?.is_empty(), "the sandbox lives on");
    Ok(())
}

#[test]
fn kill_9_of_exec_never_opens_the_network() -> Result<()> {
    let world = World::new()?;
    // It knocks as fast as it can, before, during and after.
    let knock = "while :; do (exec 3<>/dev/tcp/203.0.113.9/443) 2>/dev/null && touch open; done";
    let script = format!("echo up; {knock} & {knock}");
    let mut running = world
        .exec(["bash", "-c", &script])
        .on_the_host_network()
        .start()?;
    running
        .process
        .wait_for_line(Duration::from_secs(20), |line| line == "up")?;
    std::thread::sleep(Duration::from_millis(500));
    running.process.signal(Signal::SIGKILL)?;
    running.wait()?;
    std::thread::sleep(Duration::from_secs(1));
    world.internet.saw_nothing()
}

#[test]
fn a_sandbox_cannot_stop_its_own_gateway() -> Result<()> {
    let world = World::new()?;
    let script =
        "kill -9 -1; kill -9 1; curl -s --fail -o /dev/null https://echo.test/ && echo served";
    let done = world
        .exec(["bash", "-c", &format!("trap '' TERM; ({script})")])
        .run()?;
    // kill -1 may end the shell itself; what matters is that the gateway saw it through.
    assert!(done.code() != 125, "{done}");
    world
        .curl(&["--fail", "-o", "/dev/null", "https://echo.test/"])
        .succeed()?;
    Ok(())
}

#[test]
fn two_sandboxes_at_once_do_not_meet() -> Result<()> {
    let world = World::new()?;
    let wait =
        "touch $0; while [ ! -e go ]; do sleep 0.05; done; curl -s --fail https://echo.test/$0";
    for hosts in [false, true] {
        let start = |name: &'static str| {
            let exec = world.exec(["sh", "-c", wait, name]);
            if hosts {
                exec.on_the_host_network().start()
            } else {
                exec.start()
            }
        };
        let (one, two) = (start("one")?, start("two")?);
        world.wait_for_file("one")?;
        world.wait_for_file("two")?;
        fs::write(world.work("go"), "")?;
        for (running, name) in [(one, "/one"), (two, "/two")] {
            let done = running.wait()?;
            assert_eq!(done.code(), 0, "{done}");
            assert_eq!(done.json()?["path"], name);
            assert_eq!(done.records("request").len(), 1, "{done}");
        }
        for name in ["one", "two", "go"] {
            fs::remove_file(world.work(name))?;
        }
    }
    Ok(())
}

/// What a run of the binary may leave on the machine.
struct Traces {
    groups: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    processes: BTreeSet<i32>,
    mounts: usize,
}

impl Traces {
    fn now() -> Result<Self> {
        let mut folders = BTreeSet::new();
        for top in [
            "/run",
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/sys/fs/bpf",
            "/run/postern",
        ] {
            for entry in fs::read_dir(top).into_iter().flatten() {
                let entry = entry?;
                if entry.file_name().to_string_lossy().contains("postern-")
                    || top.ends_with("postern")
                {
                    folders.insert(entry.path());
                }
            }
        }
        // The tests' own lock.
        folders.remove(&std::env::temp_dir().join("postern-e2e.lock"));
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            groups: cgroup::groups(&cgroup::mount()?, "postern-")?
                .into_iter()
                .collect(),
            folders,
            processes: of_the_binary()?,
            mounts: mounts
                .lines()
                .filter(|line| line.contains("postern"))
                .count(),
        })
    }

    /// Waits a while for everything newer to go; what stays is an error.
    fn are_all_there_is(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let now = Self::now()?;
            let mut left: Vec<String> = Vec::new();
            left.extend(
                now.groups
                    .difference(&self.groups)
                    .map(|path| path.display().to_string()),
            );
            left.extend(
                now.folders
                    .difference(&self.folders)
                    .map(|path| path.display().to_string()),
            );
            left.extend(
                now.processes
                    .difference(&self.processes)
                    .map(|pid| format!("process {pid}")),
            );
            if now.mounts > self.mounts {
                left.push(format!("{} mounts", now.mounts - self.mounts));
            }
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > patient(Duration::from_secs(10)) {
                bail!("left behind: {left:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Every process that runs our binary, in whichever role.
fn of_the_binary() -> Result<BTreeSet<i32>> {
    let binary = fs::canonicalize(postern::binary()?)?;
    processes(|folder| fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == binary))
}

/// Every process with `word` in its command line.
fn with_argument(word: &str) -> Result<BTreeSet<i32>> {
    processes(|folder| {
        fs::read(folder.join("cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
        })
    })
}

fn processes(wanted: impl Fn(&Path) -> bool) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("no /proc")? {
        let entry = entry?;
        if let Ok(pid) = entry.file_name().to_string_lossy().parse()
            && wanted(&entry.path())
        {
            found.insert(pid);
        }
    }
    Ok(found)
}
