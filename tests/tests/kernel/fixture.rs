//! A sandbox with nothing around it: a control group, the programs, a client in it that takes orders.
//! It refuses to know any policy: rules are given as the kernel takes them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::cgroup::Cgroup;
use e2e::internet::Internet;
use e2e::lock::Lock;
use e2e::process::patient;
use e2e::world;
use gateway::kernel::{Attachment, Kernel, Pins, Refusal, RefusalReason};
use gateway::policy::{KernelRule, PortRange, Protocol};
use gateway::sandbox::{Cgroup as Opened, NetNs};
use gateway_common::Listeners;

const SOON: Duration = Duration::from_secs(5);

/// See the module. Dropped in the order of its fields.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) group: Cgroup,
    pub(crate) listeners: Standing,
    pub(crate) internet: Internet,
    _lock: Lock,
}

/// The gateway's sockets, as far as a kernel test needs them.
pub(crate) struct Standing {
    pub(crate) tcp: TcpListener,
    pub(crate) dns: UdpSocket,
    pub(crate) netns: u64,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let lock = Lock::take()?;
        let internet = Internet::attach()?;
        let dns = UdpSocket::bind("127.0.0.1:0")?;
        dns.set_read_timeout(Some(patient(SOON)))?;
        let group = Cgroup::new("e2e-kernel")?;
        Ok(Self {
            client: Client::start(&group)?,
            group,
            listeners: Standing {
                tcp: TcpListener::bind("127.0.0.1:0")?,
                dns,
                netns: NetNs::current()?.cookie()?,
            },
            internet,
            _lock: lock,
        })
    }

    pub(crate) fn opened(&self) -> Result<Opened> {
        Ok(Opened::open(self.group.path())?)
    }

    pub(crate) fn ports(&self, flags: u32) -> Result<Listeners> {
        Ok(Listeners {
            tcp4: self.listeners.tcp.local_addr()?.port(),
            dns4: self.listeners.dns.local_addr()?.port(),
            flags,
            ..Listeners::default()
        })
    }

    /// Loads and attaches without pins, serves this namespace, and applies the rules.
    pub(crate) fn guard(&self, flags: u32, rules: &[KernelRule]) -> Result<Guard> {
        let kernel = Kernel::load(None, false)?;
        let group = self.opened()?;
        let attachment = kernel.attach(group.as_fd(), group.id())?;
        self.activate(Guard::new(kernel, attachment)?, flags, rules)
    }

    /// The same with pins: as a daemon does it.
    pub(crate) fn guard_pinned(&self, pins: &Pins, rules: &[KernelRule]) -> Result<Guard> {
        let kernel = Kernel::load(Some(pins), false)?;
        let group = self.opened()?;
        let attachment = kernel.attach_pinned(pins, group.as_fd(), group.id())?;
        self.activate(Guard::new(kernel, attachment)?, 0, rules)
    }

    fn activate(&self, mut guard: Guard, flags: u32, rules: &[KernelRule]) -> Result<Guard> {
        let (id, netns) = (guard.attachment.sandbox, self.listeners.netns);
        guard.kernel.add_listener(id, netns, self.ports(flags)?)?;
        guard.rules(rules)?;
        Ok(guard)
    }
}

/// The programs in force on a group.
pub(crate) struct Guard {
    pub(crate) attachment: Attachment,
    pub(crate) kernel: Kernel,
    refusals: Receiver<Refusal>,
}

impl Guard {
    pub(crate) fn new(kernel: Kernel, attachment: Attachment) -> Result<Self> {
        let (say, refusals) = channel();
        kernel.watch(move |refusal| say.send(refusal).is_ok(), |_| {})?;
        Ok(Self {
            attachment,
            kernel,
            refusals,
        })
    }

    pub(crate) fn rules(&mut self, rules: &[KernelRule]) -> Result<()> {
        Ok(self.kernel.activate(&mut self.attachment, rules)?)
    }

    /// Waits for a refusal of this reason for this destination, and forgets those before it.
    pub(crate) fn refused(&self, reason: RefusalReason, destination: &str) -> Result<Refusal> {
        let begun = Instant::now();
        let mut others = Vec::new();
        while begun.elapsed() < patient(SOON) {
            let Ok(refusal) = self.refusals.recv_timeout(Duration::from_millis(100)) else {
                continue;
            };
            let is_it = refusal.origin.destination.to_string() == destination;
            if refusal.reason == reason && is_it {
                return Ok(refusal);
            }
            others.push(refusal);
        }
        bail!("no {reason:?} for {destination}; there were {others:#?}");
    }
}

/// A process in the group that opens sockets as it is told.
pub(crate) struct Client {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(group: &Cgroup) -> Result<Self> {
        let [_, script] = world::script("sockets.py")?;
        let mut child = group
            .command(["python3", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut client = Self {
            orders: child.stdin.take().context("no stdin")?,
            answers: BufReader::new(child.stdout.take().context("no stdout")?),
            child,
        };
        // What orders take is no interpreter's start.
        client.expect(&[("ready", "ok")])?;
        Ok(client)
    }

    /// Gives an order and waits for its answer.
    pub(crate) fn ask(&mut self, order: &str) -> Result<String> {
        self.begin(order)?;
        self.answer()
    }

    /// Gives an order whose answer is wanted later.
    pub(crate) fn begin(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}").context("the client ended")
    }

    pub(crate) fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the client ended");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Gives orders of which each must be answered so.
    pub(crate) fn expect(&mut self, story: &[(&str, &str)]) -> Result<()> {
        for (order, wanted) in story {
            let answer = self.ask(order)?;
            if answer != *wanted {
                bail!("{order}: {answer}, not {wanted}");
            }
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn udp(cidr: &str, port: u16) -> Result<KernelRule> {
    rule(Protocol::Udp, cidr, port)
}

pub(crate) fn tcp(cidr: &str, port: u16) -> Result<KernelRule> {
    rule(Protocol::Tcp, cidr, port)
}

fn rule(protocol: Protocol, cidr: &str, port: u16) -> Result<KernelRule> {
    Ok(KernelRule {
        cidr: cidr.parse()?,
        ports: PortRange::new(port, port).context("no port")?,
        named: false,
        protocol,
    })
}
