//! A sandbox as its connections know it: one [`View`] a generation of the policy, replaced as a
//! whole. Who begins something takes the view that is in force; who is under way keeps the one it has
//! until its lease is revoked.

use crate::budget::Meter;
use crate::dns::Responder;
use crate::inject::Tokens;
use crate::lease::{Held, Leases, Subject};
use crate::outcome::UpstreamError;
use crate::policy::Gateway;
use crate::scrub::Scrubbers;
use crate::secrets::Secrets;
use crate::telemetry::{DenialRecord, Ration, RequestRecord, Telemetry, Who};
use crate::tls::Leaves;
use crate::upstream::Upstream;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What connections and requests need, by one generation of the policy.
pub struct View {
    /// The policy's generation.
    pub generation: u64,
    /// The policy of the sandbox's gateway.
    pub gateway: Arc<Gateway>,
    /// Where credentials come from.
    pub secrets: Arc<Secrets>,
    /// What keeps them out of responses.
    pub scrubbers: Scrubbers,
    /// And those that are given for secrets.
    pub tokens: Tokens,
    /// The sandbox's way out.
    pub upstream: Upstream,
    /// Its records.
    pub telemetry: Arc<Telemetry>,
    /// Certificates for its clients.
    pub leaves: Arc<Leaves>,
    /// Free places for connections, over all its listeners.
    pub places: Arc<Semaphore>,
    /// Free places for requests under way: they cost memory and upstream connections, and one
    /// connection can carry hundreds.
    pub requests: Arc<Semaphore>,
    /// Free memory for bodies that must be read before they are sent on, bytes.
    pub bodies: Arc<Semaphore>,
    /// What it spends of token budgets.
    pub meter: Meter,
    /// Which of its refusals are recorded each.
    pub ration: Arc<Ration>,
}

impl View {
    /// Records a refusal, or counts it where there are too many.
    pub fn denied(&self, record: &DenialRecord) {
        if self.ration.take(&self.telemetry) {
            self.telemetry.denied(record);
        } else {
            let metrics = self.telemetry.metrics();
            metrics.connection_denied(record.reason, record.stage);
        }
    }

    /// Records the denial if `error` is one.
    pub fn not_dialled(&self, who: &Who, host: &str, error: &UpstreamError) {
        if let Some(record) = DenialRecord::of_dial(who, host, error) {
            self.denied(&record);
        }
    }

    /// Ends a request that was refused, as [`View::denied`] does.
    pub fn refused(&self, record: &RequestRecord) {
        if self.ration.take(&self.telemetry) {
            self.telemetry.request(record);
        } else {
            self.telemetry.request_unrecorded(record);
        }
    }
}

/// A sandbox that is attached.
pub struct Live {
    /// Shown in records.
    pub label: Arc<str>,
    /// Its resolver.
    pub responder: Arc<Responder>,
    /// Cancelled when the gateway stops taking new requests.
    pub draining: CancellationToken,
    view: ArcSwap<View>,
    leases: Arc<Leases>,
}

impl Live {
    /// With its first view.
    pub fn new(
        label: Arc<str>,
        responder: Arc<Responder>,
        draining: CancellationToken,
        view: View,
    ) -> Self {
        Self {
            label,
            responder,
            draining,
            view: ArcSwap::from_pointee(view),
            leases: Arc::default(),
        }
    }

    /// What is in force now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Puts another generation in force. What was open and would not be allowed any more is revoked;
    /// says how much that was.
    pub fn replace(&self, view: View) -> usize {
        let gateway = Arc::clone(&view.gateway);
        self.view.store(Arc::new(view));
        self.leases.judge(&gateway)
    }

    /// Files something that `view` allowed, so that it ends when policy no longer allows it.
    pub fn grant(&self, view: &View, subject: Subject) -> Held {
        self.leases.grant(subject, || {
            let current = self.view.load();
            (current.generation != view.generation).then(|| Arc::clone(&current.gateway))
        })
    }

    /// How many connections and requests are open.
    pub fn open(&self) -> usize {
        self.leases.len()
    }
}
