//! Which sockets a sandbox may create: an allowlist of families, types and protocols, with the error
//! of a kernel that lacks what is refused. Knows no addresses.

use crate::{
    context::{AF_INET, AF_INET6},
    maps::{SETTINGS, emit},
    task,
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_netns_cookie, generated::bpf_set_retval},
    programs::{LsmContext, SockContext},
};
use gateway_common::{
    Event, Flow,
    protocol::{TCP, UDP},
    refusal,
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = TCP as u32;
const IPPROTO_UDP: u32 = UDP as u32;
/// Multipath TCP (RFC 8684). Clients fall back to TCP when the kernel says it has none.
const IPPROTO_MPTCP: u32 = 262;
/// `AF_UNIX` (linux/socket.h).
const AF_UNIX: u32 = 1;
/// `AF_NETLINK` (linux/socket.h).
const AF_NETLINK: u32 = 16;
/// Interfaces, addresses and routes (linux/netlink.h): what the C library asks of netlink, and all.
const NETLINK_ROUTE: u32 = 0;
/// What a kernel without the protocol answers (socket(2)).
const EPROTONOSUPPORT: i32 = 93;
/// What a kernel without the family answers (socket(2)).
const EAFNOSUPPORT: i32 = 97;

/// Of the internet families TCP and UDP alone. The kernel calls this hook for no other family.
#[inline(always)]
pub fn internet(ctx: &SockContext) -> Result<(), ()> {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (family, kind, protocol) =
        unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    let allowed = match kind {
        SOCK_STREAM => protocol == 0 || protocol == IPPROTO_TCP,
        SOCK_DGRAM => protocol == 0 || protocol == IPPROTO_UDP,
        _ => false,
    };
    if allowed && (family == AF_INET || family == AF_INET6) {
        return Ok(());
    }
    if !(kind == SOCK_STREAM && protocol == IPPROTO_MPTCP) {
        // SAFETY: the helper takes this program type's context.
        let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
        let seen = Flow {
            netns,
            ..Flow::EMPTY
        };
        record(refusal::SOCKET_TYPE, &seen, family, kind, protocol);
    } // else not worth a record: every Go program asks for it and then goes on with TCP.
    // SAFETY: sets the errno of this refusal.
    unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
    Err(())
}

/// Of all families those that cannot leave the machine and those that [`internet`] judges.
#[inline(always)]
pub fn family(ctx: &LsmContext) -> Result<(), ()> {
    // security_socket_create(family, type, protocol, kern) (linux/lsm_hook_defs.h).
    let (family, kind, protocol): (u32, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let by_kernel: u32 = ctx.arg(3);
    let errno = match family {
        // A socket that the kernel makes for itself while it works for the task.
        _ if by_kernel != 0 => return Ok(()),
        AF_UNIX | AF_INET | AF_INET6 => return Ok(()),
        AF_NETLINK if protocol == NETLINK_ROUTE => return Ok(()),
        AF_NETLINK => EPROTONOSUPPORT,
        _ => EAFNOSUPPORT,
    };
    record(refusal::SOCKET_TYPE, &Flow::EMPTY, family, kind, protocol);
    // SAFETY: sets the errno of this refusal.
    unsafe { bpf_set_retval(-errno) };
    Err(())
}

/// Records a refused socket, made or handed in: of `seen` what is known of its way, the rest is the task's.
#[inline(always)]
pub fn record(reason: u8, seen: &Flow, family: u32, kind: u32, protocol: u32) {
    let (process, cgroup) = task::current();
    emit(&Event {
        flow: Flow {
            sandbox: SETTINGS.current().sandbox,
            cgroup,
            process,
            ..*seen
        },
        reason,
        family: family as u8,
        socket_type: kind as u8,
        reserved: 0,
        protocol,
    });
}
