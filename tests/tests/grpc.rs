//! gRPC with an unmodified client and server, in all four shapes of a call: metadata both ways, messages as
//! they are sent, statuses and details, deadlines and cancellation, and a credential that only the gateway has.

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::policy;
use e2e::process::{patient, slowness};
use e2e::world::random;
use serde_json::{Value, json};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.22";
const HOST: &str = "grpc.test";

#[test]
fn every_shape_of_a_call_goes_through_with_the_gateway_s_key() -> Result<()> {
    let world = World::new()?;
    let key = random("grpc-")?;
    world.secret("grpc", "token", &key)?;
    let server = world.server("grpc_server.py", ADDRESS, &[HOST], &json!({"key": key}))?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &[HOST]);
    let injected = policy::credential(
        "grpc",
        &[HOST],
        "  secretRef: {name: grpc}
  target: Header
  headerName: authorization
  valueTemplate: \"Bearer {{ value }}\"
",
    );
    let of_the_service = |document: String| document.replace("value: /}", "value: /postern.Test}");
    documents.extend(injected.into_iter().map(of_the_service));
    world.write_policy(&documents)?;

    let done = world
        .script("grpc_client.py", &[HOST, &slowness().to_string()])?
        .deadline(Duration::from_secs(120))
        .succeed()?;
    let told = done.json_lines()?;
    let of = |call: &str| -> Result<&Value> {
        let found = told.iter().find(|facts| facts["call"] == call);
        found.with_context(|| format!("nothing of {call}: {done}"))
    };
    let one = json!({"call": "one", "same": true, "first": "One", "last": "of all"});
    assert_eq!(of("one")?, &one);
    assert_eq!(of("big")?["length"], 3_000_000);
    let fail = json!({
        "call": "fail", "code": "RESOURCE_EXHAUSTED", "details": "no more: 100 % ü", "bin": true
    });
    assert_eq!(of("fail")?, &fail);
    assert_eq!(of("down")?["whole"], true);
    assert_eq!(of("up")?["length"], 5_000_000);
    let both = of("both")?;
    assert_eq!(
        (&both["ended"], &both["code"]),
        (&json!(true), &json!("OK"))
    );
    let slowest = both["slowest"].as_f64().context("no time")?;
    ensure!(
        slowest < patient(Duration::from_secs(1)).as_secs_f64(),
        "a stall: {both}"
    );
    assert_eq!(of("cancel")?["code"], "CANCELLED");
    assert_eq!(of("deadline")?["code"], "DEADLINE_EXCEEDED");
    assert_eq!(of("denied")?["code"], "PERMISSION_DENIED");

    let seen = server.stdout().into_iter();
    let seen = seen.map(|line| serde_json::from_str(&line.text));
    let seen: Vec<Value> = seen.collect::<Result<_, _>>()?;
    let calls: Vec<_> = seen
        .iter()
        .filter(|facts| facts["key"].is_boolean())
        .collect();
    ensure!(calls.len() >= 8, "too few calls came: {seen:#?}");
    for facts in calls {
        ensure!(facts["key"] == true && facts["mine"] == "kept", "{facts}");
    }
    let cancelled = |facts: &Value| facts["cancelled"] == true;
    ensure!(
        seen.iter().any(cancelled),
        "no cancellation arrived: {seen:#?}"
    );
    ensure!(!done.out().contains(&key), "the key was seen inside");
    Ok(())
}
