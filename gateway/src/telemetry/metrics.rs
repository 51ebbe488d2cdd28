//! What is counted and measured in one gateway: a few atomics or one short lock on the way of a request,
//! attributes made once for each series. Knows not how metrics travel.

mod instrument;
mod series;
mod verdicts;

use super::otlp::Signal;
use super::record::RequestRecord;
use super::semantic;
use crate::kernel::SandboxId;
use crate::outcome::{DenyReason, Stage};
use instrument::{Buckets, Counter, Family, Histogram, gauge, monotonic};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use series::{Call, ClientRequest, Connection, Decided, Drop, LeafLookup, PoolTake, ServerRequest};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use verdicts::Verdicts;

pub(super) use series::Loss;
pub use series::{LeafUse, PoolUse};
pub use verdicts::ReadCounters;

/// Seconds (semantic conventions, `http.server.request.duration`).
const DURATIONS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Tokens (semantic conventions, `gen_ai.client.token.usage`): powers of four.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// The instruments of one gateway. They live as long as the gateway does: a new policy or collector
/// begins no new count.
pub struct Metrics {
    started: SystemTime,
    connections: Family<Connection, Counter>,
    requests: Family<Decided, Counter>,
    server: Family<ServerRequest, Histogram>,
    client: Family<ClientRequest, Histogram>,
    tokens: Family<Call, Histogram>,
    verdicts: Verdicts,
    pool: Family<PoolTake, Counter>,
    leaves: Family<LeafLookup, Counter>,
    generation: AtomicU64,
    reload_failures: AtomicU64,
    dropped: Family<Drop, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = Buckets(DURATIONS);
        let metrics = Self {
            started: SystemTime::now(),
            connections: Family::counters(),
            requests: Family::counters(),
            server: Family::histograms(durations),
            client: Family::histograms(durations),
            tokens: Family::histograms(Buckets(TOKENS)),
            verdicts: Verdicts::default(),
            pool: Family::counters(),
            leaves: Family::counters(),
            generation: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
            dropped: Family::counters(),
        };
        // Zero is something to know: a series that appears with its first failure hides it from rates.
        for signal in [Signal::Traces, Signal::Logs] {
            metrics.dropped(signal, Loss::QueueFull, 0);
        }
        for taken in [PoolUse::Reused, PoolUse::New] {
            metrics
                .pool
                .with(&PoolTake(taken), |counter| counter.add(0));
        }
        for found in [LeafUse::Hit, LeafUse::Minted] {
            metrics
                .leaves
                .with(&LeafLookup(found), |counter| counter.add(0));
        }
        metrics
    }
}

impl Metrics {
    /// A connection that policy allows.
    pub fn connection_allowed(&self) {
        self.connection(None);
    }

    /// A connection, or what would have become one, that was denied.
    pub fn connection_denied(&self, reason: DenyReason, stage: Stage) {
        self.connection(Some((reason, stage.as_str())));
    }

    /// A sandbox has come whose verdicts the kernel counts from now on; `read` is called when metrics
    /// leave.
    pub fn follow(&self, sandbox: SandboxId, read: ReadCounters) {
        self.verdicts.follow(sandbox, read);
    }

    /// A sandbox goes, and so do its counters after this.
    pub fn leave(&self, sandbox: SandboxId) {
        self.verdicts.leave(sandbox);
    }

    /// A request has ended, and its response with it.
    pub(super) fn request(&self, record: &RequestRecord) {
        let method = semantic::method(&record.method);
        let decided = Decided {
            reason: record.reason,
            provider: record.provider,
        };
        self.requests.with(&decided, |counter| counter.add(1));
        let served = ServerRequest {
            method,
            scheme: record.scheme,
            version: record.version,
            status: record.status,
            error: record.error,
        };
        let taken = record.clock.elapsed().as_secs_f64();
        self.server
            .with(&served, |histogram| histogram.record(taken));
        if let Some(sent) = record.sent {
            self.asked(record, method, sent);
        }
        self.call(record);
    }

    /// A connection was wanted for a request to an upstream.
    pub fn pool(&self, taken: PoolUse) {
        self.pool.with(&PoolTake(taken), |counter| counter.add(1));
    }

    /// A certificate was wanted for a name.
    pub fn leaf(&self, found: LeafUse) {
        self.leaves
            .with(&LeafLookup(found), |counter| counter.add(1));
    }

    /// The policy's generation that is in force.
    pub(super) fn generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// A new policy was not taken.
    pub(super) fn reload_failed(&self) {
        self.reload_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Telemetry that does not reach the collector.
    pub(super) fn dropped(&self, signal: Signal, loss: Loss, count: u64) {
        if count > 0 || loss == Loss::QueueFull {
            let key = Drop { signal, loss };
            self.dropped.with(&key, |counter| counter.add(count));
        }
    }

    /// Everything as it is now.
    pub(super) fn collect(&self) -> Vec<Metric> {
        let since = self.started;
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        vec![
            self.connections.collect(
                since,
                "postern.connections",
                "{connection}",
                "Connections by what was decided",
            ),
            self.requests.collect(
                since,
                "postern.requests",
                "{request}",
                "HTTP requests by what was decided",
            ),
            self.server.collect(
                since,
                "http.server.request.duration",
                "s",
                "From a request's head to the end of its response",
            ),
            self.client.collect(
                since,
                "http.client.request.duration",
                "s",
                "The same as the upstream's client",
            ),
            self.tokens.collect(
                since,
                "gen_ai.client.token.usage",
                "{token}",
                "Tokens of a call, by the provider's count",
            ),
            self.verdicts.collect(
                since,
                "postern.kernel.verdicts",
                "{verdict}",
                "What the kernel programs decided",
            ),
            self.pool.collect(
                since,
                "postern.upstream.pool",
                "{connection}",
                "Upstream connections taken for requests",
            ),
            self.leaves.collect(
                since,
                "postern.tls.leaf_cache",
                "{lookup}",
                "Look-ups of leaf certificates",
            ),
            gauge(
                load(&self.generation),
                "postern.policy.generation",
                "{generation}",
                "The policy in force",
            ),
            monotonic(
                since,
                load(&self.reload_failures),
                "postern.policy.reload.failures",
                "{failure}",
                "Policies that were not taken",
            ),
            self.dropped.collect(
                since,
                "postern.telemetry.dropped",
                "{item}",
                "Spans and log records that do not reach the collector",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn connection(&self, denied: Option<(DenyReason, &'static str)>) {
        self.connections
            .with(&Connection { denied }, |counter| counter.add(1));
    }

    fn asked(&self, record: &RequestRecord, method: &'static str, sent: Instant) {
        let asked = ClientRequest {
            method,
            scheme: record.scheme,
            host: record.host.as_str().into(),
            port: record.port,
            // An error that is ours is no status of the upstream's.
            status: record.answered.and(record.status),
            error: record.error,
        };
        let taken = sent.elapsed().as_secs_f64();
        self.client
            .with(&asked, |histogram| histogram.record(taken));
    }

    fn call(&self, record: &RequestRecord) {
        let (Some(provider), Some(operation)) = (record.provider, record.operation) else {
            return;
        };
        let counts = [
            ("input", record.usage.input_tokens),
            ("output", record.usage.output_tokens),
        ];
        for (kind, count) in counts {
            let Some(count) = count else { continue };
            let call = Call {
                provider,
                operation,
                kind,
                model: record.model.as_deref().map(Into::into),
                answered: record.usage.response_model.as_deref().map(Into::into),
                host: record.host.as_str().into(),
                port: record.port,
            };
            // Exact up to 2^53 tokens.
            let count = count as f64;
            self.tokens.with(&call, |histogram| histogram.record(count));
        }
    }
}

#[cfg(test)]
mod tests;
