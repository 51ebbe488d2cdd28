//! What a line of the audit log says, and in which order. Borrows from the records; knows no file.

use crate::telemetry::record::{ConnectionRecord, DenialRecord, RequestRecord, Who};
use serde::{Serialize, Serializer};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line: when, what, and the particulars of that.
#[derive(Serialize)]
pub(super) struct Line<T> {
    /// Seconds since 1970, UTC.
    time: f64,
    event: &'static str,
    #[serde(flatten)]
    particulars: T,
}

impl<T> Line<T> {
    /// Of something that happens now.
    pub(super) fn of(event: &'static str, particulars: T) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            time: since.unwrap_or_default().as_secs_f64(),
            event,
            particulars,
        }
    }
}

/// No particulars.
#[derive(Serialize)]
pub(super) struct Nothing {}

/// How many.
#[derive(Serialize)]
pub(super) struct Count {
    pub(super) count: u64,
}

/// Who, and where to.
#[derive(Serialize)]
struct Subject<'a> {
    gateway: &'a str,
    sandbox: &'a str,
    generation: u64,
    #[serde(serialize_with = "as_text")]
    destination: SocketAddr,
    process: Process<'a>,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    tgid: u32,
    uid: u32,
    comm: &'a str,
    exe: Option<&'a str>,
    cgroup: u64,
}

impl<'a> Subject<'a> {
    fn of(who: &'a Who) -> Self {
        Self {
            gateway: &who.gateway,
            sandbox: &who.sandbox,
            generation: who.generation,
            destination: who.destination,
            process: Process {
                pid: who.pid,
                tgid: who.tgid,
                uid: who.uid,
                comm: &who.comm,
                exe: who.executable.as_deref(),
                cgroup: who.cgroup,
            },
        }
    }
}

/// A denial.
#[derive(Serialize)]
pub(super) struct Denial<'a> {
    #[serde(flatten)]
    subject: Subject<'a>,
    reason: &'static str,
    stage: &'static str,
    host: Option<&'a str>,
    detail: Option<&'a str>,
}

impl<'a> Denial<'a> {
    pub(super) fn of(record: &'a DenialRecord) -> Self {
        Self {
            subject: Subject::of(&record.who),
            reason: record.reason.as_str(),
            stage: record.stage.as_str(),
            host: record.host.as_deref(),
            detail: record.detail.as_deref(),
        }
    }
}

/// A connection that was spliced.
#[derive(Serialize)]
pub(super) struct Connection<'a> {
    #[serde(flatten)]
    subject: Subject<'a>,
    rule: &'a str,
    host: Option<&'a str>,
    bytes_up: u64,
    bytes_down: u64,
    error: Option<&'a str>,
    duration_ms: f64,
}

impl<'a> Connection<'a> {
    pub(super) fn of(record: &'a ConnectionRecord) -> Self {
        let taken = record.started.elapsed().unwrap_or_default();
        Self {
            subject: Subject::of(&record.who),
            rule: &record.rule,
            host: record.host.as_deref(),
            bytes_up: record.bytes_up,
            bytes_down: record.bytes_down,
            error: record.error.as_deref(),
            duration_ms: taken.as_secs_f64() * 1e3,
        }
    }
}

/// A request, denied or not.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    #[serde(flatten)]
    subject: Subject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    method: &'a str,
    scheme: &'static str,
    host: &'a str,
    path: &'a str,
    status: Option<u16>,
    rule: Option<&'a str>,
    credential: Option<&'a str>,
    provider: Option<&'static str>,
    model: Option<&'a str>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    bytes_up: u64,
    bytes_down: u64,
    scrubbed: u64,
    error: Option<&'static str>,
    detail: Option<&'a str>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl<'a> Request<'a> {
    pub(super) fn of(record: &'a RequestRecord) -> Self {
        Self {
            subject: Subject::of(&record.who),
            reason: record.reason.map(crate::outcome::DenyReason::as_str),
            stage: record.reason.map(|_| "http"),
            method: &record.method,
            scheme: record.scheme,
            host: &record.host,
            path: &record.path,
            status: record.status,
            rule: record.rule.as_deref(),
            credential: record.credential.as_deref(),
            provider: record.provider,
            model: record.model.as_deref(),
            input_tokens: record.usage.input_tokens,
            output_tokens: record.usage.output_tokens,
            bytes_up: record.bytes_up,
            bytes_down: record.bytes_down,
            scrubbed: record.scrubbed,
            error: record.error,
            detail: record.detail.as_deref(),
            duration_ms: record.clock.elapsed().as_secs_f64() * 1e3,
            trace_id: record.span.as_ref().map(crate::telemetry::Begun::trace_id),
        }
    }
}

fn as_text<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}
