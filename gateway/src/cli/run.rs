//! `postern run`: the daemon.

use super::daemon::AdminSocket;
use super::output::put;
use super::{Folders, load};
use crate::admin::Server;
use crate::app::{App, Follower, Registry};
use crate::daemon::{Daemon, Origin, Settings};
use crate::kernel::{self, Pins};
use crate::privileges::{Confinement, Files, Layer, confine};
use crate::sandbox::locate::{Hierarchy, Target};
use crate::sandbox::namespaces::Finder;
use crate::sys;
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long open connections may take to finish after the first signal.
const DRAIN: Duration = Duration::from_secs(30);
/// What is attached, written down for the next daemon. Below /run: a reboot detaches everything.
pub(super) const RUN: &str = "/run/postern";

/// Run the gateway in the foreground for sandboxes that exist already
#[derive(Args)]
#[command(after_help = "\
Sandboxes are attached by --attach, by SandboxBinding documents of the policy as their cgroups appear, and \
by `postern attach`. They stay shut when the daemon ends or dies, and the next `run` serves them again; \
only `postern detach` sets them free.

The first SIGTERM or SIGINT lets open requests finish, for 30 seconds at most; the second ends at \
once. Changes of the policy folder are put in force as they are made.

Exit status: 0 ended by a signal; 2 wrong usage; 125 it could not start (a policy with errors included), or failed.

Examples:
  postern run --policy /etc/postern/policy \\
    --attach /sys/fs/cgroup/agents/a1=anthropic
  postern status
  postern tail --denied")]
pub(super) struct Run {
    #[command(flatten)]
    folders: Folders,
    /// Attach a cgroup (its folder) to a gateway; may be given more than once
    #[arg(long, value_name = "CGROUP=GATEWAY", value_parser = parse_attach)]
    attach: Vec<(PathBuf, String)>,
    #[command(flatten)]
    admin: AdminSocket,
}

impl Run {
    pub(super) fn run(self, debug_kernel: bool) -> Result<ExitCode> {
        load::require_root("the daemon")?;
        let folders = self.folders.settle()?;
        load::raise_descriptor_limit()?;
        let loaded = load::policy(&folders)?;
        let pins = Pins::open()?;
        let registry = Registry::open(&Path::new(RUN).join("attached"))
            .with_context(|| format!("cannot make {RUN}/attached"))?;
        let hierarchy = Hierarchy::find()?;
        let finder = Finder::spawn().context("cannot start the finder of namespaces")?;
        let layers = self.confine(&folders)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut first = signal(SignalKind::terminate())?;
            let mut other = signal(SignalKind::interrupt())?;
            let admin = Server::bind(&self.admin.path)?;
            let app = App::start(loaded.policy, &folders.places(), Some(pins), debug_kernel)?;
            let app = Arc::new(app);
            let settings = Settings {
                hierarchy,
                registry,
                finder,
                policy: folders.policy.clone(),
                layers,
            };
            let daemon = Daemon::new(Arc::clone(&app), settings);
            let adopted = daemon.adopt().await.context("cannot adopt sandboxes")?;
            for (cgroup, gateway) in &self.attach {
                attach(&daemon, cgroup, gateway)
                    .await
                    .with_context(|| format!("cannot attach {} to {gateway}", cgroup.display()))?;
            }
            let strays = app.watch()?;
            app.vital("strays", Arc::clone(&daemon).strays(strays));
            app.vital("namespaces", Arc::clone(&daemon).namespaces());
            app.vital("bindings", daemon.bindings()?);
            app.vital("sweep", Arc::clone(&daemon).sweep());
            if let Some(digest) = loaded.digest {
                let follower = Follower::new(Arc::clone(&app), folders.policy.clone(), digest);
                app.vital("policy", follower.run());
            }
            let stop = app.stopped();
            let serving = Arc::clone(&daemon);
            app.vital("admin", async move {
                if let Err(error) = admin.serve(serving, stop).await {
                    tracing::error!(%error, "admin socket");
                }
            });
            // Types of the kernel and programs for it take twenty times what serving does.
            sys::give_back();
            let attached = app.sandboxes().len();
            tracing::info!(sandboxes = attached, adopted, "ready");
            // Whoever waits for it may have gone; the sandboxes stay.
            if let Err(error) = put(&format!("postern: ready, {attached} sandboxes attached")) {
                tracing::warn!(%error, "cannot write to standard output");
            }
            tokio::select! {
                _ = first.recv() => {}
                _ = other.recv() => {}
            }
            tracing::info!("draining; a second signal ends at once");
            tokio::select! {
                () = app.drain(DRAIN) => {}
                _ = first.recv() => tracing::warn!("ended by a second signal"),
                _ = other.recv() => tracing::warn!("ended by a second signal"),
            }
            // Exits with the links pinned: what was attached stays shut.
            Ok::<_, anyhow::Error>(())
        })?;
        runtime.shutdown_timeout(Duration::from_millis(100));
        Ok(ExitCode::SUCCESS)
    }

    /// Gives up what the daemon does not need, for good, before its first thread.
    fn confine(&self, folders: &load::Settled) -> Result<Vec<Layer>> {
        // Not to be had afterwards; the answer is kept.
        if let Err(error) = kernel::active_modules() {
            tracing::debug!(%error, "security modules");
        }
        let files = Files::system()
            .reading(&folders.policy)
            .reading(&folders.secrets)
            .writing(&folders.state)
            .writing(&folders.audit)
            .writing(Path::new(RUN))
            .writing(&self.admin.path)
            .writing(Path::new("/sys/fs/bpf"));
        let report = confine(&Confinement::gateway(files)).context("cannot confine the daemon")?;
        for layer in report.layers.iter().filter(|layer| !layer.active) {
            tracing::warn!(layer = layer.name, "not in force: {}", layer.detail);
        }
        Ok(report.layers)
    }
}

async fn attach(daemon: &Daemon, cgroup: &Path, gateway: &str) -> Result<()> {
    let located = Hierarchy::find()?.locate(&Target::Cgroup(cgroup.to_owned()))?;
    let label = located.directory.display().to_string();
    let origin = Origin {
        text: "--attach".to_owned(),
        binding: None,
    };
    daemon.attach(located, gateway, &label, origin).await?;
    Ok(())
}

fn parse_attach(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once('=') {
        Some((cgroup, gateway)) if !cgroup.is_empty() && !gateway.is_empty() => {
            Ok((cgroup.into(), gateway.to_owned()))
        }
        _ => Err("expected CGROUP=GATEWAY, such as /sys/fs/cgroup/agents/a1=anthropic".to_owned()),
    }
}
