//! What the cgroup programs cost a socket: the same calls by a process in an attached group and by one in a
//! group beside it, in turn. Says one line a round; it refuses to judge: `cargo xtask bench kernel` does.
//!
//! ```text
//! sample MEASURE without|with ROUND NANOSECONDS     the median of a round's calls
//! ```
//!
//! `--quick` takes two rounds, `--only MEASURE` one measure: for a profiler to look at.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints what it measures"
)]

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use e2e::cgroup::Cgroup;
use e2e::internet::Internet;
use e2e::lock::Lock;
use gateway::kernel::{Attachment, FlowTable, Kernel};
use gateway::policy::{KernelRule, PortRange, Protocol};
use gateway::sandbox::{Cgroup as Opened, NetNs};
use gateway_common::Listeners;
use libc::linger;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

/// Rounds, of which the first two warm up caches and are not told.
const ROUNDS: usize = 32;
const WARM_UP: usize = 2;
/// Calls a round: some ten milliseconds, so that the two take turns more often than the machine's mood changes.
const CONNECTS: usize = 200;
const QUICK_CALLS: usize = 2000;
/// The word by which this program runs as the client of one group.
const CLIENT: &str = "--client";
/// A host that no rule names but the one for its port (RFC 5737, TEST-NET-3).
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Receives datagrams, directly in either case.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn main() -> Result<()> {
    if std::env::args().any(|word| word == CLIENT) {
        return serve();
    }
    // Whoever runs it as a test wants to know that it still works: one short round each.
    let rounds = if std::env::args().any(|word| word == "--quick") {
        WARM_UP + 2
    } else {
        ROUNDS
    };
    let mut bench = Bench::new()?;
    let mut words = std::env::args();
    if words.any(|word| word == "--only") {
        let only = words.next().context("--only needs the name of a measure")?;
        bench.measures.retain(|measure| measure.name == only);
        ensure!(!bench.measures.is_empty(), "there is no measure {only}");
    }
    bench.run(rounds)
}

/// What is measured: the order for the client in the attached group, and for the other.
struct Measure {
    name: &'static str,
    call: &'static str,
    calls: usize,
    with: SocketAddrV4,
    without: SocketAddrV4,
}

struct Bench {
    with: Client,
    without: Client,
    _guarded: Guarded,
    measures: Vec<Measure>,
    _internet: Internet,
    _lock: Lock,
}

/// The attached group, and what keeps it so.
struct Guarded {
    _attachment: Attachment,
    _kernel: Kernel,
    _groups: [Cgroup; 2],
}

impl Bench {
    fn new() -> Result<Self> {
        let lock = Lock::take()?;
        let internet = Internet::attach()?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let neighbour = UdpSocket::bind((NEIGHBOUR, 0))?;
        let at = |ip, port| SocketAddrV4::new(ip, port);
        let (tcp_port, dns_port) = (tcp.local_addr()?.port(), dns.local_addr()?.port());
        let neighbour_port = neighbour.local_addr()?.port();
        let groups = [Cgroup::new("bench-with")?, Cgroup::new("bench-without")?];

        let kernel = Kernel::load(None, false)?;
        let group = Opened::open(groups[0].path())?;
        let mut attachment = kernel.attach(group.as_fd(), group.id())?;
        let netns = NetNs::current()?.cookie()?;
        let listeners = Listeners {
            tcp4: tcp_port,
            dns4: dns_port,
            ..Listeners::default()
        };
        kernel.add_listener(attachment.sandbox, netns, listeners)?;
        let rules = [
            rule(Protocol::Tcp, "203.0.113.0/24", 443, false)?,
            rule(Protocol::Udp, "127.0.0.9/32", neighbour_port, true)?,
        ];
        kernel.activate(&mut attachment, &rules)?;
        let flows = kernel.flow_table()?;
        let sandbox = attachment.sandbox;
        std::thread::spawn(move || {
            // Where it has a processor of its own it does not run, woken, within a client's call.
            stay(Side::Gateway).and_then(|()| accept(&tcp, flows, sandbox, netns))
        });
        std::thread::spawn(move || drain(&dns));
        std::thread::spawn(move || drain(&neighbour));

        let measure = |name, call, calls, with, without| Measure {
            name,
            call,
            calls,
            with,
            without,
        };
        let listener = at(Ipv4Addr::LOCALHOST, tcp_port);
        let resolver = at(Ipv4Addr::LOCALHOST, dns_port);
        let direct = at(NEIGHBOUR, neighbour_port);
        Ok(Self {
            with: Client::start(&groups[0])?,
            without: Client::start(&groups[1])?,
            measures: vec![
                measure("tcp_socket", "socket", QUICK_CALLS, listener, listener),
                measure("tcp_unused", "unused", QUICK_CALLS, listener, listener),
                measure(
                    "tcp_connect",
                    "connect",
                    CONNECTS,
                    at(FOREIGN, 443),
                    listener,
                ),
                // What connect() is spared must not be paid for in socket() or close().
                measure("tcp_life", "life", CONNECTS, at(FOREIGN, 443), listener),
                measure(
                    "udp_connect",
                    "associate",
                    QUICK_CALLS,
                    at(FOREIGN, 53),
                    resolver,
                ),
                measure("udp_send", "send", QUICK_CALLS, direct, direct),
                measure("udp_sendto", "sendto", QUICK_CALLS, direct, direct),
            ],
            _guarded: Guarded {
                _attachment: attachment,
                _kernel: kernel,
                _groups: groups,
            },
            _internet: internet,
            _lock: lock,
        })
    }

    fn run(mut self, rounds: usize) -> Result<()> {
        for round in 0..rounds {
            for measure in &self.measures {
                let mut sides = [
                    ("without", &mut self.without, measure.without),
                    ("with", &mut self.with, measure.with),
                ];
                // Neither is always the one that comes after something else.
                if round % 2 == 1 {
                    sides.reverse();
                }
                for (side, client, address) in sides {
                    let took = client.ask(measure, address)?;
                    if let Some(told) = round.checked_sub(WARM_UP) {
                        println!("sample {} {side} {told} {took}", measure.name);
                    }
                }
            }
        }
        Ok(())
    }
}

fn rule(protocol: Protocol, cidr: &str, port: u16, named: bool) -> Result<KernelRule> {
    Ok(KernelRule {
        cidr: cidr.parse()?,
        ports: PortRange::new(port, port).context("no port")?,
        named,
        protocol,
    })
}

/// Accepts as the gateway does, record included, and says one byte: the client goes on then, so that no
/// queue ever fills.
fn accept(
    listener: &TcpListener,
    mut flows: FlowTable,
    sandbox: gateway::kernel::SandboxId,
    netns: u64,
) -> Result<()> {
    loop {
        let (mut stream, client) = listener.accept()?;
        flows.take(sandbox, netns, client);
        if stream.write_all(b".").is_err() {
            eprintln!("a client did not wait");
        }
    }
}

/// Who runs where.
#[derive(Clone, Copy)]
enum Side {
    Gateway,
    Client,
}

/// Keeps the thread on one processor: the first that there is, or the last.
fn stay(side: Side) -> Result<()> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let mut there = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    let cpu = match side {
        Side::Gateway => there.next(),
        Side::Client => there.next_back(),
    };
    let mut one = CpuSet::new();
    one.set(cpu.context("no processor")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

fn drain(socket: &UdpSocket) {
    let mut datagram = [0; 64];
    while socket.recv(&mut datagram).is_ok() {}
}

/// This program again, in a group.
struct Client {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(group: &Cgroup) -> Result<Self> {
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
    fn ask(&mut self, measure: &Measure, address: SocketAddrV4) -> Result<u64> {
        let Measure { call, calls, .. } = measure;
        writeln!(self.orders, "{call} {address} {calls}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let told = line.trim();
        told.parse()
            .with_context(|| format!("{} at {address}: {told:?}", measure.name))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The client's life: `CALL ADDRESS COUNT` on each line of stdin, a median on each of stdout.
fn serve() -> Result<()> {
    stay(Side::Client)?;
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
