//! Refusals by the kernel programs, as the gateway's records want them.

use super::error::KernelError;
use super::flow::{Executables, Origin};
use aya::maps::{MapData, RingBuf};
use gateway_common::{Event, capacity, event_from_bytes, refusal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// IGMP and ICMPv6 (IANA's protocol numbers), in which a host tells of the multicast groups that it is in.
const REPORTING: [u32; 2] = [2, 58];

/// One refusal: nothing of it reached the gateway's sockets.
#[derive(Debug)]
pub struct Refusal {
    /// Where it was meant to go and who asked. Of a refused socket type or a group that was to be
    /// joined the destination is `[::]:0`.
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
        // No call that sends has no type: these are what the kernel would say to the network by itself.
        let is_joined = self.reason == RefusalReason::Protocol
            && self.socket_type == 0
            && REPORTING.contains(&self.protocol);
        let why = if is_joined {
            ": joining a multicast group"
        } else {
            ""
        };
        format!("protocol {}{why}", self.protocol)
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
/// Events taken before the reader looks up again: it must hear what is wanted of it in the middle of a flood.
const BATCH: usize = 64;
/// How long what is there is recorded each before an order is carried out.
const CATCH_UP: Duration = Duration::from_millis(500);

/// What the reader is to do once it has taken what is there now.
enum Order {
    Run(Box<dyn FnOnce() + Send>),
    /// Count what is left, and end.
    End,
}

/// The thread that reads events. Dropped, it ends at once and leaves to the next reader what it has not
/// taken.
pub(super) struct Reader {
    orders: Sender<Order>,
    wake: PipeWriter,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Runs `work` when the refusals of before are recorded, or half a second later.
    pub(super) fn then(&mut self, work: impl FnOnce() + Send + 'static) {
        self.order(Order::Run(Box::new(work)));
    }

    /// Has what is left recorded, or counted if that takes too long, and waits for it. Blocks.
    pub(super) fn settle(mut self) {
        self.order(Order::End);
        if self.thread.join().is_err() {
            warn!("the reader of kernel events panicked");
        }
    }

    fn order(&mut self, order: Order) {
        let sent = self.orders.send(order).is_ok();
        if !sent || self.wake.write_all(&[0]).is_err() {
            warn!("the reader of kernel events is gone");
        }
    }
}

/// Where events come from and where they go.
pub(super) struct Reading<R, C, L> {
    pub(super) events: RingBuf<MapData>,
    pub(super) executables: Executables,
    /// Is given each refusal, and says whether it is on record now.
    pub(super) on_refusal: R,
    /// How many refusals the programs had to drop so far.
    pub(super) lost: C,
    /// Is given how many more went unrecorded than it was told of.
    pub(super) on_lost: L,
}

impl<R, C, L> Reading<R, C, L>
where
    R: Fn(Refusal) -> bool + Send + 'static,
    C: Fn() -> u64 + Send + 'static,
    L: Fn(u64) + Send + 'static,
{
    /// Starts a thread of its own for it: a sandbox that is refused a hundred thousand times a second
    /// must not keep the runtime's threads from everybody's connections.
    pub(super) fn start(self) -> Result<Reader, KernelError> {
        let descriptor = self.events.as_fd().try_clone_to_owned()?;
        let (woken, wake) = std::io::pipe()?;
        let (orders, ordered) = channel();
        let known = (self.lost)();
        let work = Work {
            reading: self,
            known,
            missed: 0,
        };
        let thread = std::thread::Builder::new()
            .name("kernel-events".to_owned())
            .spawn(move || work.run(&descriptor, woken, &ordered))?;
        Ok(Reader {
            orders,
            wake,
            thread,
        })
    }
}

struct Work<R, C, L> {
    reading: Reading<R, C, L>,
    /// What the programs had dropped when it was told last.
    known: u64,
    /// What was taken since and is not on record.
    missed: u64,
}

impl<R, C, L> Work<R, C, L>
where
    R: Fn(Refusal) -> bool,
    C: Fn() -> u64,
    L: Fn(u64),
{
    fn run(mut self, descriptor: &OwnedFd, mut woken: PipeReader, ordered: &Receiver<Order>) {
        let mut told = Instant::now();
        loop {
            let mut ready = [
                PollFd::new(descriptor.as_fd(), PollFlags::POLLIN),
                PollFd::new(woken.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, LOOK_MILLISECONDS) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    error!(%error, "kernel events can no longer be read; ending");
                    // Refusals would go unrecorded from here on: the sandbox is cut off instead.
                    std::process::abort();
                }
            }
            if ready[1].any().unwrap_or(true) {
                // Nothing to read: whoever gave orders is gone.
                let Ok(1) = woken.read(&mut [0]) else {
                    return;
                };
                self.catch_up();
                match ordered.try_recv() {
                    Ok(Order::Run(work)) => work(),
                    Ok(Order::End) => {
                        self.discard();
                        return self.tell();
                    }
                    Err(_) => return,
                }
            }
            self.take(BATCH);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                self.tell();
            }
        }
    }

    fn catch_up(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < CATCH_UP && self.take(BATCH) == BATCH {}
    }

    /// Counts what is there. Whoever is still refused must not keep this from its end.
    fn discard(&mut self) {
        for _ in 0..capacity::EVENT_BYTES / size_of::<Event>() {
            if self.reading.events.next().is_none() {
                return;
            }
            self.missed += 1;
        }
    }

    fn tell(&mut self) {
        let lost = (self.reading.lost)();
        let new = lost.saturating_sub(self.known) + self.missed;
        (self.known, self.missed) = (lost, 0);
        if new > 0 {
            (self.reading.on_lost)(new);
        }
    }

    /// Takes `most` events, or as many as there are, and says how many.
    fn take(&mut self, most: usize) -> usize {
        for taken in 0..most {
            let Some(item) = self.reading.events.next() else {
                return taken;
            };
            let refusal = refusal_of(&item, &self.reading.executables);
            if !refusal.is_some_and(&self.reading.on_refusal) {
                self.missed += 1;
            }
        }
        most
    }
}

fn refusal_of(item: &[u8], executables: &Executables) -> Option<Refusal> {
    let Some(event) = event_from_bytes(item) else {
        warn!(bytes = item.len(), "kernel event of an unknown length");
        return None;
    };
    let Some(reason) = RefusalReason::from_number(event.reason) else {
        warn!(reason = event.reason, "kernel event of an unknown reason");
        return None;
    };
    Some(Refusal {
        origin: Origin::from_flow(&event.flow, executables),
        reason,
        protocol: event.protocol,
        family: event.family,
        socket_type: event.socket_type,
    })
}
