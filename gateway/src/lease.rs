//! What policy allowed and what is still open: each connection and request under way holds a lease,
//! and a new generation of the policy revokes those that it would not have granted. Knows what was
//! allowed, not how to end it: the holder waits for the revocation.

use crate::policy::{Class, Destination, Gateway, Host, Permit, RequestFacts, Target, TlsMode};
use futures_util::task::AtomicWaker;
use slab::Slab;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// What was allowed.
pub enum Subject {
    /// A connection that is copied unread.
    Splice {
        /// Where the client connected to.
        address: SocketAddr,
        /// Its name, by server name or by the sandbox's resolver.
        host: Option<Host>,
        /// What its first bytes were.
        class: Class,
        /// What was dialled.
        target: Target,
    },
    /// A connection whose TLS ends here.
    Session {
        /// Where the client connected to.
        address: SocketAddr,
        /// Its server name.
        host: Option<Host>,
    },
    /// A request under way.
    Request {
        /// Where the client connected to.
        address: SocketAddr,
        /// The host of its authority; `None` for an address.
        host: Option<Host>,
        /// Terminated TLS, or in the clear.
        tls: bool,
        /// Its method.
        method: http::Method,
        /// Its path.
        path: String,
        /// The header fields that policy looked at. A generation that looks at others finds none, and ends it.
        headers: http::HeaderMap,
        /// The model that it asks for, if policy had to know.
        model: Option<Box<str>>,
    },
}

impl Subject {
    /// Would this gateway allow it?
    fn is_allowed_by(&self, gateway: &Gateway) -> bool {
        match self {
            Self::Splice {
                address,
                host,
                class,
                target,
            } => permit(gateway, *class, TlsMode::Passthrough, *address, host)
                .is_some_and(|permit| permit.target() == target),
            Self::Session { address, host } => {
                permit(gateway, Class::Tls, TlsMode::Terminate, *address, host).is_some()
            }
            Self::Request {
                address,
                host,
                tls,
                method,
                path,
                headers,
                model,
            } => {
                let (class, mode) = if *tls {
                    (Class::Tls, TlsMode::Terminate)
                } else {
                    (Class::Http, TlsMode::Passthrough)
                };
                let facts = RequestFacts {
                    host: host.as_ref(),
                    port: address.port(),
                    method: method.as_str(),
                    path,
                    headers,
                    model: model.as_deref(),
                    tls: *tls,
                };
                permit(gateway, class, mode, *address, host)
                    .is_some_and(|permit| gateway.authorize_request(&permit, &facts).is_ok())
            }
        }
    }
}

fn permit(
    gateway: &Gateway,
    class: Class,
    mode: TlsMode,
    address: SocketAddr,
    host: &Option<Host>,
) -> Option<Permit> {
    let listener = gateway.listener(class, address.port())?;
    if listener.tls_mode != mode {
        return None;
    }
    let host = host.as_ref();
    let to = Destination {
        address,
        host,
        listener,
    };
    gateway.authorize(&to).ok()
}

/// One thing that is open.
pub struct Lease {
    subject: Subject,
    revoked: AtomicBool,
    holder: AtomicWaker,
}

impl Lease {
    /// Has it been revoked? Wakes the task of the last caller when it is.
    pub fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.revoked.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.holder.register(cx.waker());
        // It may have happened in between.
        if self.revoked.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Returns when it is revoked. One task at a time may wait.
    pub async fn revoked(&self) {
        poll_fn(|cx| self.poll_revoked(cx)).await;
    }

    fn judge(&self, gateway: &Gateway) -> bool {
        let allowed = self.subject.is_allowed_by(gateway);
        if !allowed {
            self.revoked.store(true, Ordering::Release);
            self.holder.wake();
        }
        allowed
    }
}

/// The leases of one sandbox. The lock is held for as long as it takes to add or remove one, and
/// belongs to the sandbox alone.
#[derive(Default)]
pub struct Leases {
    open: Mutex<Slab<Arc<Lease>>>,
}

impl Leases {
    /// Adds a lease. `superseded` is asked once the lease can be found by [`Leases::judge`]: where
    /// another gateway is in force by now, the lease is judged by that one at once.
    pub fn grant(
        self: &Arc<Self>,
        subject: Subject,
        superseded: impl FnOnce() -> Option<Arc<Gateway>>,
    ) -> Held {
        let lease = Arc::new(Lease {
            subject,
            revoked: AtomicBool::new(false),
            holder: AtomicWaker::new(),
        });
        let key = self.lock().insert(Arc::clone(&lease));
        if let Some(gateway) = superseded() {
            lease.judge(&gateway);
        }
        Held {
            lease,
            key,
            leases: Arc::clone(self),
        }
    }

    /// Revokes what this gateway would not allow; says how many that were.
    pub fn judge(&self, gateway: &Gateway) -> usize {
        let open = self.lock();
        open.iter()
            .filter(|(_, lease)| !lease.judge(gateway))
            .count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Is nothing open?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slab<Arc<Lease>>> {
        // Whatever panicked, the slab is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease in the hands of its holder; given back by being dropped.
pub struct Held {
    lease: Arc<Lease>,
    key: usize,
    leases: Arc<Leases>,
}

impl Held {
    /// The lease.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.lock().try_remove(self.key);
    }
}
