//! Spans over OTLP (http/protobuf). A collector that is away never holds up a request: the queue is
//! bounded and a full one drops.

use super::record::{Body, ConnectionRecord, DenialRecord, RequestRecord, Who};
use base64::Engine as _;
use bytes::Bytes;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Memory for spans that wait for the collector.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A span without captured bodies, at worst half of it: headers are bounded by the redactor.
const SPAN_BYTES: usize = 32 * 1024;
/// Spans that wait, at most and at least.
const QUEUE: std::ops::RangeInclusive<usize> = 64..=2048;
/// How long a span waits for company.
const DELAY: Duration = Duration::from_secs(1);
/// How long shutting down may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Sends one export request: given by `upstream`, which knows how to dial.
pub trait OtlpTransport: Send + Sync + 'static {
    /// Posts the request and returns the response.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send>>;
}

/// Where and as whom to export.
#[derive(Debug)]
pub struct ExporterSettings {
    /// The full URL of the traces endpoint.
    pub endpoint: String,
    /// Headers of the export requests.
    pub headers: HashMap<String, String>,
    /// `postern.gateway` of the resource.
    pub gateway: String,
    /// Bytes of each body that a span may carry.
    pub body_bytes: usize,
}

/// Exports one gateway's spans.
pub struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A span that has an id and a start and waits for its end.
pub struct Begun {
    span: opentelemetry_sdk::trace::Span,
}

impl Begun {
    /// The W3C `traceparent` that names this span as the parent.
    pub fn traceparent(&self) -> String {
        let context = self.span.span_context();
        format!("00-{}-{}-01", context.trace_id(), context.span_id())
    }
}

impl Exporter {
    /// Must be called in a tokio runtime, on which the exports then run.
    pub fn new(
        settings: ExporterSettings,
        transport: Arc<dyn OtlpTransport>,
    ) -> Result<Self, opentelemetry_otlp::ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client {
                transport,
                runtime: tokio::runtime::Handle::current(),
            })
            .with_endpoint(settings.endpoint)
            .with_headers(settings.headers)
            .build()?;
        // Two bodies, in base64.
        let span = SPAN_BYTES + settings.body_bytes * 2 / 3 * 4;
        let queue = (QUEUE_BYTES / span).clamp(*QUEUE.start(), *QUEUE.end());
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_max_queue_size(queue)
                    .with_max_export_batch_size(queue.min(512))
                    .with_scheduled_delay(DELAY)
                    .build(),
            )
            .build();
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let resource = Resource::builder()
            .with_service_name("postern")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new(
                    "service.instance.id",
                    format!("{host}-{}", std::process::id()),
                ),
                KeyValue::new("host.name", host),
                KeyValue::new("postern.gateway", settings.gateway),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Whether a request is recorded is not for the sandbox's traceparent to say.
            .with_sampler(Sampler::AlwaysOn)
            .with_max_attributes_per_event(512)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("postern");
        Ok(Self { provider, tracer })
    }

    /// Begins a request's span; its name and attributes follow at the end.
    pub fn begin(&self, traceparent: Option<&str>) -> Begun {
        let parent = traceparent
            .and_then(parse_traceparent)
            .map_or_else(Context::new, |parent| {
                Context::new().with_remote_span_context(parent)
            });
        let builder = SpanBuilder::from_name("request")
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now());
        Begun {
            span: self.tracer.build_with_context(builder, &parent),
        }
    }

    /// Ends a request's span.
    pub fn request(&self, record: &mut RequestRecord) {
        let mut span = match record.span.take() {
            Some(begun) => begun.span,
            None => self.begin(None).span,
        };
        span.update_name(span_name(record));
        span.set_attributes(who_attributes(&record.who));
        span.set_attributes(request_attributes(record));
        span.add_event(
            "http.request.headers",
            headers("request", &record.request_headers),
        );
        if let Some(body) = &record.request_body {
            span.add_event("http.request.body", body_attributes(body));
        }
        if !record.response_headers.is_empty() {
            span.add_event(
                "http.response.headers",
                headers("response", &record.response_headers),
            );
        }
        if let Some(body) = &record.response_body {
            span.add_event("http.response.body", body_attributes(body));
        }
        if let Some(error) = record.error {
            span.set_status(Status::error(error));
        }
        span.end();
    }

    /// A connection that was spliced.
    pub fn connection(&self, record: &ConnectionRecord) {
        let mut attributes = who_attributes(&record.who);
        attributes.extend([
            text("postern.decision", "allowed"),
            text("postern.rule", &*record.rule),
            number("postern.bytes.up", record.bytes_up),
            number("postern.bytes.down", record.bytes_down),
        ]);
        attributes.extend(
            record
                .host
                .as_deref()
                .map(|host| text("server.address", host)),
        );
        attributes.extend(
            record
                .error
                .as_deref()
                .map(|error| text("error.type", error)),
        );
        self.tracer
            .build_with_context(
                SpanBuilder::from_name("egress.connection")
                    .with_kind(SpanKind::Server)
                    .with_start_time(record.started)
                    .with_attributes(attributes),
                &Context::new(),
            )
            .end();
    }

    /// A denial.
    pub fn denied(&self, record: &DenialRecord) {
        let mut attributes = who_attributes(&record.who);
        attributes.extend([
            text("postern.decision", "denied"),
            text("postern.deny.reason", record.reason.as_str()),
            text("postern.deny.stage", record.stage.as_str()),
        ]);
        attributes.extend(
            record
                .host
                .as_deref()
                .map(|host| text("server.address", host)),
        );
        self.tracer
            .build_with_context(
                SpanBuilder::from_name("egress.denied")
                    .with_kind(SpanKind::Server)
                    .with_attributes(attributes),
                &Context::new(),
            )
            .end();
    }

    /// Sends what is queued, for [`SHUTDOWN`] at most.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(%error, "telemetry was not all delivered");
        }
    }
}

/// The SDK exports from a thread of its own; the dialling happens on the gateway's runtime.
struct Client {
    transport: Arc<dyn OtlpTransport>,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        self.runtime.spawn(self.transport.send(request)).await?
    }
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn parse_traceparent(value: &str) -> Option<SpanContext> {
    let mut parts = value.split('-');
    let version = parts.next()?;
    let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2
        || version == "ff"
        || trace.len() != 32
        || span.len() != 16
        || flags.len() != 2
    {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

fn span_name(record: &RequestRecord) -> String {
    match (record.operation, record.model.as_deref()) {
        (Some(operation), Some(model)) => format!("{operation} {model}"),
        (Some(operation), None) => operation.to_owned(),
        (None, _) => format!("{} {}", record.method, record.host),
    }
}

fn who_attributes(who: &Who) -> Vec<KeyValue> {
    vec![
        text("postern.sandbox", &*who.sandbox),
        number("postern.cgroup.id", who.cgroup),
        number("process.pid", u64::from(who.tgid)),
        text("process.executable.name", &*who.comm),
        text("user.id", who.uid.to_string()),
        number("postern.generation", who.generation),
        text("network.peer.address", who.destination.ip().to_string()),
        number("network.peer.port", u64::from(who.destination.port())),
    ]
}

fn request_attributes(record: &RequestRecord) -> Vec<KeyValue> {
    let denied = record.reason.is_some();
    let mut all = vec![
        text("http.request.method", record.method.clone()),
        text("server.address", record.host.clone()),
        number("server.port", u64::from(record.port)),
        text("url.scheme", record.scheme),
        text("url.path", record.path.clone()),
        text("network.protocol.version", record.version),
        text(
            "postern.decision",
            if denied { "denied" } else { "allowed" },
        ),
        KeyValue::new("postern.upstream.reused", record.reused),
        number("http.request.body.size", record.bytes_up),
        number("http.response.body.size", record.bytes_down),
        number("postern.scrubbed", record.scrubbed),
    ];
    let usage = &record.usage;
    let optional_text = [
        ("url.query", record.query.as_deref()),
        ("postern.rule", record.rule.as_deref()),
        ("postern.credential.injected", record.credential.as_deref()),
        (
            "postern.deny.reason",
            record.reason.map(crate::outcome::DenyReason::as_str),
        ),
        ("postern.deny.stage", denied.then_some("http")),
        ("error.type", record.error),
        ("gen_ai.provider.name", record.provider),
        ("gen_ai.system", record.provider),
        ("gen_ai.operation.name", record.operation),
        ("gen_ai.request.model", record.model.as_deref()),
        ("gen_ai.response.model", usage.response_model.as_deref()),
        ("gen_ai.response.id", usage.response_id.as_deref()),
    ];
    all.extend(
        optional_text
            .into_iter()
            .filter_map(|(key, value)| Some(text(key, value?.to_owned()))),
    );
    let optional_number = [
        ("http.response.status_code", record.status.map(u64::from)),
        ("gen_ai.usage.input_tokens", usage.input_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
        (
            "gen_ai.usage.cache_read.input_tokens",
            usage.cache_read_input_tokens,
        ),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            usage.cache_creation_input_tokens,
        ),
        (
            "gen_ai.usage.reasoning.output_tokens",
            usage.reasoning_tokens,
        ),
    ];
    all.extend(
        optional_number
            .into_iter()
            .filter_map(|(key, value)| Some(number(key, value?))),
    );
    if !usage.finish_reasons.is_empty() {
        let reasons: Vec<StringValue> = usage
            .finish_reasons
            .iter()
            .cloned()
            .map(Into::into)
            .collect();
        all.push(KeyValue::new(
            "gen_ai.response.finish_reasons",
            Value::Array(Array::String(reasons)),
        ));
    }
    all
}

fn headers(of: &str, headers: &[(String, String)]) -> Vec<KeyValue> {
    headers
        .iter()
        .map(|(name, value)| KeyValue::new(format!("http.{of}.header.{name}"), value.clone()))
        .collect()
}

fn body_attributes(body: &Body) -> Vec<KeyValue> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(&body.bytes);
    let mut all = vec![
        text("postern.body.base64", encoded),
        number("postern.body.bytes", body.bytes.len() as u64),
        KeyValue::new("postern.body.truncated", body.truncated),
    ];
    if let Some(encoding) = &body.encoding {
        all.push(text("postern.body.content_encoding", encoding.clone()));
    }
    all
}

fn text(key: &'static str, value: impl Into<String>) -> KeyValue {
    KeyValue::new(key, value.into())
}

/// OTLP integers are signed; a count beyond that would be a mistake elsewhere.
fn number(key: &'static str, value: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::parse_traceparent;

    #[test]
    fn only_a_valid_traceparent_is_a_parent() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse_traceparent(valid).is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert!(parse_traceparent(bad).is_none(), "{bad}");
        }
    }
}
