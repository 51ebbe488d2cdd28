//! A daemon that remembers what it was asked, and a cgroup to ask about.

use gateway::admin::{
    AttachRequest, Control, Failure, FailureKind, GatewayInfo, NamespaceInfo, Peer, SandboxInfo,
    Server, Status, Which,
};
use gateway::privileges::Layer;
use gateway::sandbox::locate::{Hierarchy, Located, is_within};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Records that a reader may be behind.
const BEHIND: usize = 8;

/// The daemon's half.
pub(crate) struct Fake {
    pub(crate) sandboxes: Mutex<Vec<SandboxInfo>>,
    pub(crate) records: broadcast::Sender<Arc<str>>,
    /// How long an attach takes.
    pub(crate) slowness: Duration,
}

impl Control for Fake {
    async fn attach(&self, request: AttachRequest, _by: &Peer) -> Result<SandboxInfo, Failure> {
        tokio::time::sleep(self.slowness).await;
        if request.gateway != "g" {
            return Err(Failure::new(
                FailureKind::NotFound,
                "the policy has no EgressGateway of that name; it has g",
            ));
        }
        let mut sandboxes = self.sandboxes.lock().unwrap();
        let attached = sandboxes.iter().map(|sandbox| sandbox.cgroup.as_str());
        let located = request.locate(&Hierarchy::find().unwrap(), attached)?;
        let sandbox = SandboxInfo {
            id: u32::try_from(sandboxes.len()).unwrap() + 1,
            label: request.label.unwrap_or_else(|| located.path.clone()),
            cgroup: located.path,
            cgroup_id: located.id,
            gateway: request.gateway,
            origin: request.origin,
            since: 1_000,
            open: true,
            connections: 3,
            redirected: 40,
            refused: [("no_rule".to_owned(), 5)].into(),
            namespaces: vec![NamespaceInfo::default()],
            ..SandboxInfo::default()
        };
        sandboxes.push(sandbox.clone());
        Ok(sandbox)
    }

    async fn detach(&self, which: Which, _by: &Peer) -> Result<SandboxInfo, Failure> {
        let mut sandboxes = self.sandboxes.lock().unwrap();
        match sandboxes.iter().position(|sandbox| which.is(sandbox)) {
            Some(index) => Ok(sandboxes.remove(index)),
            None => Err(Failure::new(FailureKind::NotFound, "no such sandbox")),
        }
    }

    async fn detach_all(&self, _by: &Peer) -> Result<Vec<SandboxInfo>, Failure> {
        Ok(std::mem::take(&mut self.sandboxes.lock().unwrap()))
    }

    async fn status(&self) -> Status {
        Status {
            version: "9.9.9".into(),
            pid: 7,
            started: 1_000,
            uptime: 3_700,
            policy: "/etc/postern/policy".into(),
            generation: 4,
            reload_failures: 1,
            reload_error: Some("policy.yaml:3: unknown field".into()),
            gateways: vec![GatewayInfo {
                name: "g".into(),
                problems: Vec::new(),
            }],
            sandboxes: self.sandboxes.lock().unwrap().clone(),
            protections: vec![Layer {
                name: "landlock".into(),
                active: false,
                detail: "this kernel has none".into(),
            }],
            ..Status::default()
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.records.subscribe()
    }

    fn is_sandboxed(&self, cgroup: &Located) -> std::io::Result<bool> {
        let sandboxes = self.sandboxes.lock().unwrap();
        Ok(sandboxes
            .iter()
            .any(|sandbox| is_within(&cgroup.path, &sandbox.cgroup)))
    }
}

/// The daemon, listening.
pub(crate) struct Daemon {
    pub(crate) fake: Arc<Fake>,
    pub(crate) socket: PathBuf,
    pub(crate) stop: CancellationToken,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::slow(Duration::ZERO)
    }

    pub(crate) fn slow(slowness: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/admin.sock");
        let fake = Arc::new(Fake {
            sandboxes: Mutex::default(),
            records: broadcast::channel(BEHIND).0,
            slowness,
        });
        let server = Server::bind(&socket).unwrap();
        let stop = CancellationToken::new();
        let runtime = Runtime::new().unwrap();
        let (control, stopped) = (Arc::clone(&fake), stop.clone());
        runtime.spawn(async move { server.serve(control, stopped).await.unwrap() });
        Self {
            fake,
            socket,
            stop,
            runtime: Some(runtime),
            _folder: folder,
        }
    }

    /// Returns when somebody listens to the records.
    pub(crate) fn await_listener(&self) {
        eventually("a listener", || self.fake.records.receiver_count() > 0);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 5 s");
}

/// A cgroup, removed at the end.
pub(crate) struct Cgroup {
    pub(crate) directory: PathBuf,
    /// Below the mount.
    pub(crate) path: String,
}

impl Cgroup {
    /// `None` where this may not make cgroups, which root may.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postern-admin-{}-{number}", std::process::id());
        let directory = Hierarchy::find().unwrap().mount().join(&name);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
            made => made.unwrap(),
        }
        Some(Self {
            directory,
            path: format!("/{name}"),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.directory.metadata().unwrap().ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    let removed = gateway::sandbox::cgroup::kill_all(directory)
        .and_then(|()| gateway::sandbox::cgroup::remove_tree(directory));
    if let Err(error) = removed
        && !std::thread::panicking()
    {
        panic!("{}: {error}", directory.display());
    }
}
