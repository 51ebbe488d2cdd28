//! Decides what a socket may do: refuse, stay within the sandbox's own namespace, or go to the
//! gateway. The kernel is a coarse filter (address, port, protocol); names and requests are judged
//! by the gateway after the redirect.

use crate::{
    context::{self, AF_INET, AF_INET6, Destination, Spelling},
    maps::{LISTENERS, PORT_SETS, RULES, SETTINGS, count, emit},
};
use aya_ebpf::{
    EbpfContext,
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
        generated::bpf_set_retval,
    },
    programs::{SockAddrContext, SockContext},
};
use aya_log_ebpf::debug;
use gateway_common::{
    Address, Event, Flow, ListenerKey, Listeners, PortBits, RuleKey, Settings, address_from_octets,
    counter,
    protocol::{TCP, UDP},
    refusal,
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// The only protocol that a `SOCK_STREAM` socket may name besides 0, and its sibling.
const IPPROTO_TCP: u32 = TCP as u32;
const IPPROTO_UDP: u32 = UDP as u32;
/// Multipath TCP (RFC 8684). Clients fall back to TCP when the kernel says it has none.
const IPPROTO_MPTCP: u32 = 262;
/// `EPROTONOSUPPORT`: what a kernel without the protocol answers (socket(2)).
const EPROTONOSUPPORT: i32 = 93;
/// DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// What becomes of a connect() or sendto().
pub enum Action {
    /// `EPERM`.
    Refuse,
    /// Untouched: it cannot leave the sandbox's own namespace.
    Local(Flow),
    /// To the gateway's port.
    Redirect(Flow, u16),
}

#[inline(always)]
pub fn outgoing(ctx: &SockAddrContext, to: &Destination) -> Action {
    let settings = SETTINGS.current();
    // SAFETY: the helper takes this program type's context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let protocol = context::protocol(ctx);
    let stream = context::socket_type(ctx) == SOCK_STREAM && protocol == IPPROTO_TCP;
    let datagram = context::socket_type(ctx) == SOCK_DGRAM && protocol == IPPROTO_UDP;
    let flow = flow(ctx, &settings, to, if stream { TCP } else { UDP });
    let refuse = |reason| {
        refuse(ctx, &flow, netns, reason);
        Action::Refuse
    };

    if settings.sandbox == 0 {
        return refuse(refusal::NOT_READY);
    }
    if !stream && !datagram {
        return refuse(refusal::PROTOCOL);
    }
    let key = ListenerKey {
        netns,
        sandbox: settings.sandbox,
        reserved: 0,
    };
    // SAFETY: a copy is taken at once; entries are replaced as a whole.
    let Some(listeners) = (unsafe { LISTENERS.get(key) }).copied() else {
        return refuse(refusal::NO_LISTENER);
    };
    let v6 = to.spelling == Spelling::V6;
    let tcp = if v6 { listeners.tcp6 } else { listeners.tcp4 };
    let dns = if v6 { listeners.dns6 } else { listeners.dns4 };
    let local = context::is_loopback(&to.address);
    if local && is_own_port(&listeners, stream, to.port) {
        return refuse(refusal::LISTENER);
    }
    // Every DNS query, whatever server it asks, is the gateway's to answer.
    let verdict = if to.port == DNS_PORT {
        Ok(if stream { tcp } else { dns })
    } else {
        let private_loopback = local && listeners.flags & Listeners::PRIVATE != 0;
        match judge(&settings, to, stream) {
            Ok(()) => Ok(tcp),
            Err(_) if private_loopback => return Action::Local(Flow { via: 0, ..flow }),
            Err(reason) => Err(reason),
        }
    };
    match verdict {
        Ok(0) => refuse(refusal::NO_LISTENER),
        Ok(port) => {
            count(counter::REDIRECTED);
            debug!(
                ctx,
                "sandbox {} port {} redirected to {}", settings.sandbox, to.port, port
            );
            Action::Redirect(flow, port)
        }
        Err(reason) => refuse(reason),
    }
}

/// An allowlist of socket types, with the error of a kernel that lacks the protocol.
#[inline(always)]
pub fn socket_type(ctx: &SockContext) -> Result<(), ()> {
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
    if kind == SOCK_STREAM && protocol == IPPROTO_MPTCP {
        // Not worth a record: every Go program asks for it and then goes on with TCP.
        // SAFETY: sets the errno of this refusal.
        unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
        return Err(());
    }
    let (process, cgroup) = context::current();
    let settings = SETTINGS.current();
    emit(&Event {
        flow: Flow {
            sandbox: settings.sandbox,
            cgroup,
            // SAFETY: a helper without arguments.
            time: unsafe { bpf_ktime_get_boot_ns() },
            process,
            ..Flow::EMPTY
        },
        // SAFETY: the helper takes this program type's context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        reason: refusal::SOCKET_TYPE,
        family: family as u8,
        socket_type: kind as u8,
        reserved: 0,
        protocol,
    });
    // SAFETY: sets the errno of this refusal.
    unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
    Err(())
}

/// Does a rule of this sandbox allow the address and port?
#[inline(always)]
fn judge(settings: &Settings, to: &Destination, stream: bool) -> Result<(), u8> {
    if !stream {
        return Err(refusal::PROTOCOL);
    }
    let key = Key::new(
        RuleKey::BITS,
        RuleKey {
            ruleset: settings.ruleset.to_be_bytes(),
            protocol: TCP,
            reserved: [0; 3],
            address: to.address,
        },
    );
    let Some(index) = RULES.get(&key) else {
        return Err(refusal::NO_RULE);
    };
    // SAFETY: port sets are written before a rule refers to them and never changed after.
    let Some(ports) = (unsafe { PORT_SETS.get(*index) }) else {
        return Err(refusal::NO_RULE);
    };
    if !has(&ports.allowed, to.port) {
        return Err(refusal::NO_RULE);
    }
    if guarded(to) && !has(&ports.named, to.port) {
        return Err(refusal::GUARDED);
    }
    Ok(())
}

/// The address guard of the policy reference: addresses that no name may lead to.
#[inline(always)]
fn guarded(to: &Destination) -> bool {
    let address = &to.address;
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
    o1 == 0xff || (o1 == 0xfe && o2 & 0xc0 == 0x80) || *address == EC2_METADATA
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

#[inline(always)]
fn is_own_port(listeners: &Listeners, stream: bool, port: u16) -> bool {
    port != 0
        && if stream {
            port == listeners.tcp4 || port == listeners.tcp6
        } else {
            port == listeners.dns4 || port == listeners.dns6
        }
}

#[inline(always)]
fn flow(ctx: &SockAddrContext, settings: &Settings, to: &Destination, protocol: u8) -> Flow {
    let (process, cgroup) = context::current();
    Flow {
        address: to.address,
        port: to.port,
        via: if to.spelling == Spelling::V6 { 6 } else { 4 },
        protocol,
        sandbox: settings.sandbox,
        cgroup,
        // SAFETY: the helper takes this program type's context.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        // SAFETY: a helper without arguments.
        time: unsafe { bpf_ktime_get_boot_ns() },
        process,
    }
}

#[inline(always)]
fn refuse(ctx: &SockAddrContext, flow: &Flow, netns: u64, reason: u8) {
    debug!(
        ctx,
        "sandbox {} port {} refused: {}", flow.sandbox, flow.port, reason
    );
    emit(&Event {
        flow: *flow,
        netns,
        reason,
        family: context::family(ctx) as u8,
        socket_type: context::socket_type(ctx) as u8,
        reserved: 0,
        protocol: context::protocol(ctx),
    });
}
