//! Refusals by the kernel programs, as the gateway's records want them.

use super::error::KernelError;
use super::flow::{Executables, Origin};
use aya::maps::{MapData, RingBuf};
use gateway_common::{event_from_bytes, refusal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// One refusal: nothing of it reached the gateway's sockets.
#[derive(Debug)]
pub struct Refusal {
    /// Where it was meant to go and who asked. The destination of a refused socket type is `[::]:0`.
    pub origin: Origin,
    /// Why.
    pub reason: RefusalReason,
    /// IANA protocol number of the socket; of a socket of another family, the family's own.
    pub protocol: u32,
    /// Address family of the socket (`AF_INET` 2, `AF_INET6` 10, `AF_PACKET` 17, …); zero where it is not
    /// known.
    pub family: u8,
    /// Type of the socket (`SOCK_STREAM` 1, `SOCK_DGRAM` 2, …); zero where it is not known.
    pub socket_type: u8,
}

impl Refusal {
    /// What was refused, as the detail of a record: `protocol 17` or `family 40 type 1 protocol 0`.
    pub fn detail(&self) -> String {
        let inet = [libc::AF_INET, libc::AF_INET6].contains(&i32::from(self.family));
        let is_of_a_socket = matches!(
            self.reason,
            RefusalReason::SocketType | RefusalReason::ForeignSocket
        );
        if is_of_a_socket && !inet {
            let (family, kind, protocol) = (self.family, self.socket_type, self.protocol);
            return format!("family {family} type {kind} protocol {protocol}");
        }
        format!("protocol {}", self.protocol)
    }
}

/// [`refusal`], typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// No settings: attached and not activated, or deactivated.
    NotReady,
    /// No listener in this network namespace.
    NoListenerInNamespace,
    /// No rule for address and port.
    NoRule,
    /// A guarded address that no rule names.
    AddressGuard,
    /// A gateway's listener or resolver, this sandbox's or another's.
    OwnListener,
    /// Neither TCP, nor DNS, nor UDP that a rule allows.
    Protocol,
    /// A socket type or family outside the allowlist.
    SocketType,
    /// A packet of a socket that no hook has judged, or of a form that cannot be judged.
    Backstop,
    /// The gateway that was responsible had ended: told by the next one.
    GatewayGone,
    /// UDP that a rule allows, in a namespace from which no route leads out.
    Sealed,
    /// A socket that was made outside of the sandbox, as somebody handed it in.
    ForeignSocket,
}

impl RefusalReason {
    /// By the number that the programs use (`gateway_common::refusal`).
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            refusal::NOT_READY => Self::NotReady,
            refusal::NO_LISTENER => Self::NoListenerInNamespace,
            refusal::NO_RULE => Self::NoRule,
            refusal::GUARDED => Self::AddressGuard,
            refusal::LISTENER => Self::OwnListener,
            refusal::PROTOCOL => Self::Protocol,
            refusal::SOCKET_TYPE => Self::SocketType,
            refusal::BACKSTOP => Self::Backstop,
            refusal::GATEWAY_GONE => Self::GatewayGone,
            refusal::SEALED => Self::Sealed,
            refusal::FOREIGN_SOCKET => Self::ForeignSocket,
            _ => return None,
        })
    }
}

/// The longest wait for an event.
const LOOK_MILLISECONDS: u16 = 1000;
/// How often unrecorded refusals are told, if there are any.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Reads events, on a thread of its own: a sandbox that is refused a hundred thousand times a second
/// must not keep the runtime's threads from everybody's connections. `lost` tells how many refusals
/// went unrecorded so far, and `on_lost` is given what is new. Ends when `ended` is set, without taking
/// what the next reader should have.
pub(super) fn read_events(
    mut events: RingBuf<MapData>,
    executables: Executables,
    ended: Arc<AtomicBool>,
    on_refusal: impl Fn(Refusal) + Send + 'static,
    lost: impl Fn() -> u64 + Send + 'static,
    on_lost: impl Fn(u64) + Send + 'static,
) -> Result<(), KernelError> {
    let descriptor = events.as_fd().try_clone_to_owned()?;
    std::thread::Builder::new()
        .name("kernel-events".to_owned())
        .spawn(move || {
            let mut known = lost();
            let mut told = Instant::now();
            loop {
                let mut ready = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
                let polled = poll(&mut ready, LOOK_MILLISECONDS);
                if ended.load(Ordering::Acquire) {
                    return;
                }
                match polled {
                    Ok(_) | Err(Errno::EINTR) => drain(&mut events, &executables, &on_refusal),
                    Err(error) => {
                        error!(%error, "kernel events can no longer be read; ending");
                        // Refusals would go unrecorded from here on: the sandbox is cut off instead.
                        std::process::abort();
                    }
                }
                if told.elapsed() >= TELL_EVERY {
                    told = Instant::now();
                    let now = lost();
                    if now > known {
                        on_lost(now - known);
                        known = now;
                    }
                }
            }
        })?;
    Ok(())
}

fn drain(events: &mut RingBuf<MapData>, executables: &Executables, on_refusal: &impl Fn(Refusal)) {
    while let Some(item) = events.next() {
        let Some(event) = event_from_bytes(&item) else {
            warn!(bytes = item.len(), "kernel event of an unknown length");
            continue;
        };
        let Some(reason) = RefusalReason::from_number(event.reason) else {
            warn!(reason = event.reason, "kernel event of an unknown reason");
            continue;
        };
        on_refusal(Refusal {
            origin: Origin::from_flow(&event.flow, executables),
            reason,
            protocol: event.protocol,
            family: event.family,
            socket_type: event.socket_type,
        });
    }
}
