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

mod client;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use client::{Client, stay};
use e2e::cgroup::Cgroup;
use e2e::internet::Internet;
use e2e::lock::Lock;
use gateway::kernel::{Attachment, FlowTable, Kernel};
use gateway::policy::{KernelRule, PortRange, Protocol};
use gateway::sandbox::{Cgroup as Opened, NetNs};
use gateway_common::Listeners;

/// Rounds, of which the first two warm up caches and are not told.
const ROUNDS: usize = 32;
const WARM_UP: usize = 2;
/// Calls a round: some ten milliseconds, so that the two take turns more often than the machine's mood changes.
const CONNECTS: usize = 200;
const QUICK_CALLS: usize = 2000;
/// A host that no rule names but the one for its port (RFC 5737, TEST-NET-3).
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Receives datagrams, directly in either case.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn main() -> Result<()> {
    if client::is_wanted() {
        return client::serve();
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
            stay(|processors| processors.next()).and_then(|()| accept(&tcp, flows, sandbox, netns))
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
                    let took = client
                        .ask(measure.call, measure.calls, address)
                        .context(measure.name)?;
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
    flows: FlowTable,
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

fn drain(socket: &UdpSocket) {
    let mut datagram = [0; 64];
    while socket.recv(&mut datagram).is_ok() {}
}
