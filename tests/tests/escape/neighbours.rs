//! Two sandboxes on one network: neither reaches the other's listeners or services.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::World;
use e2e::policy::{self, Gateway};
use serde_json::json;

/// A service of the first sandbox's own, for the second one to find, until that is over.
const SERVICE: &str = "\
import os, socket, time
s = socket.create_server(('127.0.0.1', 9977))
open('serving', 'w').close()
while not os.path.exists('over'): time.sleep(0.05)
";

#[test]
fn another_sandbox_s_listeners_and_services_are_out_of_reach() -> Result<()> {
    for default in ["deny-all", "allow-all"] {
        let world = World::new()?;
        let gateway = Gateway {
            default,
            otlp: None,
            capture: 0,
        };
        world.write_policy(&[gateway.document(), policy::test_ca(world.ca.pem())])?;
        let python = e2e::world::python()?.display().to_string();
        let first = world
            .exec([python.as_str(), "-c", SERVICE])
            .on_the_host_network()
            .start()?;
        world.wait_for_file("serving")?;
        let job = |tag: &str, words: &[&str]| {
            let job = json!({"tag": tag, "words": words, "seconds": 5, "timed": false});
            format!("{job}\n")
        };
        let jobs = job("service", &["tcp", "127.0.0.1", "9977"])
            + &job("listen4", &["listeners", "tcp", "tcp"])
            + &job("listen6", &["listeners", "tcp", "tcp6"]);
        let second = world
            .script("escape/run.py", &["none", "none", "1"])?
            .on_the_host_network()
            .input(jobs)
            .succeed()?;
        for line in second.json_lines()? {
            ensure!(line["outcome"] == "EPERM", "{default}: {line}: {second}");
        }
        let reason_of_others = if default == "deny-all" {
            "no_rule"
        } else {
            "address_guard"
        };
        second.record("denied", |record| {
            record.comm() == "service"
                && record.reason() == reason_of_others
                && record.destination() == "127.0.0.1:9977"
        })?;
        let reasons: BTreeSet<&str> = second
            .records("denied")
            .iter()
            .filter(|record| record.comm().starts_with("listen"))
            .map(|record| record.reason())
            .collect();
        // Its own, and the others'.
        ensure!(
            reasons == BTreeSet::from(["own_listener", reason_of_others]),
            "{reasons:?}: {second}"
        );
        // Nothing of it came to the first one's gateway.
        std::fs::write(world.work("over"), "")?;
        let done = first.wait()?;
        ensure!(done.audit.is_empty(), "{done}");
        world.internet.saw_nothing()?;
    }
    Ok(())
}
