//! One attached sandbox: its kernel side, its view of the policy, its listeners.

use super::Stray;
use super::error::AppError;
use super::running::Running;
use super::vital;
use crate::budget::{self, Budgets, Meter};
use crate::dns::Responder;
use crate::kernel::{Attachment, FlowTable, Kernel, Pins, SandboxId};
use crate::listener::Listener;
use crate::live::{Live, View};
use crate::sandbox::netns::NetNs;
use crate::scrub::Scrubbers;
use crate::telemetry::Who;
use crate::upstream::{Ration, Upstream};
use crate::workers::Workers;
use gateway_common::Listeners;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A sandbox that is attached.
pub struct Attached {
    id: SandboxId,
    cgroup: u64,
    since: SystemTime,
    live: Arc<Live>,
    // Taken at attach, reload and detach only.
    inner: Mutex<Inner>,
    /// Cancelled when it is detached.
    gone: CancellationToken,
}

struct Inner {
    /// `None` once it is detached.
    attachment: Option<Attachment>,
    running: Arc<Running>,
    active: bool,
    /// By cookie.
    namespaces: BTreeMap<u64, Place>,
}

/// Where it has listeners.
struct Place {
    inode: u64,
    listeners: Listeners,
    /// Given for good, by whoever attached it; the others are there for as long as a task is in them.
    is_lasting: bool,
    /// Ends what serves it.
    gone: CancellationToken,
}

/// Network namespaces of one sandbox that have listeners at once: four sockets each, which are the gateway's
/// own descriptors and keep the namespace alive. Containers within a sandbox have one each.
const MOST_NAMESPACES: usize = 32;

/// What runs the tasks of a sandbox.
pub(super) struct Serve<'a> {
    pub(super) tasks: &'a TaskTracker,
    pub(super) connections: &'a TaskTracker,
    pub(super) workers: &'a Arc<Workers>,
    pub(super) stop: &'a CancellationToken,
}

impl Attached {
    pub(super) fn new(
        budgets: &Arc<Budgets>,
        attachment: Attachment,
        label: Arc<str>,
        running: Arc<Running>,
        generation: u64,
        draining: CancellationToken,
    ) -> Self {
        let responder = Arc::new(Responder::new(
            Arc::clone(&running.gateway),
            Arc::clone(&running.resolver),
            Arc::clone(&running.telemetry),
        ));
        let execution = budget::execution(attachment.cgroup(), attachment.sandbox.get());
        let meter = Meter::new(Arc::clone(budgets), execution);
        let view = view(&running, &responder, generation, None, meter);
        let live = Live::new(label, responder, draining, view);
        Self {
            id: attachment.sandbox,
            cgroup: attachment.cgroup(),
            since: SystemTime::now(),
            live: Arc::new(live),
            inner: Mutex::new(Inner {
                attachment: Some(attachment),
                running,
                active: false,
                namespaces: BTreeMap::new(),
            }),
            gone: CancellationToken::new(),
        }
    }

    /// Its number.
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// The kernel id of its cgroup.
    pub fn cgroup(&self) -> u64 {
        self.cgroup
    }

    /// The name of its gateway, whether or not the policy has one of that name now.
    pub fn gateway(&self) -> String {
        self.inner().running.gateway.name.to_string()
    }

    /// Has it been opened?
    pub fn is_active(&self) -> bool {
        self.inner().active
    }

    /// When it was attached.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// As its connections know it.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Cookies of the network namespaces in which it has listeners.
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.inner().namespaces.keys().copied().collect()
    }

    /// The inode numbers of those namespaces, for who looks for others.
    pub fn namespace_inodes(&self) -> HashSet<u64> {
        let inner = self.inner();
        inner.namespaces.values().map(|place| place.inode).collect()
    }

    /// Is it one of its own, from a namespace that has no listeners yet?
    pub fn is_strange(&self, stray: &Stray) -> bool {
        stray.sandbox == self.id && !self.inner().namespaces.contains_key(&stray.netns)
    }

    /// Is there any that may change hands, or be left by everybody?
    pub fn has_passing_namespaces(&self) -> bool {
        let inner = self.inner();
        inner.namespaces.values().any(|place| !place.is_lasting)
    }

    /// Does something with the kernel side, whose links keep it shut.
    pub fn with_attachment<T>(&self, act: impl FnOnce(&Attachment) -> T) -> Option<T> {
        self.inner().attachment.as_ref().map(act)
    }

    pub(super) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.inner().running)
    }

    /// Takes another generation in the gateway; the kernel follows with [`Attached::activate`]. Says
    /// how much that was open is not allowed any more.
    pub(super) fn replace(
        &self,
        running: &Arc<Running>,
        generation: u64,
        kernel: &Arc<Kernel>,
    ) -> usize {
        let before = std::mem::replace(&mut self.inner().running, Arc::clone(running));
        if !Arc::ptr_eq(before.telemetry.metrics(), running.telemetry.metrics()) {
            before.telemetry.metrics().leave(self.id);
            self.count_verdicts(kernel);
        }
        let before = self.live.view();
        let meter = before.meter.clone();
        let responder = &self.live.responder;
        let view = view(running, responder, generation, Some(&before), meter);
        let revoked = self.live.replace(view);
        self.live.responder.replace(
            Arc::clone(&running.gateway),
            Arc::clone(&running.resolver),
            Arc::clone(&running.telemetry),
        );
        revoked
    }

    /// Has the gateway's metrics tell what the kernel decides of it, until it is deactivated.
    pub(super) fn count_verdicts(&self, kernel: &Arc<Kernel>) {
        let id = self.id;
        // The metrics live on with the last export, the kernel's side does not wait for that.
        let kernel = Arc::downgrade(kernel);
        let read = move || kernel.upgrade()?.sandbox_counters(id);
        let running = self.running();
        running.telemetry.metrics().follow(id, Box::new(read));
    }

    /// Writes the rules of its view to the kernel. The first time this opens the sandbox.
    pub(super) fn activate(&self, kernel: &Kernel) -> Result<(), AppError> {
        let rules = self.live.view().gateway.kernel_rules();
        let mut inner = self.inner();
        if let Some(attachment) = &mut inner.attachment {
            kernel.activate(attachment, &rules)?;
            inner.active = true;
        }
        Ok(())
    }

    /// As [`Attached::activate`], for a sandbox that has been opened already; nothing for another.
    pub(super) fn refresh(&self, kernel: &Kernel) -> Result<(), AppError> {
        if self.inner().active {
            self.activate(kernel)?;
        }
        Ok(())
    }

    pub(super) fn deactivate(&self, kernel: &Kernel) {
        let mut inner = self.inner();
        inner.active = false;
        inner.running.telemetry.metrics().leave(self.id);
        if let Some(attachment) = &mut inner.attachment {
            kernel.deactivate(attachment);
        }
        self.gone.cancel();
    }

    pub(super) fn detach(&self, kernel: &Kernel, pins: &Pins) -> Result<(), AppError> {
        match self.inner().attachment.take() {
            Some(attachment) => Ok(kernel.detach(pins, attachment)?),
            None => Ok(()),
        }
    }

    pub(super) fn listen(
        &self,
        kernel: &Kernel,
        netns: &NetNs,
        flags: u32,
        is_lasting: bool,
        serve: &Serve<'_>,
    ) -> Result<(), AppError> {
        let cookie = netns.cookie().map_err(AppError::Listen)?;
        let inode = netns.inode().map_err(AppError::Listen)?;
        let mut inner = self.inner();
        if inner.namespaces.contains_key(&cookie) || self.gone.is_cancelled() {
            return Ok(());
        }
        if inner.namespaces.len() >= MOST_NAMESPACES {
            return Err(AppError::TooManyNamespaces(MOST_NAMESPACES));
        }
        // Sockets that are connected to the resolver of an earlier process find this one at its port.
        let former = kernel.listeners_of(self.id);
        let former = former.iter().find(|(netns, _)| *netns == cookie);
        let former = former.map(|(_, listeners)| *listeners).unwrap_or_default();
        let v4 = bind(netns, Ipv4Addr::LOCALHOST.into(), former.tcp4, former.dns4)
            .map_err(AppError::Listen)?;
        let v6 = match bind(netns, Ipv6Addr::LOCALHOST.into(), former.tcp6, former.dns6) {
            Ok(sockets) => Some(sockets),
            // A namespace without IPv6: the programs refuse it there.
            Err(error) => {
                tracing::warn!(%error, "no IPv6 in the sandbox's network namespace");
                None
            }
        };
        let listeners = Listeners {
            tcp4: v4.tcp_port,
            dns4: v4.dns_port,
            tcp6: v6.as_ref().map_or(0, |sockets| sockets.tcp_port),
            dns6: v6.as_ref().map_or(0, |sockets| sockets.dns_port),
            flags,
        };
        let gone = self.gone.child_token();
        for sockets in [Some(v4), v6].into_iter().flatten() {
            self.serve(sockets, cookie, kernel.flow_table()?, &gone, serve);
        }
        if let Err(error) = kernel.add_listener(self.id, cookie, listeners) {
            gone.cancel();
            return Err(error.into());
        }
        let place = Place {
            inode,
            listeners,
            is_lasting,
            gone,
        };
        inner.namespaces.insert(cookie, place);
        Ok(())
    }

    /// Gives back the listeners of namespaces that no task of the sandbox is in any more, and says of the
    /// others, but for those given for good, whether they are the sandbox's alone: `inhabited` has both, by
    /// inode number.
    pub(super) fn settle(&self, kernel: &Kernel, inhabited: &BTreeMap<u64, bool>) {
        let mut inner = self.inner();
        inner.namespaces.retain(|cookie, place| {
            if place.is_lasting {
                return true;
            }
            let Some(is_alone) = inhabited.get(&place.inode) else {
                kernel.remove_listener(self.id, *cookie);
                place.gone.cancel();
                return false;
            };
            let listeners = Listeners {
                flags: flags(*is_alone),
                ..place.listeners
            };
            if listeners != place.listeners {
                match kernel.add_listener(self.id, *cookie, listeners) {
                    Ok(()) => place.listeners = listeners,
                    Err(error) => {
                        tracing::error!(%error, "a network namespace is shut: it is not known whose it is");
                        kernel.remove_listener(self.id, *cookie);
                        place.gone.cancel();
                        return false;
                    }
                }
            }
            true
        });
    }

    /// Takes back listeners of an earlier process in namespaces that are no more.
    pub(super) fn forget_former_listeners(&self, kernel: &Kernel) {
        let known = self.namespaces();
        for (netns, _) in kernel.listeners_of(self.id) {
            if !known.contains(&netns) {
                kernel.remove_listener(self.id, netns);
            }
        }
    }

    fn serve(
        &self,
        sockets: Sockets,
        netns: u64,
        flows: FlowTable,
        gone: &CancellationToken,
        serve: &Serve<'_>,
    ) {
        let who = nobody(&self.live);
        let ends = || [serve.stop.clone(), gone.clone()];
        let responder = Arc::clone(&self.live.responder);
        let dns = responder.serve_udp(sockets.dns, who);
        vital::spawn(serve.tasks, "resolver", ends(), dns);
        let listener = Listener {
            socket: sockets.tcp,
            netns,
            id: self.id,
            live: Arc::clone(&self.live),
            flows,
            connections: serve.connections.clone(),
            workers: Arc::clone(serve.workers),
        };
        vital::spawn(serve.tasks, "listener", ends(), listener.run());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked, each field is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bodies that wait to be read, all of one sandbox together: 64 MiB, sixteen of the longest.
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// The view of one generation. Places that are in use count on as long as their number stays the same.
fn view(
    running: &Running,
    responder: &Arc<Responder>,
    generation: u64,
    before: Option<&View>,
    meter: Meter,
) -> View {
    let limits = running.gateway.limits;
    let places = limits.max_connections_per_sandbox as usize;
    let same = before.filter(|before| before.gateway.limits == limits);
    let (places, requests) = match same {
        Some(before) => (Arc::clone(&before.places), Arc::clone(&before.requests)),
        None => (
            Arc::new(Semaphore::new(places)),
            Arc::new(Semaphore::new(places)),
        ),
    };
    let bodies = before.map(|before| Arc::clone(&before.bodies));
    let bodies = bodies.unwrap_or_else(|| Arc::new(Semaphore::new(BODY_BYTES)));
    View {
        generation,
        gateway: Arc::clone(&running.gateway),
        secrets: Arc::clone(&running.secrets),
        scrubbers: Scrubbers::default(),
        tokens: running.tokens.clone(),
        upstream: Upstream::new(
            Arc::clone(&running.gateway),
            Arc::clone(&running.resolver),
            running.verifier.clone(),
            Arc::clone(running.telemetry.metrics()),
            Arc::clone(responder) as Arc<dyn Ration>,
            Arc::clone(&bodies),
        ),
        telemetry: Arc::clone(&running.telemetry),
        leaves: Arc::clone(&running.leaves),
        places,
        requests,
        bodies,
        meter,
        ration: before.map_or_else(Arc::default, |before| Arc::clone(&before.ration)),
    }
}

/// What the kernel is told of a namespace: loopback is the sandbox's own business where nobody else is.
pub(super) fn flags(is_alone: bool) -> u32 {
    if is_alone { Listeners::PRIVATE } else { 0 }
}

struct Sockets {
    tcp: TcpListener,
    tcp_port: u16,
    dns: UdpSocket,
    dns_port: u16,
}

/// At the ports given, or at others where these are zero or taken.
fn bind(netns: &NetNs, ip: IpAddr, tcp: u16, dns: u16) -> io::Result<Sockets> {
    let any = SocketAddr::new(ip, 0);
    let tcp = match netns.bind_tcp(SocketAddr::new(ip, tcp)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => netns.bind_tcp(any)?,
        bound => bound?,
    };
    let dns = match netns.bind_udp(SocketAddr::new(ip, dns)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => netns.bind_udp(any)?,
        bound => bound?,
    };
    Ok(Sockets {
        tcp_port: tcp.local_addr()?.port(),
        dns_port: dns.local_addr()?.port(),
        tcp: TcpListener::from_std(tcp)?,
        dns: UdpSocket::from_std(dns)?,
    })
}

/// The sandbox as a whole, where no single task is known.
fn nobody(live: &Live) -> Who {
    let view = live.view();
    Who {
        gateway: Arc::clone(&view.gateway.name),
        sandbox: Arc::clone(&live.label),
        cgroup: 0,
        pid: 0,
        tgid: 0,
        uid: 0,
        comm: "".into(),
        executable: None,
        destination: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53),
        generation: view.generation,
    }
}
