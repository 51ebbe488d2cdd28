//! Postern's cgroup programs. Each entry point here only reads its context, asks [`verdict`] and
//! acts; the modules know nothing of policy files, names or HTTP.
//!
//! A program function must not bear its section's name: the linker would see the symbol twice.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "kernel contexts and maps are raw pointers")]

mod atomic;
mod context;
mod egress;
mod executable;
mod flow;
mod handed;
mod maps;
mod memo;
mod sockets;
mod sockopt;
mod task;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, lsm_cgroup},
    programs::{LsmContext, SkBuffContext, SockAddrContext, SockContext, SockoptContext},
};
use context::Destination;
use gateway_common::{
    Address, Flow, Image,
    protocol::{TCP, UDP},
};
use maps::SETTINGS;
use verdict::Action;

/// The kernel's "go on" for cgroup socket programs.
const ALLOW: i32 = 1;
/// The kernel's "refuse": `EPERM`, unless the program set another error.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn postern_connect4(ctx: SockAddrContext) -> i32 {
    outgoing(&ctx, context::destination4(&ctx), context::write4, false)
}

#[cgroup_sock_addr(connect6)]
pub fn postern_connect6(ctx: SockAddrContext) -> i32 {
    outgoing(&ctx, context::destination6(&ctx), context::write6, false)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn postern_sendmsg4(ctx: SockAddrContext) -> i32 {
    outgoing(&ctx, context::destination4(&ctx), context::write4, true)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn postern_sendmsg6(ctx: SockAddrContext) -> i32 {
    outgoing(&ctx, context::destination6(&ctx), context::write6, true)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn postern_recvmsg4(ctx: SockAddrContext) -> i32 {
    answer_from_server(&ctx, context::destination4(&ctx), context::write4)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn postern_recvmsg6(ctx: SockAddrContext) -> i32 {
    answer_from_server(&ctx, context::destination6(&ctx), context::write6)
}

#[cgroup_sock_addr(getpeername4)]
pub fn postern_getpeername4(ctx: SockAddrContext) -> i32 {
    honest_peer(&ctx, context::destination4(&ctx), context::write4)
}

#[cgroup_sock_addr(getpeername6)]
pub fn postern_getpeername6(ctx: SockAddrContext) -> i32 {
    honest_peer(&ctx, context::destination6(&ctx), context::write6)
}

#[cgroup_sock(sock_create)]
pub fn postern_sock_create(ctx: SockContext) -> i32 {
    match sockets::internet(&ctx) {
        Ok(()) => {
            flow::make_room(&ctx);
            ALLOW
        }
        Err(()) => REFUSE,
    }
}

#[lsm_cgroup(hook = "socket_create")]
pub fn postern_socket_create(ctx: LsmContext) -> i32 {
    match sockets::family(&ctx) {
        Ok(()) => ALLOW,
        Err(()) => REFUSE,
    }
}

#[lsm_cgroup(hook = "file_receive")]
pub fn postern_file_receive(ctx: LsmContext) -> i32 {
    match handed::may_be_received(&ctx) {
        Ok(()) => ALLOW,
        Err(()) => REFUSE,
    }
}

#[cgroup_sockopt(setsockopt)]
pub fn postern_setsockopt(ctx: SockoptContext) -> i32 {
    match sockopt::may_be_set(&ctx) {
        Ok(()) => ALLOW,
        Err(()) => REFUSE,
    }
}

#[lsm_cgroup(hook = "socket_setsockopt")]
pub fn postern_socket_setsockopt(ctx: LsmContext) -> i32 {
    match sockopt::may_be_set_at_all(&ctx) {
        Ok(()) => ALLOW,
        Err(()) => REFUSE,
    }
}

#[cgroup_skb(egress)]
pub fn postern_egress(ctx: SkBuffContext) -> i32 {
    if egress::may_pass(&ctx) {
        ALLOW
    } else {
        REFUSE
    }
}

/// Writes address and port into the context, in the family of the program.
type Write = fn(&SockAddrContext, &Address, u16);

/// connect() and sendto(): decide, then refuse, let pass as it is, or redirect.
#[inline(always)]
fn outgoing(ctx: &SockAddrContext, to: Destination, write: Write, is_sendto: bool) -> i32 {
    let settings = SETTINGS.current();
    // Before anybody is told of the connection. Of datagrams, one by one, it would cost too much.
    let image = if !is_sendto && context::protocol(ctx) == TCP.into() {
        executable::known()
    } else {
        Image::UNKNOWN
    };
    let mut flow = verdict::flow(ctx, settings, &to, image);
    let port = match verdict::outgoing(ctx, settings, &to, &flow, is_sendto) {
        Action::Refuse => return REFUSE,
        Action::Pass => {
            flow.via = Flow::DIRECT;
            None
        }
        Action::Redirect(port) => {
            flow.listener = port;
            Some(port)
        }
    };
    if flow::remember(ctx, &flow, is_sendto).is_err() {
        return REFUSE;
    }
    if let Some(port) = port {
        write(ctx, &context::listener(to.spelling), port);
    }
    ALLOW
}

/// An answer of the gateway's resolver comes, for the client, from the server that it asked.
#[inline(always)]
fn answer_from_server(ctx: &SockAddrContext, from: Destination, write: Write) -> i32 {
    if let Some(flow) = flow::redirected(ctx, &from)
        && flow.protocol == UDP
    {
        write(ctx, &flow.address, flow.port);
    }
    ALLOW
}

/// getpeername() shows where the client wanted to go, not the listener.
#[inline(always)]
fn honest_peer(ctx: &SockAddrContext, shown: Destination, write: Write) -> i32 {
    if let Some(flow) = flow::redirected(ctx, &shown) {
        write(ctx, &flow.address, flow.port);
    }
    ALLOW
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that this is never reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
