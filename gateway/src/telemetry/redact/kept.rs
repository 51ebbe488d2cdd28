//! Which headers and values are to be kept out of telemetry, and which no longer. It refuses to know how
//! they are looked for.

use crate::secrets::SecretValue;
use http::HeaderName;
use std::time::{Duration, Instant};

/// How long a former value is looked for. A request that was sent with it may be answered until its time
/// is over (`requestTimeout`, 5 minutes unless the policy says more), what it was answered is
/// recorded after that, and clients repeat what they have read; an hour is well over it.
pub(super) const RETIRED_FOR: Duration = Duration::from_secs(60 * 60);
/// Former values at most: each is looked for in all that is recorded. One that changes every ten
/// seconds is then still known for 40 minutes.
pub(super) const MAX_RETIRED: usize = 256;

/// Current and former.
#[derive(Default)]
pub(super) struct Kept {
    headers: Vec<Entry<HeaderName>>,
    secrets: Vec<Entry<SecretValue>>,
}

struct Entry<T> {
    what: T,
    /// Since when it is a former one.
    retired: Option<Instant>,
}

impl Kept {
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|entry| &entry.what)
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretValue> {
        self.secrets.iter().map(|entry| &entry.what)
    }

    /// Says whether anything else is to be looked for than before.
    pub(super) fn update(
        &mut self,
        headers: impl IntoIterator<Item = HeaderName>,
        secrets: impl IntoIterator<Item = SecretValue>,
        now: Instant,
    ) -> bool {
        let headers = update(&mut self.headers, headers, PartialEq::eq, now);
        // What is kept for long is kept where it is safe.
        let secrets = secrets
            .into_iter()
            .map(|value| SecretValue::kept(value.expose()));
        update(&mut self.secrets, secrets, SecretValue::is_same, now) || headers
    }
}

fn update<T>(
    entries: &mut Vec<Entry<T>>,
    current: impl IntoIterator<Item = T>,
    is_same: impl Fn(&T, &T) -> bool,
    now: Instant,
) -> bool {
    for entry in entries.iter_mut() {
        entry.retired = entry.retired.or(Some(now));
    }
    let mut is_other = false;
    for what in current {
        match entries.iter_mut().find(|entry| is_same(&entry.what, &what)) {
            Some(known) => known.retired = None,
            None => {
                is_other = true;
                entries.push(Entry {
                    what,
                    retired: None,
                });
            }
        }
    }
    let before = entries.len();
    entries.retain(|entry| entry.retired.is_none_or(|since| now < since + RETIRED_FOR));
    // Those retired last come last; the sort is stable.
    entries.sort_by_key(|entry| entry.retired.map_or(now, |since| since));
    let retired = entries
        .iter()
        .filter(|entry| entry.retired.is_some())
        .count();
    let mut surplus = retired.saturating_sub(MAX_RETIRED);
    entries.retain(|entry| {
        let goes = surplus > 0 && entry.retired.is_some();
        surplus -= usize::from(goes);
        !goes
    });
    is_other || entries.len() != before
}
