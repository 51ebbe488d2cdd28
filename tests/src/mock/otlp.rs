//! An OTLP collector for traces over http/protobuf that keeps every span. It refuses to know what
//! a span ought to say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::body::{Body, plain, typed};
use super::{Exchange, Mock, Service};

/// The collector.
pub struct Otlp {
    mock: Mock,
    spans: Spans,
}

type Spans = Arc<Mutex<Vec<Span>>>;

impl Otlp {
    /// Listens on `address`; port 0 takes any.
    pub fn start(runtime: &Handle, address: SocketAddr) -> Result<Self> {
        let spans = Spans::default();
        let mock = Mock::start(runtime, address, None, Collector(Arc::clone(&spans)))?;
        Ok(Self { mock, spans })
    }

    /// The value of `otlp.endpoint` in a policy.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.mock.address())
    }

    /// The export requests themselves, for suites about headers and the raw bytes.
    pub fn mock(&self) -> &Mock {
        &self.mock
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The spans that `wanted` accepts once there are `count`, in the order in which they began.
    pub fn wait_for_all(
        &self,
        deadline: Duration,
        count: usize,
        wanted: impl Fn(&Span) -> bool,
    ) -> Result<Vec<Span>> {
        let deadline = crate::process::patient(deadline);
        let started = Instant::now();
        loop {
            let mut spans = self.spans();
            spans.retain(|span| wanted(span));
            if spans.len() >= count {
                spans.sort_by_key(Span::started);
                return Ok(spans);
            }
            if started.elapsed() > deadline {
                bail!("{} such spans in {deadline:?}, not {count}", spans.len());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first span that `wanted` accepts, waiting at most `deadline` for it.
    pub fn wait_for(&self, deadline: Duration, wanted: impl Fn(&Span) -> bool) -> Result<Span> {
        let deadline = crate::process::patient(deadline);
        let started = Instant::now();
        loop {
            let spans = self.spans();
            if let Some(span) = spans.iter().find(|span| wanted(span)) {
                return Ok(span.clone());
            }
            if started.elapsed() > deadline {
                let names: Vec<&str> = spans.iter().map(Span::name).collect();
                bail!("no such span in {deadline:?}; the collector has {names:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A span, and the attributes of the resource it came from.
#[derive(Clone, Debug)]
pub struct Span {
    span: proto::Span,
    resource: Vec<KeyValue>,
}

impl Span {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.span.name
    }

    /// Whether it is a SERVER span.
    pub fn is_server(&self) -> bool {
        self.span.kind() == proto::span::SpanKind::Server
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.span.attributes, name)
    }

    /// A whole-number attribute.
    pub fn number(&self, name: &str) -> Option<i64> {
        match value(&self.span.attributes, name)? {
            Any::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    /// An attribute of any kind, as JSON.
    pub fn attribute(&self, name: &str) -> Option<Value> {
        value(&self.span.attributes, name).map(to_json)
    }

    /// A text attribute of the resource.
    pub fn resource(&self, name: &str) -> Option<&str> {
        text(&self.resource, name)
    }

    /// The attributes of the first event called `name`.
    pub fn event(&self, name: &str) -> Option<Map<String, Value>> {
        let event = self.span.events.iter().find(|event| event.name == name)?;
        Some(object(&event.attributes))
    }

    /// The span in the hexadecimal form of W3C Trace Context.
    pub fn trace_id(&self) -> String {
        crate::digest::hex(&self.span.trace_id)
    }

    /// See [`Span::trace_id`].
    pub fn span_id(&self) -> String {
        crate::digest::hex(&self.span.span_id)
    }

    /// See [`Span::trace_id`]; empty without a parent.
    pub fn parent_id(&self) -> String {
        crate::digest::hex(&self.span.parent_span_id)
    }

    /// When it began, nanoseconds since the epoch: spans arrive in the order of their ends.
    pub fn started(&self) -> u64 {
        self.span.start_time_unix_nano
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(
            self.span
                .end_time_unix_nano
                .saturating_sub(self.span.start_time_unix_nano),
        )
    }

    /// Everything, as a person would want to read it.
    pub fn to_json(&self) -> Value {
        let events: Vec<Value> = self
            .span
            .events
            .iter()
            .map(|event| json!({"name": event.name, "attributes": object(&event.attributes)}))
            .collect();
        json!({
            "name": self.name(),
            "attributes": object(&self.span.attributes),
            "events": events,
            "resource": object(&self.resource),
        })
    }

    /// Whether `needle` stands anywhere in the span, its events or its resource.
    pub fn mentions(&self, needle: &str) -> bool {
        self.to_json().to_string().contains(needle)
    }
}

struct Collector(Spans);

impl Service for Collector {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let (parts, body) = exchange.request.into_parts();
        if parts.method != Method::POST || parts.uri.path() != "/v1/traces" {
            return plain(StatusCode::NOT_FOUND, "only POST /v1/traces");
        }
        if parts
            .headers
            .get(CONTENT_TYPE)
            .is_none_or(|kind| kind != "application/x-protobuf")
        {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only protobuf");
        }
        let Ok(body) = exchange.record.read(body).await else {
            return plain(StatusCode::BAD_REQUEST, "no whole body");
        };
        let Ok(request) = ExportTraceServiceRequest::decode(body.start.as_slice()) else {
            return plain(StatusCode::BAD_REQUEST, "not an export request");
        };
        let found = request.resource_spans.into_iter().flat_map(|group| {
            let resource = group.resource.unwrap_or_default().attributes;
            group
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
                .map(move |span| Span {
                    span,
                    resource: resource.clone(),
                })
        });
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found);
        typed(
            StatusCode::OK,
            "application/x-protobuf",
            ExportTraceServiceResponse::default().encode_to_vec(),
        )
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Any> {
    attributes
        .iter()
        .find(|attribute| attribute.key == name)?
        .value
        .as_ref()?
        .value
        .as_ref()
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match value(attributes, name)? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

fn object(attributes: &[KeyValue]) -> Map<String, Value> {
    attributes
        .iter()
        .map(|attribute| {
            let value = attribute
                .value
                .as_ref()
                .and_then(|value| value.value.as_ref());
            (attribute.key.clone(), value.map_or(Value::Null, to_json))
        })
        .collect()
}

fn to_json(any: &Any) -> Value {
    let inner = |value: &AnyValue| value.value.as_ref().map_or(Value::Null, to_json);
    match any {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(truth) => json!(truth),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::ArrayValue(array) => array.values.iter().map(inner).collect(),
        Any::KvlistValue(list) => Value::Object(object(&list.values)),
        Any::BytesValue(bytes) => json!(crate::digest::hex(bytes)),
        Any::StringValueStrindex(_) => Value::Null,
    }
}
