//! Network namespaces that appear after the attach: the first connection from one is refused by the
//! kernel, and told here; it gets listeners, and the next connection finds them.

use super::{App, Stray};
use crate::sandbox::netns::NetNs;
use gateway_common::Listeners;
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

impl App {
    /// Looks after strays until the app is gone.
    pub fn look_after(self: &Arc<Self>, mut strays: mpsc::Receiver<Stray>) {
        let app = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(stray) = strays.recv().await {
                let Some(app) = app.upgrade() else { return };
                let outcome = tokio::task::spawn_blocking(move || app.admit(stray)).await;
                match outcome {
                    Ok(Ok(())) => {}
                    // Most often the process has ended by now.
                    Ok(Err(error)) => tracing::info!(%error, pid = stray.pid, "no listener"),
                    Err(error) => tracing::error!(%error, "no listener"),
                }
            }
        });
    }

    fn admit(&self, stray: Stray) -> anyhow::Result<()> {
        let sandboxes = self.sandboxes();
        let Some(attached) = sandboxes.iter().find(|one| one.id() == stray.sandbox) else {
            return Ok(());
        };
        let pid = i32::try_from(stray.pid).map_err(io::Error::other)?;
        let netns = NetNs::of_pid(Pid::from_raw(pid))?;
        if netns.cookie()? != stray.netns {
            // Another process by now, or one that moved on: its next connection tells.
            return Ok(());
        }
        let host = NetNs::current()?.cookie()?;
        let flags = if stray.netns == host {
            0
        } else {
            Listeners::PRIVATE
        };
        self.listen(attached, &netns, flags)?;
        tracing::info!(netns = stray.netns, "listeners in a new network namespace");
        Ok(())
    }
}
