//! Many clients in one sandbox at once.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::Duration;

use anyhow::Result;
use e2e::World;

const CLIENTS: usize = 200;
const REQUESTS: usize = 50;

#[test]
fn two_hundred_clients_get_ten_thousand_right_answers() -> Result<()> {
    let world = World::new()?;
    let client = env!("CARGO_BIN_EXE_load_client").to_owned();
    let (clients, requests) = (CLIENTS.to_string(), REQUESTS.to_string());
    let done = world
        .exec([
            client,
            "https://injected.test/load".into(),
            clients,
            requests,
        ])
        .log("info")
        .deadline(Duration::from_secs(180))
        .succeed()?;
    let report = done.json()?;
    println!("{report}");
    assert_eq!(report["errors"], serde_json::json!([]), "{report}");
    assert_eq!(report["correct"], CLIENTS * REQUESTS, "{report}");
    assert!(done.errors().is_empty(), "{:#?}", done.errors());
    done.nothing_was_denied()?;

    let seen = world.mocks.echo.seen().all();
    assert_eq!(seen.len(), CLIENTS * REQUESTS);
    let wrong = seen
        .iter()
        .filter(|seen| seen.header("x-api-key") != [&world.keys.injected])
        .count();
    assert_eq!(wrong, 0, "requests without the credential");
    let connections = world.mocks.echo.seen().connections();
    println!("{connections} upstream connections");
    assert!(
        connections <= u64::try_from(CLIENTS)? + 10,
        "connections upstream are not reused: {connections}"
    );
    // The record is whole.
    assert_eq!(done.records("request").len(), CLIENTS * REQUESTS);
    Ok(())
}
