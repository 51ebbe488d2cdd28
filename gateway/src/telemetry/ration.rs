//! The records of what a sandbox is refused: rationed, so that a flood of requests fills no disk, and counted, so that
//! none is hidden. Knows nothing of what was refused.

use super::Telemetry;
use crate::rate::{Bucket, Rate};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Records of refused connections and requests of one sandbox: a test suite that is refused a thousand requests is on
/// record whole, and a flood writes no more than its first ones and 20 lines a second.
const RECORDS: Rate = Rate {
    burst: 2000,
    every: Duration::from_millis(50),
};
/// Those that were not recorded are counted, and the count told after this time.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Which refusals of one sandbox are recorded each.
pub struct Ration {
    bucket: Mutex<Bucket>,
    untold: Untold,
}

impl Default for Ration {
    fn default() -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(RECORDS, Instant::now())),
            untold: Untold::default(),
        }
    }
}

impl Ration {
    /// May one more be recorded? If not it is counted, and `telemetry` told within a second.
    pub fn take(&self, telemetry: &Arc<Telemetry>) -> bool {
        let now = Instant::now();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(now);
        drop(bucket);
        if !taken {
            self.untold.add(Arc::clone(telemetry));
        }
        taken
    }
}

/// How many were not recorded. Tells when it goes, at the latest.
#[derive(Default)]
pub struct Untold(Arc<Inner>);

#[derive(Default)]
struct Inner(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    count: u64,
    telemetry: Option<Arc<Telemetry>>,
}

impl Untold {
    /// One more. Outside a tokio runtime it is told at once.
    pub fn add(&self, telemetry: Arc<Telemetry>) {
        let mut waiting = self.0.waiting();
        waiting.count += 1;
        waiting.telemetry = Some(telemetry);
        if waiting.count > 1 {
            return;
        }
        drop(waiting);
        let Ok(runtime) = Handle::try_current() else {
            return self.tell();
        };
        let inner = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            tokio::time::sleep(TOLD_AFTER).await;
            if let Some(inner) = inner.upgrade() {
                inner.tell();
            }
        });
    }

    /// Tells the count now, without waiting for more.
    pub fn tell(&self) {
        self.0.tell();
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let Waiting { count, telemetry } = std::mem::take(&mut *self.waiting());
        if let Some(telemetry) = telemetry {
            telemetry.not_recorded(count);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::telemetry::{AuditLog, redact::Redactor};

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_recorded_up_to_its_ration_and_the_rest_is_counted() {
        let log = Arc::new(AuditLog::none());
        let mut lines = log.subscribe();
        let telemetry = Telemetry::new(log, None, Arc::new(Redactor::new([], [])), Arc::default());
        let telemetry = Arc::new(telemetry);
        let ration = Ration::default();
        let recorded = (0..10_000).filter(|_| ration.take(&telemetry)).count();
        let most = usize::try_from(RECORDS.burst).unwrap();
        // The clock of the machine goes on a little.
        assert!((most..most + 200).contains(&recorded), "{recorded}");
        assert!(lines.try_recv().is_err(), "told too early");
        tokio::time::sleep(TOLD_AFTER * 2).await;
        let told = |line: Arc<str>| -> u64 {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["event"], "denials_not_recorded");
            line["count"].as_u64().unwrap()
        };
        assert_eq!(told(lines.try_recv().unwrap()), 10_000 - recorded as u64);
        // What is left when the sandbox goes is told then.
        let left = (0..1000).filter(|_| !ration.take(&telemetry)).count();
        assert!(left > 0);
        drop(ration);
        assert_eq!(told(lines.try_recv().unwrap()), left as u64);
    }
}
