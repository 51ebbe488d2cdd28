//! The sandbox's resolver. It answers A and AAAA for names that policy allows, and nothing else: a
//! question about another name never leaves, and one that does is of bounded size and number, so that
//! DNS is no way out. Refuses to know how names are resolved, and what becomes of connections.

mod denials;
mod limits;
mod pins;
mod question;

pub use pins::Pins;
pub use question::{MAX_ANSWERS, MAX_DATAGRAM, Question, Read, Transport, read};

use crate::outcome::DenyReason;
use crate::policy::{Gateway, Host, Naming};
use crate::telemetry::{Telemetry, Who};
use crate::upstream::{NameError, Ration, Resolver};
use arc_swap::ArcSwap;
use denials::Denials;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use limits::Limits;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

/// Questions at once from one sandbox over UDP that wait for their answer; more are dropped, and
/// clients ask again.
const MAX_QUESTIONS: usize = 256;
/// Names of one sandbox that are being resolved at once: a browser's page, and a small share of what
/// the gateway's upstreams take.
const MAX_LOOK_UPS: usize = 32;
/// How long a question waits for its turn among those; clients give up after 5 s (resolv.conf(5)).
const TURN: Duration = Duration::from_secs(2);
/// Life of an answer at most: clients ask again soon, and the policy may have changed.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// A TCP client may be silent this long between questions (RFC 7766 §6.2.3 speaks of seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// After an error of the socket itself: an error that stays must not keep a processor busy.
const SOCKET_PAUSE: Duration = Duration::from_millis(10);
/// Names for addresses (RFC 1035 §3.5, RFC 3596 §2.5): nobody outside may learn which addresses a
/// sandbox is interested in, and no rule needs them.
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

/// Answers the questions of one sandbox.
pub struct Responder {
    by: ArcSwap<By>,
    denials: Denials,
    limits: Limits,
    questions: Arc<Semaphore>,
    look_ups: Semaphore,
    pins: Pins,
}

/// What it answers by: one generation of the policy.
struct By {
    gateway: Arc<Gateway>,
    resolver: Arc<Resolver>,
}

/// What becomes of a message, as far as it can be said at once.
enum Step {
    Nothing,
    Answer(Vec<u8>),
    LookUp(Box<Question>, Host),
}

impl Responder {
    /// For one sandbox.
    pub fn new(gateway: Arc<Gateway>, resolver: Arc<Resolver>, telemetry: Arc<Telemetry>) -> Self {
        let now = Instant::now();
        Self {
            by: ArcSwap::from_pointee(By { gateway, resolver }),
            denials: Denials::new(telemetry, now),
            limits: Limits::new(now),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            look_ups: Semaphore::new(MAX_LOOK_UPS),
            pins: Pins::default(),
        }
    }

    /// Answers by another generation from now on, and forgets names that it does not allow.
    pub fn replace(
        &self,
        gateway: Arc<Gateway>,
        resolver: Arc<Resolver>,
        telemetry: Arc<Telemetry>,
    ) {
        let allowed = Arc::clone(&gateway);
        self.denials.replace(telemetry);
        self.by.store(Arc::new(By { gateway, resolver }));
        self.pins.retain(|host| allowed.naming(host).is_some());
    }

    /// What this sandbox was answered.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Serves a socket until the future is dropped. `who` stands for the sandbox: UDP has no flow.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket, who: Who) {
        let socket = Arc::new(socket);
        let _last_words = LastWords(Arc::clone(&self));
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "DNS socket");
                    tokio::time::sleep(SOCKET_PAUSE).await;
                    continue;
                }
            };
            match self.decide(&buffer[..length], &who, Transport::Udp) {
                Step::Nothing => {}
                Step::Answer(answer) => send(&socket, &answer, client).await,
                Step::LookUp(question, host) => {
                    let Ok(turn) = Arc::clone(&self.questions).try_acquire_owned() else {
                        continue;
                    };
                    let (this, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    let who = who.clone();
                    tokio::spawn(async move {
                        let answer = this.look_up(&question, &host, &who, Transport::Udp).await;
                        send(&socket, &answer, client).await;
                        drop(turn);
                    });
                }
            }
        }
    }

    /// Serves a redirected TCP connection: messages with a length in front (RFC 1035 §4.2.2), one
    /// after the other.
    pub async fn serve_tcp<S>(&self, mut stream: S, who: &Who) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let length = match tokio::time::timeout(TCP_IDLE, stream.read_u16()).await {
                Ok(Ok(length)) => usize::from(length),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_idle) => return Ok(()),
            };
            if length > MAX_DATAGRAM {
                return Ok(());
            }
            let mut message = vec![0; length];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut message)).await??;
            let answer = match self.decide(&message, who, Transport::Tcp) {
                Step::Nothing => return Ok(()),
                Step::Answer(answer) => answer,
                Step::LookUp(question, host) => {
                    self.look_up(&question, &host, who, Transport::Tcp).await
                }
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return Ok(());
            };
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// All that needs no look-up, and whether there may be one.
    fn decide(&self, message: &[u8], who: &Who, over: Transport) -> Step {
        let in_time = self.limits.question(Instant::now());
        let question = match read(message) {
            Read::Question(question) => question,
            Read::Reply(answer) if in_time => return Step::Answer(answer),
            Read::Reply(_) | Read::Nothing => return Step::Nothing,
        };
        let refuse = |reason, code| {
            self.denials
                .record(who, reason, question.name(), question.wanted());
            Step::Answer(question.refuse(code, over))
        };
        if !in_time {
            return refuse(DenyReason::DnsRateLimited, ResponseCode::Refused);
        }
        if !question.is_internet() {
            return refuse(DenyReason::DnsTypeNotAllowed, ResponseCode::Refused);
        }
        let by = self.by.load();
        let allowed = Host::parse(&question.name()).ok().and_then(|host| {
            let naming = by.gateway.naming(&host).filter(|_| !is_reverse(&host))?;
            Some((host, naming))
        });
        let Some((host, naming)) = allowed else {
            return refuse(DenyReason::NameNotAllowed, ResponseCode::NXDomain);
        };
        if !matches!(question.kind(), RecordType::A | RecordType::AAAA) {
            // The name exists, such data does not (RFC 2308 §2.2): HTTPS and SVCB would bring ECH
            // and other ports, TXT and NULL carry what nobody checks.
            return refuse(DenyReason::DnsTypeNotAllowed, ResponseCode::NoError);
        }
        if by.gateway.alias(&host).is_none()
            && let Err(reason) = self.limits.name(&host, &naming, Instant::now())
        {
            return refuse(reason, ResponseCode::Refused);
        }
        Step::LookUp(question, host)
    }

    async fn look_up(
        &self,
        question: &Question,
        host: &Host,
        who: &Who,
        over: Transport,
    ) -> Vec<u8> {
        if !self.denials.is_recording() {
            return question.refuse(ResponseCode::ServFail, over);
        }
        let Ok(turn) = tokio::time::timeout(TURN, self.look_ups.acquire()).await else {
            let under_way = format!("{MAX_LOOK_UPS} look-ups under way");
            self.denials
                .record(who, DenyReason::DnsRateLimited, host.to_string(), under_way);
            return question.refuse(ResponseCode::ServFail, over);
        };
        let by = self.by.load_full();
        let found = by.resolver.tell(host).await;
        drop(turn);
        // Policy may have changed meanwhile.
        if self.by.load().gateway.naming(host).is_none() {
            return question.refuse(ResponseCode::NXDomain, over);
        }
        let found = match found {
            Ok(found) => found,
            Err(NameError::NoSuchName) => return question.refuse(ResponseCode::NXDomain, over),
            Err(NameError::NoAddress) => return question.refuse(ResponseCode::NoError, over),
            Err(NameError::Failed(error)) => {
                tracing::warn!(%host, %error, "DNS look-up failed");
                return question.refuse(ResponseCode::ServFail, over);
            }
        };
        if let Some((address, kind)) = found.withheld {
            let detail = format!("{address} ({kind})");
            self.denials
                .record(who, DenyReason::AddressGuard, host.to_string(), detail);
        }
        let now = Instant::now();
        for address in found.addresses.iter().take(MAX_ANSWERS) {
            self.pins.note(host, *address, found.life, now);
        }
        question.answer(&found.addresses, found.life.min(MAX_LIFE), over)
    }
}

/// What is dialled for the sandbox is paid from what it may ask itself: a server name that leads to a look-up
/// is as good a messenger as a question.
impl Ration for Responder {
    fn spend(&self, host: &Host) -> Result<(), DenyReason> {
        let by = self.by.load();
        if by.gateway.alias(host).is_some() {
            return Ok(());
        }
        // By a permit of another generation, which did allow it.
        let naming = by.gateway.naming(host).unwrap_or(Naming::Any);
        self.limits.name(host, &naming, Instant::now())
    }
}

/// When the service ends, nothing that was counted stays untold.
struct LastWords(Arc<Responder>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.denials.tell();
    }
}

fn is_reverse(host: &Host) -> bool {
    REVERSE.iter().any(|zone| {
        host.as_str()
            .strip_suffix(zone)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, "DNS answer not sent");
    }
}

#[cfg(test)]
mod tests;
