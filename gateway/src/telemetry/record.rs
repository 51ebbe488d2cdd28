//! The records, as plain data.

use super::redact::Headers;
use crate::kernel::Origin;
use crate::outcome::{DenyReason, Stage, UpstreamError};
use crate::provider::usage::Usage;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Who did it: taken in the connect hook, where it was still true.
#[derive(Clone, Debug)]
pub struct Who {
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// The sandbox's cgroup, as the operator knows it.
    pub sandbox: Arc<str>,
    /// Kernel id of the task's cgroup (the sandbox's, or one beneath it).
    pub cgroup: u64,
    /// Thread id.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// User id.
    pub uid: u32,
    /// Command name.
    pub comm: Arc<str>,
    /// Path of the program, if it is known.
    pub executable: Option<Arc<str>>,
    /// Original destination.
    pub destination: SocketAddr,
    /// The policy's generation when it was decided.
    pub generation: u64,
}

impl Who {
    /// From what the connect hook recorded.
    pub fn new(gateway: Arc<str>, sandbox: Arc<str>, generation: u64, origin: &Origin) -> Self {
        Self {
            gateway,
            sandbox,
            cgroup: origin.cgroup,
            pid: origin.pid,
            tgid: origin.tgid,
            uid: origin.uid,
            comm: origin.comm.as_str().into(),
            executable: origin.executable.as_deref().map(Into::into),
            destination: origin.destination,
            generation,
        }
    }
}

/// Something that was denied.
#[derive(Debug)]
pub struct DenialRecord {
    /// By whom it was tried.
    pub who: Who,
    /// Why.
    pub reason: DenyReason,
    /// Where in the pipeline.
    pub stage: Stage,
    /// The name involved, if one was known.
    pub host: Option<String>,
    /// More for people, never a secret.
    pub detail: Option<String>,
}

impl DenialRecord {
    /// If `error` is a denial: the name led to an address where no name may lead, or was one too many.
    #[must_use]
    pub fn of_dial(who: &Who, host: &str, error: &UpstreamError) -> Option<Self> {
        let reason = match error {
            UpstreamError::Guarded { .. } => DenyReason::AddressGuard,
            UpstreamError::Rationed { reason, .. } => *reason,
            _ => return None,
        };
        Some(Self {
            who: who.clone(),
            reason,
            stage: Stage::Dial,
            host: Some(host.to_owned()),
            detail: Some(error.to_string()),
        })
    }
}

/// A connection that was spliced, when it has ended.
#[derive(Debug)]
pub struct ConnectionRecord {
    /// Whose it was.
    pub who: Who,
    /// The rule that allowed it.
    pub rule: Arc<str>,
    /// The name it went to, if one was known.
    pub host: Option<String>,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes from the upstream.
    pub bytes_down: u64,
    /// When it began.
    pub started: SystemTime,
    /// How it ended, if badly.
    pub error: Option<String>,
}

/// The beginning of a body, kept for the record.
#[derive(Debug, Default)]
pub struct Body {
    /// At most `captureBody.maxBytes` bytes.
    pub bytes: Vec<u8>,
    /// There was more.
    pub truncated: bool,
    /// `content-encoding` as sent.
    pub encoding: Option<String>,
}

/// One HTTP request, when it has ended.
pub struct RequestRecord {
    /// Whose it was.
    pub who: Who,
    /// When its head had been read.
    pub started: SystemTime,
    /// The same, for durations.
    pub clock: Instant,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Method.
    pub method: String,
    /// Canonical host.
    pub host: String,
    /// Port of the authority.
    pub port: u16,
    /// Path without the query.
    pub path: String,
    /// Query, redacted.
    pub query: Option<String>,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// The rule that allowed it.
    pub rule: Option<Arc<str>>,
    /// Why it was denied.
    pub reason: Option<DenyReason>,
    /// What failed, if something did.
    pub error: Option<&'static str>,
    /// More of either for people, never a secret. The sandbox is not told all of it.
    pub detail: Option<String>,
    /// The policies whose credential was injected.
    pub credential: Option<Arc<str>>,
    /// `gen_ai.provider.name`.
    pub provider: Option<&'static str>,
    /// `gen_ai.operation.name`.
    pub operation: Option<&'static str>,
    /// The model asked for.
    pub model: Option<String>,
    /// Whether the upstream connection had been used before.
    pub reused: bool,
    /// Status sent to the client.
    pub status: Option<u16>,
    /// Request headers as sent upstream, redacted.
    pub request_headers: Headers,
    /// Response headers, redacted.
    pub response_headers: Headers,
    /// Bytes of the request body.
    pub bytes_up: u64,
    /// Bytes of the response body, as passed on.
    pub bytes_down: u64,
    /// Credentials in the response that were kept from the sandbox.
    pub scrubbed: u64,
    /// Token usage, as far as the provider told.
    pub usage: Usage,
    /// Captured request body.
    pub request_body: Option<Body>,
    /// Captured response body.
    pub response_body: Option<Body>,
    /// When it was given to the upstream's connection, if it was.
    pub sent: Option<Instant>,
    /// When the head of the upstream's answer had come.
    pub answered: Option<Instant>,
    /// The span that is being made of it.
    pub span: Option<super::Begun>,
}
