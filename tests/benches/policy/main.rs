//! What a decision costs as the policy grows: with one sandbox and ten rules, and with a thousand sandboxes and ten thousand
//! rules, in turn. `decision`: the engine's answer to a connection and to a request on it; `kernel_decision`: connect() in
//! a sandbox, all of it. Says a line a sample; it refuses to judge.
//!
//! ```text
//! unit MEASURE UNIT
//! sample MEASURE small|postern ROUND NANOSECONDS     the median of a round's decisions; `postern` is the large one
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints what it measures"
)]

#[path = "../kernel/client.rs"]
mod client;

use std::hint::black_box;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::cgroup::Cgroup;
use e2e::internet::Internet;
use e2e::lock::Lock;
use gateway::kernel::{Attachment, Kernel};
use gateway::policy::{
    Class, Destination, Gateway, Host, KernelRule, PortRange, Protocol, RequestFacts, SourceFile,
    compile,
};
use gateway::sandbox::{Cgroup as Opened, NetNs};
use gateway_common::Listeners;
use http::HeaderMap;

/// Rounds that are told, after [`WARM_UP`].
const ROUNDS: usize = 20;
const WARM_UP: usize = 2;
/// Sandboxes and rules of the large side; each sandbox has ten rules of its own in the kernel.
const SANDBOXES: u16 = 1000;
const RULES: usize = 10_000;
/// Of the small side.
const FEW_RULES: usize = 10;
/// Hosts that are asked for, spread over the rules and one of each kind: a program talks to few.
const ASKED: usize = 10;
/// Decisions of a sample, and calls of connect().
const DECISIONS: usize = 2000;
const CONNECTS: usize = 200;
/// Whom the client connects to (RFC 5737, TEST-NET-3).
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn main() -> Result<()> {
    if client::is_wanted() {
        return client::serve();
    }
    let rounds = rounds()?;
    let _lock = Lock::take()?;
    println!("unit decision ns");
    println!("unit kernel_decision ns");
    let [mut small, mut large] = [Engine::new(FEW_RULES)?, Engine::new(RULES)?];
    each_round(rounds, "decision", || small.decide(), || large.decide())?;
    let _internet = Internet::attach()?;
    let [mut small, mut large] = [
        Sandboxes::new("small", 1)?,
        Sandboxes::new("large", SANDBOXES)?,
    ];
    each_round(
        rounds,
        "kernel_decision",
        || small.connect(),
        || large.connect(),
    )
}

fn rounds() -> Result<usize> {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--quick") {
        return Ok(2);
    }
    let at = words.iter().position(|word| word == "--rounds");
    let given = at.and_then(|at| words.get(at + 1));
    given.map_or(Ok(ROUNDS), |text| Ok(text.parse()?))
}

fn each_round(
    rounds: usize,
    measure: &str,
    mut small: impl FnMut() -> Result<u64>,
    mut large: impl FnMut() -> Result<u64>,
) -> Result<()> {
    for round in 0..WARM_UP + rounds {
        // Neither is always the one that comes after the other.
        let (few, many) = if round % 2 == 0 {
            let few = small()?;
            (few, large()?)
        } else {
            let many = large()?;
            (small()?, many)
        };
        if let Some(told) = round.checked_sub(WARM_UP) {
            println!("sample {measure} small {told} {few}");
            println!("sample {measure} postern {told} {many}");
        }
    }
    Ok(())
}

/// A gateway in memory, and what it is asked about.
struct Engine {
    gateway: Arc<Gateway>,
    asked: Vec<Host>,
}

impl Engine {
    /// `rules` routes: of ten, six name a host, two a pattern, two narrow a host to a method and a path.
    fn new(rules: usize) -> Result<Self> {
        let mut files = vec![file("gateway.yaml", GATEWAY.to_owned())];
        // A file holds a mebibyte at most.
        for (number, chunk) in (0..rules).collect::<Vec<_>>().chunks(1000).enumerate() {
            let documents: String = chunk.iter().map(|rule| route(*rule)).collect();
            files.push(file(&format!("{number}.yaml"), documents));
        }
        let compiled = compile(&files);
        let problems = compiled.diagnostics.first().map(|one| format!("{one:?}"));
        let policy = compiled
            .policy
            .with_context(|| format!("no policy: {problems:?}"))?;
        let gateway = policy.gateways.into_values().next().context("no gateway")?;
        // One of each kind, the same on both sides.
        let spread = |kind: usize| {
            let rule = kind * (rules / ASKED) / 10 * 10 + kind;
            Host::parse(&host(rule).replace('*', "any"))
        };
        let asked = (0..ASKED).map(spread).collect::<Result<_, _>>()?;
        Ok(Self { gateway, asked })
    }

    /// The median of a connection and a request, nanoseconds.
    fn decide(&mut self) -> Result<u64> {
        let listener = self
            .gateway
            .listener(Class::Tls, 443)
            .context("no listener")?;
        let headers = HeaderMap::new();
        let mut took = Vec::with_capacity(DECISIONS);
        for number in 0..DECISIONS {
            let host = &self.asked[number % ASKED];
            let to = Destination {
                address: (FOREIGN, 443).into(),
                host: Some(host),
                listener,
            };
            let request = RequestFacts {
                host: Some(host),
                port: 443,
                method: "GET",
                path: "/api/one",
                headers: &headers,
                model: None,
                tls: true,
            };
            let begun = Instant::now();
            let permit = black_box(&self.gateway).authorize(black_box(&to))?;
            let sent = self.gateway.authorize_request(&permit, black_box(&request));
            let elapsed = begun.elapsed();
            ensure!(black_box(sent).is_ok(), "{host} is not allowed");
            took.push(u64::try_from(elapsed.as_nanos())?);
        }
        took.sort_unstable();
        Ok(took[DECISIONS / 2])
    }
}

const GATEWAY: &str = "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: bench}
spec:
  defaultPolicy: deny-all
  listeners:
    - {name: tls, protocol: TLS, tls: {mode: Terminate}}
";

fn file(name: &str, text: String) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        text: text.into(),
    }
}

/// The host or pattern of a rule.
fn host(rule: usize) -> String {
    match rule % 10 {
        6 | 7 => format!("*.w{rule}.test"),
        _ => format!("h{rule}.test"),
    }
}

fn route(number: usize) -> String {
    let host = host(number);
    let allowed = e2e::policy::l4_route(
        &format!("l{number}"),
        &e2e::policy::Destinations::Names(&[&host]),
        &[443],
    )
    .replace("name: e2e", "name: bench");
    let narrowed = match number % 10 {
        8 | 9 => format!(
            "---
apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {{name: r{number}}}
spec:
  parentRefs: [{{kind: EgressGateway, name: bench}}]
  hostnames: [{host}]
  rules: [{{matches: [{{methods: [GET], path: {{type: PathPrefix, value: /api}}}}]}}]
"
        ),
        _ => String::new(),
    };
    format!("---\n{allowed}{narrowed}")
}

/// Sandboxes of one kernel side, and a client in the first of them. Dropped in the order of the fields.
struct Sandboxes {
    client: Client,
    _attachments: Vec<Attachment>,
    _kernel: Kernel,
    _groups: Vec<Cgroup>,
}

impl Sandboxes {
    fn new(name: &str, count: u16) -> Result<Self> {
        let kernel = Kernel::load(None, false)?;
        let mut groups = Vec::new();
        let mut attachments = Vec::new();
        for number in 0..count {
            let group = Cgroup::new(&format!("bench-{name}-{number}"))?;
            let opened = Opened::open(group.path())?;
            let mut attachment = kernel.attach(opened.as_fd(), opened.id())?;
            kernel.activate(&mut attachment, &rules(number)?)?;
            groups.push(group);
            attachments.push(attachment);
        }
        let measured = attachments.first().context("no sandbox")?;
        accept(&kernel, measured)?;
        Ok(Self {
            client: Client::start(groups.first().context("no group")?)?,
            _attachments: attachments,
            _kernel: kernel,
            _groups: groups,
        })
    }

    fn connect(&mut self) -> Result<u64> {
        self.client
            .ask("connect", CONNECTS, SocketAddrV4::new(FOREIGN, 443))
    }
}

/// Nine prefixes that are each sandbox's own, and the one that is connected to.
fn rules(number: u16) -> Result<Vec<KernelRule>> {
    let rule = |cidr: String| -> Result<KernelRule> {
        Ok(KernelRule {
            cidr: cidr.parse()?,
            ports: PortRange::new(443, 443).context("no port")?,
            named: false,
            protocol: Protocol::Tcp,
        })
    };
    let [high, low] = number.to_be_bytes();
    let mut rules = vec![rule("203.0.113.0/24".to_owned())?];
    for own in 1..10 {
        rules.push(rule(format!("{}.{high}.{low}.0/24", 30 + own))?);
    }
    Ok(rules)
}

/// A listener for the sandbox that is measured, which takes each flow's record as the gateway does.
fn accept(kernel: &Kernel, measured: &Attachment) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let netns = NetNs::current()?.cookie()?;
    let listeners = Listeners {
        tcp4: listener.local_addr()?.port(),
        ..Listeners::default()
    };
    let sandbox = measured.sandbox;
    kernel.add_listener(sandbox, netns, listeners)?;
    let flows = kernel.flow_table()?;
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            flows.take(sandbox, netns, client);
            if stream.write_all(b".").is_err() {
                eprintln!("a client did not wait");
            }
        }
    });
    Ok(())
}
