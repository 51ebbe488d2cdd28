//! What every member stands on: the machine's lock, a network namespace, an authority, a credential, a policy, and a word
//! from the terminal to stop. Dropping it takes all of it away. It refuses to know what is measured.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::ca::TestCa;
use e2e::lock::Lock;
use e2e::policy::{self, Destinations, Gateway};
use e2e::postern::Exec;
use e2e::world::random;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::client::Client;

/// The name that clients ask for, whoever answers.
pub(crate) const HOST: &str = "bench.test";
/// A second name of the same upstream, where events come from.
pub(crate) const EVENTS: &str = "events.test";
/// Where the upstream is.
pub(crate) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 20);
/// Where the server of events is.
pub(crate) const EVENT_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);

/// See the module. Dropped in the order of its fields.
pub(crate) struct Arena {
    pub(crate) ca: TestCa,
    /// What is injected; the upstream answers nothing else with 200.
    pub(crate) credential: String,
    folder: TempDir,
    pub(crate) runtime: Runtime,
    stopped: Arc<AtomicBool>,
    _lock: Lock,
}

impl Arena {
    /// Waits for the machine to be free. The calling thread is in a namespace of its own from now on.
    pub(crate) fn new() -> Result<Self> {
        let lock = Lock::take()?;
        unshare(CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace: benches need root")?;
        ip("link set lo up")?;
        // Inherited by everybody: ten thousand connections are as many descriptors.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let stopped = Arc::new(AtomicBool::new(false));
        runtime.spawn(listen_for_a_stop(Arc::clone(&stopped)));
        let arena = Self {
            ca: TestCa::new("Postern bench authority")?,
            credential: random("bench-")?,
            folder: tempfile::Builder::new()
                .prefix("postern-bench-")
                .tempdir()?,
            runtime,
            stopped,
            _lock: lock,
        };
        fs::set_permissions(arena.folder.path(), Permissions::from_mode(0o755))?;
        for name in ["work", "secrets"] {
            fs::create_dir(arena.path(name))?;
        }
        fs::set_permissions(arena.path("work"), Permissions::from_mode(0o777))?;
        fs::set_permissions(arena.path("secrets"), Permissions::from_mode(0o700))?;
        fs::write(arena.path("ca.pem"), arena.ca.pem())?;
        fs::write(arena.path("roots.pem"), roots(&arena.ca))?;
        arena.write_secret(&arena.credential)?;
        Ok(arena)
    }

    /// A path in a folder that goes with the arena.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Fails once somebody wants it to end: what was made is taken away on the way out.
    pub(crate) fn go_on(&self) -> Result<()> {
        ensure!(!self.stopped.load(Ordering::Relaxed), "stopped");
        Ok(())
    }

    /// A client beside the sandboxes, to whom [`HOST`] and [`EVENTS`] are at these addresses.
    pub(crate) fn client(&self, name: &str, host: Ipv4Addr, events: Ipv4Addr) -> Result<Client> {
        let hosts = self.path(&format!("hosts-{name}"));
        fs::write(&hosts, format!("{host} {HOST}\n{events} {EVENTS}\n"))?;
        let mut command = with_hosts(&hosts);
        command
            .args(Client::program()?)
            .env("SSL_CERT_FILE", self.path("roots.pem"))
            .env("CURL_CA_BUNDLE", self.path("roots.pem"))
            .current_dir(self.path("work"));
        Client::start(command)
    }

    /// A client in a sandbox of its own, under `documents`.
    pub(crate) fn sandboxed(&self, name: &str, documents: &[String]) -> Result<Client> {
        self.write_policy(name, documents)?;
        // A folder of its own, so that the log is rotated as always.
        let audit = self.path(&format!("audit-{name}"));
        fs::create_dir_all(&audit)?;
        let exec = Exec::new(
            &self.path(&format!("policy-{name}")),
            audit.join("audit.jsonl"),
            &self.path("work"),
            Client::program()?,
        )
        // What a load does not get, its report says; the soak's refusals are meant.
        .log("error")
        .flag("--secrets", self.path("secrets"))
        .flag("--state-dir", self.path(&format!("state-{name}")));
        Client::start(exec.command()?)
    }

    /// Replaces the one file of that sandbox's policy folder.
    pub(crate) fn write_policy(&self, name: &str, documents: &[String]) -> Result<()> {
        let folder = self.path(&format!("policy-{name}"));
        fs::create_dir_all(&folder)?;
        replace(&folder.join("policy.yaml"), &policy::join(documents))
    }

    /// Replaces the credential in the secrets folder.
    pub(crate) fn write_secret(&self, value: &str) -> Result<()> {
        let folder = self.path("secrets").join("bench");
        fs::create_dir_all(&folder)?;
        replace(&folder.join("value"), value)
    }

    /// Deny-all, but for [`HOST`] and [`EVENTS`] with the credential injected. The gateway's document is the first.
    pub(crate) fn policy(&self, otlp: Option<&str>) -> Vec<String> {
        let gateway = Gateway {
            default: "deny-all",
            otlp,
            capture: 0,
        };
        let bearer = [("Authorization", "Bearer {{ bench.value }}")];
        let mut documents = vec![
            gateway.document(),
            policy::test_ca(self.ca.pem()),
            policy::proxy_rule("bench", HOST, &bearer),
            policy::proxy_rule("events", EVENTS, &bearer),
        ];
        policy::aliased(&mut documents, &UPSTREAM.to_string(), &[HOST]);
        policy::aliased(&mut documents, &EVENT_SERVER.to_string(), &[EVENTS]);
        documents
    }
}

/// Adds to `documents` that whatever is said to `host` on `port` passes unread.
pub(crate) fn opaque(documents: &mut Vec<String>, host: &str, port: u16) {
    if let Some(gateway) = documents.first_mut() {
        let listener = format!("  listeners:\n    - {{name: raw, protocol: TCP, port: {port}}}\n");
        *gateway = gateway.replacen("  listeners:\n", &listener, 1);
    }
    let networks = Destinations::Networks(&[host]);
    documents.push(policy::l4_route("opaque", &networks, &[port]));
}

/// So many connections of one sandbox, in the gateway's document, instead of the default.
pub(crate) fn limited(documents: &mut [String], connections: u64) {
    if let Some(gateway) = documents.first_mut() {
        let limits = format!("spec:\n  limits: {{maxConnectionsPerSandbox: {connections}}}\n");
        *gateway = gateway.replacen("spec:\n", &limits, 1);
    }
}

/// A command line to be completed, in a mount namespace where `hosts` is `/etc/hosts`.
pub(crate) fn with_hosts(hosts: &Path) -> Command {
    let words = e2e::process::with_hosts(hosts);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// As many as a sandbox trusts, since reading them takes its time: the machine's and `ca`.
fn roots(ca: &TestCa) -> String {
    // A machine without has its sandboxes trust the gateway alone, too.
    let system = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    format!("{system}\n{}", ca.pem())
}

/// One command of `ip` a line.
pub(crate) fn ip(commands: &str) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run ip (of iproute2)")?;
    // Dropped when it is written: that is its end.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    ensure!(child.wait()?.success(), "ip failed: {commands}");
    Ok(())
}

/// Renamed into place, as an editor would: no reader sees half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    Ok(fs::rename(&draft, path)?)
}

async fn listen_for_a_stop(stopped: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        eprintln!("cannot listen for signals: an interrupted bench leaves its folder behind");
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("stopping after this measurement");
        stopped.store(true, Ordering::Relaxed);
    }
}
