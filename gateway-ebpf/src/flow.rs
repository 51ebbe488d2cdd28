//! Carries a redirected socket's original destination to the gateway: kept with the socket from
//! connect() on, and put where `accept()` can find it once the local port is known.

use crate::{
    context::{Destination, is_loopback},
    maps::{FLOWS, LISTENERS, SETTINGS, SOCKETS, count},
    verdict,
};
use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
        BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock,
    },
    helpers::{bpf_get_netns_cookie, generated::bpf_sk_storage_get},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use core::ptr::{addr_of, copy_nonoverlapping, read_volatile};
use gateway_common::{Flow, FlowKey, ListenerKey, Listeners, counter, protocol, v4_mapped};

/// Allocates the record of a new socket, which says that nobody has judged it: connect() need not wait for that.
#[inline(always)]
pub fn make_room(ctx: &SockContext) {
    // Without memory there is no record yet, and `remember` tries again.
    create(ctx.sock);
}

/// Keeps `flow` with the socket, over whatever an earlier call left. A datagram that is `one_of_many`
/// (its socket is not connected) and goes out as it is leaves the record of a redirected one: its
/// answer may be on the way. `Err` when the kernel has no memory: then the socket must not go on.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext, flow: &mut Flow, one_of_many: bool) -> Result<(), ()> {
    // SAFETY: the context's socket is valid while the program runs.
    let kept = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, Some(flow)) };
    if kept.is_null() {
        return Err(());
    }
    // SAFETY: checked for null; an entry that was there before is not overwritten by the call above.
    unsafe {
        if !(one_of_many && !flow.is_redirected() && (*kept).is_redirected()) {
            // An assignment would be a call of memmove(), byte by byte.
            copy_nonoverlapping(core::ptr::from_ref(flow), kept, 1);
        }
    }
    Ok(())
}

/// The record of this socket, if it was redirected and what the context shows is the gateway's own
/// address.
#[inline(always)]
pub fn redirected<'a>(ctx: &'a SockAddrContext, shown: &Destination) -> Option<&'a Flow> {
    // SAFETY: as above.
    let flow = unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() }.filter(|flow| flow.is_redirected())?;
    let key = ListenerKey {
        netns: flow.netns,
        sandbox: flow.sandbox,
        reserved: 0,
    };
    // SAFETY: ports are read; entries are replaced as a whole.
    let listeners = unsafe { LISTENERS.get(key) }?;
    let ours = is_loopback(&shown.address)
        && verdict::is_own_port(listeners, flow.protocol == protocol::TCP, shown.port);
    ours.then_some(flow)
}

/// What the hooks left with a socket that they let go on. `sk` may be null.
#[inline(always)]
pub fn record_of<'a>(sk: *mut bpf_sock) -> Option<&'a Flow> {
    if sk.is_null() {
        return None;
    }
    let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: checked for null, and the caller has it from the kernel; the storage lives as long as
    // the program runs.
    let record = unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0)
            .cast::<Flow>()
            .as_ref()
    };
    record.filter(|record| record.via != 0)
}

/// TCP connection set-up: the source port is known and the SYN has not left yet.
#[inline(always)]
pub fn hand_over(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            let Some((key, flow)) = record(ctx) else {
                return;
            };
            if FLOWS.insert(key, flow, 0).is_err() {
                count(counter::FLOWS_LOST);
                return;
            }
            // Tell us when it fails, so that the record does not outlive the attempt. Should the
            // flag not be set, the gateway's own sweep removes the record later.
            let _ignored = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(0) == BPF_TCP_SYN_SENT => {
            // Only an attempt that was never answered: an established connection is the gateway's to
            // take, even if the client has closed it already.
            if ctx.arg(1) != BPF_TCP_CLOSE {
                // What becomes of it is nobody's business here.
                let _ignored = ctx.set_cb_flags(0);
            } else if let Some((key, _)) = record(ctx) {
                let _ignored = FLOWS.remove(key);
            }
        }
        // Servers within a namespace that is the sandbox's own: no address hook sees these sockets.
        BPF_SOCK_OPS_TCP_LISTEN_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => serve_locally(ctx),
        _ => {}
    }
}

/// Lets a listening or accepted socket answer, where loopback belongs to the sandbox.
#[inline(always)]
fn serve_locally(ctx: &SockOpsContext) {
    let key = ListenerKey {
        // SAFETY: the helper takes this program type's context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        sandbox: SETTINGS.current().sandbox,
        reserved: 0,
    };
    // SAFETY: one flag is read; entries are replaced as a whole.
    let private = unsafe { LISTENERS.get(key) }
        .is_some_and(|listeners| listeners.flags & Listeners::PRIVATE != 0);
    // SAFETY: the kernel passes a valid context; `sk` may be null and is checked.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if !private || sk.is_null() {
        return;
    }
    // Without memory for it there is no record, and the backstop drops what the socket sends.
    if let Some(record) = create(sk)
        && record.via == 0
    {
        record.via = Flow::DIRECT;
    }
}

/// The record of a socket, of zeroes if there was none. `sk` is not null.
#[inline(always)]
fn create<'a>(sk: *mut bpf_sock) -> Option<&'a mut Flow> {
    let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the callers have it from the kernel, and it is not null; the storage lives as long as the program runs.
    unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<Flow>()
            .as_mut()
    }
}

#[inline(always)]
fn record(ctx: &SockOpsContext) -> Option<(FlowKey, Flow)> {
    // SAFETY: the kernel passes a valid context; `sk` may be null and is checked.
    let flow = unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
        let flow = bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<Flow>();
        *flow.as_ref().filter(|flow| flow.is_redirected())?
    };
    let address = if flow.via == 4 {
        // An IPv6 socket talking IPv4 has its address in the IPv4 field too, and only there yet.
        v4_mapped(ctx.local_ip4())
    } else {
        // SAFETY: as above; volatile keeps the loads one word wide.
        unsafe {
            [
                read_volatile(addr_of!((*ctx.ops).local_ip6[0])),
                read_volatile(addr_of!((*ctx.ops).local_ip6[1])),
                read_volatile(addr_of!((*ctx.ops).local_ip6[2])),
                read_volatile(addr_of!((*ctx.ops).local_ip6[3])),
            ]
        }
    };
    let key = FlowKey {
        // SAFETY: the helper takes this program type's context.
        netns: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        address,
        sandbox: flow.sandbox,
        port: ctx.local_port() as u16,
        reserved: 0,
    };
    Some((key, flow))
}
