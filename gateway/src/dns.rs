//! The sandbox's resolver. It answers A and AAAA for names that policy allows, and nothing else: a
//! question about another name never leaves, so DNS carries nothing out.

mod pins;

pub use pins::Pins;

use crate::outcome::{DenyReason, Stage};
use crate::policy::{Gateway, Host};
use crate::telemetry::{DenialRecord, Telemetry, Who};
use crate::upstream::{NameError, Resolver};
use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

/// Questions at once from one sandbox over UDP; more are dropped, and clients ask again.
const MAX_QUESTIONS: usize = 256;
/// A question is one name of at most 255 bytes and a few options; answers of addresses are small.
const MAX_QUESTION: usize = 1232;
/// Addresses in one answer: fits in 512 bytes whatever the name.
const MAX_ANSWERS: usize = 8;
/// Life of an answer at most: a pin that outlives the policy helps nobody.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// A TCP client may be silent this long between questions (RFC 7766 §6.2.3 speaks of seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Answers the questions of one sandbox.
pub struct Responder {
    by: ArcSwap<By>,
    questions: Semaphore,
    pins: Pins,
}

/// What it answers by: one generation of the policy.
struct By {
    gateway: Arc<Gateway>,
    resolver: Arc<Resolver>,
    telemetry: Arc<Telemetry>,
}

impl Responder {
    /// For one sandbox.
    pub fn new(gateway: Arc<Gateway>, resolver: Arc<Resolver>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            by: ArcSwap::from_pointee(By {
                gateway,
                resolver,
                telemetry,
            }),
            questions: Semaphore::new(MAX_QUESTIONS),
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
        self.by.store(Arc::new(By {
            gateway,
            resolver,
            telemetry,
        }));
        self.pins.retain(|host| allowed.resolves(host).is_some());
    }

    /// What this sandbox was answered.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Serves a socket until the task is aborted. `who` stands for the sandbox: UDP has no flow.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket, who: Who) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; MAX_QUESTION];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // ICMP errors of earlier answers are reported here; the socket is still good.
                    tracing::debug!(%error, "DNS socket");
                    continue;
                }
            };
            let question = buffer[..length].to_vec();
            let this = Arc::clone(&self);
            let socket = Arc::clone(&socket);
            let who = who.clone();
            tokio::spawn(async move {
                let Ok(_turn) = this.questions.try_acquire() else {
                    return;
                };
                if let Some(answer) = this.answer(&question, &who).await
                    && let Err(error) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%error, "DNS answer not sent");
                }
            });
        }
    }

    /// Serves a redirected TCP connection: messages with a length in front (RFC 1035 §4.2.2).
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
            if length > MAX_QUESTION {
                return Ok(());
            }
            let mut question = vec![0; length];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.answer(&question, who).await else {
                return Ok(());
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return Ok(());
            };
            let mut message = length.to_be_bytes().to_vec();
            message.extend_from_slice(&answer);
            tokio::time::timeout(TCP_IDLE, stream.write_all(&message)).await??;
        }
    }

    /// `None` for what is no question: it gets no answer.
    async fn answer(&self, question: &[u8], who: &Who) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        let code = match request.queries.as_slice() {
            [query] if request.metadata.op_code == OpCode::Query => {
                response.add_query(query.clone());
                self.look_up(query, who, &mut response).await
            }
            [_] => ResponseCode::NotImp,
            _ => ResponseCode::FormErr,
        };
        response.metadata.response_code = code;
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            response.set_edns(edns);
        }
        response.to_vec().ok()
    }

    async fn look_up(&self, query: &Query, who: &Who, response: &mut Message) -> ResponseCode {
        let by = self.by.load_full();
        if query.query_class() != DNSClass::IN {
            return ResponseCode::Refused;
        }
        let name = query.name().to_ascii();
        let allowed = Host::parse(&name)
            .ok()
            .filter(|host| by.gateway.resolves(host).is_some());
        let Some(host) = allowed else {
            by.telemetry.denied(&DenialRecord {
                who: who.clone(),
                reason: DenyReason::NameNotAllowed,
                stage: Stage::Dns,
                host: Some(name.trim_end_matches('.').to_owned()),
                detail: Some(query.query_type().to_string()),
            });
            return ResponseCode::NXDomain;
        };
        let wanted = query.query_type();
        if wanted != RecordType::A && wanted != RecordType::AAAA {
            // The name exists, such data does not (RFC 2308 §2.2): HTTPS and SVCB would bring ECH
            // and other ports, TXT and NULL carry what nobody checks.
            return ResponseCode::NoError;
        }
        match by.resolver.resolve(&host).await {
            Ok(found) => {
                if !Arc::ptr_eq(&by, &self.by.load()) {
                    // Policy changed meanwhile: ask again.
                    return ResponseCode::ServFail;
                }
                let life = found.life.min(MAX_LIFE);
                let ttl = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
                let wanted = found
                    .addresses
                    .into_iter()
                    .filter(|ip| ip.is_ipv4() == (wanted == RecordType::A));
                for ip in wanted.take(MAX_ANSWERS) {
                    self.pins.note(&host, ip, life, Instant::now());
                    let data = match ip {
                        IpAddr::V4(ip) => RData::A(A(ip)),
                        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
                    };
                    response.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
                }
                ResponseCode::NoError
            }
            Err(NameError::NoSuchName) => ResponseCode::NXDomain,
            Err(NameError::Failed(error)) => {
                tracing::warn!(%host, %error, "DNS look-up failed");
                ResponseCode::ServFail
            }
        }
    }
}
