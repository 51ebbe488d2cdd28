//! One signal's way to the collector: batches, tries, waits and tries again, gives up and counts. Runs
//! in a task of its own and holds nobody up.

use super::OtlpTransport;
use super::batch::Batch;
use super::queue::Queue;
use super::wire::{Endpoint, Frame, Signal, Verdict};
use crate::telemetry::metrics::{Loss, Metrics};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an item waits for company.
const DELAY: Duration = Duration::from_secs(1);
/// The first wait before another try, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this a batch is given up, so that one that the collector chokes on does not bar the way. As long
/// as OpenTelemetry's own collector keeps trying.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sends batches of one gateway.
pub(super) struct Sender {
    endpoint: Endpoint,
    transport: Arc<dyn OtlpTransport>,
    frame: Frame,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    failing: AtomicBool,
}

impl Sender {
    pub(super) fn new(
        endpoint: Endpoint,
        transport: Arc<dyn OtlpTransport>,
        frame: Frame,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            endpoint,
            transport,
            frame,
            metrics,
            closing,
            failing: AtomicBool::new(false),
        }
    }

    /// Exports metrics every so often until the exporter closes.
    pub(super) async fn measure(&self, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first is due at once, and would tell nothing.
        tick.tick().await;
        loop {
            tokio::select! {
                _ = tick.tick() => self.export_metrics().await,
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Exports the metrics as they are. A failure is made good by the next: the counts are cumulative.
    pub(super) async fn export_metrics(&self) {
        let mut batch = Batch::new(self.frame.room(), 0);
        for metric in self.metrics.collect() {
            batch.add(&metric.encode_to_vec());
        }
        self.deliver(Signal::Metrics, batch, Duration::ZERO).await;
    }

    /// Sends a batch, for `patience` at most and while the exporter is not closing.
    async fn deliver(&self, signal: Signal, batch: Batch, patience: Duration) {
        let all = batch.items() as u64;
        let message = self.frame.around(batch);
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (after, said) = match self.attempt(signal, &message).await {
                Verdict::Taken { rejected, message } => {
                    return self.taken(signal, rejected.min(all), &message);
                }
                Verdict::Refused(said) => {
                    return self.lost(signal, Loss::Rejected, all, &said);
                }
                Verdict::Retry(after, said) => (after, said),
            };
            let wait = after.map_or_else(|| jittered(pause), |after| after.min(PATIENCE));
            let closing = self.closing.is_cancelled();
            if closing || begun.elapsed() + wait > patience {
                let loss = if closing {
                    Loss::Shutdown
                } else {
                    Loss::GaveUp
                };
                return self.lost(signal, loss, all, &said);
            }
            self.is_failing(signal, &said);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // One more try, then no more.
                () = self.closing.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, signal: Signal, message: &Bytes) -> Verdict {
        let request = match self.endpoint.request(signal, message) {
            Ok(request) => request,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        match self.transport.send(request).await {
            Ok(answer) => self.endpoint.verdict(&answer),
            Err(error) => Verdict::Retry(None, error.to_string()),
        }
    }

    fn taken(&self, signal: Signal, rejected: u64, message: &str) {
        if rejected > 0 || !message.is_empty() {
            let signal = signal.as_str();
            tracing::warn!(
                signal,
                rejected,
                message,
                "the collector has something to say"
            );
        }
        self.metrics.dropped(signal, Loss::Rejected, rejected);
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the collector takes telemetry again");
        }
    }

    fn lost(&self, signal: Signal, loss: Loss, count: u64, said: &str) {
        self.is_failing(signal, said);
        // Metrics are told again, as a whole.
        if signal != Signal::Metrics {
            self.metrics.dropped(signal, loss, count);
            tracing::warn!(signal = signal.as_str(), count, said, "telemetry dropped");
        }
    }

    fn is_failing(&self, signal: Signal, said: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            let signal = signal.as_str();
            tracing::warn!(
                signal,
                said,
                "the collector takes no telemetry; trying again"
            );
        }
    }
}

/// A queue and where it leads.
pub(super) struct Lane {
    signal: Signal,
    queue: Arc<Queue>,
    sender: Arc<Sender>,
}

impl Lane {
    pub(super) fn new(signal: Signal, queue: Arc<Queue>, sender: Arc<Sender>) -> Self {
        Self {
            signal,
            queue,
            sender,
        }
    }

    /// Until the exporter closes, and then until the queue is empty.
    pub(super) async fn run(self) {
        let closing = &self.sender.closing;
        loop {
            if self.queue.len() == 0 {
                if closing.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = self.queue.added() => {}
                    () = closing.cancelled() => {}
                }
            }
            if !self.queue.is_full_batch() {
                tokio::select! {
                    () = tokio::time::sleep(DELAY) => {}
                    () = self.queue.added() => {}
                    () = closing.cancelled() => {}
                }
            }
            self.send().await;
        }
    }

    /// At least one batch, and whatever fills another.
    async fn send(&self) {
        loop {
            if let Some(batch) = self.queue.take() {
                self.sender.deliver(self.signal, batch, PATIENCE).await;
            }
            if !self.queue.is_full_batch() {
                return;
            }
        }
    }
}

/// Half to all of it, so that many gateways do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    if getrandom::fill(&mut random).is_err() {
        return pause;
    }
    pause / 2 + pause / 2 * u32::from(random[0]) / 255
}
