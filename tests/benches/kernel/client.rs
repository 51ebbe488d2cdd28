//! A client in a control group: makes socket calls as it is told to, and says how long they take. It refuses to know what
//! the group is attached to.

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use e2e::cgroup::Cgroup;
use libc::linger;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};

/// The word by which this program runs as the client of one group.
const CLIENT: &str = "--client";

/// Whether this process is a client.
pub(crate) fn is_wanted() -> bool {
    std::env::args().any(|word| word == CLIENT)
}

/// This program again, in a group.
pub(crate) struct Client {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn start(group: &Cgroup) -> Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let mut process = group
            .command([&*program, CLIENT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            orders: process.stdin.take().context("no stdin")?,
            answers: BufReader::new(process.stdout.take().context("no stdout")?),
            process,
        })
    }

    /// The median of the calls, nanoseconds.
    pub(crate) fn ask(&mut self, call: &str, calls: usize, address: SocketAddrV4) -> Result<u64> {
        writeln!(self.orders, "{call} {address} {calls}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let told = line.trim();
        told.parse()
            .with_context(|| format!("{call} at {address}: {told:?}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The client's life: `CALL ADDRESS COUNT` on each line of stdin, a median on each of stdout.
pub(crate) fn serve() -> Result<()> {
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [call, address, count] = words.as_slice() else {
            bail!("no order: {line}");
        };
        let (address, count) = (address.parse()?, count.parse()?);
        let mut took = match *call {
            "socket" => repeat(count, make_socket),
            "connect" => repeat(count, || connect_tcp(address)),
            "associate" => repeat(count, || connect_udp(address)),
            "send" => send(address, count),
            "sendto" => send_to(address, count),
            other => bail!("no such call: {other}"),
        }
        .with_context(|| line.clone())?;
        took.sort_unstable();
        println!("{}", took.get(took.len() / 2).context("no calls")?);
        stdout().flush()?;
    }
    Ok(())
}

fn repeat(count: usize, call: impl Fn() -> Result<u64>) -> Result<Vec<u64>> {
    (0..count).map(|_| call()).collect()
}

fn timed<T>(call: impl FnOnce() -> T) -> Result<(u64, T)> {
    let begun = Instant::now();
    let done = call();
    Ok((u64::try_from(begun.elapsed().as_nanos())?, done))
}

fn open(kind: SockType) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)
}

fn make_socket() -> Result<u64> {
    let (took, made) = timed(|| open(SockType::Stream))?;
    made?;
    Ok(took)
}

fn connect_tcp(address: SocketAddrV4) -> Result<u64> {
    let one = open(SockType::Stream)?;
    // Reset rather than closed: no port is left waiting.
    let reset = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&one, sockopt::Linger, &reset)?;
    let to = SockaddrIn::from(address);
    let (took, connected) = timed(|| connect(one.as_raw_fd(), &to))?;
    connected?;
    let mut byte = [0; 1];
    TcpStream::from(one).read_exact(&mut byte)?;
    Ok(took)
}

fn connect_udp(address: SocketAddrV4) -> Result<u64> {
    let one = open(SockType::Datagram)?;
    let to = SockaddrIn::from(address);
    let (took, connected) = timed(|| connect(one.as_raw_fd(), &to))?;
    connected?;
    Ok(took)
}

fn send(address: SocketAddrV4, count: usize) -> Result<Vec<u64>> {
    let one = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    one.connect(address)?;
    repeat(count, || {
        let (took, sent) = timed(|| one.send(b"sixteen bytes ..."))?;
        ensure!(sent? > 0);
        Ok(took)
    })
}

fn send_to(address: SocketAddrV4, count: usize) -> Result<Vec<u64>> {
    let one = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    repeat(count, || {
        let (took, sent) = timed(|| one.send_to(b"sixteen bytes ...", address))?;
        ensure!(sent? > 0);
        Ok(took)
    })
}
