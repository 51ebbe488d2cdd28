//! One bulk stream of opaque bytes, from a host on the other side of a cable: straight, and through the gateway, which has
//! to take every byte in and give it out again. It refuses to judge.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};

use super::Options;
use super::arena::{Arena, EVENT_SERVER, UPSTREAM, ip, opaque};

/// The host behind the cable (RFC 5737, TEST-NET-2), and this end of it.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A port that no listener of the gateway reads.
pub(crate) const PORT: u16 = 9000;
/// What is written, and read, at once: as much as bulk tools do.
const PIECE: usize = 128 << 10;

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit bulk MiB/s");
    far_host()?;
    let mut documents = arena.policy(None);
    opaque(&mut documents, &format!("{FAR}/32"), PORT);
    let mut clients = [
        ("direct", arena.client("direct", UPSTREAM, EVENT_SERVER)?),
        ("postern", arena.sandboxed("postern", &documents)?),
    ];
    for round in 0..=options.rounds {
        for (name, client) in &mut clients {
            arena.go_on()?;
            let order = [
                "read",
                &format!("{FAR}:{PORT}"),
                &options.seconds.to_string(),
            ];
            let rate = client.ask(&order)?.as_u64().context("no rate")?;
            if let Some(told) = round.checked_sub(1) {
                println!("sample bulk {name} {told} {rate}");
            }
        }
        clients.reverse();
    }
    Ok(())
}

/// The client's half: MiB a second that came.
pub(crate) fn read(address: &str, seconds: &str) -> Result<Value> {
    let (address, time) = (
        address.parse::<SocketAddr>()?,
        Duration::from_secs(seconds.parse()?),
    );
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.write_all(b"zeros, please\n")?;
    let mut piece = vec![0; PIECE];
    stream.read_exact(&mut piece)?;
    let (begun, mut bytes) = (Instant::now(), 0_u128);
    while begun.elapsed() < time {
        bytes += u128::try_from(stream.read(&mut piece)?)?;
    }
    let rate = bytes * 1_000_000 / begun.elapsed().as_micros() / (1 << 20);
    Ok(json!(u64::try_from(rate)?))
}

/// A namespace with a host that says zeros to everybody who says anything. It lives for as long as this program.
pub(crate) fn far_host() -> Result<()> {
    let (say, hear) = mpsc::channel();
    let (laid, cable) = mpsc::channel();
    std::thread::spawn(move || {
        let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
        if say.send(entered).is_err() || cable.recv().is_err() {
            return;
        }
        if let Err(error) = serve() {
            eprintln!("the far host: {error:#}");
        }
    });
    let thread = hear.recv().context("there is no far host")??;
    ip(&format!(
        "link add near type veth peer name far netns {thread}
         addr add {NEAR}/24 dev near
         link set near up
         route add default via {FAR}"
    ))?;
    laid.send(()).context("there is no far host")?;
    super::upstream::wait_for(FAR, PORT)
}

fn serve() -> Result<()> {
    ip(&format!(
        "link set lo up
         addr add {FAR}/24 dev far
         link set far up"
    ))?;
    for stream in TcpListener::bind((FAR, PORT))?.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let piece = vec![0; PIECE];
            if !stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                return;
            }
            while stream.write_all(&piece).is_ok() {}
        });
    }
    Ok(())
}
