//! Turns allow rules into the rule trie and its port sets. Pure but for the writes at the end.

use super::error::{KernelError, map_error};
use super::numbers::{Numbers, Series};
use crate::policy::{KernelRule, Protocol};
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData};
use gateway_common::{PortSet, RuleKey, address_from_octets, protocol};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap as StdHashMap};
use tracing::debug;

/// The two maps that rule sets are in.
pub(super) struct RuleMaps {
    pub(super) rules: LpmTrie<MapData, RuleKey, u32>,
    pub(super) port_sets: HashMap<MapData, u32, PortSet>,
}

/// What was written for one rule set, to be removed when the next one is in force.
#[derive(Default)]
pub(super) struct RuleSet {
    keys: Vec<Key<RuleKey>>,
    port_sets: BTreeSet<u32>,
}

impl RuleMaps {
    /// Writes `rules` under the rule set's number: port sets first, then the prefixes that refer to
    /// them. What does not fit leaves nothing behind.
    pub(super) fn write(
        &mut self,
        number: u32,
        rules: &[KernelRule],
        numbers: &mut Numbers,
    ) -> Result<RuleSet, KernelError> {
        let mut written = RuleSet::default();
        match self.fill(&mut written, number, rules, numbers) {
            Ok(()) => Ok(written),
            Err(error) => {
                self.remove(written);
                Err(error)
            }
        }
    }

    /// Removes a rule set that no settings name any more.
    pub(super) fn remove(&mut self, set: RuleSet) {
        for key in set.keys {
            if let Err(error) = self.rules.remove(&key) {
                debug!(%error, "rule entry not removed");
            }
        }
        for index in set.port_sets {
            if let Err(error) = self.port_sets.remove(&index) {
                debug!(%error, index, "port set not removed");
            }
        }
    }

    /// What another process wrote under this number.
    pub(super) fn find(&self, number: u32) -> RuleSet {
        let mut found = RuleSet::default();
        for (key, index) in self.rules.iter().filter_map(Result::ok) {
            if key.data().ruleset == number.to_be_bytes() {
                found.keys.push(key);
                found.port_sets.insert(index);
            }
        }
        found
    }

    /// Removes every rule set but those of these numbers, and what no rule refers to.
    pub(super) fn keep_only(&mut self, live: &BTreeSet<u32>) {
        let mut dead = RuleSet::default();
        let mut used = BTreeSet::new();
        for (key, index) in self.rules.iter().filter_map(Result::ok) {
            if live.contains(&u32::from_be_bytes(key.data().ruleset)) {
                used.insert(index);
            } else {
                dead.keys.push(key);
            }
        }
        let indices = self.port_sets.keys().filter_map(Result::ok);
        dead.port_sets = indices.filter(|index| !used.contains(index)).collect();
        self.remove(dead);
    }

    /// Prefixes and port sets, of all rule sets.
    pub(super) fn usage(&self) -> (usize, usize) {
        let rules = self.rules.keys().filter_map(Result::ok).count();
        (rules, self.port_sets.keys().filter_map(Result::ok).count())
    }

    /// Fills `written` as it goes.
    fn fill(
        &mut self,
        written: &mut RuleSet,
        number: u32,
        rules: &[KernelRule],
        numbers: &mut Numbers,
    ) -> Result<(), KernelError> {
        let mut indices: StdHashMap<Vec<Span>, u32> = StdHashMap::new();
        for (kind, protocol) in [
            (Protocol::Tcp, protocol::TCP),
            (Protocol::Udp, protocol::UDP),
        ] {
            for (prefix, spans) in flatten(rules.iter().filter(|rule| rule.protocol == kind)) {
                let index = match indices.get(&spans) {
                    Some(index) => *index,
                    None => {
                        let index = numbers.take(Series::PortSet)?;
                        self.port_sets
                            .insert(index, *port_set(&spans), 0)
                            .map_err(|source| map_error("PORT_SETS", source))?;
                        written.port_sets.insert(index);
                        indices.insert(spans, index);
                        index
                    }
                };
                let key = Key::new(
                    RuleKey::FIXED_BITS + prefix.length,
                    RuleKey {
                        ruleset: number.to_be_bytes(),
                        protocol: u32::from(protocol).to_le_bytes(),
                        address: address_from_octets(prefix.address),
                    },
                );
                self.rules
                    .insert(&key, index, 0)
                    .map_err(|source| map_error("RULES", source))?;
                written.keys.push(key);
            }
        }
        Ok(())
    }
}

/// An address prefix in the one form that the trie has; `length` counts the 128 bits of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Prefix {
    length: u32,
    address: [u8; 16],
}

/// Ports `first..=last`, by a rule that names the address or by one that doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Span {
    first: u16,
    last: u16,
    named: bool,
}

/// The bits in front of an IPv4 address in v4-mapped form.
const V4_BITS: u32 = 96;
/// Those bits (RFC 4291 §2.5.5.2).
const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Longest-prefix match finds one entry, so each entry carries the ports of every rule whose prefix
/// covers it.
fn flatten<'a>(rules: impl Iterator<Item = &'a KernelRule>) -> BTreeMap<Prefix, Vec<Span>> {
    let mut own: BTreeMap<Prefix, Vec<Span>> = BTreeMap::new();
    for rule in rules {
        own.entry(prefix(&rule.cidr)).or_default().push(Span {
            first: rule.ports.start(),
            last: rule.ports.end(),
            named: rule.named,
        });
    }
    if own.is_empty() {
        return own;
    }
    // An IPv6 prefix as short as ::/0 would cover IPv4 in its v4-mapped form; it doesn't mean it.
    own.entry(prefix(&IpNet::V4(ipnet::Ipv4Net::default())))
        .or_default();
    let mut flat = BTreeMap::new();
    for prefix in own.keys() {
        let is_v4 = prefix.length >= V4_BITS && prefix.address[..12] == V4_MAPPED;
        let shortest = if is_v4 { V4_BITS } else { 0 };
        let mut spans: Vec<Span> = (shortest..=prefix.length)
            .filter_map(|length| own.get(&prefix.shortened(length)))
            .flatten()
            .copied()
            .collect();
        spans.sort_unstable();
        spans.dedup();
        flat.insert(*prefix, spans);
    }
    flat
}

impl Prefix {
    fn shortened(self, length: u32) -> Self {
        let bits = u128::from_be_bytes(self.address);
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        Self {
            length,
            address: (bits & mask).to_be_bytes(),
        }
    }
}

fn prefix(cidr: &IpNet) -> Prefix {
    match cidr {
        IpNet::V4(net) => Prefix {
            length: V4_BITS + u32::from(net.prefix_len()),
            address: net.network().to_ipv6_mapped().octets(),
        },
        IpNet::V6(net) => Prefix {
            length: u32::from(net.prefix_len()),
            address: net.network().octets(),
        },
    }
}

fn port_set(spans: &[Span]) -> Box<PortSet> {
    let mut set = Box::new(PortSet {
        allowed: [0; 1024],
        named: [0; 1024],
    });
    for span in spans {
        for port in span.first..=span.last {
            let word = usize::from(port >> 6);
            let bit = 1 << (port & 63);
            set.allowed[word] |= bit;
            if span.named {
                set.named[word] |= bit;
            }
        }
    }
    set
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::PortRange;

    fn rule(cidr: &str, first: u16, last: u16, named: bool) -> KernelRule {
        KernelRule {
            cidr: cidr.parse().unwrap(),
            ports: PortRange::new(first, last).unwrap(),
            named,
            protocol: Protocol::Tcp,
        }
    }

    /// What the kernel would find: the longest prefix that covers the address.
    fn allowed(rules: &[KernelRule], address: &str, port: u16) -> Option<bool> {
        let flat = flatten(rules.iter());
        let whole = match address.parse().unwrap() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(ip) => ip.octets(),
        };
        let whole = Prefix {
            length: 128,
            address: whole,
        };
        let spans = (0..=128)
            .rev()
            .find_map(|length| flat.get(&whole.shortened(length)))?;
        let set = port_set(spans);
        let has = |bits: &[u64; 1024]| bits[usize::from(port >> 6)] >> (port & 63) & 1 == 1;
        has(&set.allowed).then(|| has(&set.named))
    }

    #[test]
    fn a_longer_prefix_keeps_the_ports_of_the_shorter_ones() {
        let rules = [
            rule("0.0.0.0/0", 80, 80, false),
            rule("10.0.0.0/8", 8000, 8100, true),
            rule("10.1.0.0/16", 443, 443, true),
        ];
        assert_eq!(allowed(&rules, "10.1.2.3", 443), Some(true));
        assert_eq!(allowed(&rules, "10.1.2.3", 8050), Some(true));
        assert_eq!(allowed(&rules, "10.1.2.3", 80), Some(false));
        assert_eq!(allowed(&rules, "10.2.0.1", 443), None);
        assert_eq!(allowed(&rules, "10.2.0.1", 8100), Some(true));
        assert_eq!(allowed(&rules, "192.0.2.1", 80), Some(false));
        assert_eq!(allowed(&rules, "192.0.2.1", 8000), None);
    }

    #[test]
    fn an_ipv6_default_route_is_not_an_ipv4_rule() {
        let rules = [rule("::/0", 443, 443, false)];
        assert_eq!(allowed(&rules, "2001:db8::1", 443), Some(false));
        assert_eq!(allowed(&rules, "192.0.2.1", 443), None);
    }

    #[test]
    fn the_last_port_of_a_range_is_in_it() {
        let rules = [rule("192.0.2.0/24", 1, u16::MAX, true)];
        assert_eq!(allowed(&rules, "192.0.2.7", u16::MAX), Some(true));
        assert_eq!(allowed(&rules, "192.0.2.7", 1), Some(true));
        assert_eq!(allowed(&rules, "192.0.2.7", 0), None);
    }
}
