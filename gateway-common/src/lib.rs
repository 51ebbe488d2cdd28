//! Values that the kernel programs and the gateway exchange through eBPF maps. Plain `#[repr(C)]`
//! data without padding holes (map keys are compared byte by byte); no logic beyond conversions
//! that both sides need in the same form.
#![no_std]

mod fields;
mod handover;

pub use fields::{SocketFields, TaskFields};
pub use handover::{FlowKey, Handover, HandoverHead};

/// An IPv4 or IPv6 address in one form: IPv4 is kept v4-mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2),
/// so that one trie and one key serve both families and a v4-mapped spelling is no way around a rule.
/// Four words, each as it lies in memory in network order: that is how the kernel hands them over.
pub type Address = [u32; 4];

/// The word in front of the IPv4 address in the v4-mapped form.
pub const V4_MAPPED: u32 = 0xffff_u32.to_be();

/// The v4-mapped form of an IPv4 address, whose word is as it lies in memory in network order.
#[inline(always)]
pub const fn v4_mapped(word: u32) -> Address {
    [0, 0, V4_MAPPED, word]
}

/// An address from its sixteen octets.
#[inline(always)]
pub const fn address_from_octets(o: [u8; 16]) -> Address {
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

/// Are they the same? Word by word: the compiler's own comparison is a loop over bytes for the kernel's programs.
#[inline(always)]
pub const fn is_same(one: &Address, other: &Address) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
}

/// The sixteen octets of an address.
#[inline(always)]
pub const fn octets_from_address(address: Address) -> [u8; 16] {
    let [a, b, c, d] = [
        address[0].to_ne_bytes(),
        address[1].to_ne_bytes(),
        address[2].to_ne_bytes(),
        address[3].to_ne_bytes(),
    ];
    [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
        d[3],
    ]
}

/// IANA protocol numbers that rules and records carry.
pub mod protocol {
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
}

/// Raised by hand whenever what is in the maps changes its meaning without changing its size: a daemon
/// takes over the pinned maps of another only if both have the same layout.
pub const LAYOUT: u32 = 6;

/// How many entries the maps hold.
pub mod capacity {
    use super::Handover;

    /// (namespace, sandbox) pairs with listeners.
    pub const LISTENERS: usize = 16384;
    /// Ports of listeners and resolvers: four of each pair.
    pub const PORTS: usize = 4 * LISTENERS;
    /// Address prefixes, over all rule sets.
    pub const RULES: usize = 262_144;
    /// Port sets, over all rule sets; 16 KiB each, so not preallocated.
    pub const PORT_SETS: usize = 65536;
    /// Redirected connections that nobody accepted yet; 2 MiB in all.
    pub const FLOWS: usize = (Handover::KEYS * Handover::PLACES) as usize;
    /// Sandboxes with an allowance and counters.
    pub const SANDBOXES: usize = 16384;
    /// Program images whose paths are known; those that nobody asked for in longest give way.
    pub const EXECUTABLES: usize = 4096;
    /// Threads that are finding one out just now.
    pub const SCRATCH: usize = 1024;
    /// Bytes of recorded refusals that nobody read yet; a power of two, and of pages.
    pub const EVENT_BYTES: usize = 1_048_576;
}

/// Whether the gateway lives: a futex, and what belongs to it, as the kernel wants them
/// (Documentation/locking/robust-futex-ABI.rst).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Life {
    /// The number of a thread of the gateway's; other than that when it has ended.
    pub futex: u32,
    /// The upper half of the gateway's first word.
    pub reserved: u32,
    /// The gateway's, and the kernel's when it has ended.
    pub list: [u64; 4],
    /// Of the listeners in settings: those that bear another one are void, an earlier gateway's among them. Zero: all are.
    pub edition: u32,
    /// Always zero.
    pub rest: u32,
}

impl Life {
    /// The bits of the futex that are its owner's number: `FUTEX_TID_MASK` (linux/futex.h). Zero when that has ended.
    pub const OWNER: u32 = 0x3fff_ffff;
    /// The word with [`Life::edition`] as its lower half (little endian), of the words that it all is.
    pub const EDITION: usize = 5;
    /// How many words that is.
    pub const WORDS: usize = 6;
}

/// The length of a task's command name in the kernel (`TASK_COMM_LEN`, linux/sched.h).
pub const COMM_LEN: usize = 16;

/// What the kernel programs know of an attached sandbox. It lives in the cgroup storage of the
/// cgroup that the programs are attached to, so one loaded program serves every sandbox without a
/// look-up by ancestor. All zero (as it is between attach and first write) denies everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The gateway's number for this sandbox; zero means "not ready".
    pub sandbox: u32,
    /// Which rule set applies. A new generation is written under a new number and becomes valid
    /// by this one store.
    pub ruleset: u32,
    /// Kernel id of the cgroup that the programs are attached to.
    pub cgroup: u64,
    /// Cookie of the namespace that [`Settings::listeners`] are in; zero if they are in none.
    pub netns: u64,
    /// The gateway's ports in that namespace, as the map of listeners has them too, which is asked for other namespaces.
    pub listeners: Listeners,
    /// [`Life::edition`], if these listeners count; else the map is asked for all.
    pub edition: u32,
}

/// Names the listeners that serve one sandbox in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Network namespace cookie (`SO_NETNS_COOKIE`, socket(7)).
    pub netns: u64,
    /// [`Settings::sandbox`].
    pub sandbox: u32,
    /// Always zero: keeps the key free of padding.
    pub reserved: u32,
}

/// Names a port on which the gateway serves a sandbox in a network namespace, whichever sandbox. A connection or
/// datagram that is not redirected there has no business at any of them: UDP carries no record of who sent it, and
/// a neighbour's listener is not to be bothered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Network namespace cookie.
    pub netns: u64,
    /// Host order, on 127.0.0.1 or [::1].
    pub port: u32,
    /// See [`protocol`].
    pub protocol: u32,
}

/// The ports of the gateway's sockets on `127.0.0.1` and `[::1]` of a namespace, in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// TCP on 127.0.0.1.
    pub tcp4: u16,
    /// TCP on [::1]; zero where the namespace has no IPv6.
    pub tcp6: u16,
    /// DNS over UDP on 127.0.0.1.
    pub dns4: u16,
    /// DNS over UDP on [::1]; zero where the namespace has no IPv6.
    pub dns6: u16,
    /// Bits of [`Listeners::PRIVATE`], [`Listeners::SEALED`] and [`Listeners::FORMER`].
    pub flags: u32,
}

impl Listeners {
    /// The namespace belongs to this sandbox alone: its loopback is its own business.
    pub const PRIVATE: u32 = 1;
    /// No route leads out of the namespace: what would go out directly is refused rather than lost.
    pub const SEALED: u32 = 2;
    /// Of a gateway that has ended, or is about to: until a new one has them its ports may be anybody's, and nothing is sent
    /// there.
    pub const FORMER: u32 = 4;
}

/// The data part of a key of the rule trie: compared from its first bit on, so that a prefix of
/// [`RuleKey::FIXED_BITS`] plus n selects an n-bit address prefix within one rule set and protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleKey {
    /// [`Settings::ruleset`], big endian.
    pub ruleset: [u8; 4],
    /// See [`protocol`]; little endian, so that its number comes first and zeroes follow.
    pub protocol: [u8; 4],
    /// Destination.
    pub address: Address,
}

impl RuleKey {
    /// Bits in front of the address.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of the whole key.
    pub const BITS: u32 = Self::FIXED_BITS + 128;
}

/// A set of ports, as a bit map: a look-up is one load whatever the rule says.
pub type PortBits = [u64; 1024];

/// The ports that a destination prefix allows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PortSet {
    /// Allowed by any rule.
    pub allowed: PortBits,
    /// Allowed by a rule that names the address itself: the address guard steps aside.
    pub named: PortBits,
}

/// Who opened a socket: taken in the connect hook, where it cannot have changed yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Thread id, in the initial pid namespace.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Group id, in the initial user namespace.
    pub gid: u32,
    /// Command name, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// Where a sandbox's socket wanted to go, and who asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Original destination address.
    pub address: Address,
    /// Original destination port, host order.
    pub port: u16,
    /// Which listener family the socket was sent to: 4 or 6; or [`Flow::DIRECT`], or zero while nobody has judged it.
    pub via: u8,
    /// See [`protocol`].
    pub protocol: u8,
    /// [`Settings::sandbox`].
    pub sandbox: u32,
    /// Kernel id of the cgroup of the task that asked.
    pub cgroup: u64,
    /// The socket's network namespace cookie, known before anybody has judged it; zero where a hook could not know it.
    pub netns: u64,
    /// Which program it was; all zero where that is not known.
    pub image: Image,
    /// The task that asked.
    pub process: Process,
    /// The port of the listener that the socket was sent to, host order; zero if it was not redirected.
    pub listener: u16,
    /// Source port, host order; zero until the SYN leaves.
    pub source: u16,
    /// Always zero.
    pub reserved: u32,
}

impl Flow {
    /// As [`Flow::via`]: the socket was not redirected; it talks within its own namespace or, if it is UDP, to where rules
    /// allow.
    pub const DIRECT: u8 = 1;

    /// Was it sent to a listener of the gateway?
    #[inline(always)]
    pub const fn is_redirected(&self) -> bool {
        self.via > Self::DIRECT
    }

    /// Nothing known.
    pub const EMPTY: Self = Self {
        address: [0; 4],
        port: 0,
        via: 0,
        protocol: 0,
        sandbox: 0,
        cgroup: 0,
        netns: 0,
        image: Image::UNKNOWN,
        process: Process {
            pid: 0,
            tgid: 0,
            uid: 0,
            gid: 0,
            comm: [0; COMM_LEN],
        },
        listener: 0,
        source: 0,
        reserved: 0,
    };
}

/// One program in one process, from an `execve()` to the next: no two have the same, whatever becomes of the
/// process's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// When the process was made, nanoseconds since boot (`task_struct.start_boottime` of its leader).
    pub started: u64,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// How often the process and those that it was forked from have called `execve()`
    /// (`task_struct.self_exec_id`).
    pub execs: u32,
}

impl Image {
    /// Of nobody.
    pub const UNKNOWN: Self = Self {
        started: 0,
        tgid: 0,
        execs: 0,
    };
}

/// The path of the program that opened a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Executable {
    /// File name first, then the folders towards the root, each with a zero byte at its end.
    pub names: [u8; 2 * Self::ROOM],
    /// Bytes of `names` that count.
    pub length: u32,
    /// One if the last folder lies in the root; zero if the path was too long or leads elsewhere.
    pub is_whole: u32,
}

impl Executable {
    /// Bytes after which no further name is begun; none may be longer (`NAME_MAX` is 255). A power of two.
    pub const ROOM: usize = 256;
    /// Nothing known yet.
    pub const NOTHING: Self = Self {
        names: [0; 2 * Self::ROOM],
        length: 0,
        is_whole: 0,
    };
}

/// Why a kernel program refused. The numbers are part of the ring buffer's format.
pub mod refusal {
    /// The sandbox has no settings yet, or no longer.
    pub const NOT_READY: u8 = 1;
    /// The gateway has no listener in this network namespace.
    pub const NO_LISTENER: u8 = 2;
    /// No rule allows this address and port.
    pub const NO_RULE: u8 = 3;
    /// A guarded address that no rule names.
    pub const GUARDED: u8 = 4;
    /// A gateway's listener or resolver, this sandbox's or another's.
    pub const LISTENER: u8 = 5;
    /// Neither TCP nor DNS, nor UDP to where a rule for UDP allows it.
    pub const PROTOCOL: u8 = 6;
    /// A socket type or family that the sandbox may not create.
    pub const SOCKET_TYPE: u8 = 7;
    /// A packet of a socket that no hook has judged, or of a form that cannot be judged.
    pub const BACKSTOP: u8 = 8;
    /// The gateway that is responsible has ended.
    pub const GATEWAY_GONE: u8 = 9;
    /// A rule allows it, but no route leads out of the namespace.
    pub const SEALED: u8 = 10;
    /// A socket that was made outside of the sandbox, as somebody hands it in.
    pub const FOREIGN_SOCKET: u8 = 11;
    /// Room for the numbers: a power of two, so that a mask keeps an index in bounds, which every
    /// verifier understands.
    pub const SLOTS: usize = 16;
}

/// A refusal, as the ring buffer carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What was asked for. For [`refusal::SOCKET_TYPE`] the destination is empty.
    pub flow: Flow,
    /// See [`refusal`].
    pub reason: u8,
    /// Address family of the socket (`AF_INET` 2, `AF_INET6` 10).
    pub family: u8,
    /// Socket type (`SOCK_STREAM` 1, …).
    pub socket_type: u8,
    /// Always zero.
    pub reserved: u8,
    /// IANA protocol number as the socket had it (MPTCP's, 262, does not fit eight bits); for other
    /// than internet families the family's own protocol number.
    pub protocol: u32,
}

/// What the programs counted for one sandbox, on one CPU. The gateway makes the entry when it
/// activates the sandbox.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxCounters {
    /// Connections and DNS questions sent to the gateway.
    pub redirected: u64,
    /// UDP packets that left directly.
    pub direct_packets: u64,
    /// Their bytes, IP header included.
    pub direct_bytes: u64,
    /// Refusals, recorded or not, by their number in [`refusal`]; the others stay zero.
    pub refused: [u64; refusal::SLOTS],
}

/// What is left of a sandbox's allowance of recorded refusals: a flood of one must not hide the
/// refusals of another, nor fill the disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Refusals that may still be recorded now.
    pub left: u64,
    /// When that was computed, nanoseconds since boot.
    pub time: u64,
}

impl Allowance {
    /// Recorded refusals a second.
    pub const PER_SECOND: u64 = 200;
    /// As many may come at once.
    pub const BURST: u64 = 1000;
}

/// Counters of the per-CPU array `COUNTERS`.
pub mod counter {
    /// Connections redirected to the gateway.
    pub const REDIRECTED: u32 = 0;
    /// Refusals, whether or not the ring buffer had room for them.
    pub const REFUSED: u32 = 1;
    /// Refusals that were not recorded: the ring buffer was full or the sandbox's allowance spent.
    pub const EVENTS_LOST: u32 = 2;
    /// How many counters there are.
    pub const COUNT: u32 = 3;
}

#[cfg(feature = "userspace")]
mod userspace;

/// Reads an [`Event`] from the bytes of a ring buffer entry; `None` if the length is not an event's.
#[cfg(feature = "userspace")]
#[expect(
    unsafe_code,
    reason = "reads a plain value from bytes of the right length"
)]
pub fn event_from_bytes(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: the length was checked, every bit pattern is a valid Event, and read_unaligned needs
    // no alignment.
    Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast::<Event>()) })
}
