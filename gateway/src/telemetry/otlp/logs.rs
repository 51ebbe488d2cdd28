//! Log records: what an operator wants to be woken for. Denials, failures and what became of a new
//! policy; each a record of its own, with the trace it belongs to where there is one.

use super::attributes::{nanoseconds, number, of_who, string};
use super::encode::Attributes;
use super::spans::{of_denial, of_request};
use crate::telemetry::record::{ConnectionRecord, DenialRecord, RequestRecord};
use crate::telemetry::trace::Begun;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use std::time::SystemTime;

/// A connection, a DNS question or a socket that was denied.
pub(super) fn denied(record: &DenialRecord, begun: &Begun) -> LogRecord {
    let body = format!(
        "denied {}: {}",
        record.who.destination,
        record.reason.explanation()
    );
    let mut log = log(SeverityNumber::Warn, "egress.denied", body);
    of_who(&record.who, &mut log.attributes);
    of_denial(record, &mut log.attributes);
    of_trace(log, begun)
}

/// A request that was denied or failed; `None` for another.
pub(super) fn request(record: &RequestRecord, begun: &Begun) -> Option<LogRecord> {
    let what = format!("{} {}", record.method, record.host);
    let mut log = match (record.reason, record.error) {
        (Some(reason), _) => {
            let body = format!("denied {what}: {}", reason.explanation());
            log(SeverityNumber::Warn, "egress.denied", body)
        }
        // A client that goes away has its reasons.
        (None, None | Some("client_closed")) => return None,
        (None, Some(error)) => {
            let body = format!("failed {what}: {error}");
            log(SeverityNumber::Error, "egress.failed", body)
        }
    };
    of_who(&record.who, &mut log.attributes);
    of_request(record, &mut log.attributes);
    Some(of_trace(log, begun))
}

/// A spliced connection that ended badly; `None` for another.
pub(super) fn connection(record: &ConnectionRecord, begun: &Begun) -> Option<LogRecord> {
    let error = record.error.as_deref()?;
    let body = format!("failed {}: {error}", record.who.destination);
    let mut log = log(SeverityNumber::Error, "egress.failed", body);
    of_who(&record.who, &mut log.attributes);
    log.attributes.text("error.type", error);
    log.attributes.text("postern.rule", &record.rule);
    log.attributes
        .present([("server.address", record.host.as_deref())]);
    Some(of_trace(log, begun))
}

/// Denials that were not recorded one by one.
pub(super) fn not_recorded(count: u64) -> LogRecord {
    let body = format!("{count} denials were too many, or too much alike, to record each");
    with(
        log(SeverityNumber::Warn, "egress.not_recorded", body),
        [number("postern.count", count)],
    )
}

/// A new policy is in force.
pub(super) fn reloaded(generation: u64, revoked: u64) -> LogRecord {
    let body = format!("policy generation {generation} is in force");
    with(
        log(SeverityNumber::Info, "policy.reloaded", body),
        [
            number("postern.generation", generation),
            number("postern.policy.revoked", revoked),
        ],
    )
}

/// A new policy was not taken.
pub(super) fn reload_failed(generation: u64, message: &str) -> LogRecord {
    let body = format!("the policy was not taken, generation {generation} stays: {message}");
    with(
        log(SeverityNumber::Error, "policy.reload_failed", body),
        [number("postern.generation", generation)],
    )
}

fn log(severity: SeverityNumber, event: &str, body: String) -> LogRecord {
    let now = nanoseconds(SystemTime::now());
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: match severity {
            SeverityNumber::Info => "INFO",
            SeverityNumber::Warn => "WARN",
            _ => "ERROR",
        }
        .to_owned(),
        body: Some(string(body)),
        event_name: event.to_owned(),
        ..LogRecord::default()
    }
}

fn with<const N: usize>(mut log: LogRecord, attributes: [KeyValue; N]) -> LogRecord {
    log.attributes.extend(attributes);
    log
}

fn of_trace(mut log: LogRecord, begun: &Begun) -> LogRecord {
    log.trace_id = begun.trace.to_vec();
    log.span_id = begun.span.to_vec();
    // Sampled (W3C Trace Context §3.2.2.5).
    log.flags = 1;
    log
}
