//! The daemon dies and another takes over: in between the sandbox reaches nothing, and afterwards it
//! goes on without having been attached anew.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cgroup::Cgroup;
use e2e::process::{Process, patient};
use e2e::{World, policy, postern};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
const CLIENTS: usize = 50;

/// Asks again and again on new connections, straight to an address outside every other time, and
/// writes one line an attempt: `ok`, `error`, or `out` for what must never be.
const CLIENT: &str = "
import socket, ssl, sys, time
tls = ssl.create_default_context(cafile=sys.argv[1])
# Once: a sandbox's questions are rationed, and there are fifty clients.
where = socket.getaddrinfo('injected.test', 443, socket.AF_INET)[0][4]
ask = b'GET /takeover HTTP/1.1\\r\\nHost: injected.test\\r\\nConnection: close\\r\\n\\r\\n'
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        with tls.wrap_socket(socket.create_connection(where, 3), server_hostname='injected.test') as c:
            c.sendall(ask)
            said = 'ok' if c.recv(64).startswith(b'HTTP/1.1 200') else 'error'
    except OSError: said = 'error'
    print(time.time(), said, flush=True)
    try:
        socket.create_connection(('203.0.113.9', 8443), timeout=0.2)
        print(time.time(), 'out', flush=True)
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
    let state = world.path("state").display().to_string();
    let exported = postern::run(&[
        "ca",
        "export",
        "--gateway",
        policy::GATEWAY,
        "--state-dir",
        &state,
    ])?;
    let ca = world.work("gateway-ca.pem");
    std::fs::write(&ca, exported.out())?;
    let ca = ca.display().to_string();

    let seconds = patient(Duration::from_secs(16)).as_secs().to_string();
    let clients: Vec<Process> = (0..CLIENTS)
        .map(|_| {
            let command = ["python3", "-c", CLIENT, &ca, &seconds];
            Process::start(group.command(command), b"")
        })
        .collect::<Result<_>>()?;
    std::thread::sleep(patient(Duration::from_secs(4)));
    daemon.signal(Signal::SIGKILL)?;
    let killed = std::time::SystemTime::now();
    daemon.wait(SOON)?;
    std::thread::sleep(patient(Duration::from_secs(2)));
    let next = Instant::now();
    let restarted = std::time::SystemTime::now();
    // Without a word of what was attached: it knows.
    let daemon = world.daemon(&["--log-level", "warn"])?;
    let ready = std::time::SystemTime::now();
    println!("the next daemon was ready after {:?}", next.elapsed());

    let since = |time: std::time::SystemTime| -> Result<f64> {
        Ok(time.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64())
    };
    let (killed, restarted, ready) = (since(killed)?, since(restarted)?, since(ready)?);
    let (mut before, mut between, mut after) = (0, 0, 0);
    for client in clients {
        let ended = client.wait(SOON + Duration::from_secs(30))?;
        let mut came_back = false;
        for line in ended.out().lines() {
            let (at, said) = line.split_once(' ').context("no time")?;
            let at: f64 = at.parse()?;
            ensure!(said != "out", "a connection went past the gateway at {at}");
            match said {
                "ok" if at < killed => before += 1,
                // Answered before the kill, told after it.
                "ok" if at < killed + 0.2 => {}
                "ok" if at < restarted => anyhow::bail!("answered by nobody at {at}"),
                "error" if at > killed && at < ready => between += 1,
                "ok" => {
                    came_back = true;
                    after += 1;
                }
                _ => came_back = false,
            }
        }
        ensure!(came_back, "a client was not served again: {ended:#?}");
    }
    println!("{before} answers before, {between} errors between, {after} answers after");
    assert!(before >= CLIENTS && between >= CLIENTS && after >= CLIENTS);
    world.internet.saw_nothing()?;
    daemon.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.wait(SOON)?.code(), 0);
    assert_eq!(postern::run(&["detach", "--all"])?.code(), 0);
    let free = ["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/8443"];
    let free = Process::start(group.command(free), b"")?.wait(SOON)?;
    assert_eq!(free.code(), 0, "{free:#?}");
    Ok(())
}
