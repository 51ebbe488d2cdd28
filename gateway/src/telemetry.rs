//! One record a denial, a connection and a request, told to three listeners: the local audit log
//! (loses nothing), the OTLP exporter (never waits) and the log; and counted. Knows nothing of sockets or
//! policy.

mod audit;
pub mod log;
mod metrics;
mod otlp;
mod ration;
mod record;
pub mod redact;
#[cfg(test)]
mod samples;
mod semantic;
mod trace;

pub use audit::AuditLog;
pub use metrics::{LeafUse, Metrics, PoolUse, ReadCounters};
pub use otlp::{
    EndpointError, Exporter, ExporterSettings, OtlpTransport, Protocol, TransportError,
};
pub use ration::{Ration, Untold};
pub use record::{Body, ConnectionRecord, DenialRecord, RequestRecord, Who};
pub use trace::Begun;

use http::HeaderMap;
use redact::{Headers, Redactor};
use std::sync::Arc;

/// Where the records of one gateway go.
pub struct Telemetry {
    audit: Arc<AuditLog>,
    exporter: Option<Arc<Exporter>>,
    redactor: Arc<Redactor>,
    metrics: Arc<Metrics>,
}

impl Telemetry {
    /// `exporter` is `None` when the gateway has no OTLP endpoint; `metrics` are counted all the same, and
    /// go on from one policy to the next.
    pub fn new(
        audit: Arc<AuditLog>,
        exporter: Option<Arc<Exporter>>,
        redactor: Arc<Redactor>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            audit,
            exporter,
            redactor,
            metrics,
        }
    }

    /// What must not be exported.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Header fields as a record has them: redacted, and none where no span is made of it.
    pub fn headers(&self, headers: &HeaderMap) -> Headers {
        match &self.exporter {
            Some(_) => self.redactor.headers(headers),
            None => Headers::default(),
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Is the audit log being kept? Where it is not, nothing new may be let through.
    pub fn is_recording(&self) -> bool {
        self.audit.is_recording()
    }

    /// Begins a request's span, whose id the upstream may be told.
    pub fn begin(&self, traceparent: Option<&str>) -> Option<Begun> {
        self.exporter.as_ref()?;
        Begun::new(traceparent)
    }

    /// Ends a request. The log says it at `debug` only: the audit log has a line of each.
    pub fn request(&self, record: &RequestRecord) {
        tracing::debug!(
            sandbox = &*record.who.sandbox,
            method = %record.method,
            host = %record.host,
            path = %record.path,
            status = record.status,
            reason = record.reason.map(crate::outcome::DenyReason::as_str),
            error = record.error,
            rule = record.rule.as_deref(),
            "request"
        );
        if record.scrubbed > 0 {
            tracing::warn!(
                sandbox = &*record.who.sandbox,
                host = %record.host,
                path = %record.path,
                count = record.scrubbed,
                "the upstream sent an injected credential back; it was scrubbed"
            );
        }
        self.audit.request(record);
        self.metrics.request(record);
        if let Some(exporter) = &self.exporter {
            exporter.request(record);
        }
    }

    /// Ends a request that was refused, where there were too many to record each.
    pub fn request_unrecorded(&self, record: &RequestRecord) {
        self.metrics.request(record);
    }

    /// Ends a connection that was spliced.
    pub fn connection(&self, record: &ConnectionRecord) {
        tracing::debug!(
            sandbox = &*record.who.sandbox,
            destination = %record.who.destination,
            host = record.host.as_deref(),
            up = record.bytes_up,
            down = record.bytes_down,
            error = record.error.as_deref(),
            "connection"
        );
        self.audit.connection(record);
        if let Some(exporter) = &self.exporter {
            exporter.connection(record);
        }
    }

    /// Records a denial.
    pub fn denied(&self, record: &DenialRecord) {
        tracing::warn!(
            sandbox = &*record.who.sandbox,
            destination = %record.who.destination,
            host = record.host.as_deref(),
            reason = record.reason.as_str(),
            stage = record.stage.as_str(),
            pid = record.who.tgid,
            comm = &*record.who.comm,
            "denied"
        );
        self.audit.denied(record);
        self.metrics.connection_denied(record.reason, record.stage);
        if let Some(exporter) = &self.exporter {
            exporter.denied(record);
        }
    }

    /// Denials that were too many, or too much alike, to record each.
    pub fn not_recorded(&self, count: u64) {
        tracing::warn!(count, "refusals were too many to record each");
        self.audit.lost(count);
        if let Some(exporter) = &self.exporter {
            exporter.not_recorded(count);
        }
    }

    /// A policy is in force: the first, or a new one, for which `revoked` connections and requests were
    /// ended.
    pub fn reloaded(&self, generation: u64, revoked: usize) {
        self.metrics.generation(generation);
        if let Some(exporter) = &self.exporter {
            exporter.reloaded(generation, revoked as u64);
        }
    }

    /// A new policy was not taken, and `generation` stays. `message` says why, to people.
    pub fn reload_failed(&self, generation: u64, message: &str) {
        self.metrics.reload_failed();
        if let Some(exporter) = &self.exporter {
            exporter.reload_failed(generation, &self.redactor.text(message));
        }
    }

    /// Sends what is queued, for five seconds at most, and brings the audit log to the disk. Blocks: not
    /// for async code.
    pub fn flush(&self) {
        if let Err(error) = self.audit.sync() {
            tracing::error!(%error, "audit records may not be on the disk");
        }
        if let Some(exporter) = &self.exporter {
            exporter.shut_down();
        }
    }
}
