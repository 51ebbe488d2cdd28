//! What the kernel is told: a decision coarse enough to be made in `connect()`.
//!
//! It refuses to know how the kernel looks an entry up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::KernelRule;
use crate::policy::address::overrides_guard;
use crate::policy::{DefaultPolicy, Gateway, PortRange, Protocol};

impl Gateway {
    /// What may reach the listener at all, as far as the kernel can tell. Rules by name mean every
    /// address there, with `named` false; CIDR rules and `hostAliases` (with the ports under which their
    /// hosts are allowed) come with `named` true, unless the block is wider than the guarded one it
    /// reaches into. A destination is allowed if *any* entry holds it, and exempt from the guard if any
    /// such entry is named: entries are not ordered. Deduplicated; ports of one block are merged.
    /// UDP is allowed by CIDR rules alone, not by `allow-all`; TCP comes first.
    #[must_use]
    pub fn kernel_rules(&self) -> Vec<KernelRule> {
        let mut merged: BTreeMap<(Protocol, IpNet, bool), BTreeSet<PortRange>> = BTreeMap::new();
        let mut add = |protocol, cidr: IpNet, named: bool, ports: &[PortRange]| {
            let key = (protocol, cidr, named);
            merged.entry(key).or_default().extend(ports);
        };
        if self.default == DefaultPolicy::AllowAll {
            for cidr in EVERYWHERE {
                add(Protocol::Tcp, cidr, false, &[PortRange::ALL]);
            }
        }
        for grant in &self.rules.grants {
            for cidr in &grant.cidrs {
                add(
                    grant.protocol,
                    cidr.trunc(),
                    overrides_guard(cidr),
                    &grant.ports,
                );
            }
            if !grant.hosts.is_empty() || grant.cidrs.is_empty() {
                for cidr in EVERYWHERE {
                    add(grant.protocol, cidr, false, &grant.ports);
                }
            }
        }
        for (host, addresses) in &self.rules.aliases {
            let mut ports: Vec<PortRange> = self
                .rules
                .naming(host)
                .chain(self.rules.anywhere())
                .flat_map(|grant| grant.ports.iter().copied())
                .collect();
            if self.default == DefaultPolicy::AllowAll {
                ports.push(PortRange::ALL);
            }
            if !ports.is_empty() {
                for address in addresses {
                    add(Protocol::Tcp, IpNet::from(*address), true, &ports);
                }
            }
        }
        let mut rules = Vec::new();
        for ((protocol, cidr, named), ports) in merged {
            rules.extend(merge_ports(&ports).into_iter().map(|ports| KernelRule {
                cidr,
                ports,
                named,
                protocol,
            }));
        }
        rules
    }
}

const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Joins ranges that overlap or touch; `ranges` is sorted by its start.
fn merge_ports(ranges: &BTreeSet<PortRange>) -> Vec<PortRange> {
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start() <= last.end().saturating_add(1) => {
                *last = last.extended_to(range.end());
            }
            _ => merged.push(*range),
        }
    }
    merged
}
