//! Carries a redirected socket's original destination to the gateway: kept with the socket from
//! connect() on, and put where `accept()` can find it as the SYN leaves.

use crate::{
    atomic::{exchange, fetch_add, publish, set_bits},
    context::{self, Destination, Spelling},
    maps::{FLOWS, FLOWS_HEAD, SOCKETS},
};
use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::bpf_get_netns_cookie,
    programs::{SockAddrContext, SockContext},
};
use core::ptr::{
    addr_of, addr_of_mut, copy_nonoverlapping, from_ref, read_volatile, write_volatile,
};
use gateway_common::{Address, Flow, FlowKey, Handover, is_same};

/// Allocates the record of a new socket, which says that nobody has judged it: connect() need not wait for that.
#[inline(always)]
pub fn make_room(ctx: &SockContext) {
    // Without memory there is no record yet, and `remember` tries again.
    // SAFETY: the context's socket is valid while the program runs, and not null.
    if let Some(record) = unsafe { SOCKETS.get_or_create(ctx.sock) } {
        // SAFETY: the helper takes this program type's context.
        record.netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
        // Whoever asks for a record first puts it where it is found at once: here all that this takes is at hand still.
        // SAFETY: as above.
        let _at_hand = unsafe { SOCKETS.get(ctx.sock) };
    }
}

/// Keeps `flow` with the socket, over whatever an earlier call left. A datagram that is `one_of_many`
/// (its socket is not connected) and goes out as it is leaves the record of a redirected one: its
/// answer may be on the way. `Err` when the kernel has no memory: then the socket must not go on.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext, flow: &Flow, one_of_many: bool) -> Result<(), ()> {
    // SAFETY: the context's socket is valid while the program runs, and never null here.
    let kept = unsafe { SOCKETS.get_or_create(context::socket(ctx)) }.ok_or(())?;
    if !(one_of_many && !flow.is_redirected() && kept.is_redirected()) {
        // SAFETY: two values that do not overlap; an assignment would be a call of memmove(), byte by byte.
        unsafe { copy_nonoverlapping(from_ref(flow), kept, 1) };
    }
    Ok(())
}

/// The record of this socket, if it was redirected and what the context shows is the gateway's own
/// address.
#[inline(always)]
pub fn redirected<'a>(ctx: &'a SockAddrContext, shown: &Destination) -> Option<&'a Flow> {
    // SAFETY: as above.
    let flow = unsafe { SOCKETS.get(context::socket(ctx)) }?;
    (flow.is_redirected() && shown.port == flow.listener && context::is_loopback(&shown.address))
        .then_some(flow)
}

/// What the hooks left with a socket, judged or not. `sk` may be null.
#[inline(always)]
pub fn record_of<'a>(sk: *mut bpf_sock) -> Option<&'a mut Flow> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: checked for null, and the caller has it from the kernel.
    unsafe { SOCKETS.get(sk) }
}

/// Is this where the socket was sent to? What a server accepts has a copy of the server's record, and is none of that.
#[inline(always)]
pub fn is_to_its_listener(flow: &Flow, address: &Address, port: u16) -> bool {
    let spelling = if flow.via == 6 {
        Spelling::V6
    } else {
        Spelling::V4
    };
    flow.is_redirected() && port == flow.listener && is_same(address, &context::listener(spelling))
}

/// Puts the record where the gateway looks for the connection that `accept()` will show as coming from here. A SYN that
/// is sent again is handed over again: the gateway takes the last. `Err` if others have just taken every place.
#[inline(always)]
pub fn hand_over(flow: &Flow, address: &Address, port: u16) -> Result<(), ()> {
    let key = FlowKey {
        netns: flow.netns,
        address: *address,
        sandbox: flow.sandbox,
        port,
    };
    let (first, head) = (key.first(), FLOWS_HEAD.get_ptr_mut(0).ok_or(())?);
    // SAFETY: within a live map value: `first` is below KEYS.
    let number = 1 + unsafe { fetch_add(addr_of_mut!((*head).numbers[first as usize]), 1) };
    let (place, index) = claim(first, number).ok_or(())?;
    if index > 0 {
        // SAFETY: within a live map value.
        unsafe { set_bits(addr_of_mut!((*head).used), (2 << index) - 1) };
    }
    // SAFETY: the place is a live map value, and this program's until `ended` is written. Volatile keeps the stores in
    // their order.
    unsafe {
        write_volatile(addr_of_mut!((*place).address), *address);
        let (from, to) = (
            from_ref(flow).cast::<u64>(),
            addr_of_mut!((*place).flow).cast::<u64>(),
        );
        for word in 0..size_of::<Flow>() / size_of::<u64>() {
            write_volatile(to.add(word), read_volatile(from.add(word)));
        }
        write_volatile(addr_of_mut!((*place).flow.source), port);
        publish(addr_of_mut!((*place).ended), number);
    }
    Ok(())
}

/// The first place that is free, and how many there are before it; where none is, that of the oldest record.
/// Of none that is still being written: two would write there at once.
#[inline(always)]
fn claim(first: u32, number: u64) -> Option<(*mut Handover, u32)> {
    let mut oldest = u64::MAX;
    let mut of_oldest = None;
    for index in 0..Handover::PLACES {
        let place = FLOWS.get_ptr_mut(index * Handover::KEYS + first)?;
        // SAFETY: `begun` is eight bytes of a live map value.
        let found = unsafe { exchange(addr_of_mut!((*place).begun), 0, number) };
        if found == 0 {
            return Some((place, index));
        }
        // Not asked of one that is free: its second cache line is with the gateway's processor, and need not be waited for.
        // SAFETY: `ended` is eight bytes of a live map value.
        if found < oldest && unsafe { read_volatile(addr_of!((*place).ended)) } == found {
            oldest = found;
            of_oldest = Some((place, index));
        }
    }
    let (place, index) = of_oldest?;
    // SAFETY: as above.
    let found = unsafe { exchange(addr_of_mut!((*place).begun), oldest, number) };
    (found == oldest).then_some((place, index))
}
