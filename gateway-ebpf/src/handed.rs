//! Files that come to a task from another one (`SCM_RIGHTS`, `pidfd_getfd(2)`): a socket that was made outside of
//! the sandbox belongs to the cgroup that it was made in, whose programs are not these, so that none would see what
//! it sends. It is refused as it is handed in. Of the kernel's types it knows only where the gateway says that
//! their fields are.

use crate::{context, maps::SETTINGS, sockets};
use aya_ebpf::{helpers::generated::bpf_sock_from_file, programs::LsmContext};
use core::ptr::{addr_of, read_volatile};
use gateway_common::{Address, Flow, SocketFields, refusal, v4_mapped};

/// Written by the gateway before the programs are loaded. Where the family's place is not known every socket is
/// foreign, where the cgroup's is not known all but Unix sockets are.
#[unsafe(no_mangle)]
static SOCKET_FIELDS: SocketFields = SocketFields::UNKNOWN;

/// `AF_UNIX` (linux/socket.h).
const AF_UNIX: u16 = 1;
/// Cgroups between the sandbox's and the socket's; beyond that the socket counts as foreign.
const DEPTH: u32 = 64;

/// A constant for the verifier, which then knows the field that is read with it. One by one: copied as a whole,
/// they would pass over the stack, where some verifiers forget them.
macro_rules! field {
    ($name:ident) => {{
        // SAFETY: a static of the program's own; volatile because the loader has changed it.
        unsafe { read_volatile(addr_of!(SOCKET_FIELDS.$name)) }
    }};
}

/// What is not a socket, Unix sockets, and sockets that were made in this sandbox.
#[inline(always)]
pub fn may_be_received(ctx: &LsmContext) -> Result<(), ()> {
    // security_file_receive(file) (linux/lsm_hook_defs.h).
    // SAFETY: the hook's first argument is a file, as the verifier knows.
    let socket: *const u8 = unsafe { bpf_sock_from_file(ctx.arg(0)) }.cast();
    if socket.is_null() {
        return Ok(());
    }
    if field!(family_known) == 0 {
        return refuse(&Flow::EMPTY, 0, 0, 0);
    }
    // SAFETY: the offset is that of `socket.sk`.
    let sk: *const u8 = unsafe { load(socket, field!(socket_sk)) };
    // SAFETY: the offset is that of `sock.__sk_common.skc_family`.
    let family: u16 = unsafe { load(sk, field!(sock_family)) };
    if family == AF_UNIX {
        return Ok(());
    }
    if field!(cgroup_known) == 0 {
        return refuse(&Flow::EMPTY, family, 0, 0);
    }
    if is_of_this_sandbox(sk) {
        return Ok(());
    }
    // SAFETY: the offsets are those of `sock.sk_type`, `sk_protocol` and of `skc_dport`, which is in network order.
    let (kind, protocol, port) = unsafe {
        (
            load::<u16>(sk, field!(sock_type)),
            load::<u16>(sk, field!(sock_protocol)),
            u16::from_be(load(sk, field!(sock_port))),
        )
    };
    let is_internet = matches!(u32::from(family), context::AF_INET | context::AF_INET6);
    let flow = Flow {
        address: if is_internet {
            peer(sk, family)
        } else {
            [0; 4]
        },
        port: if is_internet { port } else { 0 },
        protocol: protocol as u8,
        ..Flow::EMPTY
    };
    refuse(&flow, family, kind, protocol)
}

/// Is one of the cgroups that the socket was made in the one that this program is attached to?
#[inline(always)]
fn is_of_this_sandbox(sk: *const u8) -> bool {
    let wanted = SETTINGS.current().cgroup;
    // SAFETY: here and below each offset is that of the field which names it; what the kernel reads from a null
    // pointer is zero.
    let mut cgroup: *const u8 = unsafe { load(sk, field!(sock_cgroup)) };
    for _ in 0..DEPTH {
        // SAFETY: as above.
        let id: u64 = unsafe { load(load(cgroup, field!(cgroup_node)), field!(node_id)) };
        // Nothing is above the root, and without settings nothing is wanted.
        if id == 0 || id == wanted {
            return id != 0;
        }
        // SAFETY: as above.
        cgroup = unsafe { load(load(cgroup, field!(cgroup_parent)), field!(css_cgroup)) };
    }
    false
}

/// Where the socket is connected to.
#[inline(always)]
fn peer(sk: *const u8, family: u16) -> Address {
    if u32::from(family) == context::AF_INET {
        // SAFETY: the offset is that of `skc_daddr`.
        return v4_mapped(unsafe { load(sk, field!(sock_v4)) });
    }
    let word = |index: u32| {
        // SAFETY: the offset is that of `skc_v6_daddr`, four words.
        unsafe { load::<u32>(sk, field!(sock_v6) + 4 * index) }
    };
    [word(0), word(1), word(2), word(3)]
}

#[inline(always)]
fn refuse(flow: &Flow, family: u16, kind: u16, protocol: u16) -> Result<(), ()> {
    let (family, kind, protocol) = (family.into(), kind.into(), protocol.into());
    sockets::record(refusal::FOREIGN_SOCKET, flow, family, kind, protocol);
    Err(())
}

/// A field of a structure that the verifier knows.
#[inline(always)]
unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T {
    // SAFETY: the caller has the field's offset; the verifier checks it.
    unsafe { read_volatile(base.add(offset as usize).cast()) }
}
