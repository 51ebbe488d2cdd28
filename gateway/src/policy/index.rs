//! Look-ups by host and by address whose cost does not grow with the number of entries.
//!
//! It refuses to know what is entered: an entry is a number, and answers are ascending, which is as written.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Host, HostPattern};

/// Entries by the hosts that they name.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: HashMap<Host, Vec<usize>>,
    /// By the name under the wildcard: `*.example.com` is found under `example.com`.
    one_label: HashMap<Host, Vec<usize>>,
    labels: HashMap<Host, Vec<usize>>,
    any: Vec<usize>,
}

/// Entries by the address blocks that they name.
#[derive(Debug, Default)]
pub(super) struct BlockIndex {
    blocks: HashMap<IpNet, Vec<usize>>,
    /// The prefix lengths in `blocks`, so that a look-up tries each once.
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

impl HostIndex {
    pub(super) fn insert(&mut self, pattern: &HostPattern, entry: usize) {
        let list = match pattern {
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::OneLabel(host) => self.one_label.entry(host.clone()).or_default(),
            HostPattern::Labels(host) => self.labels.entry(host.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        list.push(entry);
    }

    /// The entries that name this host. The cost grows with the host's labels and with the entries found.
    pub(super) fn naming(&self, host: &Host) -> Vec<usize> {
        let mut found = self.any.clone();
        found.extend(self.exact.get(host).into_iter().flatten());
        let parent = host.parents().next();
        found.extend(
            parent
                .and_then(|parent| self.one_label.get(parent))
                .into_iter()
                .flatten(),
        );
        self.add_ancestors(host, &mut found);
        in_order(found)
    }

    /// Is there an entry that names this host?
    pub(super) fn names(&self, host: &Host) -> bool {
        let parent = host.parents().next();
        !self.any.is_empty()
            || self.exact.contains_key(host)
            || parent.is_some_and(|parent| self.one_label.contains_key(parent))
            || host.parents().any(|name| self.labels.contains_key(name))
    }

    /// The entries one of whose patterns means every host that this one does.
    pub(super) fn covering(&self, pattern: &HostPattern) -> Vec<usize> {
        let mut found = match pattern {
            HostPattern::Exact(host) => return self.naming(host),
            HostPattern::Any => return self.any.clone(),
            HostPattern::OneLabel(_) | HostPattern::Labels(_) => self.any.clone(),
        };
        if let HostPattern::OneLabel(host) = pattern {
            found.extend(self.one_label.get(host).into_iter().flatten());
        }
        if let HostPattern::OneLabel(host) | HostPattern::Labels(host) = pattern {
            found.extend(self.labels.get(host).into_iter().flatten());
            self.add_ancestors(host, &mut found);
        }
        in_order(found)
    }

    fn add_ancestors(&self, host: &Host, found: &mut Vec<usize>) {
        for parent in host.parents() {
            found.extend(self.labels.get(parent).into_iter().flatten());
        }
    }
}

impl BlockIndex {
    pub(super) fn insert(&mut self, block: &IpNet, entry: usize) {
        let block = block.trunc();
        match block {
            IpNet::V4(_) => self.v4_lengths.insert(block.prefix_len()),
            IpNet::V6(_) => self.v6_lengths.insert(block.prefix_len()),
        };
        self.blocks.entry(block).or_default().push(entry);
    }

    /// The entries that name a block in which this address lies. The cost grows with the prefix lengths in
    /// use (at most 33 or 129) and with the entries found.
    pub(super) fn containing(&self, address: IpAddr) -> Vec<usize> {
        self.around(address, u8::MAX)
    }

    /// The entries that name a block which holds the whole of this one.
    pub(super) fn covering(&self, block: &IpNet) -> Vec<usize> {
        self.around(block.network(), block.prefix_len())
    }

    fn around(&self, address: IpAddr, longest: u8) -> Vec<usize> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let mut found = Vec::new();
        for length in lengths.range(..=longest) {
            if let Ok(block) = IpNet::new(address, *length) {
                found.extend(self.blocks.get(&block.trunc()).into_iter().flatten());
            }
        }
        in_order(found)
    }
}

fn in_order(mut found: Vec<usize>) -> Vec<usize> {
    found.sort_unstable();
    found.dedup();
    found
}
