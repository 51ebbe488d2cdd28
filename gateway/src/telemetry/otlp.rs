//! Traces, logs and metrics of one gateway, exported over OTLP. A collector that is away never holds up
//! a request: what is told is encoded and queued at once or dropped and counted, and everything else
//! happens in tasks of their own.

pub(super) mod attributes;
mod batch;
mod encode;
mod lane;
mod logs;
mod queue;
mod settings;
mod spans;
mod wire;

pub use settings::ExporterSettings;
pub(super) use wire::Signal;
pub use wire::{EndpointError, Protocol};

use super::metrics::{Loss, Metrics};
use super::record::{ConnectionRecord, DenialRecord, RequestRecord};
use super::trace::Begun;
use attributes::text;
use bytes::Bytes;
use encode::Encoder;
use lane::{Lane, Sender};
use opentelemetry_proto::tonic::resource::v1::Resource;
use queue::{Limits, Queue};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wire::{Endpoint, Frame};

/// Memory for spans that wait for the collector, and for log records.
const SPAN_BYTES: usize = 64 * 1024 * 1024;
const LOG_BYTES: usize = 8 * 1024 * 1024;
/// How many wait at most: what OpenTelemetry's SDKs have (`OTEL_BSP_MAX_QUEUE_SIZE`), four times over.
const QUEUED: usize = 8192;
/// In one export (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`); collectors take 4 MiB over gRPC unless told otherwise.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 3 * 1024 * 1024;
/// How long shutting down may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Why an export did not reach the collector.
pub type TransportError = Box<dyn std::error::Error + Send + Sync>;

/// Sends one export request: given by `upstream`, which knows how to dial.
pub trait OtlpTransport: Send + Sync + 'static {
    /// Sends the request over the HTTP that its version says, and returns the answer with its trailers
    /// among the headers. Takes no longer than an export may.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, TransportError>> + Send>>;
}

/// Exports one gateway's telemetry until it is dropped, and what waits then once more.
pub struct Exporter {
    spans: Arc<Queue>,
    logs: Arc<Queue>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    /// Ends when the tasks have.
    over: Mutex<Receiver<()>>,
    /// The queue is full, and that has been said.
    full: AtomicBool,
}

impl Exporter {
    /// Must be called in a tokio runtime, on which the exports then run.
    ///
    /// # Errors
    /// [`EndpointError`]: no collector can be meant.
    pub fn new(
        settings: ExporterSettings,
        transport: Arc<dyn OtlpTransport>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::new(settings.protocol, &settings.endpoint, settings.headers)?;
        let closing = CancellationToken::new();
        let frame = Frame::new(&resource(&settings.gateway));
        let room = frame.room();
        let sender = Arc::new(Sender::new(
            endpoint,
            transport,
            frame,
            Arc::clone(&metrics),
            closing.clone(),
        ));
        let spans = Arc::new(Queue::new(limits(SPAN_BYTES), room));
        let logs = Arc::new(Queue::new(limits(LOG_BYTES), room));
        let lanes = [(Signal::Traces, &spans), (Signal::Logs, &logs)].map(|(signal, queue)| {
            let lane = Lane::new(signal, Arc::clone(queue), Arc::clone(&sender));
            tokio::spawn(lane.run())
        });
        let (held, over) = sync_channel(1);
        tokio::spawn(async move {
            sender.measure(settings.metrics_every).await;
            for lane in lanes {
                if let Err(error) = lane.await {
                    tracing::error!(%error, "telemetry export");
                }
            }
            // Last, so that it tells of what could not be sent.
            sender.export_metrics().await;
            drop(held);
        });
        Ok(Self {
            spans,
            logs,
            metrics,
            closing,
            over: Mutex::new(over),
            full: AtomicBool::new(false),
        })
    }

    /// Exports a request that has ended.
    pub(super) fn request(&self, record: &RequestRecord) {
        if let Some(begun) = record.span.or_else(|| Begun::new(None)) {
            self.offer(Signal::Traces, |span| spans::request(record, &begun, span));
            if let Some(log) = logs::request(record, &begun) {
                self.offer(Signal::Logs, |item| item.whole(&log));
            }
        }
    }

    /// Exports a spliced connection that has ended.
    pub(super) fn connection(&self, record: &ConnectionRecord) {
        if let Some(begun) = Begun::new(None) {
            self.offer(Signal::Traces, |span| {
                spans::connection(record, &begun, span)
            });
            if let Some(log) = logs::connection(record, &begun) {
                self.offer(Signal::Logs, |item| item.whole(&log));
            }
        }
    }

    /// Exports a denial.
    pub(super) fn denied(&self, record: &DenialRecord) {
        if let Some(begun) = Begun::new(None) {
            self.offer(Signal::Traces, |span| spans::denied(record, &begun, span));
            self.offer(Signal::Logs, |item| {
                item.whole(&logs::denied(record, &begun));
            });
        }
    }

    /// Exports the count of denials that were not recorded one by one.
    pub(super) fn not_recorded(&self, count: u64) {
        self.offer(Signal::Logs, |item| item.whole(&logs::not_recorded(count)));
    }

    /// Exports that a new policy is in force.
    pub(super) fn reloaded(&self, generation: u64, revoked: u64) {
        self.offer(Signal::Logs, |item| {
            item.whole(&logs::reloaded(generation, revoked));
        });
    }

    /// Exports that a new policy was not taken.
    pub(super) fn reload_failed(&self, generation: u64, message: &str) {
        self.offer(Signal::Logs, |item| {
            item.whole(&logs::reload_failed(generation, message));
        });
    }

    /// Sends what is queued, for [`SHUTDOWN`] at most. Blocks.
    pub(super) fn shut_down(&self) {
        self.closing.cancel();
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: it ends when the last task lets go of the other end.
        if over.recv_timeout(SHUTDOWN) == Err(RecvTimeoutError::Timeout) {
            let (spans, logs) = (self.spans.len(), self.logs.len());
            tracing::warn!(spans, logs, "telemetry was not all delivered");
        }
    }

    fn offer(&self, signal: Signal, write: impl FnOnce(&mut Encoder)) {
        if self.closing.is_cancelled() {
            return self.metrics.dropped(signal, Loss::Shutdown, 1);
        }
        let queue = match signal {
            Signal::Logs => &self.logs,
            Signal::Traces | Signal::Metrics => &self.spans,
        };
        // A collector that is away costs no more than a look.
        let taken = queue.has_room() && Encoder::encoded(write, |item| queue.offer(item));
        if !taken {
            self.metrics.dropped(signal, Loss::QueueFull, 1);
        }
        if self.full.swap(!taken, Ordering::Relaxed) == taken && !taken {
            tracing::warn!("the telemetry queue is full: spans or logs are dropped, and counted");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

fn limits(bytes: usize) -> Limits {
    Limits {
        items: QUEUED,
        bytes,
        batch_items: BATCH,
        batch_bytes: BATCH_BYTES,
    }
}

fn resource(gateway: &str) -> Resource {
    let host = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Resource {
        attributes: vec![
            text("service.name", "postern"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text(
                "service.instance.id",
                format!("{host}-{}", std::process::id()),
            ),
            text("host.name", host),
            text("postern.gateway", gateway),
        ],
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests;
