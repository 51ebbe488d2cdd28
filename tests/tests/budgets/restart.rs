//! What is spent outlives those who count it.

use super::*;
use e2e::cgroup::Cgroup;
use e2e::process::{Ended, Process, patient};
use nix::sys::signal::Signal;
use std::time::Instant;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_gateway_that_is_killed_leaves_what_it_reserved_as_spent() -> Result<()> {
    let world = World::new()?;
    world.write_policy(&documents(&world, "", "maxTokensPerDay: 6000"))?;
    let (mock, _) = serve(&world, Metered::pausing(Duration::from_millis(50)))?;
    let body = ask(Some(500), true);
    let stream = format!("curl -sN --max-time 60 {URL} -d '{body}' -o stream");
    let running = world.exec(["sh", "-c", &stream]).start()?;
    world.wait_for_file("stream")?;
    assert_eq!(mock.seen().all().len(), 1);
    running.process.signal(Signal::SIGKILL)?;
    running.process.wait(patient(SOON))?;

    let (head, answer) = post(&world, &ask(Some(6000), false))?;
    assert!(head.starts_with("http/1.1 429"), "{head}\n{answer}");
    let refused: Value = serde_json::from_str(&answer)?;
    let reserved = (body.len() as u64).div_ceil(3) + 500;
    assert_eq!(refused["budget"]["used"], reserved, "{refused}");
    Ok(())
}

#[test]
fn an_execution_that_outlives_its_gateway_has_spent_what_it_had() -> Result<()> {
    let (world, mock, metered) = world("", "maxTokensPerExecution: 200")?;
    let group = Cgroup::new("e2e-budget-restart")?;
    let attach = format!("{}={GATEWAY}", group.path().display());
    let daemon = world.daemon(&["--log-level", "warn", "--attach", &attach])?;
    let ca = world.gateway_ca()?.display().to_string();
    let body = ask(Some(90), false);
    let call = || -> Result<Ended> {
        let curl = ["curl", "-s", "--max-time", "30", "--cacert", &ca, URL];
        let more = ["-d", &body, "-o", "/dev/null", "-w", "%{http_code}"];
        Process::start(group.command(curl.into_iter().chain(more)), b"")?.wait(patient(SOON))
    };
    assert_eq!(call()?.out().trim(), "200");
    let spent = metered.told();
    is_on_disk(&world, spent)?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait(SOON)?;

    // It knows what was attached, and what that has spent.
    let daemon = world.daemon(&["--log-level", "warn"])?;
    let begun = Instant::now();
    let refused = loop {
        let ended = call()?;
        // Until the next gateway has it.
        if ended.out().trim() != "000" || begun.elapsed() > patient(SOON) {
            break ended;
        }
    };
    assert_eq!(refused.out().trim(), "429", "{refused:#?}");
    let denied = daemon.wait_for_record(SOON, |record| record.reason() == "budget_exceeded")?;
    let detail = denied.0["detail"].as_str().unwrap_or_default();
    let used = format!("maxTokensPerExecution of metered#1 is 200 tokens; {spent} are spent");
    assert!(detail.starts_with(&used), "{}", denied.0);
    assert_eq!(mock.seen().all().len(), 1);
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(SOON)?;
    assert_eq!(e2e::postern::run(&["detach", "--all"])?.code(), 0);
    Ok(())
}

/// Waits until the file of the budgets has it that an execution spent so much.
fn is_on_disk(world: &World, spent: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let file = std::fs::read(world.path("state").join("budgets.json"))?;
        let file: Value = serde_json::from_slice(&file)?;
        let mut executions = file["executions"].as_object().into_iter().flatten();
        let settled = executions.any(|(_, accounts)| {
            let mut accounts = accounts.as_object().into_iter().flatten();
            accounts.any(|(_, tokens)| tokens.as_u64() == Some(spent))
        });
        if settled {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < patient(SOON), "not settled: {file}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
