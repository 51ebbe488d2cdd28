//! Ways out by nothing but Rust's standard library, as a tool of an agent's making might take them:
//! `escape_client WHAT ADDRESS PORT` tries one and prints what came of it, an error's kind or what
//! was reached. It refuses to judge that.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Long enough for any refusal that is one.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, address, port] = words.as_slice() else {
        bail!("usage: escape_client WHAT ADDRESS PORT");
    };
    let to = SocketAddr::new(address.parse()?, port.parse()?);
    // The records name the process by its attempt.
    std::fs::write(
        "/proc/self/comm",
        std::env::var("ESCAPE_TAG").context("no ESCAPE_TAG")?,
    )?;
    let outcome = match what.as_str() {
        "connect" => TcpStream::connect(to).map(drop),
        "timeout" => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
        "udp" => datagram(to),
        "race" => race(to),
        _ => bail!("no way {what}"),
    };
    match outcome {
        Ok(()) => println!("connected"),
        Err(error) => println!(
            "{}",
            match error.kind() {
                io::ErrorKind::PermissionDenied => "EPERM".to_owned(),
                io::ErrorKind::ConnectionRefused => "ECONNREFUSED".to_owned(),
                kind => format!("{kind}"),
            }
        ),
    }
    Ok(())
}

fn datagram(to: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.send(b"out").map(drop)
}

/// Sixteen at once: one that gets through is enough.
fn race(to: SocketAddr) -> io::Result<()> {
    let outcomes: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let one = || scope.spawn(move || TcpStream::connect_timeout(&to, PATIENCE).map(drop));
        let threads: Vec<_> = std::iter::repeat_with(one).take(16).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Ok(())))
            .collect()
    });
    let mut last = Ok(());
    for outcome in outcomes {
        last = outcome;
        if last.is_ok() {
            break;
        }
    }
    last
}
