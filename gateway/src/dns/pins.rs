//! Which names a sandbox was told for an address, and until when: the name evidence of connections
//! that carry no name themselves (SSH, PostgreSQL). Knows neither DNS messages nor policy.

use crate::policy::Host;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers with a shorter life are kept this long: clients resolve first and connect a moment later,
/// and a Java client keeps an answer for 30 s whatever its life (`networkaddress.cache.ttl`).
const LEAST_LIFE: Duration = Duration::from_secs(35);
/// And no answer longer than this: as long as one that is asked again and again would live.
const MOST_LIFE: Duration = Duration::from_secs(3600);
/// Addresses remembered for one sandbox; an agent that looks up more forgets the oldest.
const MAX_ADDRESSES: usize = 4096;
/// Names remembered for one address: shared front ends have many, a sandbox uses few.
const MAX_NAMES: usize = 16;

/// The answers that one sandbox was given.
#[derive(Default)]
pub struct Pins {
    answers: Mutex<HashMap<IpAddr, Vec<(Host, Instant)>>>,
}

impl Pins {
    /// `host` was answered with `address`.
    pub fn note(&self, host: &Host, address: IpAddr, life: Duration, now: Instant) {
        let until = now + life.clamp(LEAST_LIFE, MOST_LIFE);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ADDRESSES && !answers.contains_key(&address) {
            answers.retain(|_, names| names.iter().any(|(_, until)| *until > now));
            if answers.len() >= MAX_ADDRESSES {
                let oldest = answers
                    .iter()
                    .min_by_key(|(_, names)| names.iter().map(|(_, until)| *until).max())
                    .map(|(address, _)| *address);
                oldest.and_then(|address| answers.remove(&address));
            }
        }
        let names = answers.entry(address).or_default();
        names.retain(|(known, until)| known != host && *until > now);
        if names.len() == MAX_NAMES {
            names.remove(0);
        }
        names.push((host.clone(), until));
    }

    /// Forgets the names that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&Host) -> bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, names| {
            names.retain(|(host, _)| keep(host));
            !names.is_empty()
        });
    }

    /// The names that `address` was the answer for, the latest first.
    pub fn names(&self, address: IpAddr, now: Instant) -> Vec<Host> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .get(&address)
            .into_iter()
            .flatten()
            .rev()
            .filter(|(_, until)| *until > now)
            .map(|(host, _)| host.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::net::Ipv4Addr;

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    #[test]
    fn an_address_stands_for_the_names_that_were_asked_and_only_for_their_time() {
        let (pins, now) = (Pins::default(), Instant::now());
        let address = "192.0.2.1".parse().unwrap();
        pins.note(&host("a.example"), address, Duration::from_secs(5), now);
        pins.note(&host("b.example"), address, Duration::from_secs(300), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(
            pins.names(address, later(34)),
            [host("b.example"), host("a.example")]
        );
        assert_eq!(pins.names(address, later(35)), [host("b.example")]);
        assert!(pins.names(address, later(300)).is_empty());
        pins.note(
            &host("c.example"),
            address,
            Duration::from_secs(86_400),
            now,
        );
        assert_eq!(pins.names(address, later(3599)), [host("c.example")]);
        assert!(pins.names(address, later(3600)).is_empty());
        assert!(pins.names("192.0.2.2".parse().unwrap(), now).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let (pins, now) = (Pins::default(), Instant::now());
        let life = Duration::from_secs(300);
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(0xc000_0200 + n));
        let most = u32::try_from(MAX_ADDRESSES).unwrap();
        for n in 0..most + 10 {
            let at = now + Duration::from_millis(u64::from(n));
            pins.note(&host("a.example"), address(n), life, at);
        }
        assert_eq!(pins.answers.lock().unwrap().len(), MAX_ADDRESSES);
        assert!(pins.names(address(0), now).is_empty());
        assert_eq!(pins.names(address(most + 9), now).len(), 1);
        for n in 0..100 {
            pins.note(
                &host(&format!("n{n}.example")),
                address(most + 9),
                life,
                now,
            );
        }
        assert_eq!(pins.names(address(most + 9), now).len(), MAX_NAMES);
    }
}
