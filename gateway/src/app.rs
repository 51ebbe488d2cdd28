//! The only wiring: loads, binds, then serves. A sandbox is attached (and shut) before anything can
//! be reached, and opened last.

mod running;

use crate::connection::Sandbox;
use crate::dns::Responder;
use crate::http::Front;
use crate::kernel::{Attachment, FlowTable, Kernel, KernelError, Refusal, SandboxId};
use crate::listener::Listener;
use crate::outcome::Stage;
use crate::policy::{Gateway, Policy};
use crate::sandbox::netns::NetNs;
use crate::secrets::{Secrets, SecretsError};
use crate::telemetry::{AuditLog, DenialRecord, Who};
use crate::tls::{AuthorityError, LeafError};
use crate::upstream::{NameError, TrustError, Upstream};
use gateway_common::Listeners;
use running::Running;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the gateway did not start, or a sandbox was not attached. What was attached stays shut.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The secrets folder.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A gateway's authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Certificates.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The audit log.
    #[error("audit log {path}: {source}")]
    Audit {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What to trust upstream.
    #[error("gateway {gateway}: {source}")]
    Trust {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The trust bundle does not exist.
    #[error(
        "gateway {gateway}: secret {secret} (upstreamTLS.additionalTrustBundleSecretRef) is missing; add a Secret document, or the file {secret} in the secrets folder"
    )]
    NoBundle {
        /// Which gateway.
        gateway: Arc<str>,
        /// `NAME/KEY`.
        secret: String,
    },
    /// The resolver.
    #[error("gateway {gateway}: cannot set up name resolution: {source}")]
    Resolver {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: NameError,
    },
    /// The exporter.
    #[error("gateway {gateway}: otlp: {source}")]
    Exporter {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// No such gateway.
    #[error("the policy has no EgressGateway named {name}; it has {known}")]
    NoGateway {
        /// Asked for.
        name: String,
        /// There are.
        known: String,
    },
    /// Sockets in the namespace.
    #[error("cannot listen in the sandbox's network namespace: {0}")]
    Listen(#[source] io::Error),
}

/// Where things are.
pub struct Places<'a> {
    /// Authorities and other state, 0700.
    pub state: &'a Path,
    /// `NAME/KEY` files, if there is such a folder.
    pub secrets: Option<&'a Path>,
    /// The audit log, if one is kept.
    pub audit: Option<&'a Path>,
}

/// The running gateway.
pub struct App {
    kernel: Arc<Kernel>,
    gateways: BTreeMap<String, Running>,
    watched: Arc<Watched>,
    stop: CancellationToken,
    draining: CancellationToken,
    tasks: TaskTracker,
    connections: TaskTracker,
}

/// A sandbox that is attached.
pub struct Attached {
    attachment: Attachment,
    sandbox: Arc<Sandbox>,
    places: Arc<Semaphore>,
}

impl Attached {
    /// The kernel side, whose links keep it shut.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

/// The first generation of a policy.
const GENERATION: u64 = 1;

impl App {
    /// Loads everything that a sandbox will need. Must be called in a tokio runtime.
    pub fn start(
        policy: Policy,
        places: &Places<'_>,
        debug_kernel: bool,
    ) -> Result<Self, AppError> {
        let Policy {
            gateways, secrets, ..
        } = policy;
        let secrets = Arc::new(Secrets::load(secrets, places.secrets)?);
        let audit = match places.audit {
            Some(path) => AuditLog::open(path).map_err(|source| AppError::Audit {
                path: path.display().to_string(),
                source,
            })?,
            None => AuditLog::none(),
        };
        let audit = Arc::new(audit);
        let running = gateways
            .into_iter()
            .map(|(name, gateway)| {
                let running = running::start(gateway, &secrets, &audit, places.state)?;
                Ok((name, running))
            })
            .collect::<Result<BTreeMap<_, _>, AppError>>()?;
        let watched = Arc::new(Watched::default());
        let recorder = Arc::clone(&watched);
        let losses = Arc::clone(&audit);
        let kernel = Kernel::load(
            debug_kernel,
            move |refusal| recorder.record(&refusal),
            move |count| {
                tracing::warn!(count, "refusals were too many to record each");
                losses.lost(count);
            },
        )?;
        Ok(Self {
            kernel: Arc::new(kernel),
            gateways: running,
            watched,
            stop: CancellationToken::new(),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
        })
    }

    /// The certificate that the gateway's sandboxes must trust.
    pub fn authority_pem(&self, gateway: &str) -> Result<&str, AppError> {
        Ok(self.gateway(gateway)?.leaves.authority().certificate_pem())
    }

    /// The policy of a gateway.
    pub fn policy(&self, gateway: &str) -> Result<&Arc<Gateway>, AppError> {
        Ok(&self.gateway(gateway)?.gateway)
    }

    /// Every secret value, for keeping them out of a sandbox's environment.
    pub fn secret_values(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        if let Some(running) = self.gateways.values().next() {
            running
                .secrets
                .for_each_value(|value| all.push(value.to_vec()));
        }
        all
    }

    /// Attaches the programs to a cgroup, which from then on reaches nothing.
    pub fn attach(
        &self,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
        label: &str,
        gateway: &str,
    ) -> Result<Attached, AppError> {
        let running = self.gateway(gateway)?;
        let attachment = self.kernel.attach(cgroup, cgroup_id)?;
        let places = running.gateway.limits.max_connections_per_sandbox as usize;
        let front = Front {
            gateway: Arc::clone(&running.gateway),
            secrets: Arc::clone(&running.secrets),
            upstream: Upstream::new(
                Arc::clone(&running.gateway),
                Arc::clone(&running.resolver),
                running.verifier.clone(),
            ),
            telemetry: Arc::clone(&running.telemetry),
            requests: Arc::new(Semaphore::new(places)),
        };
        let responder = Responder::new(
            Arc::clone(&running.gateway),
            Arc::clone(&running.resolver),
            Arc::clone(&running.telemetry),
        );
        let sandbox = Arc::new(Sandbox {
            label: label.into(),
            generation: GENERATION,
            front: Arc::new(front),
            leaves: Arc::clone(&running.leaves),
            responder: Arc::new(responder),
            draining: self.draining.clone(),
        });
        self.watched.add(attachment.sandbox, &sandbox);
        Ok(Attached {
            attachment,
            sandbox,
            places: Arc::new(Semaphore::new(places)),
        })
    }

    /// Opens listeners for a sandbox in a network namespace. `private` says that the namespace is
    /// the sandbox's own, so that its loopback is its own business too.
    pub fn listen(&self, to: &Attached, netns: &NetNs, private: bool) -> Result<(), AppError> {
        let id = to.attachment.sandbox;
        let v4 = self
            .bind(netns, Ipv4Addr::LOCALHOST.into())
            .map_err(AppError::Listen)?;
        let v6 = match self.bind(netns, Ipv6Addr::LOCALHOST.into()) {
            Ok(sockets) => Some(sockets),
            // A namespace without IPv6: the programs refuse it there.
            Err(error) => {
                tracing::warn!(%error, "no IPv6 in the sandbox's network namespace");
                None
            }
        };
        let cookie = netns.cookie().map_err(AppError::Listen)?;
        let listeners = Listeners {
            tcp4: v4.tcp_port,
            dns4: v4.dns_port,
            tcp6: v6.as_ref().map_or(0, |sockets| sockets.tcp_port),
            dns6: v6.as_ref().map_or(0, |sockets| sockets.dns_port),
            flags: if private { Listeners::PRIVATE } else { 0 },
        };
        for sockets in [Some(v4), v6].into_iter().flatten() {
            self.serve(to, sockets, cookie, self.kernel.flow_table()?);
        }
        Ok(self.kernel.add_listener(id, cookie, listeners)?)
    }

    /// Lets the sandbox reach what its policy allows.
    pub fn activate(&self, attached: &mut Attached) -> Result<(), AppError> {
        let rules = attached.sandbox.front.gateway.kernel_rules();
        Ok(self.kernel.activate(&mut attached.attachment, &rules)?)
    }

    /// Shuts a sandbox again.
    pub fn deactivate(&self, attached: &mut Attached) {
        self.kernel.deactivate(&mut attached.attachment);
    }

    /// Takes no more connections and lets those that are open finish, for `deadline` at most; then
    /// sends the telemetry that is left. What was attached stays as shut as its links keep it.
    pub async fn drain(&self, deadline: Duration) {
        self.stop.cancel();
        self.draining.cancel();
        self.connections.close();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.connections.wait())
            .await
            .is_err()
        {
            let open = self.connections.len();
            tracing::warn!(open, "connections still open at the end of the drain");
        }
        for running in self.gateways.values() {
            let telemetry = Arc::clone(&running.telemetry);
            if let Err(error) = tokio::task::spawn_blocking(move || telemetry.flush()).await {
                tracing::warn!(%error, "telemetry not flushed");
            }
        }
    }

    fn gateway(&self, name: &str) -> Result<&Running, AppError> {
        self.gateways.get(name).ok_or_else(|| AppError::NoGateway {
            name: name.to_owned(),
            known: self.gateways.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    fn bind(&self, netns: &NetNs, ip: IpAddr) -> io::Result<Sockets> {
        let tcp = netns.bind_tcp(SocketAddr::new(ip, 0))?;
        let dns = netns.bind_udp(SocketAddr::new(ip, 0))?;
        Ok(Sockets {
            tcp_port: tcp.local_addr()?.port(),
            dns_port: dns.local_addr()?.port(),
            tcp: TcpListener::from_std(tcp)?,
            dns: UdpSocket::from_std(dns)?,
        })
    }

    fn serve(&self, to: &Attached, sockets: Sockets, netns: u64, flows: FlowTable) {
        let who = nobody(&to.sandbox);
        let stop = self.stop.clone();
        let responder = Arc::clone(&to.sandbox.responder);
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = responder.serve_udp(sockets.dns, who) => {}
            }
        });
        let listener = Listener {
            socket: sockets.tcp,
            netns,
            id: to.attachment.sandbox,
            sandbox: Arc::clone(&to.sandbox),
            flows,
            places: Arc::clone(&to.places),
            stop: self.stop.clone(),
            connections: self.connections.clone(),
        };
        self.tasks.spawn(listener.run());
    }
}

struct Sockets {
    tcp: TcpListener,
    tcp_port: u16,
    dns: UdpSocket,
    dns_port: u16,
}

/// Who is behind a kernel event: the sandboxes by number.
#[derive(Default)]
struct Watched {
    sandboxes: RwLock<HashMap<SandboxId, Arc<Sandbox>>>,
}

impl Watched {
    fn add(&self, id: SandboxId, sandbox: &Arc<Sandbox>) {
        self.sandboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(sandbox));
    }

    fn record(&self, refusal: &Refusal) {
        let sandboxes = self
            .sandboxes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(sandbox) = sandboxes.get(&refusal.origin.sandbox) else {
            tracing::warn!(?refusal, "denied in a sandbox that is not ready");
            return;
        };
        let gateway = Arc::clone(&sandbox.front.gateway.name);
        let label = Arc::clone(&sandbox.label);
        sandbox.front.telemetry.denied(&DenialRecord {
            who: Who::new(gateway, label, sandbox.generation, &refusal.origin),
            reason: refusal.reason.into(),
            stage: Stage::Kernel,
            host: None,
            detail: Some(format!("protocol {}", refusal.protocol)),
        });
    }
}

/// The sandbox as a whole, where no single task is known.
fn nobody(sandbox: &Sandbox) -> Who {
    Who {
        gateway: Arc::clone(&sandbox.front.gateway.name),
        sandbox: Arc::clone(&sandbox.label),
        cgroup: 0,
        pid: 0,
        tgid: 0,
        uid: 0,
        comm: "".into(),
        destination: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53),
        generation: sandbox.generation,
    }
}
