//! What the kernel programs decided, exactly: their own counters of each sandbox, read when metrics leave
//! and never on a connection's path. Knows not how the kernel is asked.

use super::instrument::{Counter, Family};
use super::series::{Ruling, Verdict};
use crate::kernel::{RefusalReason, SandboxId};
use crate::outcome::DenyReason;
use gateway_common::SandboxCounters;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Reads the counters of one sandbox, which only grow; `None` when there are none, yet or any more.
pub type ReadCounters = Box<dyn Fn() -> Option<SandboxCounters> + Send>;

/// The verdicts over the sandboxes of one gateway. A sandbox that leaves takes nothing with it.
pub(super) struct Verdicts {
    family: Family<Verdict, Counter>,
    // Held while metrics are collected and while a sandbox comes or goes.
    followed: Mutex<HashMap<SandboxId, Followed>>,
}

struct Followed {
    read: ReadCounters,
    /// What is in the family already.
    counted: SandboxCounters,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            family: Family::counters(),
            followed: Mutex::default(),
        }
    }
}

impl Verdicts {
    /// Counts what the kernel decides of this sandbox from now on: what an earlier process or gateway had
    /// is not told twice.
    pub(super) fn follow(&self, sandbox: SandboxId, read: ReadCounters) {
        let counted = read().unwrap_or_default();
        let followed = Followed { read, counted };
        self.followed().insert(sandbox, followed);
    }

    /// Counts a last time. To be called while the kernel still has the counters.
    pub(super) fn leave(&self, sandbox: SandboxId) {
        if let Some(mut followed) = self.followed().remove(&sandbox) {
            self.count(&mut followed);
        }
    }

    pub(super) fn collect(
        &self,
        since: SystemTime,
        name: &str,
        unit: &str,
        description: &str,
    ) -> Option<Metric> {
        for followed in self.followed().values_mut() {
            self.count(followed);
        }
        self.family.collect(since, name, unit, description)
    }

    fn count(&self, followed: &mut Followed) {
        let Some(now) = (followed.read)() else {
            return;
        };
        let before = std::mem::replace(&mut followed.counted, now);
        self.add(Ruling::Redirect, now.redirected, before.redirected);
        self.add(Ruling::Pass, now.direct_packets, before.direct_packets);
        let refused = now.refused.into_iter().zip(before.refused);
        for (number, (now, before)) in (0_u8..).zip(refused) {
            if let Some(reason) = RefusalReason::from_number(number) {
                self.add(Ruling::Refuse(DenyReason::from(reason)), now, before);
            }
        }
    }

    fn add(&self, ruling: Ruling, now: u64, before: u64) {
        // Fewer than before: somebody made them anew.
        let more = now.checked_sub(before).unwrap_or(now);
        if more > 0 {
            self.family
                .with(&Verdict(ruling), |counter| counter.add(more));
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<SandboxId, Followed>> {
        // A panic leaves each sandbox counted or not; the next count makes it good.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use gateway_common::refusal;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Text;
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
    use std::sync::Arc;

    type Shown = Arc<Mutex<Option<SandboxCounters>>>;

    fn read(shown: &Shown) -> ReadCounters {
        let shown = Arc::clone(shown);
        Box::new(move || *shown.lock().unwrap())
    }

    fn counters(redirected: u64, direct_packets: u64, no_rule: u64) -> SandboxCounters {
        let mut counters = SandboxCounters {
            redirected,
            direct_packets,
            ..SandboxCounters::default()
        };
        counters.refused[usize::from(refusal::NO_RULE)] = no_rule;
        counters
    }

    fn told(verdicts: &Verdicts) -> Vec<(String, i64)> {
        let Some(metric) = verdicts.collect(SystemTime::now(), "n", "u", "d") else {
            return Vec::new();
        };
        let Some(Data::Sum(sum)) = metric.data else {
            panic!("no sum");
        };
        let mut all: Vec<_> = sum
            .data_points
            .into_iter()
            .map(|point| {
                let values = point.attributes.into_iter().map(|pair| {
                    match pair.value.unwrap().value.unwrap() {
                        Text::StringValue(value) => value,
                        other => panic!("{other:?}"),
                    }
                });
                let Some(Value::AsInt(count)) = point.value else {
                    panic!("no integer");
                };
                (values.collect::<Vec<_>>().join(" "), count)
            })
            .collect();
        all.sort();
        all
    }

    fn expected(redirect: i64, pass: i64, refuse: i64) -> Vec<(String, i64)> {
        vec![
            ("pass".to_owned(), pass),
            ("redirect".to_owned(), redirect),
            ("refuse no_rule".to_owned(), refuse),
        ]
    }

    #[test]
    fn what_the_kernel_counts_of_all_sandboxes_is_told_once() {
        let verdicts = Verdicts::default();
        let (one, other) = (Shown::default(), Shown::default());
        // Adopted: an earlier process told of these.
        *other.lock().unwrap() = Some(counters(100, 100, 100));
        verdicts.follow(SandboxId::from_number(1), read(&one));
        verdicts.follow(SandboxId::from_number(2), read(&other));
        assert!(told(&verdicts).is_empty());
        *one.lock().unwrap() = Some(counters(3, 2, 1));
        *other.lock().unwrap() = Some(counters(110, 120, 130));
        assert_eq!(told(&verdicts), expected(13, 22, 31));
        assert_eq!(told(&verdicts), expected(13, 22, 31), "nothing new");
    }

    #[test]
    fn a_sandbox_that_leaves_is_counted_to_the_end_and_stays_counted() {
        let verdicts = Verdicts::default();
        let shown = Shown::default();
        verdicts.follow(SandboxId::from_number(1), read(&shown));
        *shown.lock().unwrap() = Some(counters(1, 1, 1));
        assert_eq!(told(&verdicts), expected(1, 1, 1));
        *shown.lock().unwrap() = Some(counters(2, 3, 4));
        verdicts.leave(SandboxId::from_number(1));
        *shown.lock().unwrap() = Some(counters(50, 50, 50));
        assert_eq!(told(&verdicts), expected(2, 3, 4));
    }
}
