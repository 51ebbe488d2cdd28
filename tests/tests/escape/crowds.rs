//! Floods: one sandbox may have so much of everything, and another notices nothing of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::World;
use e2e::policy::Gateway;
use e2e::process::patient;

const TARGET: &str = "198.51.100.220";

/// The standard policy with room for 64 connections a sandbox.
fn small(world: &World) -> Result<()> {
    let mut documents = world.documents(&Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    });
    documents[0].push_str("  limits: {maxConnectionsPerSandbox: 64}\n");
    world.write_policy(&documents)
}

/// Another sandbox is served, soon.
fn another_is_served(world: &World, path: &str) -> Result<()> {
    let begun = std::time::Instant::now();
    let url = format!("https://echo.test/{path}");
    let done = world
        .curl(&["--fail", &url])
        .on_the_host_network()
        .succeed()?;
    ensure!(done.json()?["path"] == format!("/{path}"), "{done}");
    ensure!(
        begun.elapsed() < patient(Duration::from_secs(10)),
        "it took {:?}",
        begun.elapsed()
    );
    Ok(())
}

#[test]
fn idle_connections_are_so_many_and_no_more() -> Result<()> {
    let world = World::new()?;
    small(&world)?;
    let crowd = world
        .script("escape/crowd.py", &["idle", "300", TARGET])?
        .on_the_host_network()
        .start()?;
    world.wait_for_file("crowded")?;
    another_is_served(&world, "beside-the-idle")?;
    let done = crowd.wait()?;
    let told = done.json()?;
    let closed = told["closed"].as_u64().unwrap_or_default();
    ensure!(closed >= 300 - 64, "{told}");
    ensure!(
        done.records("denied").iter().any(|record| {
            record.reason() == "too_many_connections"
                && record.destination() == format!("{TARGET}:443")
        }),
        "{done}"
    );
    world.internet.saw_nothing()
}

#[test]
fn a_flood_of_refusals_hides_nobody_else_s_and_is_counted() -> Result<()> {
    let world = World::new()?;
    small(&world)?;
    let crowd = world
        .script("escape/crowd.py", &["refused", "20000", TARGET])?
        .on_the_host_network()
        .start()?;
    another_is_served(&world, "beside-the-refused")?;
    let refused = world
        .script("escape/crowd.py", &["refused", "1", "198.51.100.221"])?
        .on_the_host_network()
        .succeed()?;
    refused.record("denied", |record| {
        record.destination() == "198.51.100.221:4444"
    })?;
    let done = crowd.wait()?;
    ensure!(done.json()?["refused"] == 20_000, "{done}");
    let denied = done.records("denied").len();
    let unrecorded: u64 = done
        .records("denials_not_recorded")
        .iter()
        .filter_map(|record| record.0["count"].as_u64())
        .sum();
    ensure!(
        denied < 20_000 && u64::try_from(denied)? + unrecorded >= 20_000,
        "{denied} recorded, {unrecorded} counted"
    );
    world.internet.saw_nothing()
}

#[test]
fn a_head_without_end_is_cut_off() -> Result<()> {
    let world = World::new()?;
    let done = world
        .script("escape/crowd.py", &["headers", TARGET])?
        .succeed()?;
    let told = done.json()?;
    ensure!(told["sent"].as_u64() < Some(4 << 20), "{told}");
    ensure!(world.mocks.echo.seen().of("/crowd").is_empty());
    world.internet.saw_nothing()
}
