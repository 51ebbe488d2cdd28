//! The backstop: looks at every packet that leaves a socket of the sandbox, and drops what the hooks
//! on addresses never saw (sockets from before the attach, protocols without such a hook) and whatever
//! would leave the machine, but for UDP to where the rules in force allow it. All else that a sandbox has
//! to say goes over loopback. What somebody outside opened is not its to see: `handed` refuses it.
//! With its SYN, whose source port is known, a redirected connection's record goes to the gateway.
//!
//! The kernel runs this before it fragments (ip_finish_output, ip6_finish_output): a datagram of any
//! size is seen whole, with its ports, and a packet that is a fragment already is nobody's here.

use crate::{
    context::{AF_INET, AF_INET6, is_loopback},
    flow,
    maps::{SETTINGS, count_for, emit},
    verdict,
};
use aya_ebpf::{EbpfContext, helpers::generated::bpf_skb_cgroup_id, programs::SkBuffContext};
use gateway_common::{
    Address, Event, Flow, is_same,
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
/// The IP header's source address.
const V4_SOURCE: usize = 12;
const V6_SOURCE: usize = 8;
/// The UDP header (RFC 768), and the TCP header as far as its flags (RFC 9293 §3.1), of which SYN without ACK asks for a
/// connection. Both begin with the ports.
const UDP_LENGTH: usize = 8;
const TCP_LENGTH: usize = 14;
const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// `lo` in every network namespace (LOOPBACK_IFINDEX, net/net_namespace.h).
const LOOPBACK_IFINDEX: u32 = 1;

/// No refusal of [`refusal`]'s: nobody is to hear of it.
const UNSAID: u8 = 0;

/// What a packet says of where it goes.
struct Packet {
    from: Address,
    to: Address,
    protocol: u8,
    /// Zero: it says nothing that is understood.
    family: u32,
    /// Nothing between the IP header and the transport header, and all of it.
    plain: bool,
}

/// What the transport header says, in host order.
struct Ports {
    from: u16,
    to: u16,
    /// It asks for a connection.
    is_first: bool,
}

impl Packet {
    const UNKNOWN: Self = Self {
        from: [0; 4],
        to: [0; 4],
        protocol: 0,
        family: 0,
        plain: false,
    };

    /// The ports, where they can be read.
    #[inline(always)]
    fn ports(&self, ctx: &SkBuffContext) -> Option<Ports> {
        let is_v4 = self.family == AF_INET;
        if !self.plain {
            return None;
        }
        match (self.protocol, is_v4) {
            (TCP, true) => tcp(behind::<V4_LENGTH, TCP_LENGTH>(ctx)?),
            (TCP, false) => tcp(behind::<V6_LENGTH, TCP_LENGTH>(ctx)?),
            (UDP, true) => Some(ports(behind::<V4_LENGTH, UDP_LENGTH>(ctx)?)),
            (UDP, false) => Some(ports(behind::<V6_LENGTH, UDP_LENGTH>(ctx)?)),
            _ => None,
        }
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
        Err(UNSAID) => false,
        Err(reason) => {
            refuse(ctx, &packet, flow::record_of(sk.cast()), reason);
            false
        }
    }
}

#[inline(always)]
fn judge(ctx: &SkBuffContext, packet: &Packet, record: Option<&mut Flow>) -> Result<(), u8> {
    let record = record.ok_or(refusal::BACKSTOP)?;
    if packet.family == 0 {
        return Err(refusal::BACKSTOP);
    }
    let local = is_loopback(&packet.to);
    // A socket that is bound to another device takes a redirected packet out there, loopback address or not.
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    if local && unsafe { (*ctx.skb.skb).ifindex } != LOOPBACK_IFINDEX {
        return Err(refusal::BACKSTOP);
    }
    let ports = packet.ports(ctx).ok_or(refusal::BACKSTOP)?;
    if packet.protocol != UDP {
        if !local {
            return Err(refusal::BACKSTOP);
        }
        return segment(ctx, packet, &ports, record);
    }
    if record.via == 0 {
        return Err(refusal::BACKSTOP);
    }
    // A datagram's destination can change, and so can the rules: each is judged.
    let settings = SETTINGS.current();
    verdict::datagram(settings, record.netns, &packet.to, ports.to)?;
    if !local {
        let bytes = u64::from(ctx.len());
        count_for(settings.sandbox, |counters| {
            counters.direct_packets += 1;
            counters.direct_bytes += bytes;
        });
    }
    Ok(())
}

/// A segment over loopback. A connected socket's destination cannot change: connect() has judged it, though of 0.0.0.0 the
/// kernel makes whatever address the socket is bound to.
#[inline(always)]
fn segment(
    ctx: &SkBuffContext,
    packet: &Packet,
    ports: &Ports,
    record: &mut Flow,
) -> Result<(), u8> {
    if flow::is_to_its_listener(record, &packet.to, ports.to) {
        if !ports.is_first {
            return Ok(());
        }
        // connect() may have been long ago (TCP_FASTOPEN_CONNECT, a SYN that is sent again), and the port somebody else's.
        let settings = SETTINGS.current();
        verdict::is_still_served(settings, record.netns, ports.to)?;
        // It will be sent again.
        return flow::hand_over(record, &packet.from, ports.from).map_err(|()| UNSAID);
    }
    if is_same(&packet.to, &verdict::RESOLVER_OF_DOCKER) {
        return Err(refusal::BACKSTOP);
    }
    // A client's destination, or who a server was allowed to answer.
    if record.via == Flow::DIRECT && record.port == ports.to {
        return Ok(());
    }
    // A server, or what it has accepted. To be asked for each whom it answers: what it accepts has a copy of this record,
    // and loopback need not stay the sandbox's own.
    if !verdict::may_serve(SETTINGS.current(), record.netns, ports.to) {
        return Err(refusal::BACKSTOP);
    }
    record.via = Flow::DIRECT;
    record.port = ports.to;
    Ok(())
}

/// Who sent it is known of a judged socket alone: the process that opened its way.
#[inline(always)]
fn refuse(ctx: &SkBuffContext, packet: &Packet, record: Option<&mut Flow>, reason: u8) {
    let judged = record.filter(|record| record.via != 0);
    emit(&Event {
        flow: Flow {
            address: packet.to,
            port: packet.ports(ctx).map_or(0, |ports| ports.to),
            protocol: packet.protocol,
            sandbox: SETTINGS.current().sandbox,
            // SAFETY: the helper takes this program type's context.
            cgroup: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
            ..judged.map_or(Flow::EMPTY, |record| *record)
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
            let word = |at: usize| {
                u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let fragment = u16::from_be_bytes([header[V4_FRAGMENT], header[V4_FRAGMENT + 1]]);
            Some(Packet {
                from: v4_mapped(word(V4_SOURCE)),
                to: v4_mapped(word(V4_DESTINATION)),
                protocol: header[V4_PROTOCOL],
                family: AF_INET,
                plain: header[V4_VERSION_LENGTH] == V4_PLAIN && fragment & V4_IS_FRAGMENT == 0,
            })
        }
        ETH_P_IPV6 => {
            let header: &[u8; V6_LENGTH] = header(ctx)?;
            let word = |at: usize| {
                u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let address = |at: usize| [word(at), word(at + 4), word(at + 8), word(at + 12)];
            Some(Packet {
                from: address(V6_SOURCE),
                to: address(V6_DESTINATION),
                protocol: header[V6_NEXT_HEADER],
                family: AF_INET6,
                plain: true,
            })
        }
        _ => None,
    }
}

/// Source and destination: what TCP and UDP begin with.
#[inline(always)]
fn ports(header: &[u8; UDP_LENGTH]) -> Ports {
    Ports {
        from: u16::from_be_bytes([header[0], header[1]]),
        to: u16::from_be_bytes([header[2], header[3]]),
        is_first: false,
    }
}

#[inline(always)]
fn tcp(header: &[u8; TCP_LENGTH]) -> Option<Ports> {
    Some(Ports {
        is_first: header[TCP_FLAGS] & (SYN | ACK) == SYN,
        ..ports(header.first_chunk()?)
    })
}

/// The packet's first bytes.
#[inline(always)]
fn header<const LENGTH: usize>(ctx: &SkBuffContext) -> Option<&[u8; LENGTH]> {
    behind::<0, LENGTH>(ctx)
}

/// As many bytes of it behind as many others.
#[inline(always)]
fn behind<const OTHERS: usize, const LENGTH: usize>(ctx: &SkBuffContext) -> Option<&[u8; LENGTH]> {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let (data, end) = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    if data + OTHERS + LENGTH > end {
        return None;
    }
    // SAFETY: as many bytes are there, and the program does not change the packet.
    Some(unsafe { &*((data + OTHERS) as *const [u8; LENGTH]) })
}
