//! The maps. Their names are the contract with `gateway/src/kernel/maps.rs`.

use crate::memo::Remembered;
use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type,
        bpf_sock,
    },
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    helpers::{bpf_get_local_storage, bpf_ktime_get_boot_ns, generated::bpf_sk_storage_get},
    macros::btf_map,
};
use core::ptr::{addr_of, read_volatile};
use gateway_common::{
    Allowance, Event, Executable, Flow, Handover, HandoverHead, Image, Life, ListenerKey,
    Listeners, PortKey, PortSet, RuleKey, SandboxCounters, Settings, capacity, counter, refusal,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Per attached cgroup: which sandbox, which rules. Written by the gateway alone.
#[btf_map]
pub static SETTINGS: CgroupSettings = CgroupSettings::new();

/// (namespace, sandbox) → the gateway's ports there.
#[btf_map]
pub static LISTENERS: HashMap<ListenerKey, Listeners, { capacity::LISTENERS }> = HashMap::new();

/// (namespace, port, protocol) → the sandbox whose listener or resolver is there.
#[btf_map]
pub static PORTS: HashMap<PortKey, u32, { capacity::PORTS }, NO_PREALLOC> = HashMap::new();

/// (rule set, protocol, address prefix) → index of a port set.
#[btf_map]
pub static RULES: LpmTrie<RuleKey, u32, { capacity::RULES }> = LpmTrie::new();

/// The port sets that rules share; 16 KiB each, so not preallocated.
#[btf_map]
pub static PORT_SETS: HashMap<u32, PortSet, { capacity::PORT_SETS }, NO_PREALLOC> = HashMap::new();

/// Per socket: where it wanted to go. Freed with the socket; what a server accepts has a copy of the server's.
#[btf_map]
pub static SOCKETS: SocketRecords = SocketRecords::new();

/// What this CPU has found lately. Not pinned: it can be found again.
#[btf_map]
pub static REMEMBERED: PerCpuArray<Remembered, 1> = PerCpuArray::new();

/// Redirected connections that the gateway has not accepted yet.
#[btf_map]
pub static FLOWS: Array<Handover, { capacity::FLOWS }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The head of [`FLOWS`], and that alone.
#[btf_map]
pub static FLOWS_HEAD: Array<HandoverHead, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Who connects → the path of its program. Not pinned: it can be found out again.
#[btf_map]
pub static EXECUTABLES: LruHashMap<Image, Executable, { capacity::EXECUTABLES }> =
    LruHashMap::new();

/// Thread → the path that it is finding out.
#[btf_map]
pub static SCRATCH: HashMap<u32, Executable, { capacity::SCRATCH }, NO_PREALLOC> = HashMap::new();

/// Refusals, for the audit record.
#[btf_map]
pub static EVENTS: RingBuf<Event, { capacity::EVENT_BYTES }> = RingBuf::new();

/// See [`counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNT as usize }> = PerCpuArray::new();

/// Adds one to a counter.
#[inline(always)]
pub fn count(which: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: the slot belongs to this CPU, and cgroup programs do not migrate while they run.
        unsafe { *value += 1 };
    }
}

/// How many refusals each sandbox may still have recorded.
#[btf_map]
pub static ALLOWANCES: HashMap<u32, Allowance, { capacity::SANDBOXES }, NO_PREALLOC> =
    HashMap::new();

/// What each sandbox did, for `postern status`.
#[btf_map]
pub static SANDBOX_COUNTERS: PerCpuHashMap<
    u32,
    SandboxCounters,
    { capacity::SANDBOXES },
    NO_PREALLOC,
> = PerCpuHashMap::new();

/// Changes this CPU's counters of a sandbox, if the gateway keeps some.
#[inline(always)]
pub fn count_for(sandbox: u32, change: impl FnOnce(&mut SandboxCounters)) {
    if let Some(counters) = SANDBOX_COUNTERS.get_ptr_mut(sandbox) {
        // SAFETY: the slot belongs to this CPU; a program that interrupts this one may cost a count.
        change(unsafe { &mut *counters });
    }
}

/// The futex of the gateway that loaded this program, and what belongs to that: the kernel writes into it when the gateway
/// ends, however it ends. Never pinned.
#[btf_map]
pub static ALIVE: Array<Life, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Is the gateway there that this sandbox's connections would be sent to? Without it its ports may be
/// anybody's by now.
#[inline(always)]
pub fn gateway_is_there() -> bool {
    let Some(life) = ALIVE.get_ptr(0) else {
        return false;
    };
    // SAFETY: within a live map value. Volatile: the kernel itself changes it.
    let futex = unsafe { read_volatile(addr_of!((*life).futex)) };
    futex & Life::OWNER != 0
}

/// Are these settings' listeners still what the gateway says?
#[inline(always)]
pub fn is_current(settings: &Settings) -> bool {
    let Some(life) = ALIVE.get_ptr(0) else {
        return false;
    };
    // SAFETY: within a live map value. Volatile: the gateway changes it.
    let edition = unsafe { read_volatile(addr_of!((*life).edition)) };
    settings.edition == edition && edition != 0
}

/// Records a refusal, and counts it whether or not it may be or can be recorded.
#[inline(always)]
pub fn emit(event: &Event) {
    count(counter::REFUSED);
    count_for(event.flow.sandbox, |counters| {
        counters.refused[usize::from(event.reason) & (refusal::SLOTS - 1)] += 1;
    });
    if !allowed(event.flow.sandbox) || EVENTS.output(event, 0).is_err() {
        count(counter::EVENTS_LOST);
    }
}

/// A token bucket. CPUs that race may let a few more pass.
#[inline(always)]
fn allowed(sandbox: u32) -> bool {
    const NANOSECONDS: u64 = 1_000_000_000 / Allowance::PER_SECOND;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(allowance) = ALLOWANCES.get_ptr_mut(sandbox) else {
        let full = Allowance {
            left: Allowance::BURST,
            time: now,
        };
        return ALLOWANCES.insert(sandbox, full, 0).is_ok();
    };
    // SAFETY: the pointer is to a live map value; see above for races.
    let allowance = unsafe { &mut *allowance };
    let earned = now.saturating_sub(allowance.time) / NANOSECONDS;
    if earned > 0 {
        allowance.left = (allowance.left + earned).min(Allowance::BURST);
        allowance.time += earned * NANOSECONDS;
    }
    if allowance.left == 0 {
        return false;
    }
    allowance.left -= 1;
    true
}

/// Cgroup storage that all programs attached to a cgroup share: that is what a key of a bare cgroup
/// id means to the kernel (Documentation/bpf/map_cgroup_storage.rst). aya-ebpf's own type has the
/// other key, one value per attach type.
#[repr(C)]
pub struct CgroupSettings {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED as usize],
    key: *const u64,
    value: *const Settings,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 0],
}

// SAFETY: the fields are placeholders that the loader reads as types; nothing dereferences them.
unsafe impl Sync for CgroupSettings {}

impl CgroupSettings {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The settings of the cgroup that the running program is attached to; all zero until written.
    #[inline(always)]
    pub fn current(&self) -> &Settings {
        // SAFETY: the helper takes this map and flags of zero and cannot fail; the gateway replaces the value by
        // another one, and this one stays as it is as long as the program runs.
        unsafe {
            &*bpf_get_local_storage(core::ptr::from_ref(self).cast_mut().cast(), 0)
                .cast::<Settings>()
        }
    }
}

/// Storage of sockets that is copied to those which a listening one accepts (`BPF_F_CLONE`, linux/bpf.h): aya-ebpf's own
/// type has no flags.
#[repr(C)]
pub struct SocketRecords {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Flow,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: as above.
unsafe impl Sync for SocketRecords {}

impl SocketRecords {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The record of a socket that has one.
    ///
    /// # Safety
    /// `sk` is what the kernel gave this program, and not null.
    #[inline(always)]
    pub unsafe fn get<'a>(&self, sk: *mut bpf_sock) -> Option<&'a mut Flow> {
        // SAFETY: by the contract.
        unsafe { self.find(sk, 0) }
    }

    /// The record of a socket, of zeroes if there was none; `None` when the kernel has no memory for it.
    ///
    /// # Safety
    /// As [`Self::get`].
    #[inline(always)]
    pub unsafe fn get_or_create<'a>(&self, sk: *mut bpf_sock) -> Option<&'a mut Flow> {
        // SAFETY: by the contract.
        unsafe { self.find(sk, BPF_SK_STORAGE_GET_F_CREATE.into()) }
    }

    #[inline(always)]
    unsafe fn find<'a>(&self, sk: *mut bpf_sock, flags: u64) -> Option<&'a mut Flow> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the storage lives as long as the program runs; the rest is by the contract.
        unsafe {
            bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
                .cast::<Flow>()
                .as_mut()
        }
    }
}
