//! Decides what a socket may do: refuse, stay within the sandbox's own namespace, or go to the
//! gateway. The kernel is a coarse filter (address, port, protocol); names and requests are judged
//! by the gateway after the redirect.

use crate::{
    context::{self, Destination, Spelling},
    maps::{
        LISTENERS, PORT_SETS, PORTS, RULES, count, count_for, emit, gateway_is_there, is_current,
    },
    memo::{self, Question},
    task,
};
use aya_ebpf::{
    EbpfContext,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_netns_cookie, generated::bpf_set_retval},
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use gateway_common::{
    Address, Event, Flow, Image, ListenerKey, Listeners, PortBits, PortKey, RuleKey, Settings,
    address_from_octets, counter, is_same,
    protocol::{TCP, UDP},
    refusal, v4_mapped,
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = TCP as u32;
const IPPROTO_UDP: u32 = UDP as u32;
/// What connect() says when nobody listens.
const ECONNREFUSED: i32 = 111;
/// Docker's daemon has a resolver there in each container of a network that a user made
/// (<https://docs.docker.com/engine/network/#dns-services>): no task of it is in the container's namespace, and its port is
/// not 53 behind the address translation that leads to it.
pub const RESOLVER_OF_DOCKER: Address = v4_mapped(u32::from_ne_bytes([127, 0, 0, 11]));
/// DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// What becomes of a connect() or sendto().
pub enum Action {
    /// `EPERM`.
    Refuse,
    /// Untouched: it cannot leave the sandbox's own namespace, or it is UDP that a rule allows.
    Pass,
    /// To the gateway's port.
    Redirect(u16),
}

/// `flow` is what [`flow`] made of the call. `is_sendto`: an address that goes with a datagram, not one to
/// connect to.
#[inline(always)]
pub fn outgoing(
    ctx: &SockAddrContext,
    settings: &Settings,
    to: &Destination,
    flow: &Flow,
    is_sendto: bool,
) -> Action {
    let netns = flow.netns;
    let protocol = context::protocol(ctx);
    let stream = context::socket_type(ctx) == SOCK_STREAM && protocol == IPPROTO_TCP;
    let datagram = context::socket_type(ctx) == SOCK_DGRAM && protocol == IPPROTO_UDP;
    let refuse = |reason| {
        refuse(ctx, flow, reason);
        Action::Refuse
    };

    if settings.sandbox == 0 {
        return refuse(refusal::NOT_READY);
    }
    if !stream && !datagram {
        return refuse(refusal::PROTOCOL);
    }
    let Some(listeners) = listeners(settings, netns) else {
        return refuse(refusal::NO_LISTENER);
    };
    let v6 = to.spelling == Spelling::V6;
    let tcp = if v6 { listeners.tcp6 } else { listeners.tcp4 };
    let dns = if v6 { listeners.dns6 } else { listeners.dns4 };
    let local = context::is_loopback(&to.address);
    if local && is_own_port(&listeners, stream, to.port) {
        // connect() sent it there: the kernel hands the address of a connected IPv6 socket that talks
        // IPv4 to this hook with each datagram (udpv6_sendmsg), as no other socket's.
        return if is_sendto && context::is_connected_to(ctx, to) {
            Action::Pass
        } else {
            refuse(refusal::LISTENER)
        };
    }
    if local && is_a_gateway_s(netns, to.port, flow.protocol) {
        return refuse(refusal::LISTENER);
    }
    // Every DNS query, whatever server it asks, is the gateway's to answer.
    let verdict = if to.port == DNS_PORT {
        Ok(if stream { tcp } else { dns })
    } else {
        let private_loopback = is_own_loopback(&listeners, &to.address);
        match judge(
            settings,
            &to.address,
            to.port,
            if stream { TCP } else { UDP },
        ) {
            Ok(()) if stream => Ok(tcp),
            Err(_) | Ok(()) if private_loopback => {
                return Action::Pass;
            }
            Ok(()) if listeners.flags & Listeners::SEALED != 0 => Err(refusal::SEALED),
            Ok(()) if !gateway_is_there() => Err(refusal::GATEWAY_GONE),
            Ok(()) => return Action::Pass,
            Err(reason) => Err(reason),
        }
    };
    match verdict {
        Ok(0) => refuse(refusal::NO_LISTENER),
        Ok(_) if !is_served(&listeners) => refuse(refusal::GATEWAY_GONE),
        Ok(port) => {
            count(counter::REDIRECTED);
            count_for(settings.sandbox, |counters| counters.redirected += 1);
            debug!(
                ctx,
                "sandbox {} port {} redirected to {}", settings.sandbox, to.port, port
            );
            Action::Redirect(port)
        }
        Err(reason) => refuse(reason),
    }
}

/// May this packet of a judged UDP socket pass? `netns` is the socket's. Every packet is asked, so
/// that new rules count at once, also for sockets that are connected.
#[inline(always)]
pub fn datagram(settings: &Settings, netns: u64, to: &Address, port: u16) -> Result<(), u8> {
    if settings.sandbox == 0 {
        return Err(refusal::NOT_READY);
    }
    let listeners = listeners(settings, netns).ok_or(refusal::NO_LISTENER)?;
    let local = context::is_loopback(to);
    let is_there = if local && is_own_port(&listeners, false, port) {
        is_served(&listeners)
    } else {
        if local && is_a_gateway_s(netns, port, UDP) {
            return Err(refusal::LISTENER);
        }
        if is_own_loopback(&listeners, to) {
            return Ok(());
        }
        // Port 53 is redirected whatever rules say: a packet that still goes there was not.
        if port == DNS_PORT {
            return Err(refusal::PROTOCOL);
        }
        judge(settings, to, port, UDP)?;
        if listeners.flags & Listeners::SEALED != 0 {
            return Err(refusal::SEALED);
        }
        gateway_is_there()
    };
    if is_there {
        Ok(())
    } else {
        Err(refusal::GATEWAY_GONE)
    }
}

/// Is there a gateway at these ports? Of one that is there already, but has not opened them, nobody knows whose they are.
#[inline(always)]
fn is_served(listeners: &Listeners) -> bool {
    listeners.flags & Listeners::FORMER == 0 && gateway_is_there()
}

/// May a SYN still go to this port of the gateway's, where connect() sent it? `netns` is the socket's.
#[inline(always)]
pub fn is_still_served(settings: &Settings, netns: u64, port: u16) -> Result<(), u8> {
    let listeners = listeners(settings, netns).ok_or(refusal::NO_LISTENER)?;
    if is_own_port(&listeners, true, port) && is_served(&listeners) {
        Ok(())
    } else {
        Err(refusal::GATEWAY_GONE)
    }
}

/// Loopback in a namespace that is the sandbox's alone.
#[inline(always)]
fn is_own_loopback(listeners: &Listeners, to: &Address) -> bool {
    listeners.flags & Listeners::PRIVATE != 0
        && context::is_loopback(to)
        && !is_same(to, &RESOLVER_OF_DOCKER)
}

#[inline(always)]
fn listeners(settings: &Settings, netns: u64) -> Option<Listeners> {
    if netns != 0 && settings.netns == netns && is_current(settings) {
        return Some(settings.listeners);
    }
    let key = ListenerKey {
        netns,
        sandbox: settings.sandbox,
        reserved: 0,
    };
    // SAFETY: a copy is taken at once; entries are replaced as a whole.
    unsafe { LISTENERS.get(key) }.copied()
}

/// Does a rule of this sandbox allow the address, port and protocol? Where none does, UDP is refused
/// as a protocol: few sandboxes have rules for it at all.
#[inline(always)]
fn judge(settings: &Settings, to: &Address, port: u16, protocol: u8) -> Result<(), u8> {
    let question = Question {
        address: *to,
        ruleset: settings.ruleset,
        port,
        protocol,
    };
    if !memo::is_allowed(&question) {
        ask_rules(&question)?;
        memo::remember(&question);
    }
    Ok(())
}

#[inline(always)]
fn ask_rules(question: &Question) -> Result<(), u8> {
    let Question {
        address,
        ruleset,
        port,
        protocol,
    } = *question;
    let no_rule = if protocol == UDP {
        refusal::PROTOCOL
    } else {
        refusal::NO_RULE
    };
    let key = Key::new(
        RuleKey::BITS,
        RuleKey {
            ruleset: ruleset.to_be_bytes(),
            protocol: u32::from(protocol).to_le_bytes(),
            address,
        },
    );
    let Some(index) = RULES.get(&key) else {
        return Err(no_rule);
    };
    // SAFETY: port sets are written before a rule refers to them and never changed after.
    let Some(ports) = (unsafe { PORT_SETS.get(*index) }) else {
        return Err(no_rule);
    };
    if !has(&ports.allowed, port) {
        return Err(no_rule);
    }
    if guarded(&address) && !has(&ports.named, port) {
        return Err(refusal::GUARDED);
    }
    Ok(())
}

/// The address guard of the policy reference: addresses that no name may lead to.
#[inline(always)]
fn guarded(address: &Address) -> bool {
    if context::is_loopback(address) {
        return true;
    }
    if context::is_v4_mapped(address) {
        let [o1, o2, o3, o4] = address[3].to_ne_bytes();
        return o1 == 0
            || o1 >= 224
            || (o1 == 169 && o2 == 254)
            || (o1 == 100 && o2 == 100 && o3 == 100 && o4 == 200)
            || (o1 == 168 && o2 == 63 && o3 == 129 && o4 == 16);
    }
    const EC2_METADATA: Address = address_from_octets([
        0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54,
    ]);
    let [o1, o2, _, _] = address[0].to_ne_bytes();
    o1 == 0xff || (o1 == 0xfe && o2 & 0xc0 == 0x80) || is_same(address, &EC2_METADATA)
}

#[inline(always)]
fn has(bits: &PortBits, port: u16) -> bool {
    // Linux 6.1's verifier forgets that a port kept on the stack as eight bytes is small ("R3
    // unbounded memory access"); read back as two bytes it cannot be large.
    // SAFETY: the reference is to a local variable, initialised and aligned.
    let port = unsafe { core::ptr::read_volatile(&port) };
    // 65,536 bits in 1,024 words: a port's word is always in bounds (port >> 6 < 1024).
    bits[usize::from(port >> 6)] >> (port & 63) & 1 == 1
}

/// Does the gateway serve there, for whichever sandbox? A socket for DNS cannot tell who asks.
#[inline(always)]
fn is_a_gateway_s(netns: u64, port: u16, protocol: u8) -> bool {
    let key = PortKey {
        netns,
        port: u32::from(port),
        protocol: u32::from(protocol),
    };
    // SAFETY: nothing is read of the value.
    unsafe { PORTS.get(key) }.is_some()
}

/// May a TCP socket that no hook on addresses has judged, a server's, talk over loopback to this port? Where loopback
/// belongs to the sandbox, but for the gateway's. `netns` is the socket's.
#[inline(always)]
pub fn may_serve(settings: &Settings, netns: u64, port: u16) -> bool {
    listeners(settings, netns).is_some_and(|listeners| {
        listeners.flags & Listeners::PRIVATE != 0
            && !is_own_port(&listeners, true, port)
            && !is_a_gateway_s(netns, port, TCP)
    })
}

/// Is this one of the gateway's ports for this sandbox?
#[inline(always)]
fn is_own_port(listeners: &Listeners, stream: bool, port: u16) -> bool {
    port != 0
        && if stream {
            port == listeners.tcp4 || port == listeners.tcp6
        } else {
            port == listeners.dns4 || port == listeners.dns6
        }
}

/// Who asks for what, as records have it.
#[inline(always)]
pub fn flow(ctx: &SockAddrContext, settings: &Settings, to: &Destination, image: Image) -> Flow {
    let (process, cgroup) = task::current_at_once();
    let is_tcp = context::protocol(ctx) == IPPROTO_TCP;
    Flow {
        address: to.address,
        port: to.port,
        via: if to.spelling == Spelling::V6 { 6 } else { 4 },
        protocol: if is_tcp { TCP } else { UDP },
        sandbox: settings.sandbox,
        cgroup,
        // SAFETY: the helper takes this program type's context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        image,
        process,
        ..Flow::EMPTY
    }
}

#[inline(always)]
fn refuse(ctx: &SockAddrContext, flow: &Flow, reason: u8) {
    debug!(
        ctx,
        "sandbox {} port {} refused: {}", flow.sandbox, flow.port, reason
    );
    emit(&Event {
        flow: *flow,
        reason,
        family: context::family(ctx) as u8,
        socket_type: context::socket_type(ctx) as u8,
        reserved: 0,
        protocol: context::protocol(ctx),
    });
    if reason == refusal::GATEWAY_GONE {
        // As if its closed ports had been reached.
        // SAFETY: sets the errno of this refusal.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
}
