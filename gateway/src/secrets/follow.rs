//! Keeps the secrets as the secrets folder is. It refuses to know what the values are used for.

use super::Secrets;
use crate::watch::{Ended, Watcher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// The folder is read again, whatever the watcher says, and followers may forget what is long gone.
const RECHECK: Duration = Duration::from_secs(10 * 60);

/// Follows the secrets folder until dropped. If following breaks down, no secret is given out any more:
/// one that was withdrawn would be used for ever. Must be called in a tokio runtime.
#[must_use = "following ends when this is dropped"]
pub fn follow(secrets: &Arc<Secrets>) -> AbortOnDropHandle<()> {
    let folder = secrets.folder().map(std::path::Path::to_owned);
    let watcher = folder.map(|folder| Watcher::new([folder]));
    let worker = AbortOnDropHandle::new(tokio::spawn(work(Arc::clone(secrets), watcher)));
    AbortOnDropHandle::new(tokio::spawn(guard(Arc::clone(secrets), worker)))
}

type Outcome = Result<std::convert::Infallible, Broken>;

/// Waits for an end that must not come.
async fn guard(secrets: Arc<Secrets>, worker: AbortOnDropHandle<Outcome>) {
    let why = match worker.await {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    secrets.close();
    tracing::error!(%why, "secrets can no longer be followed: none is given out any more; restart the gateway");
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Watcher(#[from] Ended),
    #[error("reading the secrets folder: {0}")]
    Reading(#[from] tokio::task::JoinError),
}

async fn work(secrets: Arc<Secrets>, mut watcher: Option<Watcher>) -> Outcome {
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = async {
            match &mut watcher {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        // The first tick is at once: something may have changed between the first reading and the watcher.
        let remind = tokio::select! {
            changed = changed => { changed?; false }
            _ = recheck.tick() => true,
        };
        let secrets = Arc::clone(&secrets);
        tokio::task::spawn_blocking(move || {
            secrets.reload();
            if remind {
                secrets.remind();
            }
        })
        .await?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::SecretRef;
    use crate::secrets::SecretValue;

    #[tokio::test]
    async fn secrets_that_nobody_follows_any_more_are_not_given_out() {
        let key = SecretRef {
            name: "s".into(),
            key: "k".into(),
        };
        let value = SecretValue::new(b"value".to_vec());
        let secrets = Arc::new(Secrets::from_values([(key.clone(), value)]));
        assert!(secrets.get(&key).is_some());
        let broken = tokio::spawn(async { panic!("as if reading had a bug") });
        guard(Arc::clone(&secrets), AbortOnDropHandle::new(broken)).await;
        assert!(secrets.get(&key).is_none());
    }
}
