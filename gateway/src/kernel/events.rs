//! Refusals by the kernel programs, as the gateway's records want them.

use super::flow::Origin;
use super::programs::KernelError;
use aya::maps::{MapData, RingBuf};
use gateway_common::{event_from_bytes, refusal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// One refusal: nothing of it reached the gateway's sockets.
#[derive(Debug)]
pub struct Refusal {
    /// Where it was meant to go and who asked. The destination of a refused socket type is `[::]:0`.
    pub origin: Origin,
    /// Why.
    pub reason: RefusalReason,
    /// IANA protocol number of the socket.
    pub protocol: u32,
    /// The socket's network namespace, by its cookie.
    pub netns: u64,
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
    /// The gateway's own listener.
    OwnListener,
    /// Not TCP, not DNS.
    Protocol,
    /// A socket type outside the allowlist.
    SocketType,
    /// A packet of a socket that no hook has judged.
    Backstop,
}

impl RefusalReason {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            refusal::NOT_READY => Self::NotReady,
            refusal::NO_LISTENER => Self::NoListenerInNamespace,
            refusal::NO_RULE => Self::NoRule,
            refusal::GUARDED => Self::AddressGuard,
            refusal::LISTENER => Self::OwnListener,
            refusal::PROTOCOL => Self::Protocol,
            refusal::SOCKET_TYPE => Self::SocketType,
            refusal::BACKSTOP => Self::Backstop,
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
/// went unrecorded so far, and `on_lost` is given what is new. Ends with the process.
pub(super) fn read_events(
    mut events: RingBuf<MapData>,
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
                match poll(&mut ready, LOOK_MILLISECONDS) {
                    Ok(_) | Err(Errno::EINTR) => drain(&mut events, &on_refusal),
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

fn drain(events: &mut RingBuf<MapData>, on_refusal: &impl Fn(Refusal)) {
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
            origin: Origin::from_flow(&event.flow),
            reason,
            protocol: event.protocol,
            netns: event.netns,
        });
    }
}
