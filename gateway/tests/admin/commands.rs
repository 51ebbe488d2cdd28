//! `postern attach|detach|status|tail` as a person runs them.

use super::fake::{Cgroup, Daemon};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(socket: &Path, words: &[&str]) -> Command {
    // In a guest the binary is the one that is shipped.
    let built = || env!("CARGO_BIN_EXE_postern").into();
    let mut command = Command::new(std::env::var_os("POSTERN_BIN").unwrap_or_else(built));
    command.args(words).arg("--admin").arg(socket);
    command
}

fn run(socket: &Path, words: &[&str]) -> Output {
    command(socket, words).output().unwrap()
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// Ended with this status, and said that.
fn assert_refused(output: &Output, status: i32, said: &str) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(err(output).contains(said), "{output:?}");
}

#[test]
fn without_a_daemon_each_command_says_so_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    for words in [&["status"][..], &["tail"], &["detach", "3"]] {
        let output = run(&socket, words);
        assert_refused(&output, 125, "listens on");
    }
    assert_refused(&run(&socket, &["status"]), 125, "postern run --policy");
    let Some(cgroup) = Cgroup::new() else { return };
    let output = run(&socket, &["attach", &cgroup.path, "--gateway", "g"]);
    assert_refused(&output, 125, "postern run --policy");
    // The pins of a daemon that ended are looked at instead.
    assert_refused(&run(&socket, &["detach", &cgroup.path]), 1, "not attached");
}

#[test]
fn a_cgroup_is_attached_shown_and_detached() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let directory = cgroup.directory.to_str().unwrap();
    let attach = ["attach", directory, "--gateway", "g", "--label", "a1"];
    let attached = run(&daemon.socket, &attach);
    let line = format!("{} (sandbox 1) attached to g\n", cgroup.path);
    assert_eq!(out(&attached), line, "{attached:?}");
    assert_eq!(err(&attached), "", "nobody is in it, so nobody leaves");
    assert_refused(&run(&daemon.socket, &attach), 1, "attached already");

    let status = run(&daemon.socket, &["status"]);
    let shown = out(&status);
    for word in [
        "up 1h01m",
        "generation 4",
        "1 change not taken",
        "policy.yaml:3",
        "a1",
        &cgroup.path,
        "attach /",
        "landlock",
        "NO",
        "REDIRECTED",
        "the host's",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours for a terminal only");
    let json = run(&daemon.socket, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["sandboxes"][0]["refused"]["no_rule"], 5);

    let detached = run(&daemon.socket, &["detach", &cgroup.path]);
    assert!(out(&detached).contains("detached from g"), "{detached:?}");
    let again = run(&daemon.socket, &["detach", "1"]);
    assert_refused(&again, 1, "no such sandbox");
    let none = run(&daemon.socket, &["detach", "--all"]);
    assert_eq!(out(&none), "nothing was attached\n");
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_reason() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    for (words, said) in [
        (
            &["attach", "/no/such", "--gateway", "g"][..],
            "no such cgroup",
        ),
        (&["attach", "/", "--gateway", "g"], "root of all cgroups"),
        (
            &["attach", "--pid", "4194303", "--gateway", "g"],
            "no process",
        ),
        (
            &["attach", "--unit", "no-such", "--gateway", "g"],
            "is the unit running",
        ),
        (
            &["attach", "--container", "web", "--gateway", "g"],
            "container's id",
        ),
        (
            &["attach", &cgroup.path, "--gateway", "h"],
            "no EgressGateway",
        ),
    ] {
        assert_refused(&run(&daemon.socket, words), 1, said);
    }
    let wrong = ["attach", &cgroup.path, "--pid", "1", "--gateway", "g"];
    assert_refused(&run(&daemon.socket, &wrong), 2, "cannot be used with");
    assert_refused(
        &run(&daemon.socket, &["attach", "--gateway", "g"]),
        2,
        "required",
    );
}

#[test]
fn a_process_is_attached_by_its_number_with_a_word_about_what_it_could_do() {
    let (daemon, Some(cgroup)) = (Daemon::start(), Cgroup::new()) else {
        return;
    };
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id().to_string();
    std::fs::write(cgroup.directory.join("cgroup.procs"), &pid).unwrap();
    let output = run(&daemon.socket, &["attach", "--pid", &pid, "--gateway", "g"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(out(&output).starts_with(&cgroup.path), "{output:?}");
    let warned = err(&output);
    assert!(
        warned.contains(&format!("process {pid} (sleep) has CAP_SYS_ADMIN")),
        "{warned}"
    );
}

#[test]
fn decisions_are_followed_as_lines_and_as_json() {
    for json in [false, true] {
        let daemon = Daemon::start();
        let mut words = vec!["tail", "--denied"];
        words.extend(json.then_some("--json"));
        let mut child = command(&daemon.socket, &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        daemon.await_listener();
        let record = r#"{"time":0.5,"event":"denied","sandbox":"a\u001b1","destination":"192.0.2.1:80","process":{"tgid":5,"comm":"nc"},"reason":"no_rule","stage":"kernel"}"#;
        for line in [r#"{"event":"request","sandbox":"a"}"#, record] {
            daemon.fake.records.send(line.into()).unwrap();
        }
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut line).unwrap();
        if json {
            let told: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(told["reason"], "no_rule");
        } else {
            assert_eq!(
                line,
                "00:00:00.500 denied  a\\u{1b}1 nc[5] 192.0.2.1:80 no_rule (kernel)\n"
            );
        }
        daemon.stop.cancel();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert!(err(&ended).contains("going down"), "{ended:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_tail_without_an_error() {
    let daemon = Daemon::start();
    let mut child = command(&daemon.socket, &["tail"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.await_listener();
    drop(child.stdout.take());
    daemon
        .fake
        .records
        .send(r#"{"event":"request"}"#.into())
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(err(&ended), "");
}
