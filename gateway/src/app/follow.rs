//! Live reload: a change of the policy folder is compiled as a whole and put in force, or said to be
//! wrong while the last good one stays.

use super::App;
use crate::policy::Severity;
use crate::watch::Watcher;
use crate::{store, sys};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// How the last attempts to change the policy went.
#[derive(Clone, Debug, Default)]
pub struct Reloads {
    /// Changes that were put in force.
    pub done: u64,
    /// Changes that were not.
    pub failed: u64,
    /// Why the last change was not; `None` once one was.
    pub failure: Option<Failure>,
}

/// A change that was not put in force.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// What was wrong, one line a problem.
    pub message: String,
}

impl App {
    /// Records that a change of the policy was not put in force.
    fn not_reloaded(&self, message: &str) {
        let state = self.state();
        for running in state.gateways.values() {
            running.telemetry.reload_failed(state.generation, message);
        }
    }
}

/// Follows the policy in one folder.
pub struct Follower {
    app: Arc<App>,
    policy: PathBuf,
    /// The texts that were last decided on: touching a file is no change.
    known: Option<u64>,
}

impl Follower {
    /// For the policy that `app` was started with, by the digest of its texts.
    pub fn new(app: Arc<App>, policy: PathBuf, digest: u64) -> Self {
        Self {
            app,
            policy,
            known: Some(digest),
        }
    }

    /// Reloads after each burst of changes, until nothing can be noticed any more.
    pub async fn run(mut self) {
        // Of the secrets too: a policy that was not taken for want of one may be by now.
        let secrets = self.app.secrets.folder().map(std::path::Path::to_owned);
        let mut watcher = Watcher::new([self.policy.clone()].into_iter().chain(secrets));
        loop {
            // Once at the start as well: it may have changed between reading and watching.
            self = match tokio::task::spawn_blocking(move || self.reload()).await {
                Ok(this) => this,
                Err(error) => {
                    tracing::error!(%error, "policy reload");
                    return;
                }
            };
            if let Err(error) = watcher.changed().await {
                tracing::error!(%error, "policy changes are no longer noticed");
                return;
            }
        }
    }

    fn reload(mut self) -> Self {
        let outcome = self.attempt();
        let mut reloads = self.app.reloads();
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                reloads.done += 1;
                reloads.failure = None;
            }
            Err(message) => {
                let generation = self.app.generation();
                tracing::error!(
                    generation,
                    "the policy in {} was not taken, the last good one stays: {message}",
                    self.policy.display()
                );
                self.app.not_reloaded(&message);
                reloads.failed += 1;
                reloads.failure = Some(Failure {
                    at: SystemTime::now(),
                    message,
                });
            }
        }
        drop(reloads);
        // Policies are large while they are read.
        sys::give_back();
        self
    }

    /// Says whether there was a change.
    fn attempt(&mut self) -> Result<bool, String> {
        let loaded = store::load(&self.policy).map_err(|error| error.to_string())?;
        self.app.secrets.reload();
        if self.known == Some(loaded.digest) && !self.app.is_outdated() {
            return Ok(false);
        }
        let problems: Vec<String> = loaded
            .compiled
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity() == Severity::Error)
            .map(|diagnostic| diagnostic.to_string())
            .collect();
        let Some(policy) = loaded.compiled.policy else {
            self.known = Some(loaded.digest);
            return Err(problems.join("; "));
        };
        self.known = None;
        let reloaded = self.app.reload(policy).map_err(|error| error.to_string())?;
        self.known = Some(loaded.digest);
        tracing::info!(
            generation = reloaded.generation,
            ended = reloaded.revoked,
            "policy reloaded"
        );
        Ok(true)
    }
}
