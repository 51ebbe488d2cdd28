//! Export requests and their answers on the wire, for OTLP over HTTP and over gRPC (the OTLP
//! specification 1.9). Pure: knows no sockets and decides no retries.

use super::batch::Batch;
use super::encode::delimited;
use bytes::{BufMut as _, Bytes};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TE};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::time::Duration;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// A POST of a protobuf message to a path of the signal's own.
    #[default]
    HttpProtobuf,
    /// A unary call over HTTP/2.
    Grpc,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::telemetry) enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    /// As metrics and logs call it.
    pub(in crate::telemetry) fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    fn path(self, protocol: Protocol) -> &'static str {
        match (protocol, self) {
            (Protocol::HttpProtobuf, Self::Traces) => "/v1/traces",
            (Protocol::HttpProtobuf, Self::Logs) => "/v1/logs",
            (Protocol::HttpProtobuf, Self::Metrics) => "/v1/metrics",
            (Protocol::Grpc, Self::Traces) => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            }
            (Protocol::Grpc, Self::Logs) => {
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
            }
            (Protocol::Grpc, Self::Metrics) => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
        }
    }
}

/// What the collector said.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It has it, but for so many items.
    Taken { rejected: u64, message: String },
    /// Not now; perhaps after the time it names.
    Retry(Option<Duration>, String),
    /// Never.
    Refused(String),
}

/// Where exports go. Made once, checked once.
#[derive(Debug)]
pub(super) struct Endpoint {
    protocol: Protocol,
    /// Scheme and authority, and with HTTP a path before the signal's own; no slash at the end.
    base: String,
    headers: HeaderMap,
}

/// Why a collector cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an URL of a collector.
    #[error(
        "{url:?} is not the URL of an OTLP collector; write http://HOST:PORT or https://HOST:PORT"
    )]
    Url {
        /// As written.
        url: String,
    },
    /// An environment variable makes no sense.
    #[error("{name}: expected {expected}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What would.
        expected: &'static str,
    },
    /// A header cannot be sent.
    #[error("the header {name:?} cannot be sent")]
    Header {
        /// Its name; the value may be a credential.
        name: String,
    },
}

impl Endpoint {
    /// A base URL means its `/v1/<signal>` (OTLP specification, "Endpoint URLs for OTLP/HTTP"); that of
    /// traces may be written out.
    pub(super) fn new(
        protocol: Protocol,
        url: &str,
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, EndpointError> {
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/v1/traces").unwrap_or(base);
        let bad = || EndpointError::Url {
            url: url.to_owned(),
        };
        let uri = Uri::try_from(base).ok().ok_or_else(bad)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_path = !matches!(uri.path(), "" | "/");
        let fits = uri.query().is_none() && !(protocol == Protocol::Grpc && has_path);
        if !known || uri.host().is_none_or(str::is_empty) || !fits {
            return Err(bad());
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let (Ok(header), Ok(mut value)) =
                (HeaderName::try_from(&name), HeaderValue::try_from(value))
            else {
                return Err(EndpointError::Header { name });
            };
            value.set_sensitive(true);
            map.append(header, value);
        }
        Ok(Self {
            protocol,
            base: base.to_owned(),
            headers: map,
        })
    }

    /// The request that exports `message`. Its version says which HTTP it wants.
    pub(super) fn request(
        &self,
        signal: Signal,
        message: &Bytes,
    ) -> Result<Request<Bytes>, http::Error> {
        let mut request = Request::builder().method(Method::POST).uri(format!(
            "{}{}",
            self.base,
            signal.path(self.protocol)
        ));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        match self.protocol {
            Protocol::HttpProtobuf => request
                .version(Version::HTTP_11)
                .header(CONTENT_TYPE, "application/x-protobuf")
                .body(message.clone()),
            Protocol::Grpc => request
                .version(Version::HTTP_2)
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .body(framed(message)),
        }
    }

    /// Reads the answer, whose trailers have been put among its headers.
    pub(super) fn verdict(&self, answer: &Response<Bytes>) -> Verdict {
        match self.protocol {
            Protocol::HttpProtobuf => of_http(answer),
            Protocol::Grpc => of_grpc(answer),
        }
    }
}

/// A key below 16 and the longest length there is, bytes.
const BEGIN: usize = 1 + 10;

/// What the messages of one gateway begin with. Those of the three signals have the same shape:
/// `1: repeated { 1: resource, 2: repeated { 1: scope, 2: repeated item } }`.
pub(super) struct Frame {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Frame {
    pub(super) fn new(resource: &Resource) -> Self {
        let scope = InstrumentationScope {
            name: "postern".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let mut frame = Self {
            resource: Vec::new(),
            scope: Vec::new(),
        };
        prost::encoding::message::encode(1, resource, &mut frame.resource);
        prost::encoding::message::encode(1, &scope, &mut frame.scope);
        frame
    }

    /// What a message begins with at most, bytes.
    pub(super) fn room(&self) -> usize {
        2 * BEGIN + self.resource.len() + self.scope.len()
    }

    /// The message of a batch.
    pub(super) fn around(&self, batch: Batch) -> Bytes {
        let of_scope = self.scope.len() + batch.length();
        let of_resource = self.resource.len() + delimited(of_scope);
        let mut head = Vec::with_capacity(self.room());
        begin(1, of_resource, &mut head);
        head.extend_from_slice(&self.resource);
        begin(2, of_scope, &mut head);
        head.extend_from_slice(&self.scope);
        batch.behind(&head)
    }
}

fn begin(field: u32, length: usize, message: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(length as u64, message);
}

/// A length-prefixed message, not compressed (the gRPC protocol over HTTP/2).
fn framed(message: &Bytes) -> Bytes {
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.put_u8(0);
    // A batch is far below 4 GiB; a wrong length would be refused.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.into()
}

fn of_http(answer: &Response<Bytes>) -> Verdict {
    let status = answer.status();
    if status.is_success() {
        return taken(answer.body());
    }
    match status {
        // Those that the specification names.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = answer.headers().get(RETRY_AFTER);
            let seconds = after.and_then(|value| value.to_str().ok()?.parse().ok());
            Verdict::Retry(seconds.map(Duration::from_secs), status.to_string())
        }
        _ => Verdict::Refused(status.to_string()),
    }
}

/// The response messages of the three signals have the same shape too.
fn taken(body: &[u8]) -> Verdict {
    let partial = ExportTraceServiceResponse::decode(body)
        .ok()
        .and_then(|response| response.partial_success)
        .unwrap_or_default();
    Verdict::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        message: partial.error_message,
    }
}

/// Status codes of gRPC that are worth another try (OTLP specification, "Failures" of OTLP/gRPC).
const TRANSIENT: [u32; 6] = [
    1,  // CANCELLED
    4,  // DEADLINE_EXCEEDED
    10, // ABORTED
    11, // OUT_OF_RANGE
    14, // UNAVAILABLE
    15, // DATA_LOSS
];
/// Worth another try if the collector says when.
const RESOURCE_EXHAUSTED: u32 = 8;

fn of_grpc(answer: &Response<Bytes>) -> Verdict {
    let headers = answer.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        // Not gRPC at all: a proxy on the way, perhaps.
        return match of_http(answer) {
            Verdict::Taken { .. } => Verdict::Refused("it does not speak gRPC".to_owned()),
            other => other,
        };
    };
    let said = text("grpc-message").unwrap_or_default();
    let said = format!("gRPC status {code} {said}");
    match code {
        0 => taken(answer.body().get(5..).unwrap_or_default()),
        RESOURCE_EXHAUSTED => match retry_delay(headers) {
            Some(delay) => Verdict::Retry(Some(delay), said),
            None => Verdict::Refused(said),
        },
        code if TRANSIENT.contains(&code) => Verdict::Retry(retry_delay(headers), said),
        _ => Verdict::Refused(said),
    }
}

/// `google.rpc.RetryInfo` of a `google.rpc.Status`, if the collector sent one.
fn retry_delay(headers: &HeaderMap) -> Option<Duration> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let details = headers.get("grpc-status-details-bin")?.to_str().ok()?;
    let details = STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok()?;
    let status = RpcStatus::decode(details.as_slice()).ok()?;
    let info = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    let nanoseconds = u32::try_from(delay.nanoseconds).ok()?;
    (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanoseconds: i32,
}

#[cfg(test)]
mod tests;
