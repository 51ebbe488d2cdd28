//! Socket options that make the kernel itself send something that no socket's hook sees: joining a
//! multicast group has it report the group, which the sandbox chooses, to the network (IGMP, RFC 3376;
//! MLD, RFC 3810). Leaving needs a membership first.

use crate::{
    context::{AF_INET, AF_INET6},
    sockets,
};
use aya_ebpf::programs::{LsmContext, SockoptContext};
use gateway_common::{Flow, refusal};

/// Levels (linux/in.h, linux/in6.h).
const IPPROTO_IP: i32 = 0;
const IPPROTO_IPV6: i32 = 41;
/// IP_ADD_MEMBERSHIP and IP_ADD_SOURCE_MEMBERSHIP (linux/in.h).
const V4_JOINS: [i32; 2] = [35, 39];
/// IPV6_ADD_MEMBERSHIP and IPV6_JOIN_ANYCAST (linux/in6.h).
const V6_JOINS: [i32; 2] = [20, 27];
/// MCAST_JOIN_GROUP, MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_JOIN_SOURCE_GROUP and MCAST_MSFILTER, at both
/// levels (linux/in.h).
const GROUP_OPTIONS: [i32; 5] = [42, 43, 44, 46, 48];
/// IP_UNBLOCK_SOURCE, IP_BLOCK_SOURCE and IP_MSFILTER (linux/in.h).
const V4_SOURCES: [i32; 3] = [37, 38, 41];

/// What would leave (IANA's protocol numbers), for the record.
const IPPROTO_IGMP: u32 = 2;
const IPPROTO_ICMPV6: u32 = 58;

/// For the hook of the socket layer, which 32-bit calls pass by.
#[inline(always)]
pub fn may_be_set(ctx: &SockoptContext) -> Result<(), ()> {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (level, option) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    // The kernel is to take the caller's value as it is: without this it would refuse values of more than a page.
    // SAFETY: as above.
    unsafe { (*ctx.sockopt).optlen = 0 };
    judge(level, option)
}

/// For the security hook, which all calls pass.
#[inline(always)]
pub fn may_be_set_at_all(ctx: &LsmContext) -> Result<(), ()> {
    // security_socket_setsockopt(sock, level, optname) (linux/lsm_hook_defs.h).
    judge(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn judge(level: i32, option: i32) -> Result<(), ()> {
    let (family, protocol, makes_the_kernel_speak) = match level {
        IPPROTO_IP => (
            AF_INET,
            IPPROTO_IGMP,
            V4_JOINS.contains(&option)
                || V4_SOURCES.contains(&option)
                || GROUP_OPTIONS.contains(&option),
        ),
        IPPROTO_IPV6 => (
            AF_INET6,
            IPPROTO_ICMPV6,
            V6_JOINS.contains(&option) || GROUP_OPTIONS.contains(&option),
        ),
        _ => return Ok(()),
    };
    if !makes_the_kernel_speak {
        return Ok(());
    }
    sockets::record(refusal::PROTOCOL, &Flow::EMPTY, family, 0, protocol);
    Err(())
}
