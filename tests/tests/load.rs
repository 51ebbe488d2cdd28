//! Many clients in one sandbox at once.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::Duration;

use anyhow::Result;
use e2e::World;
use e2e::process::fewer;

const CLIENTS: usize = 200;
/// Of each client: ten thousand in all, where the machine is not slow.
const REQUESTS: usize = 50;

#[test]
fn two_hundred_clients_get_right_answers_and_no_others() -> Result<()> {
    let world = World::new()?;
    let requests = fewer(REQUESTS);
    let expected = CLIENTS * requests;
    let client = env!("CARGO_BIN_EXE_load_client").to_owned();
    let done = world
        .exec([
            client,
            "https://injected.test/load".into(),
            CLIENTS.to_string(),
            requests.to_string(),
        ])
        .log("info")
        .deadline(Duration::from_secs(180))
        .succeed()?;
    let report = done.json()?;
    println!("{report}");
    assert_eq!(report["errors"], serde_json::json!([]), "{report}");
    assert_eq!(report["correct"], expected, "{report}");
    assert!(done.errors().is_empty(), "{:#?}", done.errors());
    done.nothing_was_denied()?;

    let seen = world.mocks.echo.seen().all();
    assert_eq!(seen.len(), expected);
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
    assert_eq!(done.records("request").len(), expected);
    Ok(())
}
