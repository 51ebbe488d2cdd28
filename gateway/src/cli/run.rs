//! `postern run`: the daemon.

use super::{Folders, load};
use crate::app::{App, Attached, Follower};
use crate::kernel::Pins;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::netns::NetNs;
use anyhow::{Context, Result};
use clap::Args;
use gateway_common::Listeners;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long open connections may take to finish after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Run the gateway in the foreground for sandboxes that exist already
#[derive(Args)]
#[command(after_help = "\
The first SIGTERM or SIGINT lets open requests finish, for 30 seconds at most; the second ends at
once. Attached sandboxes stay shut after the end (see `postern detach`), and are adopted by the
next `run` that attaches them.

Examples:
  postern run --policy /etc/postern/policy --attach /sys/fs/cgroup/agents/a1=anthropic")]
pub(super) struct Run {
    #[command(flatten)]
    folders: Folders,
    /// Attach a cgroup (its folder) to a gateway; may be given more than once
    #[arg(long, value_name = "CGROUP=GATEWAY", value_parser = parse_attach)]
    attach: Vec<(PathBuf, String)>,
}

impl Run {
    pub(super) fn run(self, debug_kernel: bool) -> Result<ExitCode> {
        let folders = self.folders.settle()?;
        load::raise_descriptor_limit()?;
        let loaded = load::policy(&folders)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut first = signal(SignalKind::terminate())?;
            let mut other = signal(SignalKind::interrupt())?;
            let pins = Pins::open()?;
            let app = App::start(loaded.policy, &folders.places(), Some(pins), debug_kernel)?;
            let app = Arc::new(app);
            if let Some(digest) = loaded.digest {
                let follower = Follower::new(Arc::clone(&app), folders.policy.clone(), digest);
                app.vital("policy", follower.run());
            }
            let mut attached = Vec::new();
            for (cgroup, gateway) in &self.attach {
                attached.push(
                    attach(&app, cgroup, gateway).with_context(|| {
                        format!("cannot attach {} to {gateway}", cgroup.display())
                    })?,
                );
            }
            app.look_after(app.watch()?);
            tracing::info!(sandboxes = attached.len(), "ready");
            println!("postern: ready, {} sandboxes attached", attached.len());
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
}

fn attach(app: &App, path: &Path, gateway: &str) -> Result<Arc<Attached>> {
    use std::os::fd::AsFd;
    let cgroup = Cgroup::open(path)?;
    let label = path.display().to_string();
    let attached = app.attach(cgroup.as_fd(), cgroup.id(), &label, gateway)?;
    app.listen(&attached, &NetNs::current()?, 0)?;
    for netns in other_namespaces(path)? {
        app.listen(&attached, &netns, Listeners::PRIVATE)?;
    }
    app.activate(&attached)?;
    Ok(attached)
}

/// Network namespaces, other than the host's, of the processes that are in the cgroup already.
fn other_namespaces(cgroup: &Path) -> Result<Vec<NetNs>> {
    let own = NetNs::current()?.cookie()?;
    let mut seen = vec![own];
    let mut found = Vec::new();
    for pid in std::fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
        let pid = nix::unistd::Pid::from_raw(pid.parse()?);
        // It may have ended by now.
        let Ok(netns) = NetNs::of_pid(pid) else {
            continue;
        };
        let cookie = netns.cookie()?;
        if !seen.contains(&cookie) {
            seen.push(cookie);
            found.push(netns);
        }
    }
    Ok(found)
}

fn parse_attach(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once('=') {
        Some((cgroup, gateway)) if !cgroup.is_empty() && !gateway.is_empty() => {
            Ok((cgroup.into(), gateway.to_owned()))
        }
        _ => Err("expected CGROUP=GATEWAY, such as /sys/fs/cgroup/agents/a1=anthropic".to_owned()),
    }
}
