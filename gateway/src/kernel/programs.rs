//! Loads the programs. The object file is part of the binary; the kernel's verifier reads it at every
//! start. Knows not where they are attached.

use super::attach::{Attachment, SandboxId};
use super::error::{KernelError, map_error};
use super::events::{Reader, Reading, Refusal};
use super::flow::{Executables, FlowTable};
use super::handover::Handovers;
use super::lsm;
use super::pins::Pins;
use super::tables::{Tables, Usage, take};
use super::types;
use crate::policy::KernelRule;
use crate::sys::{self, Life, SharedWords};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSockopt, Program};
use aya::{Ebpf, EbpfLoader};
use gateway_common::{Listeners, SandboxCounters, TaskFields, counter};
use nix::fcntl::Flock;
use serde::Serialize;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// Name in the object, kind, and the kernel's attach type (`enum bpf_attach_type`, linux/bpf.h).
const PROGRAMS: [(&str, Kind, u32); 11] = [
    ("postern_egress", Kind::Skb, 1),
    ("postern_sock_create", Kind::Sock, 2),
    ("postern_connect4", Kind::SockAddr, 10),
    ("postern_connect6", Kind::SockAddr, 11),
    ("postern_sendmsg4", Kind::SockAddr, 14),
    ("postern_sendmsg6", Kind::SockAddr, 15),
    ("postern_recvmsg4", Kind::SockAddr, 19),
    ("postern_recvmsg6", Kind::SockAddr, 20),
    ("postern_setsockopt", Kind::Sockopt, 22),
    ("postern_getpeername4", Kind::SockAddr, 29),
    ("postern_getpeername6", Kind::SockAddr, 30),
];

/// The maps that a daemon pins. ALIVE is not among them: it must die with the process.
const PINNED: [&str; 12] = [
    "SETTINGS",
    "LISTENERS",
    "PORTS",
    "RULES",
    "PORT_SETS",
    "SOCKETS",
    "FLOWS",
    "FLOWS_HEAD",
    "ALLOWANCES",
    "COUNTERS",
    "SANDBOX_COUNTERS",
    "EVENTS",
];

#[derive(Clone, Copy)]
enum Kind {
    Skb,
    Sock,
    SockAddr,
    Sockopt,
}

/// The loaded programs and their maps.
pub struct Kernel {
    programs: Vec<LoadedProgram>,
    tables: Mutex<Tables>,
    handovers: Arc<Handovers>,
    executables: MapData,
    counters: Arc<PerCpuArray<MapData, u64>>,
    // Until somebody reads them.
    events: Mutex<Option<RingBuf<MapData>>>,
    lsm: Result<(), String>,
    // Keeps the programs loaded.
    object: Ebpf,
    // Over when this process ends: then the programs redirect nothing any more.
    _life: Life,
    lock: Option<Flock<File>>,
    // Once there is one.
    reader: Mutex<Option<Reader>>,
}

/// A program that can be attached.
pub(super) struct LoadedProgram {
    pub(super) name: &'static str,
    pub(super) attach_type: u32,
    pub(super) fd: OwnedFd,
    /// Sandboxes attached on a kernel without it go without.
    pub(super) is_optional: bool,
}

impl LoadedProgram {
    pub(super) fn link(&self, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, KernelError> {
        sys::bpf::link_cgroup(self.fd.as_fd(), cgroup, self.attach_type).map_err(|source| {
            KernelError::Attach {
                name: self.name,
                source,
            }
        })
    }
}

/// What of the kernel's protection is active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Protections {
    /// The programs that every sandbox gets.
    pub programs: Vec<&'static str>,
    /// Are those of the BPF LSM among them: the socket family filter, and those that refuse sockets from outside
    /// and joining groups by 32-bit calls?
    pub lsm: bool,
    /// Why it is not.
    pub lsm_absent_because: Option<String>,
    /// Do the links and maps outlive this process?
    pub pinned: bool,
}

impl Kernel {
    /// Loads the programs. With `pins` it takes over the maps that another daemon pinned, if they are of
    /// the same layout, clears what no pinned link needs any more, and pins the maps itself; no other
    /// process can do so as long as this one lives. Without, everything ends with the process.
    ///
    /// `debug_log` turns on the programs' debug lines, which cost a ring buffer write a connection, and
    /// needs a tokio runtime.
    ///
    /// # Errors
    /// [`KernelError`], of which [`KernelError::InCharge`] means a second daemon.
    pub fn load(pins: Option<&Pins>, debug_log: bool) -> Result<Self, KernelError> {
        let lock = pins.map(Pins::lock).transpose()?;
        let maps = pins.map(Pins::maps).transpose()?;
        let (mut object, mut programs) = load_best(debug_log, maps.as_deref())?;
        if debug_log {
            forward_debug_lines(&mut object);
        }
        let lsm = lsm::load(&mut object, |name, fd| {
            programs.push(LoadedProgram {
                name,
                attach_type: lsm::ATTACH_TYPE,
                fd,
                is_optional: true,
            });
        });
        let alive = data(&mut object, "ALIVE")?;
        let shared = || {
            SharedWords::of_map(alive.fd().as_fd(), gateway_common::Life::WORDS)
                .map_err(KernelError::Alive)
        };
        let mut tables = Tables::take(&mut object, maps.as_deref(), shared()?)?;
        // Before this process counts as the gateway of sandboxes whose listeners it has not opened yet.
        tables.close_listeners()?;
        let life = Life::mark(shared()?).map_err(KernelError::Alive)?;
        let (flows, head) = (
            data(&mut object, "FLOWS")?,
            data(&mut object, "FLOWS_HEAD")?,
        );
        let handovers = Handovers::of_maps(flows.fd().as_fd(), head.fd().as_fd())?;
        let kernel = Self {
            programs,
            tables: Mutex::new(tables),
            handovers: Arc::new(handovers),
            executables: data(&mut object, "EXECUTABLES")?,
            counters: Arc::new(take(&mut object, "COUNTERS")?),
            events: Mutex::new(Some(take(&mut object, "EVENTS")?)),
            lsm,
            object,
            _life: life,
            lock,
            reader: Mutex::default(),
        };
        if let Some(pins) = pins {
            pins.prune()?;
            let kept = pins.cgroups()?;
            kernel.tables().sweep(&kept)?;
            // Connections to listeners that are gone.
            kernel.handovers.clear();
        }
        Ok(kernel)
    }

    /// Has every refusal given to `on_refusal`, those too that nobody read since an earlier daemon ended,
    /// and the number of those that it has not recorded, or never saw, to `on_lost`. To be called once, when the
    /// sandboxes are known that refusals will name; until then they are kept, as far as there is room.
    ///
    /// # Errors
    /// If no thread can be started; `Missing` at a second call.
    pub fn watch(
        &self,
        on_refusal: impl Fn(Refusal) -> bool + Send + 'static,
        on_lost: impl Fn(u64) + Send + 'static,
    ) -> Result<(), KernelError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let events = events
            .take()
            .ok_or(KernelError::Missing("second ring buffer of refusals"))?;
        let counted = Arc::clone(&self.counters);
        let lost = move || sum(&counted, counter::EVENTS_LOST);
        let reading = Reading {
            events,
            executables: self.executables()?,
            on_refusal,
            lost,
            on_lost,
        };
        *self.reader() = Some(reading.start()?);
        Ok(())
    }

    /// Runs `work` when the refusals of before have been given to whoever watches, or half a second later.
    pub fn when_caught_up(&self, work: impl FnOnce() + Send + 'static) {
        match &mut *self.reader() {
            Some(reader) => reader.then(work),
            None => work(),
        }
    }

    /// Has the refusals that are left recorded or counted, as [`Self::watch`] says, and watches no
    /// longer. Blocks.
    pub fn settle(&self) {
        let reader = self.reader().take();
        if let Some(reader) = reader {
            reader.settle();
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the programs the gateway's ports in a network namespace.
    ///
    /// # Errors
    /// If the map is full.
    pub fn add_listener(
        &self,
        sandbox: SandboxId,
        netns: u64,
        listeners: Listeners,
    ) -> Result<(), KernelError> {
        self.tables().add_listener(sandbox, netns, listeners)
    }

    /// Takes a namespace back: what is in it is refused from here on.
    pub fn remove_listener(&self, sandbox: SandboxId, netns: u64) {
        self.tables().remove_listener(sandbox, netns);
    }

    /// Has the programs send nothing to any listener from here on, whoever adds some: they are about to be closed, and their
    /// ports may be anybody's then.
    pub fn end_listeners(&self) {
        if let Err(error) = self.tables().end_listeners() {
            warn!(%error, "the sandboxes' connections may be sent to ports that the gateway no longer has, until it has ended");
        }
    }

    /// Where the programs send a sandbox's connections: namespace cookies, and the ports there. After
    /// [`Kernel::adopt`] these are the ports of the daemon that ended, to be bound again.
    pub fn listeners_of(&self, sandbox: SandboxId) -> Vec<(u64, Listeners)> {
        self.tables().listeners_of(sandbox)
    }

    /// Writes a rule set under a new number and makes it the sandbox's by one store, so that there
    /// is no moment in which a connection meets half of it. The one before is removed after.
    ///
    /// # Errors
    /// If the maps are full; the rules of before stay in force.
    pub fn activate(
        &self,
        attachment: &mut Attachment,
        rules: &[KernelRule],
    ) -> Result<(), KernelError> {
        let mut tables = self.tables();
        let written = tables.activate(attachment.cgroup, attachment.sandbox, rules)?;
        if let Some(old) = attachment.ruleset.replace(written) {
            tables.remove_rules(old);
        }
        Ok(())
    }

    /// Makes the programs refuse everything in this sandbox and frees its rules. The links stay.
    pub fn deactivate(&self, attachment: &mut Attachment) {
        let mut tables = self.tables();
        tables.deactivate(attachment.cgroup, attachment.sandbox);
        if let Some(old) = attachment.ruleset.take() {
            tables.remove_rules(old);
        }
    }

    /// A handle of the flow table for one accept loop.
    ///
    /// # Errors
    /// If the descriptor cannot be copied.
    pub fn flow_table(&self) -> Result<FlowTable, KernelError> {
        let handovers = Arc::clone(&self.handovers);
        Ok(FlowTable::new(handovers, self.executables()?))
    }

    /// The counters of [`counter`], summed over CPUs, by index. With pins they go on over restarts.
    pub fn counters(&self) -> [u64; counter::COUNT as usize] {
        let mut sums = [0; counter::COUNT as usize];
        for (index, slot) in (0..counter::COUNT).zip(sums.iter_mut()) {
            *slot = sum(&self.counters, index);
        }
        sums
    }

    /// What the programs counted for a sandbox, since its first activation; `None` before.
    pub fn sandbox_counters(&self, sandbox: SandboxId) -> Option<SandboxCounters> {
        self.tables().counters(sandbox)
    }

    /// How full the maps are, for [`gateway_common::capacity`] to compare with.
    pub fn usage(&self) -> Usage {
        self.tables().usage()
    }

    /// What protects a sandbox that is attached now.
    pub fn protections(&self) -> Protections {
        Protections {
            programs: self.programs.iter().map(|program| program.name).collect(),
            lsm: self.lsm.is_ok(),
            lsm_absent_because: self.lsm.as_ref().err().cloned(),
            pinned: self.lock.is_some(),
        }
    }

    /// Each program and how many instructions the verifier walked for it (Linux 5.16 and later say).
    pub fn program_sizes(&self) -> Vec<(&'static str, u32)> {
        self.programs
            .iter()
            .map(|loaded| {
                let info = self.object.program(loaded.name).map(Program::info);
                let verified = match info {
                    Some(Ok(info)) => info.verified_instruction_count().unwrap_or(0),
                    _ => 0,
                };
                (loaded.name, verified)
            })
            .collect()
    }

    pub(super) fn programs(&self) -> &[LoadedProgram] {
        &self.programs
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        // A panic while it was held leaves map handles as they were: they are still good.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn executables(&self) -> Result<Executables, KernelError> {
        let fd = self.executables.fd().as_fd().try_clone_to_owned()?;
        let failed = |source| map_error("EXECUTABLES", source);
        let data = MapData::from_fd(fd).map_err(failed)?;
        let map = HashMap::try_from(Map::LruHashMap(data)).map_err(failed)?;
        Ok(Executables(map))
    }
}

/// The programs as they know most: the paths of the sandbox's programs are no condition for anything, and
/// not every kernel lets them be read (`lockdown=confidentiality`, kernel_lockdown(7)).
fn load_best(
    debug_log: bool,
    maps: Option<&Path>,
) -> Result<(Ebpf, Vec<LoadedProgram>), KernelError> {
    let why = match types::task_fields() {
        Ok(fields) => match load_all(debug_log, maps, fields) {
            Ok(loaded) => return Ok(loaded),
            Err(error) => error.to_string(),
        },
        Err(why) => why,
    };
    warn!(why, "the paths of programs will not be on record");
    load_all(debug_log, maps, TaskFields::UNKNOWN)
}

fn load_all(
    debug_log: bool,
    maps: Option<&Path>,
    fields: TaskFields,
) -> Result<(Ebpf, Vec<LoadedProgram>), KernelError> {
    let mut object = load_object(debug_log, maps, fields)?;
    let mut programs = Vec::with_capacity(PROGRAMS.len() + 1);
    for (name, kind, attach_type) in PROGRAMS {
        programs.push(LoadedProgram {
            name,
            attach_type,
            fd: load_program(&mut object, name, kind)?,
            is_optional: false,
        });
    }
    Ok((object, programs))
}

/// Creates the maps, or opens the pinned ones; the programs come later, one by one.
fn load_object(
    debug_log: bool,
    maps: Option<&Path>,
    fields: TaskFields,
) -> Result<Ebpf, KernelError> {
    let level = if debug_log {
        aya_log_level::DEBUG
    } else {
        aya_log_level::OFF
    };
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", &level, false);
    loader.override_global("TASK_FIELDS", &fields, true);
    let weakly_ordered = u32::from(!cfg!(target_arch = "x86_64"));
    loader.override_global("WEAKLY_ORDERED", &weakly_ordered, true);
    let (sockets, missing) = types::socket_fields();
    if let Some(why) = missing {
        warn!(why, "every socket that is handed in will count as foreign");
    }
    loader.override_global("SOCKET_FIELDS", &sockets, true);
    if let Some(folder) = maps {
        for name in PINNED {
            loader.map_pin_path(name, folder.join(name));
        }
    }
    loader
        .load(aya::include_bytes_aligned!(concat!(
            env!("OUT_DIR"),
            "/postern-ebpf"
        )))
        .map_err(|error| KernelError::Load(Box::new(error)))
}

/// A map whose descriptor alone is wanted.
fn data(object: &mut Ebpf, name: &'static str) -> Result<MapData, KernelError> {
    match object.take_map(name) {
        Some(Map::Array(data) | Map::LruHashMap(data)) => Ok(data),
        _ => Err(KernelError::Missing(name)),
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
    let refused = |refusal| KernelError::Program {
        name,
        refusal: Box::new(refusal),
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
        Kind::Sockopt => {
            let program: &mut CgroupSockopt = program.try_into().map_err(refused)?;
            program.load().map_err(refused)?;
            program.fd().map_err(refused)?.as_fd().try_clone_to_owned()
        }
    };
    Ok(fd?)
}
