//! The same source port at the same time, in several network namespaces and in one: a connection belongs
//! to who made it.

use anyhow::{Context, Result};
use e2e::cgroup::Cgroup;
use e2e::policy;
use e2e::process::Process;
use e2e::world;

use crate::fixture::SOON;
use crate::isolation::Two;

const SOURCE_PORT: &str = "40000";

/// Connects from [`SOURCE_PORT`] to the echo server and waits for the file `go`; with a fresh network
/// namespace, or in the host's.
fn client(
    two: &Two,
    side: usize,
    group: &Cgroup,
    own_namespace: bool,
    path: &str,
) -> Result<Process> {
    let [interpreter, script] = world::script("bound.py")?;
    let address = policy::INJECTED.address.to_string();
    let go = two.site.world.work("go").display().to_string();
    let request = [
        &two.authorities[side],
        "127.0.0.1",
        SOURCE_PORT,
        &address,
        "443",
        policy::INJECTED.name,
        path,
        &go,
    ];
    // The first attempts are refused until the gateway has its listener there.
    let retry =
        "ip link set lo up; for try in $(seq 100); do \"$@\" && exit; sleep 0.1; done; exit 1";
    let shell = ["unshare", "--net", "sh", "-c", retry, "sh"];
    let program = [interpreter.as_str(), script.as_str()];
    let all = match own_namespace {
        true => [&shell[..], &program, &request].concat(),
        false => [&program[..], &request].concat(),
    };
    Process::start(group.command(all), b"")
}

fn are_connected(clients: &mut [(usize, Process)]) -> Result<()> {
    for (_, client) in clients {
        client.wait_for_line(SOON, |line| line == "connected")?;
    }
    Ok(())
}

/// All connected at once, before any of them asks; then what the upstream saw of each.
fn ask_together(two: &Two, mut clients: Vec<(usize, Process)>) -> Result<()> {
    are_connected(&mut clients)?;
    std::fs::write(two.site.world.work("go"), "")?;
    for (side, client) in clients {
        let ended = client.wait(SOON)?;
        assert_eq!(ended.code(), 0, "{ended:#?}");
        let said = ended.out();
        assert!(said.contains("\"path\":\"/"), "no answer: {said}");
        assert!(!said.contains(&two.keys[1 - side]), "{said}");
    }
    for seen in two.site.world.mocks.echo.seen().all() {
        let side = usize::from(seen.path.starts_with("/right"));
        assert_eq!(seen.header("x-api-key"), [&two.keys[side]], "{}", seen.path);
    }
    Ok(())
}

#[test]
fn the_same_source_port_in_two_namespaces_is_two_sandboxes() -> Result<()> {
    let two = Two::new(|_, _| Vec::new())?;
    let [left, right] = &two.groups;
    let mut clients = vec![
        (0, client(&two, 0, left, true, "/left")?),
        (1, client(&two, 1, right, true, "/right")?),
        // And a second namespace of one of them, and the host's.
        (0, client(&two, 0, left, true, "/left/again")?),
    ];
    // The gateway waits ten seconds for a connection's first word: this one has no listener to wait for.
    are_connected(&mut clients)?;
    clients.push((1, client(&two, 1, right, false, "/right/host")?));
    // While somebody is in them.
    for (group, namespaces) in two.groups.iter().zip([3, 2]) {
        let sandbox = two.site.sandbox(group.path())?.context("it is gone")?;
        let listens = sandbox["namespaces"].as_array().context("nowhere")?;
        assert_eq!(listens.len(), namespaces, "{sandbox}");
    }
    ask_together(&two, clients)?;
    assert_eq!(two.site.world.mocks.echo.seen().all().len(), 4);
    Ok(())
}

#[test]
fn nor_are_they_mixed_up_in_one_namespace() -> Result<()> {
    let two = Two::new(|_, _| Vec::new())?;
    let [left, right] = &two.groups;
    let clients = vec![
        (0, client(&two, 0, left, false, "/left")?),
        (1, client(&two, 1, right, false, "/right")?),
    ];
    ask_together(&two, clients)?;
    assert_eq!(two.site.world.mocks.echo.seen().all().len(), 2);
    Ok(())
}
