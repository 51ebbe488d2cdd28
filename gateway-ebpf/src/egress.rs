//! The backstop: looks at every packet that leaves a socket of the sandbox, and drops what the hooks
//! on addresses never saw (sockets from before the attach, protocols without such a hook) and whatever
//! would leave the machine, but for UDP to where the rules in force allow it. All else that a sandbox has
//! to say goes over loopback. What somebody outside opened is not its to see: `handed` refuses it.
//!
//! The kernel runs this before it fragments (ip_finish_output, ip6_finish_output): a datagram of any
//! size is seen whole, with its ports, and a packet that is a fragment already is nobody's here.

use crate::{
    context::{AF_INET, AF_INET6, is_loopback},
    flow,
    maps::{SETTINGS, count_for, emit},
    verdict,
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_ktime_get_boot_ns, generated::bpf_skb_cgroup_id},
    programs::SkBuffContext,
};
use gateway_common::{
    Address, Event, Flow,
    protocol::{TCP, UDP},
    refusal, v4_mapped,
};

/// EtherTypes (IEEE 802) as the context has them, in network order.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// The IPv4 header (RFC 791 §3.1).
const V4_VERSION_LENGTH: usize = 0;
const V4_FRAGMENT: usize = 6;
const V4_PROTOCOL: usize = 9;
const V4_DESTINATION: usize = 16;
const V4_LENGTH: usize = 20;
/// Version 4 and five words: no options. A source route would put the real destination there.
const V4_PLAIN: u8 = 0x45;
/// "More fragments" and the fragment offset; "don't fragment" is none of our business.
const V4_IS_FRAGMENT: u16 = 0x3fff;
/// The IPv6 header (RFC 8200 §3). Whatever comes between it and UDP (a routing header has the real
/// destination) makes the next header another than UDP's.
const V6_NEXT_HEADER: usize = 6;
const V6_DESTINATION: usize = 24;
const V6_LENGTH: usize = 40;
/// Destination port of TCP and UDP, behind headers without options.
const V4_PORT: usize = V4_LENGTH + 2;
const V6_PORT: usize = V6_LENGTH + 2;

/// `lo` in every network namespace (LOOPBACK_IFINDEX, net/net_namespace.h).
const LOOPBACK_IFINDEX: u32 = 1;

/// What a packet says of where it goes.
struct Packet {
    address: Address,
    protocol: u8,
    /// Zero: it says nothing that is understood.
    family: u32,
    /// Nothing between the IP header and the transport header, and all of it.
    plain: bool,
}

impl Packet {
    const UNKNOWN: Self = Self {
        address: [0; 4],
        protocol: 0,
        family: 0,
        plain: false,
    };

    /// The destination port, in host order; zero where there is none to be read.
    #[inline(always)]
    fn port(&self, ctx: &SkBuffContext) -> u16 {
        if !self.plain || (self.protocol != UDP && self.protocol != TCP) {
            return 0;
        }
        let offset = if self.family == AF_INET {
            V4_PORT
        } else {
            V6_PORT
        };
        ctx.load(offset).map_or(0, u16::from_be)
    }
}

/// May this packet pass?
#[inline(always)]
pub fn may_pass(ctx: &SkBuffContext) -> bool {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (ethertype, sk) = unsafe { ((*ctx.skb.skb).protocol, (*ctx.skb.skb).__bindgen_anon_2.sk) };
    let packet = read(ctx, ethertype).unwrap_or(Packet::UNKNOWN);
    let record = flow::record_of(sk.cast());
    match judge(ctx, &packet, record) {
        Ok(()) => true,
        Err(reason) => {
            refuse(ctx, &packet, record, reason);
            false
        }
    }
}

#[inline(always)]
fn judge(ctx: &SkBuffContext, packet: &Packet, record: Option<&Flow>) -> Result<(), u8> {
    let record = record.ok_or(refusal::BACKSTOP)?;
    if packet.family == 0 {
        return Err(refusal::BACKSTOP);
    }
    let local = is_loopback(&packet.address);
    // A socket that is bound to another device takes a redirected packet out there, loopback address or not.
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    if local && unsafe { (*ctx.skb.skb).ifindex } != LOOPBACK_IFINDEX {
        return Err(refusal::BACKSTOP);
    }
    if !packet.plain {
        return Err(refusal::BACKSTOP);
    }
    if packet.protocol != UDP {
        // A connected socket's destination cannot change: connect() has judged it, though of 0.0.0.0 the kernel makes
        // whatever address the socket is bound to.
        let is_judged = packet.address != verdict::RESOLVER_OF_DOCKER;
        return if local && packet.protocol == TCP && is_judged {
            Ok(())
        } else {
            Err(refusal::BACKSTOP)
        };
    }
    // A datagram's can, and so can the rules: each is judged.
    let settings = SETTINGS.current();
    verdict::datagram(
        ctx.as_ptr(),
        &settings,
        record.netns,
        &packet.address,
        packet.port(ctx),
    )?;
    if !local {
        let bytes = u64::from(ctx.len());
        count_for(settings.sandbox, |counters| {
            counters.direct_packets += 1;
            counters.direct_bytes += bytes;
        });
    }
    Ok(())
}

/// Who sent it is known of a judged socket alone: the process that opened its way.
#[inline(always)]
fn refuse(ctx: &SkBuffContext, packet: &Packet, record: Option<&Flow>, reason: u8) {
    emit(&Event {
        flow: Flow {
            address: packet.address,
            port: packet.port(ctx),
            protocol: packet.protocol,
            sandbox: SETTINGS.current().sandbox,
            // SAFETY: the helper takes this program type's context.
            cgroup: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
            // SAFETY: a helper without arguments.
            time: unsafe { bpf_ktime_get_boot_ns() },
            ..record.copied().unwrap_or(Flow::EMPTY)
        },
        reason,
        family: packet.family as u8,
        socket_type: 0,
        reserved: 0,
        protocol: packet.protocol as u32,
    });
}

/// The IP header lies in one piece in front of everything: the kernel itself has just written it there.
#[inline(always)]
fn read(ctx: &SkBuffContext, ethertype: u32) -> Option<Packet> {
    match ethertype {
        ETH_P_IP => {
            let header: &[u8; V4_LENGTH] = header(ctx)?;
            let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
            let fragment = u16::from_be_bytes([header[V4_FRAGMENT], header[V4_FRAGMENT + 1]]);
            Some(Packet {
                address: v4_mapped(u32::from_ne_bytes(word(V4_DESTINATION))),
                protocol: header[V4_PROTOCOL],
                family: AF_INET,
                plain: header[V4_VERSION_LENGTH] == V4_PLAIN && fragment & V4_IS_FRAGMENT == 0,
            })
        }
        ETH_P_IPV6 => {
            let header: &[u8; V6_LENGTH] = header(ctx)?;
            let word = |index: usize| {
                let at = V6_DESTINATION + 4 * index;
                u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            Some(Packet {
                address: [word(0), word(1), word(2), word(3)],
                protocol: header[V6_NEXT_HEADER],
                family: AF_INET6,
                plain: true,
            })
        }
        _ => None,
    }
}

/// The packet's first bytes.
#[inline(always)]
fn header<const LENGTH: usize>(ctx: &SkBuffContext) -> Option<&[u8; LENGTH]> {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (data, end) = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    if data + LENGTH > end {
        return None;
    }
    // SAFETY: as many bytes are there, and the program does not change the packet.
    Some(unsafe { &*(data as *const [u8; LENGTH]) })
}
