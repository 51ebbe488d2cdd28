//! What tells one series of a metric from another: small values on the way of a request, attributes when
//! a series is first seen.

use super::instrument::Series;
use crate::outcome::DenyReason;
use crate::telemetry::otlp::Signal;
use crate::telemetry::otlp::attributes::{number, text};
use crate::telemetry::semantic;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use std::sync::Arc;

/// Where the connection for a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolUse {
    /// It had been used before.
    Reused,
    /// It was made for the request.
    New,
    /// The pool had one, which turned out to be closed.
    Stale,
    /// None could be made.
    Failed,
}

/// Where a leaf certificate came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafUse {
    /// It was there.
    Hit,
    /// It was made.
    Minted,
    /// It was there and too old.
    Renewed,
}

/// Why telemetry does not reach the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::telemetry) enum Loss {
    /// Too much waits already.
    QueueFull,
    /// The collector does not want it.
    Rejected,
    /// The collector was away for too long.
    GaveUp,
    /// There was no time left.
    Shutdown,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) denied: Option<(DenyReason, &'static str)>,
}

impl Series for Connection {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = decision(self.denied.map(|(reason, _)| reason));
        all.extend(
            self.denied
                .map(|(_, stage)| text("postern.deny.stage", stage)),
        );
        all
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Decided {
    pub(super) reason: Option<DenyReason>,
    pub(super) provider: Option<&'static str>,
}

impl Series for Decided {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = decision(self.reason);
        all.extend(self.provider.map(|name| text("gen_ai.provider.name", name)));
        all
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ServerRequest {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) version: &'static str,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'static str>,
}

impl Series for ServerRequest {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = exchange(self.method, self.scheme, self.status);
        all.push(text("network.protocol.version", self.version));
        let error = semantic::error(self.error, self.status, 500);
        all.extend(error.map(|error| text("error.type", error)));
        all
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ClientRequest {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'static str>,
}

impl Series for ClientRequest {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = exchange(self.method, self.scheme, self.status);
        all.extend(server(&self.host, self.port));
        let error = semantic::error(self.error, self.status, 400);
        all.extend(error.map(|error| text("error.type", error)));
        all
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) provider: &'static str,
    pub(super) operation: &'static str,
    pub(super) kind: &'static str,
    pub(super) model: Option<Arc<str>>,
    pub(super) answered: Option<Arc<str>>,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Series for Call {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = vec![
            text("gen_ai.provider.name", self.provider),
            text("gen_ai.operation.name", self.operation),
            text("gen_ai.token.type", self.kind),
        ];
        all.extend(server(&self.host, self.port));
        let models = [
            ("gen_ai.request.model", &self.model),
            ("gen_ai.response.model", &self.answered),
        ];
        all.extend(
            models
                .into_iter()
                .filter_map(|(key, model)| Some(text(key, &**model.as_ref()?))),
        );
        all
    }
}

/// What the kernel programs decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ruling {
    /// A connection or a DNS question goes to the gateway.
    Redirect,
    /// A packet goes out as it is, because a rule for UDP allows it.
    Pass,
    /// A socket, a connection or a packet is refused.
    Refuse(DenyReason),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Verdict(pub(super) Ruling);

impl Series for Verdict {
    fn attributes(&self) -> Vec<KeyValue> {
        let (verdict, reason) = match self.0 {
            Ruling::Redirect => ("redirect", None),
            Ruling::Pass => ("pass", None),
            Ruling::Refuse(reason) => ("refuse", Some(reason.as_str())),
        };
        let mut all = vec![text("postern.kernel.verdict", verdict)];
        all.extend(reason.map(|reason| text("postern.deny.reason", reason)));
        all
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolTake(pub(super) PoolUse);

impl Series for PoolTake {
    fn attributes(&self) -> Vec<KeyValue> {
        let result = match self.0 {
            PoolUse::Reused => "reused",
            PoolUse::New => "new",
            PoolUse::Stale => "stale",
            PoolUse::Failed => "failed",
        };
        vec![text("postern.pool.result", result)]
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct LeafLookup(pub(super) LeafUse);

impl Series for LeafLookup {
    fn attributes(&self) -> Vec<KeyValue> {
        let result = match self.0 {
            LeafUse::Hit => "hit",
            LeafUse::Minted => "miss",
            LeafUse::Renewed => "renewed",
        };
        vec![text("postern.cache.result", result)]
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Drop {
    pub(super) signal: Signal,
    pub(super) loss: Loss,
}

impl Series for Drop {
    fn attributes(&self) -> Vec<KeyValue> {
        let why = match self.loss {
            Loss::QueueFull => "queue_full",
            Loss::Rejected => "rejected",
            Loss::GaveUp => "gave_up",
            Loss::Shutdown => "shutdown",
        };
        vec![
            text("postern.telemetry.signal", self.signal.as_str()),
            text("postern.telemetry.loss", why),
        ]
    }
}

fn decision(denied: Option<DenyReason>) -> Vec<KeyValue> {
    match denied {
        None => vec![text("postern.decision", "allowed")],
        Some(reason) => vec![
            text("postern.decision", "denied"),
            text("postern.deny.reason", reason.as_str()),
        ],
    }
}

fn exchange(method: &'static str, scheme: &'static str, status: Option<u16>) -> Vec<KeyValue> {
    let mut all = vec![
        text("http.request.method", method),
        text("url.scheme", scheme),
    ];
    all.extend(status.map(|status| number("http.response.status_code", u64::from(status))));
    all
}

fn server(host: &str, port: u16) -> [KeyValue; 2] {
    [
        text("server.address", host),
        number("server.port", u64::from(port)),
    ]
}
