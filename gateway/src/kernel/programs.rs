//! Loads and attaches. The object file is part of the binary; the kernel's verifier reads it at
//! every start.

use super::events::{Refusal, read_events};
use super::flow::FlowTable;
use super::maps::{self, RuleSet};
use crate::policy::KernelRule;
use crate::sys;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError, SockOps};
use aya::{Ebpf, EbpfError, EbpfLoader};
use gateway_common::{ListenerKey, Listeners, PortSet, RuleKey, Settings, counter};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{debug, warn};

/// The gateway's number for an attached sandbox; never zero, never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub(super) u32);

impl SandboxId {
    /// The number as records carry it.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// What can go wrong between the gateway and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object could not be loaded.
    #[error(
        "the kernel did not take the eBPF object: {0}. `postern` needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or later with cgroup v2; `postern doctor` says what is missing"
    )]
    Load(#[source] Box<EbpfError>),
    /// A program is not in the object, or was refused by the verifier.
    #[error("the kernel does not take the program {name}: {}", brief(source))]
    Program {
        /// The program's name in the object.
        name: &'static str,
        /// What aya or the verifier said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map or program that the object should have.
    #[error("the eBPF object has no {0}; rebuild the gateway")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The programs could not be attached.
    #[error("cannot attach {name} to the cgroup: {source}")]
    Attach {
        /// The program's name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A descriptor could not be copied or watched.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A verifier log is thousands of lines of which the last few say what was wrong; the whole of it
/// goes to the debug log.
fn brief(error: &ProgramError) -> String {
    let text = error.to_string();
    debug!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [first, .., a, b, c, d] => {
            let first = first.split("Verifier output").next().unwrap_or(first);
            format!("{first}… {a}; {b}; {c}; {d}")
        }
        _ => text,
    }
}

/// Name in the object, kind, and the kernel's attach type (`enum bpf_attach_type`, linux/bpf.h).
const PROGRAMS: [(&str, Kind, u32); 11] = [
    ("postern_egress", Kind::Skb, 1),
    ("postern_sock_create", Kind::Sock, 2),
    ("postern_sock_ops", Kind::SockOps, 3),
    ("postern_connect4", Kind::SockAddr, 10),
    ("postern_connect6", Kind::SockAddr, 11),
    ("postern_sendmsg4", Kind::SockAddr, 14),
    ("postern_sendmsg6", Kind::SockAddr, 15),
    ("postern_recvmsg4", Kind::SockAddr, 19),
    ("postern_recvmsg6", Kind::SockAddr, 20),
    ("postern_getpeername4", Kind::SockAddr, 29),
    ("postern_getpeername6", Kind::SockAddr, 30),
];

#[derive(Clone, Copy)]
enum Kind {
    Skb,
    Sock,
    SockAddr,
    SockOps,
}

/// The loaded programs and their maps.
pub struct Kernel {
    programs: Vec<(&'static str, u32, OwnedFd)>,
    // Written at attach, reload and detach only: never on a connection's path.
    tables: Mutex<Tables>,
    flows: MapData,
    counters: Arc<PerCpuArray<MapData, u64>>,
    next_sandbox: AtomicU32,
    // Keeps the programs loaded.
    object: Ebpf,
}

struct Tables {
    settings: HashMap<MapData, u64, Settings>,
    listeners: HashMap<MapData, ListenerKey, Listeners>,
    rules: LpmTrie<MapData, RuleKey, u32>,
    port_sets: HashMap<MapData, u32, PortSet>,
    next_ruleset: u32,
    next_port_set: u32,
}

/// The links of one attached sandbox. Dropping it detaches, unless copies of the descriptors exist.
pub struct Attachment {
    /// The sandbox's number.
    pub sandbox: SandboxId,
    cgroup: u64,
    links: Vec<OwnedFd>,
    ruleset: Option<RuleSet>,
}

impl Attachment {
    /// The kernel id of the cgroup.
    pub fn cgroup(&self) -> u64 {
        self.cgroup
    }

    /// The link descriptors, for a process that keeps the sandbox shut if this one dies.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(AsFd::as_fd)
    }
}

impl Kernel {
    /// Loads the programs. `debug_log` turns on their debug lines, which cost a ring buffer write a
    /// connection; each refusal is given to `on_refusal`, and the number of those that could not be
    /// recorded to `on_lost`. Must be called in a tokio runtime.
    pub fn load(
        debug_log: bool,
        on_refusal: impl Fn(Refusal) + Send + 'static,
        on_lost: impl Fn(u64) + Send + 'static,
    ) -> Result<Self, KernelError> {
        let level = if debug_log {
            aya_log_level::DEBUG
        } else {
            aya_log_level::OFF
        };
        let mut object = EbpfLoader::new()
            .override_global("AYA_LOG_LEVEL", &level, false)
            .load(aya::include_bytes_aligned!(concat!(
                env!("OUT_DIR"),
                "/postern-ebpf"
            )))
            .map_err(|error| KernelError::Load(Box::new(error)))?;
        if debug_log {
            forward_debug_lines(&mut object);
        }
        let mut programs = Vec::with_capacity(PROGRAMS.len());
        for (name, kind, attach_type) in PROGRAMS {
            programs.push((name, attach_type, load_program(&mut object, name, kind)?));
        }
        let events: RingBuf<MapData> = take(&mut object, "EVENTS")?;
        let counters: Arc<PerCpuArray<MapData, u64>> = Arc::new(take(&mut object, "COUNTERS")?);
        let counted = Arc::clone(&counters);
        let lost = move || sum(&counted, counter::EVENTS_LOST);
        read_events(events, on_refusal, lost, on_lost)?;
        let tables = Tables {
            settings: settings_map(&mut object)?,
            listeners: take(&mut object, "LISTENERS")?,
            rules: take(&mut object, "RULES")?,
            port_sets: take(&mut object, "PORT_SETS")?,
            next_ruleset: 1,
            next_port_set: 1,
        };
        let flows = match object.take_map("FLOWS") {
            Some(Map::HashMap(data)) => data,
            _ => return Err(KernelError::Missing("map FLOWS")),
        };
        Ok(Self {
            programs,
            tables: Mutex::new(tables),
            flows,
            counters,
            next_sandbox: AtomicU32::new(1),
            object,
        })
    }

    /// Attaches all programs to a cgroup. Until [`Kernel::activate`] everything in it is refused.
    pub fn attach(
        &self,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
    ) -> Result<Attachment, KernelError> {
        let mut links = Vec::with_capacity(self.programs.len());
        for (name, attach_type, program) in &self.programs {
            let link = sys::bpf::link_cgroup(program.as_fd(), cgroup, *attach_type)
                .map_err(|source| KernelError::Attach { name, source })?;
            links.push(link);
        }
        Ok(Attachment {
            sandbox: SandboxId(self.next_sandbox.fetch_add(1, Ordering::Relaxed)),
            cgroup: cgroup_id,
            links,
            ruleset: None,
        })
    }

    /// Tells the programs the gateway's ports in a network namespace.
    pub fn add_listener(
        &self,
        sandbox: SandboxId,
        netns: u64,
        listeners: Listeners,
    ) -> Result<(), KernelError> {
        let key = ListenerKey {
            netns,
            sandbox: sandbox.0,
            reserved: 0,
        };
        self.tables()
            .listeners
            .insert(key, listeners, 0)
            .map_err(|source| map_error("LISTENERS", source))
    }

    /// Writes a rule set under a new number and makes it the sandbox's by one store, so that there
    /// is no moment in which a connection meets half of it. The one before is removed after.
    pub fn activate(
        &self,
        attachment: &mut Attachment,
        rules: &[KernelRule],
    ) -> Result<(), KernelError> {
        let mut tables = self.tables();
        let tables = &mut *tables;
        let number = tables.next_ruleset;
        tables.next_ruleset += 1;
        let ruleset = maps::write_rules(
            number,
            rules,
            &mut tables.rules,
            &mut tables.port_sets,
            &mut tables.next_port_set,
        )?;
        let settings = Settings {
            sandbox: attachment.sandbox.0,
            ruleset: number,
        };
        tables
            .settings
            .insert(attachment.cgroup, settings, 0)
            .map_err(|source| map_error("SETTINGS", source))?;
        if let Some(old) = attachment.ruleset.replace(ruleset) {
            old.remove(&mut tables.rules, &mut tables.port_sets);
        }
        Ok(())
    }

    /// Makes the programs refuse everything in this sandbox and frees its rules. The links stay.
    pub fn deactivate(&self, attachment: &mut Attachment) {
        let mut tables = self.tables();
        let tables = &mut *tables;
        if let Err(error) = tables
            .settings
            .insert(attachment.cgroup, Settings::default(), 0)
        {
            // The cgroup may be gone already, and its settings with it.
            debug!(%error, cgroup = attachment.cgroup, "settings not cleared");
        }
        let keys: Vec<ListenerKey> = tables
            .listeners
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.sandbox == attachment.sandbox.0)
            .collect();
        for key in keys {
            if let Err(error) = tables.listeners.remove(&key) {
                debug!(%error, "listener entry not removed");
            }
        }
        if let Some(old) = attachment.ruleset.take() {
            old.remove(&mut tables.rules, &mut tables.port_sets);
        }
    }

    /// A handle of the flow table for one accept loop.
    pub fn flow_table(&self) -> Result<FlowTable, KernelError> {
        let fd = self.flows.fd().as_fd().try_clone_to_owned()?;
        let data = MapData::from_fd(fd).map_err(|source| map_error("FLOWS", source))?;
        let map =
            HashMap::try_from(Map::HashMap(data)).map_err(|source| map_error("FLOWS", source))?;
        Ok(FlowTable::new(map))
    }

    /// The counters of [`counter`], summed over CPUs, by index.
    pub fn counters(&self) -> [u64; counter::COUNT as usize] {
        let mut sums = [0; counter::COUNT as usize];
        for (index, slot) in (0..counter::COUNT).zip(sums.iter_mut()) {
            *slot = sum(&self.counters, index);
        }
        sums
    }

    /// Each program and how many instructions the verifier walked for it (Linux 5.16 and later say).
    pub fn program_sizes(&self) -> Vec<(&'static str, u32)> {
        PROGRAMS
            .iter()
            .map(|(name, ..)| {
                let info = self.object.program(name).map(Program::info);
                let verified = match info {
                    Some(Ok(info)) => info.verified_instruction_count().unwrap_or(0),
                    _ => 0,
                };
                (*name, verified)
            })
            .collect()
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        // A panic while it was held leaves map handles as they were: they are still good.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values of `aya_log_common::Level`, and "none" below them.
mod aya_log_level {
    pub(super) const OFF: u8 = 0;
    pub(super) const DEBUG: u8 = 4;
}

fn forward_debug_lines(object: &mut Ebpf) {
    match aya_log::EbpfLogger::init_with_logger(object, crate::telemetry::log::kernel_logger()) {
        Ok(mut logger) => {
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
                loop {
                    tick.tick().await;
                    logger.flush();
                }
            });
        }
        Err(error) => warn!(%error, "no debug lines from the kernel programs"),
    }
}

fn sum(counters: &PerCpuArray<MapData, u64>, index: u32) -> u64 {
    match counters.get(&index, 0) {
        Ok(values) => values.iter().sum(),
        Err(error) => {
            warn!(%error, index, "kernel counter not read");
            0
        }
    }
}

fn load_program(object: &mut Ebpf, name: &'static str, kind: Kind) -> Result<OwnedFd, KernelError> {
    let refused = |source| KernelError::Program {
        name,
        source: Box::new(source),
    };
    let program = object.program_mut(name).ok_or(KernelError::Missing(name))?;
    let fd = match kind {
        Kind::Skb => {
            let program: &mut CgroupSkb = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.fd().map_err(refused)?.as_fd().try_clone_to_owned()
        }
        Kind::Sock => {
            let program: &mut CgroupSock = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.fd().map_err(refused)?.as_fd().try_clone_to_owned()
        }
        Kind::SockAddr => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.fd().map_err(refused)?.as_fd().try_clone_to_owned()
        }
        Kind::SockOps => {
            let program: &mut SockOps = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.fd().map_err(refused)?.as_fd().try_clone_to_owned()
        }
    };
    Ok(fd?)
}

fn take<M>(object: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
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

pub(super) fn map_error(name: &'static str, source: MapError) -> KernelError {
    KernelError::Map {
        name,
        source: Box::new(source),
    }
}
