//! The records of what a sandbox's resolver refuses: rationed, so that ten thousand questions are not
//! ten thousand lines, and counted, so that none is hidden. Knows no DNS messages.

use super::limits::{Bucket, Rate, Recent};
use crate::outcome::{DenyReason, Stage};
use crate::telemetry::{DenialRecord, Telemetry, Who};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records of one sandbox: enough to read what happened, too few to fill a disk.
const RECORDS: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(50),
};
/// The same denial (a browser asks for HTTPS records with every name) is told once in this time.
const REPEATED: Duration = Duration::from_secs(60);
/// Different denials remembered, twice over; at most [`RECORDS`] makes of them in a minute.
const MAX_DIFFERENT: usize = 2048;
/// Those that were not recorded are counted, and the count told after this time.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Who, why, and what about: denials alike in these are one.
type Likeness = (u32, DenyReason, String, String);

/// Records the denials of one sandbox.
pub(super) struct Denials {
    telemetry: ArcSwap<Telemetry>,
    ration: Mutex<(Bucket, Recent<Likeness>)>,
    untold: Arc<AtomicU64>,
}

impl Denials {
    pub(super) fn new(telemetry: Arc<Telemetry>, now: Instant) -> Self {
        let seen = Recent::new(REPEATED, MAX_DIFFERENT, now);
        Self {
            telemetry: ArcSwap::new(telemetry),
            ration: Mutex::new((Bucket::new(RECORDS, now), seen)),
            untold: Arc::default(),
        }
    }

    /// Records elsewhere from now on.
    pub(super) fn replace(&self, telemetry: Arc<Telemetry>) {
        self.telemetry.store(telemetry);
    }

    /// Can denials be recorded at all? Where they cannot, nothing may be let through either.
    pub(super) fn is_recording(&self) -> bool {
        self.telemetry.load().is_recording()
    }

    /// Records that `host` was refused, if there is room for it; counts it otherwise. Must be called
    /// in a tokio runtime.
    pub(super) fn record(&self, who: &Who, reason: DenyReason, host: String, detail: String) {
        if !self.has_room(who, reason, &host, &detail) {
            return self.count();
        }
        self.telemetry.load().denied(&DenialRecord {
            who: who.clone(),
            reason,
            stage: Stage::Dns,
            host: Some(host),
            detail: Some(detail),
        });
    }

    /// Tells the count of what was not recorded now, without waiting for more.
    pub(super) fn tell(&self) {
        tell(&self.untold, &self.telemetry.load());
    }

    fn has_room(&self, who: &Who, reason: DenyReason, host: &str, detail: &str) -> bool {
        let now = Instant::now();
        let likeness = (who.tgid, reason, host.to_owned(), detail.to_owned());
        let mut ration = self.ration.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, seen) = &mut *ration;
        if seen.has(&likeness, now) || !bucket.take(now) {
            return false;
        }
        seen.add(likeness);
        true
    }

    fn count(&self) {
        if self.untold.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let (untold, telemetry) = (Arc::clone(&self.untold), self.telemetry.load_full());
        tokio::spawn(async move {
            tokio::time::sleep(TOLD_AFTER).await;
            tell(&untold, &telemetry);
        });
    }
}

impl Drop for Denials {
    fn drop(&mut self) {
        self.tell();
    }
}

fn tell(untold: &AtomicU64, telemetry: &Telemetry) {
    let count = untold.swap(0, Ordering::Relaxed);
    if count > 0 {
        telemetry.not_recorded(count);
    }
}
