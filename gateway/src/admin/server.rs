//! The daemon's end: takes connections from those who may, reads questions within bounds, has them
//! answered. Knows nothing of what the answers mean.

use super::peer::Peer;
use super::protocol::{Answer, Question};
use super::socket::{self, BindError, Bound};
use super::{
    Control, Failure, FailureKind, LONGEST_REQUEST, Request, Response, Streamed, TailRequest,
    VERSION,
};
use crate::sandbox::locate::Hierarchy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Conversations at once: people and their dashboards. A descriptor and some kilobytes each.
const MOST_CLIENTS: usize = 32;
/// How long a connection may be silent between two questions, or take to send one.
const IDLE: Duration = Duration::from_secs(30);
/// How long an answer is waited for. An attach takes milliseconds, a detach of hundreds some seconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// How long a client may leave what was sent to it unread.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// How long no connection is taken when the process has no descriptor left for one.
const PAUSE: Duration = Duration::from_millis(100);
/// Records written at once.
const BATCH: usize = 64;

/// A socket that is bound.
#[derive(Debug)]
pub struct Server {
    bound: Bound,
}

impl Server {
    /// Binds the socket (0600, in a folder that is made 0700 or has to be): whoever connects waits until
    /// [`Self::serve`].
    ///
    /// # Errors
    /// [`BindError`]; [`BindError::Taken`] if a daemon listens there.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Ok(Self {
            bound: socket::bind(path)?,
        })
    }

    /// Answers until `stop`, then removes the socket. Conversations under way end with it, operations
    /// under way do not.
    ///
    /// # Errors
    /// If the socket cannot be watched, or there is no cgroup v2.
    pub async fn serve<C: Control>(
        self,
        control: Arc<C>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let hierarchy = Arc::new(Hierarchy::find().map_err(io::Error::other)?);
        let listener = UnixListener::from_std(self.bound.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(MOST_CLIENTS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin connection not taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let peer = Peer::of(&stream, Arc::clone(&hierarchy))
                .and_then(|peer| peer.check(&*control).map(|()| Arc::new(peer)));
            let place = Arc::clone(&places).try_acquire_owned();
            let mut client = Client::new(stream, Arc::clone(&control), stop.clone());
            tokio::spawn(async move {
                let admitted = match (peer, &place) {
                    (Ok(_), Err(_)) => Err(Failure::new(
                        FailureKind::Failed,
                        format!("{MOST_CLIENTS} clients are connected already; try again later"),
                    )),
                    (peer, _) => peer,
                };
                let ended = match admitted {
                    Ok(peer) => client.converse(&peer).await,
                    Err(refusal) => client.refuse(refusal).await,
                };
                // Who hangs up in the middle of a word is no news.
                if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection ended");
                }
            });
        }
    }
}

struct Client<C> {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    control: Arc<C>,
    stop: CancellationToken,
}

impl<C: Control> Client<C> {
    fn new(stream: UnixStream, control: Arc<C>, stop: CancellationToken) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
            control,
            stop,
        }
    }

    async fn converse(&mut self, peer: &Arc<Peer>) -> io::Result<()> {
        loop {
            let line = tokio::select! {
                () = self.stop.clone().cancelled_owned() => return Ok(()),
                line = timeout(IDLE, read_line(&mut self.reader)) => match line {
                    Ok(line) => line?,
                    Err(_idle) => return Ok(()),
                },
            };
            let Some(line) = line else {
                return Ok(());
            };
            let request = match understand(&line) {
                Ok(request) => request,
                Err(failure) => {
                    // What follows may be the rest of it.
                    return self.answer(&Response::Failed { failure }).await;
                }
            };
            // Its cgroup may have been attached since it was let in.
            if let Err(refusal) = peer.check(&*self.control) {
                return self.refuse(refusal).await;
            }
            if let Request::Tail(request) = request {
                return self.tail(&request, peer).await;
            }
            let response = self.carry_out(request, peer).await;
            self.answer(&response).await?;
        }
    }

    async fn refuse(&mut self, failure: Failure) -> io::Result<()> {
        tracing::warn!(reason = failure.message, "admin connection refused");
        self.answer(&Response::Failed { failure }).await
    }

    /// On a task of its own: who hangs up does not leave an attach half done.
    async fn carry_out(&self, request: Request, peer: &Arc<Peer>) -> Response {
        tracing::debug!(?request, "admin request");
        let (control, peer) = (Arc::clone(&self.control), Arc::clone(peer));
        let work = tokio::spawn(async move { answer(&*control, request, &peer).await });
        let failed = |message: String| Response::Failed {
            failure: Failure::new(FailureKind::Failed, message),
        };
        match timeout(ANSWERED_WITHIN, work).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => failed(format!("the daemon failed: {error}; its log says more")),
            Err(_elapsed) => failed(format!(
                "not done after {} s and still under way; `postern status` shows what became of it",
                ANSWERED_WITHIN.as_secs()
            )),
        }
    }

    async fn tail(&mut self, request: &TailRequest, peer: &Peer) -> io::Result<()> {
        // Before the filter is looked up, so that nothing is missed.
        let mut records = self.control.subscribe();
        let label = match &request.sandbox {
            None => None,
            Some(named) => match self.label_of(named).await {
                Ok(label) => Some(label),
                Err(failure) => return self.answer(&Response::Failed { failure }).await,
            },
        };
        let filter = Filter {
            denied: request.denied,
            label,
        };
        self.answer(&Response::Tailing).await?;
        loop {
            let received = tokio::select! {
                () = self.stop.clone().cancelled_owned() => {
                    return self.last(&Streamed::Ended("the daemon is going down".into())).await;
                }
                // It has nothing more to say: this is its hanging up, or nonsense.
                _ = self.reader.read_u8() => return Ok(()),
                received = records.recv() => received,
            };
            if let Err(refusal) = peer.check(&*self.control) {
                return self.last(&Streamed::Ended(refusal.message)).await;
            }
            let mut lines = String::new();
            let lost = gather(received, &mut records, &filter, &mut lines);
            self.write(lines.as_bytes()).await?;
            match lost {
                None => {}
                Some(RecvError::Lagged(count)) => {
                    return self.last(&Streamed::Lagged(count)).await;
                }
                Some(RecvError::Closed) => {
                    return self.last(&Streamed::Ended("no more records".into())).await;
                }
            }
        }
    }

    async fn label_of(&self, named: &str) -> Result<String, Failure> {
        let sandboxes = self.control.status().await.sandboxes;
        let found = sandboxes.iter().find(|sandbox| {
            sandbox.label == named || sandbox.cgroup == named || sandbox.id.to_string() == named
        });
        if let Some(sandbox) = found {
            return Ok(sandbox.label.clone());
        }
        let known: Vec<&str> = sandboxes
            .iter()
            .map(|sandbox| sandbox.label.as_str())
            .collect();
        let known = if known.is_empty() {
            "none is attached".to_owned()
        } else {
            format!("attached are {}", known.join(", "))
        };
        Err(Failure::new(
            FailureKind::NotFound,
            format!("no sandbox {named}; {known}"),
        ))
    }

    async fn answer(&mut self, response: &Response) -> io::Result<()> {
        let version = VERSION;
        self.last(&Answer { version, response }).await
    }

    async fn last(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.write(&line).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(WRITTEN_WITHIN, self.writer.write_all(bytes)).await?
    }
}

async fn answer<C: Control>(control: &C, request: Request, by: &Peer) -> Response {
    let outcome = match request {
        Request::Attach(request) => control
            .attach(request, by)
            .await
            .map(|sandbox| Response::Attached { sandbox }),
        Request::Detach { which } => control.detach(which, by).await.map(|sandbox| {
            let sandboxes = vec![sandbox];
            Response::Detached { sandboxes }
        }),
        Request::DetachAll => control
            .detach_all(by)
            .await
            .map(|sandboxes| Response::Detached { sandboxes }),
        Request::Status => {
            let status = Box::new(control.status().await);
            Ok(Response::Status { status })
        }
        Request::Tail(_) => Ok(Response::Tailing),
    };
    outcome.unwrap_or_else(|failure| Response::Failed { failure })
}

/// A line without its end; `None` at the end of the stream.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = u64::try_from(LONGEST_REQUEST + 1).unwrap_or(u64::MAX);
    reader.take(most).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        // Cut off by the other side, or by the limit; the whole of it is refused below.
        Some(last) => {
            line.push(last);
            Ok(Some(line))
        }
    }
}

fn understand(line: &[u8]) -> Result<Request, Failure> {
    let bad = |message: String| Failure::new(FailureKind::BadRequest, message);
    if line.len() > LONGEST_REQUEST {
        return Err(bad(format!(
            "the request is longer than {LONGEST_REQUEST} bytes"
        )));
    }
    let not_json = |error: serde_json::Error| bad(format!("the request is malformed: {error}"));
    // The version first: another one may have another form.
    let question: Question<Value> = serde_json::from_slice(line).map_err(not_json)?;
    if question.version != VERSION {
        return Err(bad(format!(
            "the request is of version {}, this daemon ({}) speaks version {VERSION}; use the `postern` that it was started with",
            question.version,
            env!("CARGO_PKG_VERSION"),
        )));
    }
    serde_json::from_value(question.request).map_err(not_json)
}

struct Filter {
    denied: bool,
    label: Option<String>,
}

/// The fields that a filter looks at.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    sandbox: Cow<'a, str>,
}

impl Filter {
    fn wants(&self, record: &str) -> bool {
        if !self.denied && self.label.is_none() {
            return true;
        }
        let Ok(told) = serde_json::from_str::<Told<'_>>(record) else {
            return false;
        };
        (!self.denied || told.event == "denied")
            && self
                .label
                .as_ref()
                .is_none_or(|label| told.sandbox == **label)
    }
}

/// Takes what was received, and what is there beside it, as lines. Says why there is no more, if so.
fn gather(
    received: Result<Arc<str>, RecvError>,
    records: &mut broadcast::Receiver<Arc<str>>,
    filter: &Filter,
    lines: &mut String,
) -> Option<RecvError> {
    let mut received = received;
    let mut count = 0;
    loop {
        match received {
            // The record is JSON already.
            Ok(record) if filter.wants(&record) => {
                lines.push_str("{\"record\":");
                lines.push_str(&record);
                lines.push_str("}\n");
            }
            Ok(_) => {}
            Err(lost) => return Some(lost),
        }
        count += 1;
        if count == BATCH {
            return None;
        }
        received = match records.try_recv() {
            Ok(record) => Ok(record),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
            Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
        };
    }
}
