//! The only wiring: loads, binds, then serves. A sandbox is attached (and shut) before anything can
//! be reached, and opened last. A new policy is made ready as a whole before any of it is in force.

mod attached;
mod error;
mod follow;
mod registry;
mod running;
mod strays;
mod vital;
mod watched;

pub use attached::Attached;
pub use error::AppError;
pub use follow::{Failure, Follower, Reloads};
pub use registry::{Entry, Registry};
pub use strays::LOOK;
pub use watched::Stray;

use crate::budget::Budgets;
use crate::kernel::{Kernel, Pins, Protections, SandboxId};
use crate::policy::{Binding, Gateway, Policy};
use crate::sandbox::namespaces::Look;
use crate::sandbox::netns::NetNs;
use crate::secrets::{Secrets, follow};
use crate::telemetry::AuditLog;
use crate::workers::Workers;
use gateway_common::{Listeners, SandboxCounters, counter};
use running::Running;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use watched::Watched;

/// Where things are.
pub struct Places<'a> {
    /// Authorities and other state, 0700.
    pub state: &'a Path,
    /// `NAME/KEY` files, if there is such a folder.
    pub secrets: Option<&'a Path>,
    /// The audit log, if one is kept.
    pub audit: Option<&'a Path>,
    /// Is it put aside when it is full?
    pub rotates: bool,
}

/// The running gateway.
pub struct App {
    kernel: Arc<Kernel>,
    /// What outlives the process; `None` for a gateway whose sandbox ends with it.
    pins: Option<Pins>,
    audit: Arc<AuditLog>,
    budgets: Arc<Budgets>,
    state_folder: PathBuf,
    // Held while a policy is put in force or a sandbox attached, never on a connection's path.
    state: Mutex<State>,
    reloads: Mutex<Reloads>,
    secrets: Arc<Secrets>,
    _following: AbortOnDropHandle<()>,
    watched: Arc<Watched>,
    stop: CancellationToken,
    draining: CancellationToken,
    tasks: TaskTracker,
    connections: TaskTracker,
    workers: Arc<Workers>,
}

/// What a reload replaces.
struct State {
    generation: u64,
    bindings: watch::Sender<Vec<Binding>>,
    gateways: BTreeMap<String, Arc<Running>>,
    sandboxes: HashMap<SandboxId, Arc<Attached>>,
}

/// What a reload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The generation that is in force.
    pub generation: u64,
    /// Connections and requests that were ended because it does not allow them.
    pub revoked: usize,
}

impl App {
    /// Loads everything that a sandbox will need. Must be called in a tokio runtime. With `pins`, what is
    /// attached stays so when the process ends, and what an earlier process left is there to be adopted.
    pub fn start(
        policy: Policy,
        places: &Places<'_>,
        pins: Option<Pins>,
        debug_kernel: bool,
    ) -> Result<Self, AppError> {
        let audit = match places.audit {
            Some(path) => {
                AuditLog::open(path, places.rotates).map_err(|source| AppError::Audit {
                    path: path.display().to_string(),
                    source,
                })?
            }
            None => AuditLog::none(),
        };
        let secrets = Arc::new(Secrets::load(Vec::new(), places.secrets)?);
        let kernel = Kernel::load(pins.as_ref(), debug_kernel)?;
        let app = Self {
            kernel: Arc::new(kernel),
            pins,
            audit: Arc::new(audit),
            budgets: Arc::new(Budgets::new(places.state).map_err(AppError::Budgets)?),
            state_folder: places.state.to_owned(),
            state: Mutex::new(State {
                generation: 0,
                bindings: watch::Sender::default(),
                gateways: BTreeMap::new(),
                sandboxes: HashMap::new(),
            }),
            reloads: Mutex::default(),
            _following: follow(&secrets),
            secrets,
            watched: Arc::default(),
            stop: CancellationToken::new(),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
            workers: Arc::new(Workers::start().map_err(AppError::Workers)?),
        };
        app.reload(policy)?;
        Ok(app)
    }

    /// Records what the kernel refuses from now on, and what it has refused since an earlier process
    /// ended; to be called when the sandboxes that were attached then are adopted. What is returned tells
    /// of connections from namespaces that have no listener yet.
    pub fn watch(&self) -> Result<mpsc::Receiver<Stray>, AppError> {
        let (strays, strayed) = mpsc::channel(STRAYS);
        let watched = Arc::clone(&self.watched);
        let losses = Arc::clone(&self.audit);
        self.kernel.watch(
            move |refusal| watched.record(&refusal, &strays),
            move |count| {
                tracing::warn!(count, "refusals were too many to record each");
                losses.lost(count);
            },
        )?;
        Ok(strayed)
    }

    /// Puts a policy in force. Everything is made ready first: an error leaves the last good one as
    /// it is. What is allowed before and after stays so at every moment, and what is newly denied is
    /// denied from one moment on: the gateway changes first, then the kernel, and a destination must
    /// pass both. A gateway that is no longer there denies everything. Blocks; must be called in a
    /// tokio runtime.
    pub fn reload(&self, policy: Policy) -> Result<Reloaded, AppError> {
        let mut state = self.state();
        let Policy {
            gateways,
            secrets,
            bindings,
        } = policy;
        let prepared = self.secrets.prepare(secrets);
        let mut next = BTreeMap::new();
        for (name, gateway) in gateways {
            let before = state.gateways.get(&name).map(|running| &**running);
            let shared = running::Shared {
                secrets: &self.secrets,
                audit: &self.audit,
                state: &self.state_folder,
            };
            let running = running::start(gateway, prepared.snapshot(), &shared, before)?;
            next.insert(name, Arc::new(running));
        }
        let generation = state.generation + 1;
        let mut revoked = 0;
        self.secrets.admit(&prepared);
        for attached in state.sandboxes.values() {
            let running = match next.get(&attached.gateway()) {
                Some(running) => Arc::clone(running),
                None => Arc::new(attached.running().closed()),
            };
            revoked += attached.replace(&running, generation, &self.kernel);
            attached.refresh(&self.kernel)?;
        }
        self.secrets.settle(prepared);
        for running in next.values() {
            running.telemetry.reloaded(generation, revoked);
        }
        state.gateways = next;
        state.generation = generation;
        state.bindings.send_replace(bindings);
        Ok(Reloaded {
            generation,
            revoked,
        })
    }

    /// How the last changes of the policy went.
    pub fn reloads(&self) -> MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something without which the gateway would go on in name only: if it ends before the gateway
    /// does, the process is taken down.
    pub fn vital(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let ends = [self.stop.clone(), CancellationToken::new()];
        vital::spawn(&self.tasks, name, ends, work);
    }

    /// Does a gateway use a trust bundle that is another by now?
    fn is_outdated(&self) -> bool {
        let state = self.state();
        let secrets = self.secrets.snapshot();
        let mut all = state.gateways.values();
        all.any(|running| running.is_outdated(&secrets))
    }

    /// The generation that is in force.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// The gateways by name, each with what keeps part of it from working.
    pub fn gateways(&self) -> Vec<(String, Vec<String>)> {
        let state = self.state();
        let all = state.gateways.iter();
        all.map(|(name, running)| (name.clone(), running.problems()))
            .collect()
    }

    /// What keeps part of a gateway from working.
    pub fn problems(&self, gateway: &str) -> Result<Vec<String>, AppError> {
        Ok(self.gateway(gateway)?.problems())
    }

    /// The certificate that the gateway's sandboxes must trust.
    pub fn authority_pem(&self, gateway: &str) -> Result<String, AppError> {
        let running = self.gateway(gateway)?;
        Ok(running.leaves.authority().certificate_pem().to_owned())
    }

    /// The policy of a gateway.
    pub fn policy(&self, gateway: &str) -> Result<Arc<Gateway>, AppError> {
        Ok(Arc::clone(&self.gateway(gateway)?.gateway))
    }

    /// Every secret value, for keeping them out of a sandbox's environment.
    pub fn secret_values(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        self.secrets
            .for_each_value(|value| all.push(value.to_vec()));
        all
    }

    /// Attaches the programs to a cgroup, which from then on reaches nothing. With `pins` it takes
    /// over what an earlier daemon left there, and leaves it to the next.
    pub fn attach(
        &self,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
        label: &str,
        gateway: &str,
    ) -> Result<Arc<Attached>, AppError> {
        let mut state = self.state();
        let running = Arc::clone(of_name(&state, gateway)?);
        let attachment = match &self.pins {
            None => self.kernel.attach(cgroup, cgroup_id)?,
            Some(pins) => match self.kernel.adopt(pins, cgroup, cgroup_id)? {
                Some(adopted) => adopted,
                None => self.kernel.attach_pinned(pins, cgroup, cgroup_id)?,
            },
        };
        let id = attachment.sandbox;
        let attached = Attached::new(
            &self.budgets,
            attachment,
            label.into(),
            running,
            state.generation,
            self.draining.clone(),
        );
        let attached = Arc::new(attached);
        attached.count_verdicts(&self.kernel);
        self.watched.add(id, attached.live());
        state.sandboxes.insert(id, Arc::clone(&attached));
        Ok(attached)
    }

    /// Opens listeners for a sandbox in a network namespace, at the ports that an earlier process had there
    /// where it can, for as long as it is attached. `flags` are those of `gateway_common::Listeners`.
    pub fn listen(&self, to: &Attached, netns: &NetNs, flags: u32) -> Result<(), AppError> {
        to.listen(&self.kernel, netns, flags, true, &self.serve())
    }

    /// Opens listeners in the namespaces that a look has found, gives back those that nobody is in, and
    /// tells the kernel which are the sandbox's alone. One that cannot be served is shut.
    pub fn settle(&self, to: &Attached, look: &Look) {
        to.settle(&self.kernel, &look.inhabited);
        for namespace in &look.new {
            let is_alone = look.inhabited.get(&namespace.inode);
            let flags = attached::flags(is_alone.copied().unwrap_or_default());
            let serve = self.serve();
            match to.listen(&self.kernel, &namespace.netns, flags, false, &serve) {
                Ok(()) => {
                    tracing::info!(netns = namespace.cookie, "listeners in a network namespace")
                }
                // It may be gone by now; who connects from it is refused, and tells.
                Err(error) => tracing::warn!(%error, "no listener in a network namespace"),
            }
        }
    }

    fn serve(&self) -> attached::Serve<'_> {
        attached::Serve {
            tasks: &self.tasks,
            connections: &self.connections,
            workers: &self.workers,
            stop: &self.stop,
        }
    }

    /// Lets the sandbox reach what its policy allows.
    pub fn activate(&self, attached: &Attached) -> Result<(), AppError> {
        // Not while a reload is half way through the sandboxes.
        let _state = self.state();
        attached.activate(&self.kernel)
    }

    /// Shuts a sandbox again and forgets it. Its links live on with [`Attached`].
    pub fn deactivate(&self, attached: &Attached) {
        let mut state = self.state();
        attached.deactivate(&self.kernel);
        attached.live().view().meter.forget();
        state.sandboxes.remove(&attached.id());
        let (watched, live) = (Arc::clone(&self.watched), Arc::clone(attached.live()));
        let id = attached.id();
        self.kernel
            .when_caught_up(move || watched.remove(id, &live));
    }

    /// Sets a sandbox free: its processes reach the network past the gateway from here on.
    pub fn detach(&self, attached: &Attached) -> Result<(), AppError> {
        self.deactivate(attached);
        if let Some(pins) = &self.pins {
            attached.detach(&self.kernel, pins)?;
        }
        Ok(())
    }

    /// Moves a sandbox to another gateway, as a reload would: it is never free, and what is open goes on if
    /// that gateway allows it.
    pub fn rebind(&self, attached: &Attached, gateway: &str) -> Result<(), AppError> {
        let state = self.state();
        let running = Arc::clone(of_name(&state, gateway)?);
        attached.replace(&running, state.generation, &self.kernel);
        attached.refresh(&self.kernel)
    }

    /// Which sandboxes the policy's gateways own, as it changes.
    pub fn bindings(&self) -> watch::Receiver<Vec<Binding>> {
        self.state().bindings.subscribe()
    }

    /// Takes back listeners of an earlier process in namespaces that are no more.
    pub fn forget_former_listeners(&self, of: &Attached) {
        of.forget_former_listeners(&self.kernel);
    }

    /// Cgroups that stay shut without this process.
    pub fn pinned(&self) -> io::Result<Vec<u64>> {
        self.pins.as_ref().map_or(Ok(Vec::new()), Pins::cgroups)
    }

    /// Is a cgroup that stays shut certainly gone? Where the kernel cannot be asked, it is not.
    pub fn is_pinned_in_vain(&self, cgroup: u64) -> bool {
        let gone = self.pins.as_ref().map(|pins| pins.is_gone(cgroup));
        gone.is_some_and(|gone| {
            gone.unwrap_or_else(|error| {
                tracing::warn!(cgroup, %error, "pinned links not understood");
                false
            })
        })
    }

    /// Lets go of a cgroup that is no sandbox of this process.
    pub fn unpin(&self, cgroup: u64) -> io::Result<()> {
        match &self.pins {
            Some(pins) => pins.remove(cgroup).map(|_was_there| ()),
            None => Ok(()),
        }
    }

    /// What the kernel has counted of a sandbox.
    pub fn counters(&self, sandbox: SandboxId) -> Option<SandboxCounters> {
        self.kernel.sandbox_counters(sandbox)
    }

    /// Where the kernel sends a sandbox's connections, by namespace.
    pub fn listeners(&self, sandbox: SandboxId) -> Vec<(u64, Listeners)> {
        self.kernel.listeners_of(sandbox)
    }

    /// What of the kernel's is in force.
    pub fn protections(&self) -> Protections {
        self.kernel.protections()
    }

    /// Refusals of the kernel that were too many to record each.
    pub fn denials_not_recorded(&self) -> u64 {
        let lost = self.kernel.counters();
        lost.get(counter::EVENTS_LOST as usize)
            .copied()
            .unwrap_or(0)
    }

    /// Audit records as they are written.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.audit.subscribe()
    }

    /// Is it on its way out?
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Cancelled when it ends.
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The sandboxes, in the order in which they were attached.
    pub fn sandboxes(&self) -> Vec<Arc<Attached>> {
        let mut all: Vec<_> = self.state().sandboxes.values().cloned().collect();
        all.sort_by_key(|attached| attached.id());
        all
    }

    /// Takes no more connections and lets those that are open finish, for `deadline` at most; then
    /// sends the telemetry that is left. What was attached stays as shut as its links keep it.
    pub async fn drain(&self, deadline: Duration) {
        // First: from the moment on in which they are closed their ports may be anybody's.
        let kernel = Arc::clone(&self.kernel);
        finish("listeners", move || kernel.end_listeners()).await;
        self.stop.cancel();
        self.draining.cancel();
        self.connections.close();
        self.tasks.close();
        // They end at once, with the counts of what they did not record.
        self.tasks.wait().await;
        if tokio::time::timeout(deadline, self.connections.wait())
            .await
            .is_err()
        {
            let open = self.connections.len();
            tracing::warn!(open, "connections still open at the end of the drain");
        }
        let kernel = Arc::clone(&self.kernel);
        finish("refusals", move || kernel.settle()).await;
        let budgets = Arc::clone(&self.budgets);
        finish("token budgets", move || budgets.flush()).await;
        let running: Vec<_> = self.state().gateways.values().cloned().collect();
        for running in running {
            finish("telemetry", move || running.telemetry.flush()).await;
        }
    }

    fn gateway(&self, name: &str) -> Result<Arc<Running>, AppError> {
        of_name(&self.state(), name).map(Arc::clone)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of a reload leaves each sandbox with one whole view or the other.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for work that blocks. It says itself what does not succeed.
async fn finish(what: &'static str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(%error, what, "not brought to an end before the gateway ends");
    }
}

/// Strays that may wait to be looked after; the next connection from the namespace is another chance.
const STRAYS: usize = 64;

fn of_name<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Running>, AppError> {
    state.gateways.get(name).ok_or_else(|| {
        let known: Vec<_> = state.gateways.keys().cloned().collect();
        AppError::NoGateway {
            name: name.to_owned(),
            known: known.join(", "),
        }
    })
}
