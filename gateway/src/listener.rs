//! Accepts redirected connections in a sandbox's network namespace and recovers where each was
//! meant to go. A connection without a record is closed: there is no fallback.

use crate::connection;
use crate::kernel::{FlowTable, Origin, SandboxId};
use crate::live::{Live, View};
use crate::outcome::{DenyReason, Stage};
use crate::telemetry::{DenialRecord, Who};
use crate::workers::{self, Workers};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

/// Out of descriptors or memory: trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection whose origin is known.
pub struct Redirected {
    /// The client's connection.
    pub stream: TcpStream,
    /// What the connect hook recorded of it.
    pub origin: Origin,
    /// Its place among the sandbox's connections.
    pub place: Arc<Place>,
}

/// A connection's place among those that its sandbox may have open, given back when the last task
/// that works for the connection has ended.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    tasks: TaskTracker,
}

impl Place {
    /// Goes on with the connection in a task of its own, which draining waits for.
    pub fn spawn(self: Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            task.await;
            drop(self);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever the connection needed is free.
        workers::has_freed();
    }
}

/// One listening socket of one sandbox in one namespace.
pub struct Listener {
    /// Bound in the namespace.
    pub socket: TcpListener,
    /// The namespace's cookie.
    pub netns: u64,
    /// Whose it is.
    pub id: SandboxId,
    /// What its connections need.
    pub live: Arc<Live>,
    /// Records of redirected connections.
    pub flows: FlowTable,
    /// Knows the connections, so that draining can wait for them.
    pub connections: TaskTracker,
    /// Run them.
    pub workers: Arc<Workers>,
}

impl Listener {
    /// Accepts for as long as it is let.
    pub async fn run(self) {
        loop {
            match self.socket.accept().await {
                Ok((stream, client)) => self.accept(stream, client),
                Err(error) if is_about_one_connection(&error) => {
                    tracing::debug!(%error, "accept");
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accept(&self, stream: TcpStream, client: SocketAddr) {
        let origin = self.flows.take(self.id, self.netns, client);
        let view = self.live.view();
        let Some(origin) = origin else {
            let who = self.nobody(&view, client);
            return deny(&view, who, DenyReason::NoOriginalDestination);
        };
        if !view.telemetry.is_recording() {
            let who = self.somebody(&view, &origin);
            return deny(&view, who, DenyReason::AuditUnavailable);
        }
        let Ok(place) = Arc::clone(&view.places).try_acquire_owned() else {
            let who = self.somebody(&view, &origin);
            return deny(&view, who, DenyReason::TooManyConnections);
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let live = Arc::clone(&self.live);
        let place = Arc::new(Place {
            _permit: place,
            tasks: self.connections.clone(),
        });
        // Leaves the runtime of this thread for the worker's.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(%error, "a connection is closed"),
        };
        let serve = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let redirected = Redirected {
                        stream,
                        origin,
                        place,
                    };
                    connection::run(live, redirected).await;
                }
                Err(error) => tracing::error!(%error, "a connection is closed"),
            }
        };
        self.connections.spawn_on(serve, self.workers.next());
    }

    fn somebody(&self, view: &View, origin: &Origin) -> Who {
        let gateway = Arc::clone(&view.gateway.name);
        Who::new(
            gateway,
            Arc::clone(&self.live.label),
            view.generation,
            origin,
        )
    }

    /// The client of a connection without a record: only its address is known.
    fn nobody(&self, view: &View, client: SocketAddr) -> Who {
        Who {
            gateway: Arc::clone(&view.gateway.name),
            sandbox: Arc::clone(&self.live.label),
            cgroup: 0,
            pid: 0,
            tgid: 0,
            uid: 0,
            comm: format!("client {client}").into(),
            executable: None,
            destination: self.socket.local_addr().unwrap_or(client),
            generation: view.generation,
        }
    }
}

fn deny(view: &View, who: Who, reason: DenyReason) {
    view.denied(&DenialRecord {
        who,
        reason,
        stage: Stage::Sniff,
        host: None,
        detail: None,
    });
}

/// Errors that `accept()` reports of a connection and not of the socket (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
