//! `postern exec`: a sandbox, the gateway and a command, from nothing to nothing.

use super::output::complain;
use super::{Folders, hidden, load};
use crate::app::{App, Attached, Follower, Stray};
use crate::policy::Gateway;
use crate::sandbox::{
    Cgroup, Identity, Init, Janitor, Keep, NetNs, Network, Plan, TrustPlan, environment, identity,
    spawn::SpawnError, trust,
};
use crate::sys;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use gateway_common::Listeners;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// What is left open when the command has ended belongs to nobody: no long wait.
const DRAIN: Duration = Duration::from_secs(2);
/// Where the sandbox finds certificates. Its /run is its own.
const TRUST: &str = "/run/postern/trust";
/// Any server would do: the kernel sends every question to the gateway. This one exists nowhere
/// (RFC 2544's block), so that nothing can be mistaken for it.
const RESOLV_CONF: &str = "nameserver 198.18.0.53\noptions timeout:5 attempts:2\n";
/// What a client that insists on having a key is given.
const PLACEHOLDER: &str = "postern-injects-the-real-one";

/// Run a command in a sandbox of its own whose only way out is the gateway
#[derive(Args)]
#[command(after_help = "\
In the sandbox the file system is read-only but for the current folder; /tmp and the home folder can \
be written to, and forget it at the end. The exit status is the command's own, 128 and the number of \
the signal that killed it, 127 if it was not found, 126 if it could not be run, or 125 if there was \
no sandbox.

Examples:
  sudo postern exec --policy policies/anthropic -- my-agent
  sudo postern exec --policy team/ --gateway research -- python3 agent.py
  sudo postern exec --policy policies/anthropic --env TASK=7 -- my-agent --fast")]
pub(super) struct Exec {
    #[command(flatten)]
    folders: Folders,
    /// EgressGateway to use; may be left out if the policy has one only
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    #[command(flatten)]
    cage: Cage,
}

/// The sandbox and the command in it: the same for every subcommand that makes one.
#[derive(Args)]
pub(super) struct Cage {
    /// A network namespace of its own, or the host's
    #[arg(long, value_enum, default_value = "private")]
    netns: Netns,
    /// Set a variable in the sandbox; may be given more than once
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// User to run as [default: the one who called sudo; root becomes root of a user namespace]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Let root in the sandbox keep a capability that it loses otherwise: NET_RAW, NET_ADMIN, BPF, SYS_ADMIN or
    /// SYS_PTRACE, over its own user namespace only; may be given more than once
    #[arg(long, value_name = "CAP")]
    keep_cap: Vec<Keep>,
    /// Another folder that may be written to for good; may be given more than once
    #[arg(long, value_name = "DIR")]
    writable: Vec<PathBuf>,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Netns {
    /// With nothing but a loopback: what is not redirected goes nowhere
    Private,
    /// The host's
    Host,
}

impl Exec {
    pub(super) fn run(self, debug_kernel: bool) -> Result<ExitCode> {
        require_root()?;
        let folders = self.folders.settle()?;
        let loaded = load::policy(&folders)?;
        let names = loaded.policy.gateways.keys();
        let gateway = choose(self.gateway.as_deref(), names)?;
        self.cage.run(&folders, loaded, &gateway, debug_kernel)
    }
}

impl Cage {
    /// Runs the command under a policy, and cleans up. What the command ends with is the outcome.
    pub(super) fn run(
        &self,
        folders: &load::Settled,
        loaded: load::Loaded,
        gateway: &str,
        debug_kernel: bool,
    ) -> Result<ExitCode> {
        let identity = identity::resolve(self.user.as_deref(), &self.keep_cap)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        // On this thread, which lives as long as the sandbox shall.
        let status = runtime.block_on(async {
            let mut places = folders.places();
            if self.hideable(folders, &identity).is_none() {
                places.rotates = false;
            }
            let app = App::start(loaded.policy, &places, None, debug_kernel)?;
            let app = Arc::new(app);
            let strays = app.watch()?;
            // Whatever the log level: the command's first request fails of it.
            for problem in app.problems(gateway)? {
                complain(&format!("postern: {problem}"));
            }
            if let Some(digest) = loaded.digest {
                let follower = Follower::new(Arc::clone(&app), folders.policy.clone(), digest);
                app.vital("policy", follower.run());
            }
            let janitor = Janitor::spawn().context("cannot start the janitor")?;
            let outcome = self
                .sandbox(&app, strays, &janitor, folders, identity, gateway)
                .await;
            let cleaned = tokio::task::spawn_blocking(move || janitor.finish()).await?;
            app.drain(DRAIN).await;
            let status = outcome?;
            cleaned.context("the sandbox was not wholly cleaned up")?;
            Ok::<_, anyhow::Error>(status)
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
        match status {
            Ok(status) => Ok(ExitCode::from(status)),
            Err(error) => match error.downcast_ref::<SpawnError>() {
                Some(refused) => {
                    eprintln!("postern: {refused}");
                    Ok(ExitCode::from(refused.exit_status()))
                }
                None => Err(error),
            },
        }
    }

    async fn sandbox(
        &self,
        app: &Arc<App>,
        strays: Receiver<Stray>,
        janitor: &Janitor,
        folders: &load::Settled,
        identity: Identity,
        gateway: &str,
    ) -> Result<u8> {
        let runtime = Runtime::make(janitor)?;
        let cgroup = Cgroup::create_child()?;
        janitor.clean_cgroup(cgroup.path())?;
        app.look_after(strays, cgroup.path());
        let label = cgroup
            .path()
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let attached = app.attach(cgroup.as_fd(), cgroup.id(), &label, gateway)?;
        // From here on the sandbox is shut, and stays so if this process is killed.
        attached
            .with_attachment(|attachment| {
                let links: Vec<BorrowedFd<'_>> = attachment.links().collect();
                janitor.hold(&links)
            })
            .transpose()?;
        let network = match self.netns {
            Netns::Private => Network::Private,
            Netns::Host => Network::Shared,
        };
        let init = Init::spawn(&cgroup, network)?;
        load::raise_descriptor_limit()?;
        self.open_network(app, &attached, &init.netns()?)?;
        let plan = self.plan(app, gateway, folders, &runtime, identity)?;
        let running = init.start(plan).await?;
        for warning in &running.warnings {
            eprintln!("postern: {warning}");
        }
        // Types of the kernel and programs for it take twenty times what serving does.
        sys::give_back();
        let outcome = running.supervise().await;
        app.deactivate(&attached);
        Ok(outcome?.exit_status())
    }

    fn open_network(&self, app: &App, attached: &Attached, netns: &NetNs) -> Result<()> {
        let private = self.netns == Netns::Private;
        if private {
            netns
                .configure_private()
                .context("cannot set up the sandbox's network namespace")?;
        }
        let flags = if private {
            Listeners::PRIVATE | Listeners::SEALED
        } else {
            0
        };
        app.listen(attached, netns, flags)?;
        app.activate(attached)?;
        Ok(())
    }

    fn plan(
        &self,
        app: &App,
        gateway: &str,
        folders: &load::Settled,
        runtime: &Runtime,
        identity: Identity,
    ) -> Result<Plan> {
        let built = trust::build(&runtime.trust, &app.authority_pem(gateway)?)
            .context("cannot build the trust bundle")?;
        if built.system_bundle.is_none() {
            eprintln!("postern: no system CA bundle found; the sandbox trusts the gateway alone");
        }
        let resolv_conf = runtime.folder.join("resolv.conf");
        fs::write(&resolv_conf, RESOLV_CONF)?;
        // Whatever the caller's umask: the sandbox's user reads it.
        fs::set_permissions(&resolv_conf, fs::Permissions::from_mode(0o644))?;
        let environment = self.environment(app, gateway, &identity)?;
        let mut masks = vec![folders.policy.clone(), folders.state.clone()];
        masks.push(folders.secrets.clone());
        // Wherever links lead.
        masks.extend(hidden::files(&folders.audit));
        match self.hideable(folders, &identity) {
            Some(folder) => masks.push(folder),
            None => tracing::warn!(
                audit = %folders.audit.display(),
                "the sandbox needs the audit log's folder, so the log is not rotated; \
                 put it in a folder of its own"
            ),
        }
        masks.push(runtime.folder.clone());
        masks.retain(|path| path.exists());
        let writable = self
            .writable
            .iter()
            .map(|path| {
                path.canonicalize()
                    .with_context(|| format!("--writable {}", path.display()))
            })
            .collect::<Result<_>>()?;
        Ok(Plan {
            command: self.command.clone(),
            environment,
            cwd: std::env::current_dir().context("the current folder is gone")?,
            writable,
            masks,
            identity,
            trust: Some(TrustPlan {
                source: runtime.trust.clone(),
                target: TRUST.into(),
            }),
            resolv_conf: Some(resolv_conf),
        })
    }

    /// The audit log's folder, if the sandbox can do without it.
    fn hideable(&self, folders: &load::Settled, identity: &Identity) -> Option<PathBuf> {
        let cwd = std::env::current_dir().ok();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let programs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let used = cwd.iter().chain(&self.writable).chain(&programs);
        let home = identity.account().home.as_path();
        let used = used.map(PathBuf::as_path).chain([home]);
        hidden::folder(&folders.audit, used)
    }

    fn environment(
        &self,
        app: &App,
        gateway: &str,
        identity: &Identity,
    ) -> Result<Vec<(OsString, OsString)>> {
        let java = std::env::var("JAVA_TOOL_OPTIONS").ok();
        let mut extras: Vec<(OsString, OsString)> =
            trust::environment(Path::new(TRUST), java.as_deref())
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
        for name in placeholders(&*app.policy(gateway)?) {
            extras.push((name.into(), PLACEHOLDER.into()));
        }
        extras.push(environment::runtime_directory(identity.uid()));
        extras.extend(
            self.env
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        let built = environment::build(
            std::env::vars_os(),
            &app.secret_values(),
            identity.account(),
            extras,
        );
        for name in &built.secret_bearing {
            eprintln!(
                "postern: {} holds a secret of the policy and was left out of the sandbox",
                name.to_string_lossy()
            );
        }
        Ok(built.variables)
    }
}

/// For `exec` and `learn`.
pub(super) fn require_root() -> Result<()> {
    load::require_root("a sandbox (whose command runs as you all the same)")
}

/// The gateway asked for, or else the only one.
pub(super) fn choose<'a>(
    wanted: Option<&str>,
    mut known: impl Iterator<Item = &'a String>,
) -> Result<String> {
    if let Some(name) = wanted {
        let known: Vec<&String> = known.collect();
        if !known.iter().any(|known| *known == name) {
            bail!("{}", load::no_gateway(name, known.into_iter()));
        }
        return Ok(name.to_owned());
    }
    let first = known.next().cloned().unwrap_or_default();
    let rest: Vec<&String> = known.collect();
    if rest.is_empty() {
        return Ok(first);
    }
    let names: Vec<&str> = std::iter::once(&first)
        .chain(rest)
        .map(String::as_str)
        .collect();
    bail!(
        "the policy has several gateways; choose one with --gateway: {}",
        names.join(", ")
    );
}

/// Variables by which SDKs insist on a key: they get a placeholder where the gateway injects one.
fn placeholders(gateway: &Gateway) -> Vec<&'static str> {
    let mut names: Vec<&str> = gateway
        .injections()
        .filter_map(|injection| injection.provider?.api_key_env())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The gateway's own files for this sandbox.
struct Runtime {
    folder: PathBuf,
    trust: PathBuf,
}

impl Runtime {
    fn make(janitor: &Janitor) -> Result<Self> {
        let parent = Path::new("/run/postern");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .context("cannot make /run/postern")?;
        let folder = parent.join(format!("exec-{}", std::process::id()));
        janitor.clean_directory(&folder)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        in_memory(&folder);
        let trust = folder.join("trust");
        Ok(Self { folder, trust })
    }
}

/// Gives the folder memory of its own where /run is on a disk: some three hundred links to certificates cost
/// milliseconds there, each of them. The janitor takes it away again. Without it everything takes longer, no more.
fn in_memory(folder: &Path) {
    if statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        return;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Bundles and a Java store have less than a megabyte together.
    let options = Some("mode=0700,size=16m");
    if let Err(error) = mount(Some("postern"), folder, Some("tmpfs"), flags, options) {
        tracing::debug!(%error, folder = %folder.display(), "not in memory");
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
