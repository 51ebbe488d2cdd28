//! Reads and writes the kernel's socket-address context. Knows byte orders and nothing of rules.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid,
    },
    programs::SockAddrContext,
};
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use gateway_common::{Address, COMM_LEN, Process, v4_mapped};

/// `AF_INET` (linux/socket.h).
pub const AF_INET: u32 = 2;
/// `AF_INET6` (linux/socket.h).
pub const AF_INET6: u32 = 10;

const LOCALHOST_V4: [u8; 4] = [127, 0, 0, 1];
const LOCALHOST_V6: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const UNSPECIFIED_V6: Address = [0; 16];

/// How the client spelled the address; an answer must be spelled the same way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    V4,
    V6,
    /// An IPv6 socket using `::ffff:a.b.c.d`: on the wire this is IPv4.
    V4Mapped,
}

/// An address as the context has it.
#[derive(Clone, Copy)]
pub struct Destination {
    pub address: Address,
    /// Host order.
    pub port: u16,
    pub spelling: Spelling,
}

#[inline(always)]
pub fn destination4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let octets = unsafe { read_volatile(addr_of!((*raw(ctx)).user_ip4)) }.to_ne_bytes();
    Destination {
        address: v4_mapped(octets),
        port: port(ctx),
        spelling: Spelling::V4,
    }
}

#[inline(always)]
pub fn destination6(ctx: &SockAddrContext) -> Destination {
    let mut address: Address = [0; 16];
    let mut word = 0;
    while word < 4 {
        // SAFETY: as above; volatile keeps the compiler from merging loads that the verifier wants
        // to see one word at a time.
        let octets = unsafe { read_volatile(addr_of!((*raw(ctx)).user_ip6[word])) }.to_ne_bytes();
        address[word * 4] = octets[0];
        address[word * 4 + 1] = octets[1];
        address[word * 4 + 2] = octets[2];
        address[word * 4 + 3] = octets[3];
        word += 1;
    }
    let spelling = if is_v4_mapped(&address) {
        Spelling::V4Mapped
    } else {
        Spelling::V6
    };
    Destination {
        address,
        port: port(ctx),
        spelling,
    }
}

/// For the getpeername programs: the address now in the context, whichever family.
#[inline(always)]
pub fn destination_of_family(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above.
    if unsafe { read_volatile(addr_of!((*raw(ctx)).user_family)) } == AF_INET {
        destination4(ctx)
    } else {
        destination6(ctx)
    }
}

/// Sends the socket to the gateway's port on the loopback address of the family it uses.
#[inline(always)]
pub fn redirect(ctx: &SockAddrContext, to: &Destination, port: u16) {
    let listener = match to.spelling {
        Spelling::V4 | Spelling::V4Mapped => v4_mapped(LOCALHOST_V4),
        Spelling::V6 => LOCALHOST_V6,
    };
    set_address(ctx, to, &listener, port);
}

/// Writes an address and a port (host order), spelled as `like`. An IPv6 address cannot be told to
/// an IPv4 socket, and never has to be: a socket's record has the family the socket asked in.
#[inline(always)]
pub fn set_address(ctx: &SockAddrContext, like: &Destination, address: &Address, port: u16) {
    let raw = raw(ctx);
    if like.spelling == Spelling::V4 {
        let ip = u32::from_ne_bytes([address[12], address[13], address[14], address[15]]);
        // SAFETY: a field that the kernel lets this program type write.
        unsafe { write_volatile(addr_of_mut!((*raw).user_ip4), ip) };
    } else {
        let mut word = 0;
        while word < 4 {
            let ip = u32::from_ne_bytes([
                address[word * 4],
                address[word * 4 + 1],
                address[word * 4 + 2],
                address[word * 4 + 3],
            ]);
            // SAFETY: as above, one word at a time.
            unsafe { write_volatile(addr_of_mut!((*raw).user_ip6[word]), ip) };
            word += 1;
        }
    }
    // SAFETY: as above. The context keeps the port in network order in the low 16 bits.
    unsafe { write_volatile(addr_of_mut!((*raw).user_port), u32::from(port.to_be())) };
}

#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*raw(ctx)).protocol)) }
}

#[inline(always)]
pub fn socket_type(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*raw(ctx)).type_)) }
}

#[inline(always)]
pub fn family(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*raw(ctx)).family)) }
}

/// Loopback, and the unspecified address, which connect() takes for loopback.
#[inline(always)]
pub fn is_loopback(address: &Address) -> bool {
    if is_v4_mapped(address) {
        address[12] == 127
            || (address[12] | address[13] | address[14] | address[15]) == 0
    } else {
        *address == LOCALHOST_V6 || *address == UNSPECIFIED_V6
    }
}

#[inline(always)]
pub fn is_v4_mapped(address: &Address) -> bool {
    let mut high = 0;
    let mut i = 0;
    while i < 10 {
        high |= address[i];
        i += 1;
    }
    high == 0 && address[10] == 0xff && address[11] == 0xff
}

/// The task that is running, and its cgroup.
#[inline(always)]
pub fn current() -> (Process, u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    let process = Process {
        pid: pid_tgid as u32,
        tgid: (pid_tgid >> 32) as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
    };
    // SAFETY: a helper without arguments.
    (process, unsafe { bpf_get_current_cgroup_id() })
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as above.
    u16::from_be(unsafe { read_volatile(addr_of!((*raw(ctx)).user_port)) } as u16)
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}
