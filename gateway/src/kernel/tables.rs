//! The maps that the gateway writes: settings, listeners, rules, allowances, counters. Knows not how
//! programs are loaded and attached.

use super::attach::SandboxId;
use super::error::{KernelError, map_error};
use super::maps::{RuleMaps, RuleSet};
use super::numbers::{Numbers, Series};
use crate::policy::KernelRule;
use crate::sys::{self, SharedWords};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::{Ebpf, Pod};
use gateway_common::{
    Allowance, Life, ListenerKey, Listeners, PortKey, SandboxCounters, Settings, protocol,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use tracing::{debug, warn};

/// Entries of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// (namespace, sandbox) pairs with listeners.
    pub listeners: usize,
    /// Address prefixes of all rule sets.
    pub rules: usize,
    /// Port sets that they refer to.
    pub port_sets: usize,
    /// Sandboxes that were ever active and are still attached.
    pub sandboxes: usize,
}

/// Written at attach, reload and detach only: never on a connection's path.
pub(super) struct Tables {
    settings: HashMap<MapData, u64, Settings>,
    // What `settings` says of each sandbox that this process has in force.
    in_force: BTreeMap<u32, Settings>,
    // That of the listeners in them; none if there can be none.
    edition: Option<u32>,
    life: SharedWords,
    // The gateway is about to end: nothing is to be sent to its listeners, whoever adds some.
    is_ending: bool,
    // The gateway's own namespace, where few sandboxes are that have another one.
    own: u64,
    listeners: HashMap<MapData, ListenerKey, Listeners>,
    ports: HashMap<MapData, PortKey, u32>,
    rules: RuleMaps,
    allowances: HashMap<MapData, u32, Allowance>,
    counters: PerCpuHashMap<MapData, u32, SandboxCounters>,
    numbers: Numbers,
}

impl Tables {
    /// Takes the maps out of the loaded object; `maps` is where they are pinned, and `life` the words of a
    /// [`gateway_common::Life`].
    pub(super) fn take(
        object: &mut Ebpf,
        maps: Option<&Path>,
        life: SharedWords,
    ) -> Result<Self, KernelError> {
        let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| sys::netns_cookie(socket.as_fd()));
        Ok(Self {
            settings: settings_map(object)?,
            in_force: BTreeMap::new(),
            edition: None,
            life,
            is_ending: false,
            own: own?,
            listeners: take(object, "LISTENERS")?,
            ports: take(object, "PORTS")?,
            rules: RuleMaps {
                rules: take(object, "RULES")?,
                port_sets: take(object, "PORT_SETS")?,
            },
            allowances: take(object, "ALLOWANCES")?,
            counters: take(object, "SANDBOX_COUNTERS")?,
            numbers: Numbers::open(maps)?,
        })
    }

    /// Clears what dead processes left behind, but for the state of these cgroups: settings of others,
    /// and then everything that no settings name. Call it while no other process uses the maps.
    pub(super) fn sweep(&mut self, kept: &[u64]) -> Result<(), KernelError> {
        let mut sandboxes = BTreeSet::new();
        let mut rulesets = BTreeSet::new();
        // One by one: from a cgroup that goes while they are listed the kernel finds no way to the next.
        for settings in kept.iter().filter_map(|cgroup| self.settings(*cgroup)) {
            sandboxes.insert(settings.sandbox);
            rulesets.insert(settings.ruleset);
        }
        let all: Vec<(u64, Settings)> = self.settings.iter().filter_map(Result::ok).collect();
        for (cgroup, settings) in all {
            if kept.contains(&cgroup) || settings == Settings::default() {
                continue;
            }
            match self.store(cgroup, Settings::default()) {
                Err(error) if !is_gone(&error) => return Err(map_error("SETTINGS", error)),
                _ => {}
            }
        }
        self.rules.keep_only(&rulesets);
        let dead = |sandbox: u32| !sandboxes.contains(&sandbox);
        self.forget_listeners(|key| dead(key.sandbox));
        let ports: Vec<(PortKey, u32)> = self.ports.iter().filter_map(Result::ok).collect();
        for (key, _) in ports.iter().filter(|(_, sandbox)| dead(*sandbox)) {
            tell(self.ports.remove(key));
        }
        forget(&mut self.allowances, |sandbox| dead(*sandbox));
        let keys: Vec<u32> = self.counters.keys().filter_map(Result::ok).collect();
        for sandbox in keys.into_iter().filter(|sandbox| dead(*sandbox)) {
            tell(self.counters.remove(&sandbox));
        }
        Ok(())
    }

    /// A number for a new sandbox.
    pub(super) fn new_sandbox(&mut self) -> Result<SandboxId, KernelError> {
        self.numbers.take(Series::Sandbox).map(SandboxId)
    }

    /// The settings of a cgroup; `None` if no program with these maps was ever attached to it.
    pub(super) fn settings(&self, cgroup: u64) -> Option<Settings> {
        self.settings.get(&cgroup, 0).ok()
    }

    /// The rule set of these settings, as it is in the maps.
    pub(super) fn ruleset(&self, settings: &Settings) -> RuleSet {
        self.rules.find(settings.ruleset)
    }

    /// Where a sandbox has listeners: namespace cookies and ports.
    pub(super) fn listeners_of(&self, sandbox: SandboxId) -> Vec<(u64, Listeners)> {
        self.listeners
            .iter()
            .filter_map(Result::ok)
            .filter(|(key, _)| key.sandbox == sandbox.0)
            .map(|(key, listeners)| (key.netns, listeners))
            .collect()
    }

    pub(super) fn add_listener(
        &mut self,
        sandbox: SandboxId,
        netns: u64,
        mut listeners: Listeners,
    ) -> Result<(), KernelError> {
        if self.is_ending {
            listeners.flags |= Listeners::FORMER;
        }
        let listener = listener_key(sandbox, netns);
        // Nobody else gets at them from here on; the sandbox itself not before they are told.
        for key in port_keys(netns, &listeners) {
            self.ports
                .insert(key, sandbox.0, 0)
                .map_err(|source| map_error("PORTS", source))?;
        }
        let former = self.listeners.get(&listener, 0).unwrap_or_default();
        self.listeners
            .insert(listener, listeners, 0)
            .map_err(|source| map_error("LISTENERS", source))?;
        self.show(sandbox, netns, listeners);
        let current = port_keys(netns, &listeners);
        for key in port_keys(netns, &former) {
            if !current.contains(&key) {
                self.forget_port(sandbox.0, &key);
            }
        }
        Ok(())
    }

    /// Has the programs send nothing to any listener from here on, whether it is there or still added.
    pub(super) fn end_listeners(&mut self) -> Result<(), KernelError> {
        self.is_ending = true;
        self.close_listeners()
    }

    /// Has the programs send nothing to any listener until it is added again: their gateway has ended.
    pub(super) fn close_listeners(&mut self) -> Result<(), KernelError> {
        self.begin_edition();
        let all: Result<Vec<(ListenerKey, Listeners)>, _> = self.listeners.iter().collect();
        for (key, listeners) in all.map_err(|source| map_error("LISTENERS", source))? {
            let former = Listeners {
                flags: listeners.flags | Listeners::FORMER,
                ..listeners
            };
            self.listeners
                .insert(key, former, 0)
                .map_err(|source| map_error("LISTENERS", source))?;
        }
        Ok(())
    }

    pub(super) fn remove_listener(&mut self, sandbox: SandboxId, netns: u64) {
        self.forget_listeners(|key| *key == listener_key(sandbox, netns));
    }

    /// Writes a rule set and makes it the sandbox's by one store.
    pub(super) fn activate(
        &mut self,
        cgroup: u64,
        sandbox: SandboxId,
        rules: &[KernelRule],
    ) -> Result<RuleSet, KernelError> {
        self.make_counters(sandbox)?;
        let ruleset = self.numbers.take(Series::RuleSet)?;
        let written = self.rules.write(ruleset, rules, &mut self.numbers)?;
        let (netns, listeners) = match self.in_force.get(&sandbox.0) {
            Some(settings) if settings.netns != 0 => (settings.netns, settings.listeners),
            _ => {
                let all = self.listeners_of(sandbox).into_iter();
                let first = all.max_by_key(|(netns, _)| *netns != self.own);
                first.unwrap_or_default()
            }
        };
        let settings = Settings {
            sandbox: sandbox.0,
            ruleset,
            cgroup,
            ..Settings::default()
        };
        let settings = self.with_listeners(settings, netns, listeners);
        if let Err(source) = self.store(cgroup, settings) {
            self.rules.remove(written);
            return Err(map_error("SETTINGS", source));
        }
        Ok(written)
    }

    /// Removes a rule set that is no longer in force.
    pub(super) fn remove_rules(&mut self, old: RuleSet) {
        self.rules.remove(old);
    }

    /// Everything in this cgroup is refused from here on, and nothing is kept for the sandbox.
    pub(super) fn deactivate(&mut self, cgroup: u64, sandbox: SandboxId) {
        let cleared = self.store(cgroup, Settings::default());
        self.in_force.remove(&sandbox.0);
        self.trust(cleared);
        self.forget_listeners(|key| key.sandbox == sandbox.0);
        tell(self.allowances.remove(&sandbox.0));
        tell(self.counters.remove(&sandbox.0));
    }

    /// Sums a sandbox's counters over the CPUs; `None` before its first activation.
    pub(super) fn counters(&self, sandbox: SandboxId) -> Option<SandboxCounters> {
        let values = self.counters.get(&sandbox.0, 0).ok()?;
        let mut sum = SandboxCounters::default();
        for value in values.iter() {
            sum.redirected += value.redirected;
            sum.direct_packets += value.direct_packets;
            sum.direct_bytes += value.direct_bytes;
            for (total, part) in sum.refused.iter_mut().zip(value.refused) {
                *total += part;
            }
        }
        Some(sum)
    }

    /// How full the maps are.
    pub(super) fn usage(&self) -> Usage {
        let (rules, port_sets) = self.rules.usage();
        Usage {
            listeners: self.listeners.keys().filter_map(Result::ok).count(),
            rules,
            port_sets,
            sandboxes: self.counters.keys().filter_map(Result::ok).count(),
        }
    }

    fn forget_listeners(&mut self, is_dead: impl Fn(&ListenerKey) -> bool) {
        let all: Vec<(ListenerKey, Listeners)> =
            self.listeners.iter().filter_map(Result::ok).collect();
        for (key, listeners) in all.iter().filter(|(key, _)| is_dead(key)) {
            self.hide(key);
            tell(self.listeners.remove(key));
            for port in port_keys(key.netns, listeners) {
                self.forget_port(key.sandbox, &port);
            }
        }
    }

    /// The port may be another sandbox's by now.
    fn forget_port(&mut self, sandbox: u32, key: &PortKey) {
        if self.ports.get(key, 0).is_ok_and(|owner| owner == sandbox) {
            tell(self.ports.remove(key));
        }
    }

    fn make_counters(&mut self, sandbox: SandboxId) -> Result<(), KernelError> {
        if self.counters.get(&sandbox.0, 0).is_ok() {
            return Ok(());
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeroes = PerCpuValues::try_from(vec![SandboxCounters::default(); cpus])?;
        self.counters
            .insert(sandbox.0, zeroes, 0)
            .map_err(|source| map_error("SANDBOX_COUNTERS", source))
    }

    /// What an earlier daemon had in force. Its listeners are not this one's.
    pub(super) fn resume(&mut self, settings: Settings) {
        let settings = self.with_listeners(settings, 0, Listeners::default());
        self.in_force.insert(settings.sandbox, settings);
    }

    /// Tells the programs of these listeners where they look first, unless those of a namespace are there in which the
    /// sandbox is rather.
    fn show(&mut self, sandbox: SandboxId, netns: u64, listeners: Listeners) {
        let Some(settings) = self.in_force.get(&sandbox.0).copied() else {
            return;
        };
        if [0, netns, self.own].contains(&settings.netns) {
            let shown = self.with_listeners(settings, netns, listeners);
            let stored = self.store(settings.cgroup, shown);
            self.trust(stored);
        }
    }

    /// Has them look in the map of listeners again.
    fn hide(&mut self, key: &ListenerKey) {
        let settings = self.in_force.get(&key.sandbox).copied();
        if let Some(settings) = settings.filter(|settings| settings.netns == key.netns) {
            let hidden = self.with_listeners(settings, 0, Listeners::default());
            let stored = self.store(settings.cgroup, hidden);
            self.trust(stored);
        }
    }

    /// Settings that could not be written say what is not so any longer: their listeners, and all others', are void.
    /// Those of a cgroup that is gone say nothing.
    fn trust(&mut self, stored: Result<(), MapError>) {
        match stored {
            Err(error) if !is_gone(&error) => {
                // Before anything else, which might have to wait.
                self.begin_edition();
                warn!(%error, "a sandbox's settings were not written: connect() is slower by a look-up until listeners are added again");
            }
            _ => {}
        }
    }

    /// From here on the map of listeners is asked for all that settings say.
    fn begin_edition(&mut self) {
        let edition = self.numbers.take(Series::Edition);
        self.edition = edition.as_ref().ok().copied();
        if let Some(word) = self.life.words().get(Life::EDITION) {
            word.store(self.edition.unwrap_or(0).into(), Ordering::Release);
        }
        for settings in self.in_force.values_mut() {
            settings.netns = 0;
        }
        if let Err(error) = edition {
            warn!(%error, "connect() is slower by a look-up as long as this gateway runs");
        }
    }

    fn with_listeners(&self, settings: Settings, netns: u64, listeners: Listeners) -> Settings {
        let (netns, listeners, edition) = match self.edition {
            Some(edition) if netns != 0 => (netns, listeners, edition),
            _ => (0, Listeners::default(), 0),
        };
        Settings {
            netns,
            listeners,
            edition,
            ..settings
        }
    }

    fn store(&mut self, cgroup: u64, settings: Settings) -> Result<(), MapError> {
        self.settings.insert(cgroup, settings, 0)?;
        if settings.sandbox != 0 {
            self.in_force.insert(settings.sandbox, settings);
        }
        Ok(())
    }
}

/// Takes a map out of the loaded object.
pub(super) fn take<M>(object: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(KernelError::Missing(name))?;
    M::try_from(map).map_err(|source| map_error(name, source))
}

/// Cgroup storage with a bare cgroup id as its key takes look-ups and updates as a hash map does.
fn settings_map(object: &mut Ebpf) -> Result<HashMap<MapData, u64, Settings>, KernelError> {
    match object.take_map("SETTINGS") {
        Some(Map::CgroupStorage(data)) => {
            HashMap::try_from(Map::HashMap(data)).map_err(|source| map_error("SETTINGS", source))
        }
        _ => Err(KernelError::Missing("map SETTINGS")),
    }
}

/// The kernel says so of a cgroup to which nothing is attached any more.
fn is_gone(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::ENOENT))
}

fn listener_key(sandbox: SandboxId, netns: u64) -> ListenerKey {
    ListenerKey {
        netns,
        sandbox: sandbox.0,
        reserved: 0,
    }
}

fn port_keys(netns: u64, listeners: &Listeners) -> Vec<PortKey> {
    [
        (listeners.tcp4, protocol::TCP),
        (listeners.tcp6, protocol::TCP),
        (listeners.dns4, protocol::UDP),
        (listeners.dns6, protocol::UDP),
    ]
    .into_iter()
    .filter(|(port, _)| *port != 0)
    .map(|(port, protocol)| PortKey {
        netns,
        port: u32::from(port),
        protocol: u32::from(protocol),
    })
    .collect()
}

fn forget<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, is_dead: impl Fn(&K) -> bool) {
    let keys: Vec<K> = map.keys().filter_map(Result::ok).collect();
    for key in keys.iter().filter(|key| is_dead(key)) {
        tell(map.remove(key));
    }
}

/// What is to be removed may be gone already.
fn tell(removed: Result<(), MapError>) {
    if let Err(error) = removed {
        debug!(%error, "map entry not removed");
    }
}
