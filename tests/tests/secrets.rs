//! From inside the sandbox no key can be found, by any path, and nobody walks out of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::World;
use e2e::digest::hex;
use e2e::postern::Done;
use serde_json::Value;

/// What `leaks.py` searches for: masked, so that its own arguments do not hold it.
fn masked(key: &str) -> String {
    let masked: Vec<u8> = key.bytes().map(|byte| byte ^ 0x5a).collect();
    hex(&masked)
}

fn search(world: &World, on_the_host_network: bool) -> Result<Done> {
    // Whatever holds a key was written after the keys were made up: the secrets folder is that old.
    let since = fs::metadata(world.path("secrets"))?.ctime() - 2;
    let mut arguments = vec![since.to_string()];
    arguments.extend(world.keys.all().map(masked));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let exec = world
        .script("leaks.py", &arguments)?
        .deadline(Duration::from_secs(120));
    if on_the_host_network {
        exec.on_the_host_network().succeed()
    } else {
        exec.succeed()
    }
}

#[test]
fn no_environment_file_or_memory_in_the_sandbox_holds_a_key() -> Result<()> {
    let world = World::new()?;
    for on_the_host_network in [false, true] {
        let done = search(&world, on_the_host_network)?;
        let mut told = done.json_lines()?;
        let looked = told.pop().context("nothing was searched")?;
        assert_eq!(told, Vec::<Value>::new(), "keys were found");
        // The search itself worked: it saw its own files and environment at least.
        assert!(looked["looked"]["files"].as_u64() > Some(0), "{looked}");
        assert!(
            looked["looked"]["environments"].as_u64() > Some(0),
            "{looked}"
        );
    }
    Ok(())
}

#[test]
fn the_search_finds_a_key_where_there_is_one() -> Result<()> {
    let world = World::new()?;
    fs::write(world.work("planted"), format!("token={}", world.keys.wiki))?;
    let encoded = base64_of(&format!("prefix {} suffix", world.keys.openai));
    fs::write(world.work("encoded"), encoded)?;
    let done = search(&world, false)?;
    let found: Vec<String> = done
        .json_lines()?
        .iter()
        .filter_map(|line| line["found"].as_str().map(str::to_owned))
        .collect();
    for name in ["planted", "encoded"] {
        let path = world.work(name).display().to_string();
        assert!(found.contains(&path), "{path} is not in {found:?}");
    }
    Ok(())
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_caller_s_variable_that_holds_a_key_does_not_reach_the_sandbox() -> Result<()> {
    let world = World::new()?;
    let exec = world.exec(["env"]);
    let mut command = exec.command()?;
    command
        .env("ANTHROPIC_API_KEY", &world.keys.anthropic)
        .env("CONFIG", format!("{{\"key\": \"{}\"}}", world.keys.wiki))
        .env("HARMLESS", "stays");
    let ended = e2e::process::Process::start(command, b"")?.wait(Duration::from_secs(30))?;
    assert_eq!(ended.code(), 0, "{ended:#?}");
    for key in world.keys.all() {
        assert!(!ended.out().contains(key), "a key is in the environment");
    }
    assert!(ended.out().contains("HARMLESS=stays"), "{ended:#?}");
    Ok(())
}

#[test]
fn nobody_walks_out() -> Result<()> {
    let world = World::new()?;
    // The gateway's authority exists from the first run on.
    world.exec(["true"]).succeed()?;
    let state = walk(&world.path("state"))?;
    let mut hidden = vec![
        world.path("policy").join("policy.yaml"),
        world.path("secrets").join("wiki-token").join("value"),
    ];
    hidden.extend(state);
    assert!(hidden.len() > 2, "there is nothing in the state folder");
    let hidden: Vec<String> = hidden
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let hidden: Vec<&str> = hidden.iter().map(String::as_str).collect();
    for on_the_host_network in [false, true] {
        let exec = world
            .script("breakout.py", &hidden)?
            .deadline(Duration::from_secs(120));
        let done = if on_the_host_network {
            exec.on_the_host_network().succeed()?
        } else {
            exec.succeed()?
        };
        let told = done.json_lines()?;
        assert!(told.len() > 40, "{done}");
        let worked: Vec<&Value> = told.iter().filter(|line| line["worked"] == true).collect();
        assert!(worked.is_empty(), "{worked:#?}");
        for key in world.keys.all() {
            assert!(!done.out().contains(key) && !done.err().contains(key));
        }
    }
    assert!(!std::path::Path::new("/etc/postern-was-here").exists());
    world.internet.saw_nothing()
}

fn walk(top: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(walk(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[test]
fn the_authority_s_key_is_for_root_alone() -> Result<()> {
    let world = World::new()?;
    world.exec(["true"]).succeed()?;
    for path in walk(&world.path("state"))? {
        if fs::read_to_string(&path).is_ok_and(|text| text.contains("PRIVATE KEY")) {
            let mode = fs::metadata(&path)?.mode() & 0o777;
            assert_eq!(mode, 0o600, "{} is {mode:o}", path.display());
            return Ok(());
        }
    }
    anyhow::bail!("no private key in the state folder")
}

#[test]
fn a_secret_that_others_may_read_is_refused() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new()?;
    let path = world.path("secrets").join("wiki-token").join("value");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let done = world
        .curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "https://wiki.local/snippets/durability",
        ])
        .run()?;
    // As a missing secret, and the log says what to do.
    assert_eq!(done.out().trim(), "503", "{done}");
    assert!(done.err().contains("chmod 600"), "{done}");
    assert!(world.mocks.wiki.seen().all().is_empty());
    Ok(())
}

#[test]
fn a_changed_secret_is_used_by_the_next_request() -> Result<()> {
    let world = World::new()?;
    let script = "ask() { curl -s -o /dev/null -w '%{http_code}\\n' https://wiki.local/snippets/durability; }
                  ask; touch asked; while [ ! -e changed ]; do sleep 0.05; done; ask";
    let mut running = world.exec(["sh", "-c", script]).log("info").start()?;
    world.wait_for_file("asked")?;
    world.secret("wiki-token", "value", "wiki-another")?;
    // A request after this must have the new value.
    running.wait_for_secret("wiki-token/value")?;
    fs::write(world.work("changed"), "")?;
    let done = running.wait()?;
    assert_eq!(done.out(), "200\n401\n", "{done}");
    assert_eq!(world.mocks.wiki.seen().occurrences("wiki-another"), 1);
    Ok(())
}
