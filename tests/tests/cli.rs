//! What the person at the terminal is told: by commands that cannot write, cannot look, or have no daemon to ask.
#![allow(clippy::print_stderr, reason = "a clean-up that fails says so")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cgroup::Cgroup;
use e2e::{World, policy, postern};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
/// Nobody in particular (Debian's `nobody`).
const NOBODY: u32 = 65_534;

/// What prints, by its arguments; each ends with status 0 or 1 where it can.
fn printers() -> Vec<Vec<String>> {
    let folder = postern::workspace().join("policies/anthropic");
    let folder = folder.display().to_string();
    let question = "https://api.anthropic.com/v1/messages";
    let texts: [&[&str]; 8] = [
        &["schema"],
        &["check", &folder],
        &["check", "--json", &folder],
        &["explain", "--policy", &folder, question],
        &["explain", "--json", "--policy", &folder, question],
        &["doctor"],
        &["doctor", "--json"],
        &["secret", "list", "--json", "--state-dir", "/nowhere"],
    ];
    let owned = |text: &&[&str]| text.iter().map(|word| (*word).to_owned()).collect();
    texts.iter().map(owned).collect()
}

#[test]
fn an_output_that_takes_no_more_is_a_failure_and_a_reader_who_has_gone_is_none() -> Result<()> {
    let _world = World::new()?;
    for arguments in printers() {
        let mut command = Command::new(postern::binary()?);
        command.args(&arguments).stderr(Stdio::piped());
        let full = File::options().write(true).open("/dev/full")?;
        let ended = command.stdout(full).output()?;
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(125), "{arguments:?}: {told}");
        assert!(told.contains("standard output"), "{arguments:?}: {told}");

        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let ended = command.stdout(writer).output()?;
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            matches!(ended.status.code(), Some(0 | 1)),
            "{arguments:?}: {told}"
        );
    }
    Ok(())
}

#[test]
fn problems_that_nobody_reads_any_more_are_no_panic() -> Result<()> {
    let world = World::new()?;
    fs::write(world.path("policy").join("broken.yaml"), "kind: x\n")?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let ended = Command::new(postern::binary()?)
        .arg("check")
        .arg(world.path("policy"))
        .stderr(writer)
        .output()?;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    Ok(())
}

#[test]
fn who_is_not_root_is_told_to_use_sudo_before_anything_else() -> Result<()> {
    let _world = World::new()?;
    // Where it is built others may not be let in.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let binary = folder.path().join("postern");
    fs::copy(postern::binary()?, &binary)?;
    let policy = folder.path().join("policy.yaml");
    fs::copy(
        postern::workspace().join("policies/anthropic/policy.yaml"),
        &policy,
    )?;
    let policy = policy.display().to_string();
    let shut = folder.path().join("shut");
    fs::create_dir(&shut)?;
    fs::set_permissions(&shut, Permissions::from_mode(0o700))?;
    let state = shut.join("state").display().to_string();
    let lists: [&[&str]; 6] = [
        &[
            "exec",
            "--policy",
            &policy,
            "--state-dir",
            &state,
            "--",
            "true",
        ],
        &["run", "--policy", &policy, "--state-dir", &state],
        &["learn", "--", "true"],
        &["secret", "list", "--state-dir", &state],
        &["secret", "rm", "x", "--state-dir", &state],
        &["detach", "--all", "--admin", "/nowhere"],
    ];
    for arguments in lists {
        let ended = Command::new(&binary)
            .args(arguments)
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()?;
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(125), "{arguments:?}: {told}");
        assert!(told.contains("run it with sudo"), "{arguments:?}: {told}");
        assert!(!told.contains("cannot make"), "{arguments:?}: {told}");
        assert!(ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn what_is_no_level_no_key_and_no_sandbox_is_wrong_usage() -> Result<()> {
    let world = World::new()?;
    for (arguments, hint) in [
        (&["--log-level", "verbose", "schema"][..], "trace"),
        (&["--log-level", "", "schema"], "trace"),
        (&["detach"], "--all"),
        (&["check", "--json", "--format", "text", "/"], "--format"),
    ] {
        let ended = postern::run(arguments)?;
        assert_eq!(ended.code(), 2, "{arguments:?}: {ended:#?}");
        assert!(ended.err().contains(hint), "{arguments:?}: {ended:#?}");
    }
    // Below 125 the status may be the command's own.
    let ended = postern::run(&["exec", "--log-level", "loud", "--policy", "/", "--", "true"])?;
    assert_eq!(ended.code(), 125, "{ended:#?}");
    let ended = world.secret_command(&["rm", "nope"])?;
    assert_eq!(ended.code(), 1, "{ended:#?}");
    Ok(())
}

#[test]
fn a_log_variable_that_is_empty_is_none_and_one_that_is_wrong_is_named() -> Result<()> {
    let _world = World::new()?;
    for (set, status, told) in [("", 0, ""), ("verbose", 2, "POSTERN_LOG `verbose`")] {
        let ended = Command::new(postern::binary()?)
            .arg("schema")
            .env("POSTERN_LOG", set)
            .output()?;
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(status), "{set}: {err}");
        assert!(err.contains(told), "{set}: {err}");
    }
    Ok(())
}

#[test]
fn who_reads_json_gets_some_whatever_is_wrong() -> Result<()> {
    let _world = World::new()?;
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, "kind: x\n")?;
    let broken = broken.display().to_string();
    let nowhere = folder.path().join("nowhere").display().to_string();
    let question = "https://a.example/";
    let policy = postern::workspace().join("policies/anthropic");
    let policy = policy.display().to_string();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["check", "--json", &nowhere], 125, "/0/message"),
        (
            &["check", "--json", "--secrets", &nowhere, &policy],
            125,
            "/0/message",
        ),
        (
            &["explain", "--json", "--policy", &broken, question],
            2,
            "/diagnostics/0/message",
        ),
        (
            &["explain", "--json", "--policy", &nowhere, question],
            2,
            "/error",
        ),
        (&["status", "--json", "--admin", &nowhere], 125, "/error"),
    ];
    for (arguments, status, pointer) in cases {
        let ended = postern::run(arguments)?;
        assert_eq!(ended.code(), status, "{arguments:?}: {ended:#?}");
        let told: serde_json::Value = serde_json::from_str(&ended.out())
            .with_context(|| format!("{arguments:?}: {ended:#?}"))?;
        let text = told.pointer(pointer).and_then(serde_json::Value::as_str);
        assert!(
            text.is_some_and(|text| !text.is_empty()),
            "{arguments:?}: {told:#}"
        );
        assert!(!ended.err().is_empty(), "{arguments:?}: {ended:#?}");
    }
    Ok(())
}

#[test]
fn a_folder_of_folders_and_a_folder_that_is_not_there_are_failures() -> Result<()> {
    let _world = World::new()?;
    let policies = postern::workspace().join("policies").display().to_string();
    let ended = postern::run(&["check", &policies])?;
    assert_eq!(ended.code(), 125, "{ended:#?}");
    assert!(ended.err().contains("policies/locked-down"), "{ended:#?}");
    let ended = postern::run(&["secret", "list", "--json", "--secrets", "/nowhere"])?;
    assert_eq!(ended.code(), 125, "{ended:#?}");
    assert!(ended.err().contains("there is no folder"), "{ended:#?}");
    Ok(())
}

#[test]
fn what_the_gateway_would_not_take_is_told_by_check_and_by_explain() -> Result<()> {
    let world = World::new()?;
    let secret = world.path("secrets").join("anthropic-credentials");
    let secrets = world.path("secrets").display().to_string();
    let policy = postern::workspace().join("policies/anthropic");
    let policy = policy.display().to_string();
    fs::create_dir_all(&secret)?;
    for (value, status) in [("one", 0), ("one\ntwo", 1)] {
        fs::write(secret.join("api-key"), value)?;
        fs::set_permissions(secret.join("api-key"), Permissions::from_mode(0o600))?;
        let ended = postern::run(&["check", "--secrets", &secrets, &policy])?;
        assert_eq!(ended.code(), 0, "{ended:#?}");
        let warned = ended.err().contains("a header field cannot have");
        assert_eq!(warned, status == 1, "{ended:#?}");
        let ended = postern::run(&[
            "explain",
            "--policy",
            &policy,
            "--secrets",
            &secrets,
            "--method",
            "POST",
            "https://api.anthropic.com/v1/messages",
        ])?;
        assert_eq!(ended.code(), status, "{ended:#?}");
        let denied = ended.out().contains("credential_unavailable");
        assert_eq!(denied, status == 1, "{ended:#?}");
    }
    Ok(())
}

#[test]
fn exec_says_which_secret_is_missing_before_the_command_runs() -> Result<()> {
    let world = World::new()?;
    let done = world.exec(["true"]).log("error").succeed()?;
    let told = done.ended.err();
    assert!(told.contains("is missing"), "{told}");
    assert!(told.contains("postern secret set"), "{told}");
    let folder = world.path("secrets").display().to_string();
    assert!(told.contains(&format!("--secrets {folder}")), "{told}");
    Ok(())
}

#[test]
fn an_authority_that_is_made_by_asking_is_said_to_be_new() -> Result<()> {
    let world = World::new()?;
    let state = world.path("state").join("of/its/own");
    let state = state.display().to_string();
    let export = |gateway: &str| {
        postern::run(&["ca", "export", "--gateway", gateway, "--state-dir", &state])
    };
    let first = export("one")?;
    assert_eq!(first.code(), 0, "{first:#?}");
    assert!(first.err().contains("made the state folder"), "{first:#?}");
    let mode = fs::metadata(&state)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(first.err().contains("this is a new one"), "{first:#?}");
    let again = export("one")?;
    assert_eq!((again.out(), again.err()), (first.out(), String::new()));
    let other = export("two")?;
    assert!(other.err().contains("those of one"), "{other:#?}");
    Ok(())
}

/// What an ended daemon leaves shut is let go of.
struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        match postern::run(&["detach", &self.0]) {
            Ok(ended) if ended.code() < 2 => {}
            failed => eprintln!("cannot detach {}: {failed:?}", self.0),
        }
    }
}

#[test]
fn status_says_what_is_wrong_and_afterwards_what_stays_shut() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-told")?;
    let path = group.path().display().to_string();
    let _detach = Detach(path.clone());
    let own = world.path("admin");
    fs::create_dir(&own)?;
    fs::set_permissions(&own, Permissions::from_mode(0o700))?;
    let admin = own.join("admin.sock").display().to_string();
    let attach = format!("{path}={}", policy::GATEWAY);
    let daemon = world.daemon(&["--attach", &attach, "--admin", &admin])?;
    let status = || postern::run(&["status", "--json", "--admin", &admin]);

    let told: serde_json::Value = serde_json::from_str(&status()?.out())?;
    let problems = told["gateways"][0]["problems"].to_string();
    assert!(problems.contains("is missing"), "{told:#}");
    assert!(problems.contains("503"), "{told:#}");
    assert_eq!(told["reload_failed_at"], serde_json::Value::Null);

    // A file that nobody can read is no smaller policy.
    std::os::unix::fs::symlink("nowhere", world.path("policy").join("z.yaml"))?;
    let begun = std::time::Instant::now();
    let told = loop {
        let told: serde_json::Value = serde_json::from_str(&status()?.out())?;
        if told["reload_error"].is_string() {
            break told;
        }
        assert!(begun.elapsed() < e2e::process::patient(SOON), "{told:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let error = told["reload_error"].as_str().context("no error")?;
    assert!(
        error.contains("z.yaml:1:1: error: the file cannot be read"),
        "{error}"
    );
    assert!(
        told["reload_failed_at"].as_u64() >= told["started"].as_u64(),
        "{told:#}"
    );

    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(SOON)?;
    let gone = status()?;
    assert_eq!(gone.code(), 125, "{gone:#?}");
    assert!(gone.err().contains("keeps these shut"), "{gone:#?}");
    assert!(gone.err().contains(&path), "{gone:#?}");
    let detached = postern::run(&["detach", "--all", "--admin", &admin])?;
    assert!(detached.out().contains(&path), "{detached:#?}");
    let none = status()?;
    assert!(none.err().contains("keeps a sandbox shut"), "{none:#?}");
    Ok(())
}
