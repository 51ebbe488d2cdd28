//! `postern secret`: what it writes, what it shows, what it refuses.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use e2e::World;
use e2e::world::random;

#[test]
fn the_secret_command_writes_lists_and_removes_and_shows_no_value() -> Result<()> {
    let world = World::new()?;
    let value = random("sk-listed-")?;
    let file = world.path("value-file");
    fs::write(&file, format!("{value}\n"))?;
    let from_file = format!("token={}", file.display());
    let set = [
        "set",
        "listed",
        "--from-file",
        &from_file,
        "--from-literal",
        "user=agent",
    ];
    let ended = world.secret_command(&set)?;
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let written = world.path("secrets").join("listed/token");
    assert_eq!(fs::metadata(&written)?.permissions().mode() & 0o7777, 0o600);

    let ended = world.secret_command(&["list"])?;
    assert_eq!(ended.code(), 0, "{ended:#?}");
    for name in ["listed/token", "listed/user", "wiki-token/value"] {
        assert!(ended.out().contains(name), "{ended:#?}");
    }
    assert!(!ended.out().contains(&value) && !ended.out().contains("agent"));

    fs::set_permissions(&written, Permissions::from_mode(0o644))?;
    let ended = world.secret_command(&["list", "--json"])?;
    assert_eq!(ended.code(), 1, "{ended:#?}");
    let listed: serde_json::Value = serde_json::from_str(&ended.out())?;
    let listed = listed.as_array().context("no array")?;
    let row = listed
        .iter()
        .find(|row| row["name"] == "listed" && row["key"] == "token");
    let row = row.context("not listed")?;
    assert!(row["modified"].as_u64() > Some(0), "{row}");
    let problem = row["problem"].as_str().context("no problem")?;
    assert!(problem.contains("chmod 600"), "{problem}");

    for (status, arguments, expected) in [
        (
            2,
            &["set", "Listed", "--from-literal", "a=b"][..],
            "lower-case",
        ),
        (
            2,
            &["set", "listed", "--from-literal", "a/b=c"],
            "not a key",
        ),
        (
            2,
            &["set", "listed", "--from-literal", "novalue"],
            "KEY=VALUE",
        ),
        (2, &["set", "listed", "--from-literal", "a="], "is empty"),
        (2, &["set", "listed", "--from-stdin", "a"], "is empty"),
        (2, &["rm", "Listed"], "lower-case"),
        (
            125,
            &["set", "listed", "--from-file", "a=/nowhere"],
            "/nowhere",
        ),
        (1, &["rm", "listed/nothing"], "listed/token, listed/user"),
    ] {
        let ended = world.secret_command(arguments)?;
        assert_eq!(ended.code(), status, "{arguments:?}: {ended:#?}");
        assert!(ended.err().contains(expected), "{arguments:?}: {ended:#?}");
    }
    assert_eq!(world.secret_command(&["set", "listed"])?.code(), 2);
    assert_eq!(world.secret_command(&["rm", "listed"])?.code(), 0);
    assert!(!world.path("secrets").join("listed").exists());
    Ok(())
}
