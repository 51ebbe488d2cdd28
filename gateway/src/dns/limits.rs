//! How much one sandbox may ask. Each limit is there because a question that policy allows still
//! carries its name out, to whoever serves the zone. Knows nothing of DNS messages or records of denials.

use crate::outcome::DenyReason;
use crate::policy::{Host, Naming};
use crate::rate::{Bucket, Rate};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Questions of any kind. A known name costs nothing outside, and a test suite that opens a thousand connections
/// asks two questions for each; this keeps a flood from the processor, no more.
const QUESTIONS: Rate = Rate {
    burst: 5000,
    every: Duration::from_millis(1),
};
/// Names under one wildcard that were not asked before: more than anybody's buckets, regions or
/// tenants in an hour, and with [`MAX_NAME`] less than 500 bytes a second for a tunnel.
pub(super) const NEW_NAMES: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(300),
};
/// The same where policy allows any name at all: a browser's pages, for a minute of hard reading.
const NEW_NAMES_ANYWHERE: Rate = Rate {
    burst: 2000,
    every: Duration::from_millis(30),
};
/// Bytes of a name that policy does not write out. The long ones of cloud services (load balancers,
/// endpoints) have about 100; a tunnel wants all 253.
pub(super) const MAX_NAME: usize = 128;
/// A name asked again within this time (or twice it) is not new.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Names remembered, twice over: what [`NEW_NAMES_ANYWHERE`] lets through in two minutes.
const MAX_REMEMBERED: usize = 4096;

/// What has been seen lately, in two generations of bounded size: nothing is swept or searched.
pub(super) struct Recent<T> {
    young: HashSet<T>,
    old: HashSet<T>,
    turned: Instant,
    life: Duration,
    most: usize,
}

/// The limits of one sandbox.
pub(super) struct Limits {
    state: Mutex<State>,
}

struct State {
    questions: Bucket,
    /// By the name under the wildcard; as many as policy has wildcards.
    new_names: HashMap<Option<Host>, Bucket>,
    known: Recent<Host>,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                questions: Bucket::new(QUESTIONS, now),
                new_names: HashMap::new(),
                known: Recent::new(REMEMBERED, MAX_REMEMBERED, now),
            }),
        }
    }

    /// May there be one more question?
    pub(super) fn question(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.questions.take(now)
    }

    /// May this name, so allowed, be asked upstream?
    pub(super) fn name(&self, name: &Host, by: &Naming, now: Instant) -> Result<(), DenyReason> {
        let (under, rate) = match by {
            Naming::Written => return Ok(()),
            Naming::Under(host) => (Some(host.clone()), NEW_NAMES),
            Naming::Any => (None, NEW_NAMES_ANYWHERE),
        };
        if name.as_str().len() > MAX_NAME {
            return Err(DenyReason::DnsNameTooLong);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.known.has(name, now) {
            return Ok(());
        }
        let bucket = state.new_names.entry(under);
        if !bucket.or_insert_with(|| Bucket::new(rate, now)).take(now) {
            return Err(DenyReason::DnsRateLimited);
        }
        state.known.add(name.clone());
        Ok(())
    }
}

impl<T: Eq + Hash + Clone> Recent<T> {
    pub(super) fn new(life: Duration, most: usize, now: Instant) -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
            turned: now,
            life,
            most,
        }
    }

    /// Was it seen? If so, it counts as seen now.
    pub(super) fn has(&mut self, item: &T, now: Instant) -> bool {
        if now.saturating_duration_since(self.turned) >= self.life {
            self.turn();
            self.turned = now;
        }
        if self.young.contains(item) {
            return true;
        }
        let seen = self.old.contains(item);
        if seen {
            self.add(item.clone());
        }
        seen
    }

    pub(super) fn add(&mut self, item: T) {
        if self.young.len() >= self.most {
            self.turn();
        }
        self.young.insert(item);
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    #[test]
    fn ten_thousand_names_under_a_wildcard_are_stopped_and_known_ones_go_on() {
        let now = Instant::now();
        let limits = Limits::new(now);
        let under = Naming::Under(host("wild.test"));
        let ask = |name: &str, by: &Naming| limits.name(&host(name), by, now);
        let passed = (0..10_000)
            .filter(|n| ask(&format!("n{n}.wild.test"), &under).is_ok())
            .count();
        assert_eq!(passed, usize::try_from(NEW_NAMES.burst).unwrap());
        assert_eq!(ask("n7.wild.test", &under), Ok(()));
        assert_eq!(
            ask("other.wild.test", &under),
            Err(DenyReason::DnsRateLimited)
        );
        // Neither another wildcard nor a name that is written out pays for it.
        let other = Naming::Under(host("calm.test"));
        assert_eq!(ask("a.calm.test", &other), Ok(()));
        assert_eq!(ask("exact.wild.test", &Naming::Written), Ok(()));
        let later = now + NEW_NAMES.every;
        assert_eq!(limits.name(&host("other.wild.test"), &under, later), Ok(()));
    }

    #[test]
    fn a_long_name_passes_only_where_it_is_written_out() {
        let now = Instant::now();
        let limits = Limits::new(now);
        let label = "a".repeat(59);
        // 59 + 1 + 58 + ".wild.test" is the limit itself.
        let longest = host(&format!("{label}.{}.wild.test", &label[1..]));
        let longer = host(&format!("{label}.{label}.wild.test"));
        assert_eq!(longest.as_str().len(), MAX_NAME);
        let under = Naming::Under(host("wild.test"));
        assert_eq!(limits.name(&longest, &under, now), Ok(()));
        for by in [under, Naming::Any] {
            let told = limits.name(&longer, &by, now);
            assert_eq!(told, Err(DenyReason::DnsNameTooLong));
        }
        assert_eq!(limits.name(&longer, &Naming::Written, now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_asked_again_stays() {
        let begun = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(60), 10, begun);
        for n in 0..1000 {
            assert!(
                n == 0 || recent.has(&0, begun),
                "forgot what is in use at {n}"
            );
            recent.add(n);
            assert!(recent.young.len() <= 10 && recent.old.len() <= 10);
        }
        assert!(!recent.has(&500, begun));
        let later = begun + Duration::from_secs(60);
        assert!(recent.has(&999, later));
        let much_later = later + Duration::from_secs(120);
        assert!(recent.has(&999, much_later), "one turn is not yet old age");
        assert!(!recent.has(&998, much_later + Duration::from_secs(60)));
    }
}
