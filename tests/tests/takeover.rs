//! The daemon dies and another takes over: in between the sandbox reaches nothing, and afterwards it
//! goes on without having been attached anew.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::cgroup::Cgroup;
use e2e::process::{Process, fewer, patient};
use e2e::{World, policy, postern};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
/// Fifty interpreters start at once, on few cores.
const CROWD: Duration = Duration::from_secs(60);
const CLIENTS: usize = 50;

/// Asks again and again on new connections, straight to an address outside every other time, and
/// writes one line an attempt: when it ended, when it began, and `ok`, `error`, or `out` for what must
/// never be. It ends when the file of its second argument is there, or after five minutes.
const CLIENT: &str = "
import os, socket, ssl, sys, time
tls = ssl.create_default_context(cafile=sys.argv[1])
# Once: a sandbox's questions are rationed, and there are fifty clients.
where = socket.getaddrinfo('injected.test', 443, socket.AF_INET)[0][4]
ask = b'GET /takeover HTTP/1.1\\r\\nHost: injected.test\\r\\nConnection: close\\r\\n\\r\\n'
end = time.monotonic() + 300
while not os.path.exists(sys.argv[2]) and time.monotonic() < end:
    begun = time.time()
    try:
        with tls.wrap_socket(socket.create_connection(where, 3), server_hostname='injected.test') as c:
            c.sendall(ask)
            said = 'ok' if c.recv(64).startswith(b'HTTP/1.1 200') else 'error'
    except OSError: said = 'error'
    print(time.time(), begun, said, flush=True)
    try:
        socket.create_connection(('203.0.113.9', 8443), timeout=0.2)
        print(time.time(), begun, 'out', flush=True)
    except OSError: pass
    time.sleep(0.05)
";

#[test]
fn killed_under_load_it_leaves_everybody_shut_and_the_next_one_takes_them_over() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-takeover")?;
    let path = group.path().display().to_string();
    let attach = format!("{path}={}", policy::GATEWAY);
    let daemon = world.daemon(&["--log-level", "warn", "--attach", &attach])?;
    let ca = world.gateway_ca()?.display().to_string();

    let enough = world.work("enough");
    let enough_text = enough.display().to_string();
    // Each is a Python that reads the authorities of a whole system.
    let count = fewer(CLIENTS).max(5);
    let mut clients: Vec<Process> = (0..count)
        .map(|_| {
            let command = ["python3", "-c", CLIENT, &ca, &enough_text];
            Process::start(group.command(command), b"")
        })
        .collect::<Result<_>>()?;
    for client in &mut clients {
        client.wait_for_line(CROWD, |line| line.ends_with(" ok"))?;
    }
    std::thread::sleep(patient(Duration::from_secs(1)));
    daemon.signal(Signal::SIGKILL)?;
    let killed = std::time::SystemTime::now();
    daemon.wait(SOON)?;
    let since = |time: std::time::SystemTime| -> Result<f64> {
        Ok(time.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64())
    };
    let killed = since(killed)?;
    std::thread::sleep(patient(Duration::from_secs(2)));
    for client in &mut clients {
        let shut = |line: &str| matches!(attempt(line), Ok((_, begun, "error")) if begun > killed);
        let shut = client.wait_for_line(CROWD, shut);
        shut.context("a client did not find it shut")?;
    }
    let next = Instant::now();
    let restarted = std::time::SystemTime::now();
    // Without a word of what was attached: it knows.
    let daemon = world.daemon(&["--log-level", "warn"])?;
    let ready = std::time::SystemTime::now();
    println!("the next daemon was ready after {:?}", next.elapsed());

    let (restarted, ready) = (since(restarted)?, since(ready)?);
    for client in &mut clients {
        let served = |line: &str| matches!(attempt(line), Ok((_, begun, "ok")) if begun > ready);
        let served = client.wait_for_line(CROWD, served);
        served.context("a client was not served again")?;
    }
    std::fs::write(&enough, "")?;
    let (mut before, mut between, mut after) = (0, 0, 0);
    for client in clients {
        let ended = client.wait(SOON)?;
        for line in ended.out().lines() {
            let (at, begun, said) = attempt(line)?;
            match said {
                "out" => bail!("a connection went past the gateway at {at}"),
                "ok" if at < killed => before += 1,
                // Answered before the kill, told after it.
                "ok" if begun < killed => {}
                "ok" if at < restarted => bail!("answered by nobody at {at}"),
                "ok" => after += 1,
                "error" if at > killed && at < ready => between += 1,
                _ => {}
            }
        }
    }
    println!("{before} answers before, {between} errors between, {after} answers after");
    assert!(before >= count && between >= count && after >= count);
    world.internet.saw_nothing()?;
    daemon.signal(Signal::SIGTERM)?;
    let ended = daemon.wait(SOON)?;
    assert_eq!(ended.code(), 0, "{}", ended.err());
    assert_eq!(postern::run(&["detach", "--all"])?.code(), 0);
    let free = ["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/8443"];
    let free = Process::start(group.command(free), b"")?.wait(SOON)?;
    assert_eq!(free.code(), 0, "{free:#?}");
    Ok(())
}

/// When an attempt ended, when it began, and what came of it.
fn attempt(line: &str) -> Result<(f64, f64, &str)> {
    let mut words = line.splitn(3, ' ');
    let mut next = || words.next().context("not an attempt");
    Ok((next()?.parse()?, next()?.parse()?, next()?))
}

#[test]
fn a_sandbox_that_is_not_found_again_stays_shut_until_its_group_is_gone() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-not-found")?;
    let attach = format!("{}={}", group.path().display(), policy::GATEWAY);
    let daemon = world.daemon(&["--log-level", "warn", "--attach", &attach])?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait(SOON)?;
    // As if the hierarchy were seen at another mount by now.
    let id = std::fs::metadata(group.path())?.ino();
    let entry = format!("/run/postern/attached/{id}.json");
    let name = group.path().display().to_string();
    let elsewhere = std::fs::read_to_string(&entry)?.replace(&name, "/sys/fs/cgroup/e2e-elsewhere");
    std::fs::write(&entry, elsewhere)?;
    let daemon = world.daemon(&["--log-level", "warn"])?;
    let open = ["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/8443"];
    let refused = Process::start(group.command(open), b"")?.wait(SOON)?;
    assert_ne!(refused.code(), 0, "{refused:#?}");
    world.internet.saw_nothing()?;
    let pins = format!("/sys/fs/bpf/postern/{id}");
    assert!(std::fs::exists(&pins)?);
    drop(group);
    let begun = Instant::now();
    while std::fs::exists(&pins)? || std::fs::exists(&entry)? {
        if begun.elapsed() > patient(SOON) {
            bail!("what a group that is gone left behind stays");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.signal(Signal::SIGTERM)?;
    let ended = daemon.wait(SOON)?;
    let said = ended.err();
    assert!(said.contains("not adopted: it stays shut"), "{said}");
    Ok(())
}
