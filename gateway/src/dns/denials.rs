//! The records of what a sandbox's resolver refuses: rationed, so that ten thousand questions are not
//! ten thousand lines, and counted, so that none is hidden. Knows no DNS messages.

use super::limits::Recent;
use crate::outcome::{DenyReason, Stage};
use crate::rate::{Bucket, Rate};
use crate::telemetry::{DenialRecord, Telemetry, Untold, Who};
use arc_swap::ArcSwap;
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

/// Who, why, and what about: denials alike in these are one.
type Likeness = (u32, DenyReason, String, String);

/// Records the denials of one sandbox.
pub(super) struct Denials {
    telemetry: ArcSwap<Telemetry>,
    ration: Mutex<(Bucket, Recent<Likeness>)>,
    untold: Untold,
}

impl Denials {
    pub(super) fn new(telemetry: Arc<Telemetry>, now: Instant) -> Self {
        let seen = Recent::new(REPEATED, MAX_DIFFERENT, now);
        Self {
            telemetry: ArcSwap::new(telemetry),
            ration: Mutex::new((Bucket::new(RECORDS, now), seen)),
            untold: Untold::default(),
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
            return self.untold.add(self.telemetry.load_full());
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
        self.untold.tell();
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
}
