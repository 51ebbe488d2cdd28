//! The backstop: looks at every packet that leaves a socket of the sandbox, and drops what the hooks
//! on addresses never saw (sockets from before the attach, sockets passed in, protocols without such
//! a hook) and whatever would leave the machine. All that a sandbox has to say goes over loopback.

use crate::{
    context::{AF_INET, AF_INET6, is_loopback},
    flow,
    maps::{SETTINGS, emit},
};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_sk_fullsock, generated::bpf_skb_cgroup_id},
    programs::SkBuffContext,
};
use gateway_common::{Address, Event, Flow, refusal, v4_mapped};

/// EtherTypes (IEEE 802) as the context has them, in network order.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// Destination address and protocol in the IPv4 header (RFC 791 §3.1).
const V4_DESTINATION: usize = 16;
const V4_PROTOCOL: usize = 9;
/// Destination address and next header in the IPv6 header (RFC 8200 §3).
const V6_DESTINATION: usize = 24;
const V6_NEXT_HEADER: usize = 6;

/// May this packet pass?
#[inline(always)]
pub fn may_pass(ctx: &SkBuffContext) -> bool {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (ethertype, sk) = unsafe { ((*ctx.skb.skb).protocol, (*ctx.skb.skb).__bindgen_anon_2.sk) };
    let (destination, protocol, family) = match read(ctx, ethertype) {
        Some(packet) => packet,
        None => ([0; 4], 0, 0),
    };
    if family != 0 && is_loopback(&destination) && is_judged(sk) {
        return true;
    }
    let settings = SETTINGS.current();
    emit(&Event {
        flow: Flow {
            address: destination,
            protocol,
            sandbox: settings.sandbox,
            // SAFETY: the helper takes this program type's context.
            cgroup: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
            // SAFETY: a helper without arguments.
            time: unsafe { bpf_ktime_get_boot_ns() },
            ..Flow::EMPTY
        },
        netns: 0,
        reason: refusal::BACKSTOP,
        family: family as u8,
        socket_type: 0,
        reserved: 0,
        protocol: protocol as u32,
    });
    false
}

/// Has a hook seen this socket and let it go on?
#[inline(always)]
fn is_judged(sk: *mut bpf_sock) -> bool {
    if sk.is_null() {
        return false;
    }
    // SAFETY: checked for null; the helper gives null for what is no full socket.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    flow::is_recorded(sk)
}

#[inline(always)]
fn read(ctx: &SkBuffContext, ethertype: u32) -> Option<(Address, u8, u32)> {
    match ethertype {
        ETH_P_IP => {
            let word: u32 = ctx.load(V4_DESTINATION).ok()?;
            Some((v4_mapped(word), ctx.load(V4_PROTOCOL).ok()?, AF_INET))
        }
        ETH_P_IPV6 => {
            let address: Address = ctx.load(V6_DESTINATION).ok()?;
            Some((address, ctx.load(V6_NEXT_HEADER).ok()?, AF_INET6))
        }
        _ => None,
    }
}
