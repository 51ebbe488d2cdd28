//! Reads and writes the kernel's socket-address context. Knows byte orders and nothing of rules.

use aya_ebpf::{
    bindings::{BPF_TCP_ESTABLISHED, bpf_sock, bpf_sock_addr},
    programs::SockAddrContext,
};
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use gateway_common::{Address, V4_MAPPED, is_same, v4_mapped};

/// `AF_INET` (linux/socket.h).
pub const AF_INET: u32 = 2;
/// `AF_INET6` (linux/socket.h).
pub const AF_INET6: u32 = 10;

const LOCALHOST_V4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
const LOCALHOST_V6: Address = [0, 0, 0, 1_u32.to_be()];
const UNSPECIFIED_V6: Address = [0; 4];

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
    Destination {
        // SAFETY: the kernel passes a valid context; the verifier checks each access.
        address: v4_mapped(unsafe { read_volatile(addr_of!((*raw(ctx)).user_ip4)) }),
        port: port(ctx),
        spelling: Spelling::V4,
    }
}

#[inline(always)]
pub fn destination6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above; volatile keeps the compiler from merging loads that the verifier wants to
    // see one word at a time.
    let address = unsafe {
        [
            read_volatile(addr_of!((*raw(ctx)).user_ip6[0])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[1])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[2])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[3])),
        ]
    };
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

/// The loopback address on which the gateway listens for this spelling.
#[inline(always)]
pub fn listener(spelling: Spelling) -> Address {
    match spelling {
        Spelling::V4 | Spelling::V4Mapped => v4_mapped(LOCALHOST_V4),
        Spelling::V6 => LOCALHOST_V6,
    }
}

/// Writes the address and port (host order) that an IPv4 program's caller will see.
#[inline(always)]
pub fn write4(ctx: &SockAddrContext, address: &Address, port: u16) {
    // SAFETY: fields that the kernel lets IPv4 programs write.
    unsafe { write_volatile(addr_of_mut!((*raw(ctx)).user_ip4), address[3]) };
    write_port(ctx, port);
}

/// Writes the address and port (host order) that an IPv6 program's caller will see.
#[inline(always)]
pub fn write6(ctx: &SockAddrContext, address: &Address, port: u16) {
    // SAFETY: fields that the kernel lets IPv6 programs write, one word at a time.
    unsafe {
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[0]), address[0]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[1]), address[1]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[2]), address[2]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[3]), address[3]);
    }
    write_port(ctx, port);
}

#[inline(always)]
fn write_port(ctx: &SockAddrContext, port: u16) {
    // SAFETY: a field that the kernel lets these programs write; network order, low 16 bits.
    unsafe { write_volatile(addr_of_mut!((*raw(ctx)).user_port), u32::from(port.to_be())) };
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

/// Is the socket connected to just this listener of the gateway? Only a redirect can have done that: who
/// asks connect() for a listener is refused.
#[inline(always)]
pub fn is_connected_to(ctx: &SockAddrContext, to: &Destination) -> bool {
    // SAFETY: the kernel passes a valid context, whose socket is never null here; the verifier checks
    // each access.
    let (state, port) = unsafe {
        let sk = socket(ctx);
        (
            read_volatile(addr_of!((*sk).state)),
            u16::from_be(read_volatile(addr_of!((*sk).dst_port))),
        )
    };
    state == BPF_TCP_ESTABLISHED && port == to.port && is_same(&to.address, &listener(to.spelling))
}

/// Loopback, and the unspecified address, which connect() takes for loopback.
#[inline(always)]
pub fn is_loopback(address: &Address) -> bool {
    if is_v4_mapped(address) {
        address[3] == 0 || address[3].to_ne_bytes()[0] == 127
    } else {
        is_same(address, &LOCALHOST_V6) || is_same(address, &UNSPECIFIED_V6)
    }
}

#[inline(always)]
pub fn is_v4_mapped(address: &Address) -> bool {
    address[0] | address[1] == 0 && address[2] == V4_MAPPED
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as above.
    u16::from_be(unsafe { read_volatile(addr_of!((*raw(ctx)).user_port)) } as u16)
}

/// The socket; never null for these programs.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*raw(ctx)).__bindgen_anon_1.sk }
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}
