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
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

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
    stay(|processors| processors.next_back())?;
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [call, address, count] = words.as_slice() else {
            bail!("no order: {line}");
        };
        let (address, count) = (address.parse()?, count.parse()?);
        let mut took = match *call {
            "socket" => repeat(count, make_socket),
            "unused" => repeat(count, open_and_close),
            "connect" => repeat(count, || Ok(connect_tcp(address)?.connect)),
            "life" => repeat(count, || Ok(connect_tcp(address)?.all())),
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

/// Keeps the thread on one of the processors that it may use.
pub(crate) fn stay(
    choose: impl FnOnce(&mut dyn DoubleEndedIterator<Item = usize>) -> Option<usize>,
) -> Result<()> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let mut there = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(choose(&mut there).context("no processor")?)?;
    Ok(sched_setaffinity(this, &one)?)
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

fn open_and_close() -> Result<u64> {
    let (took, made) = timed(|| open(SockType::Stream).map(drop))?;
    made?;
    Ok(took)
}

/// What the calls of a connection took, nanoseconds; neither what it waited for nor what it said.
struct Life {
    socket: u64,
    connect: u64,
    close: u64,
}

impl Life {
    fn all(&self) -> u64 {
        self.socket + self.connect + self.close
    }
}

fn connect_tcp(address: SocketAddrV4) -> Result<Life> {
    let (made, one) = timed(|| open(SockType::Stream))?;
    let one = one?;
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
    let mut stream = TcpStream::from(one);
    stream.read_exact(&mut byte)?;
    let (closed, ()) = timed(|| drop(stream))?;
    Ok(Life {
        socket: made,
        connect: took,
        close: closed,
    })
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
