//! An OTLP collector for traces, logs and metrics, over http/protobuf and gRPC, that keeps everything. It
//! refuses to know what it ought to be told.

mod view;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::{DecodeError, Message};
use rustls::ServerConfig;
use tokio::runtime::Handle;

use super::body::{Body, plain, streamed, typed};
use super::{Exchange, Mock, Service};

pub use view::{Log, Metric, Point, Span};

/// The collector.
pub struct Otlp {
    mock: Mock,
    told: Arc<Told>,
    scheme: &'static str,
}

/// What it was told, and its mood.
#[derive(Default)]
struct Told {
    spans: Mutex<Vec<Span>>,
    logs: Mutex<Vec<Log>>,
    metrics: Mutex<Vec<Metric>>,
    /// So many requests are turned away yet.
    unavailable: AtomicU32,
}

impl Otlp {
    /// Listens on `address`; port 0 takes any.
    pub fn start(runtime: &Handle, address: SocketAddr) -> Result<Self> {
        Self::serve(runtime, address, None)
    }

    /// The same over TLS.
    pub fn start_tls(
        runtime: &Handle,
        address: SocketAddr,
        config: Arc<ServerConfig>,
    ) -> Result<Self> {
        Self::serve(runtime, address, Some(config))
    }

    fn serve(
        runtime: &Handle,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self> {
        let told = Arc::<Told>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mock = Mock::start(runtime, address, tls, Collector(Arc::clone(&told)))?;
        Ok(Self { mock, told, scheme })
    }

    /// The value of `otlp.endpoint` in a policy.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.mock.address())
    }

    /// The export requests themselves, for suites about headers and the raw bytes.
    pub fn mock(&self) -> &Mock {
        &self.mock
    }

    /// Turns the next `count` requests away as a collector that is overloaded does.
    pub fn be_unavailable(&self, count: u32) {
        self.told.unavailable.store(count, Ordering::Relaxed);
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.told.spans).clone()
    }

    /// Every log record so far.
    pub fn logs(&self) -> Vec<Log> {
        lock(&self.told.logs).clone()
    }

    /// The metric of this name as it was exported last.
    pub fn metric(&self, name: &str) -> Option<Metric> {
        let metrics = lock(&self.told.metrics);
        metrics.iter().rev().find(|m| m.name == name).cloned()
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
        wait_for(
            deadline,
            || self.spans(),
            wanted,
            |span| span.name().to_owned(),
        )
    }

    /// The first log record that `wanted` accepts, waiting at most `deadline` for it.
    pub fn wait_for_log(&self, deadline: Duration, wanted: impl Fn(&Log) -> bool) -> Result<Log> {
        wait_for(
            deadline,
            || self.logs(),
            wanted,
            |log| log.to_json().to_string(),
        )
    }
}

fn wait_for<T: Clone>(
    deadline: Duration,
    all: impl Fn() -> Vec<T>,
    wanted: impl Fn(&T) -> bool,
    show: impl Fn(&T) -> String,
) -> Result<T> {
    let deadline = crate::process::patient(deadline);
    let started = Instant::now();
    loop {
        let all = all();
        if let Some(found) = all.iter().find(|item| wanted(item)) {
            return Ok(found.clone());
        }
        if started.elapsed() > deadline {
            let shown: Vec<String> = all.iter().map(&show).collect();
            bail!("no such thing in {deadline:?}; the collector has {shown:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Collector(Arc<Told>);

impl Service for Collector {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let (parts, body) = exchange.request.into_parts();
        if parts.method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        }
        let Some(kind) = parts.headers.get(CONTENT_TYPE) else {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only protobuf");
        };
        let grpc = match kind.as_bytes() {
            b"application/x-protobuf" => false,
            b"application/grpc" => true,
            _ => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only protobuf"),
        };
        let Ok(body) = exchange.record.read(body).await else {
            return plain(StatusCode::BAD_REQUEST, "no whole body");
        };
        let away = &self.0.unavailable;
        let one_less = away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        if one_less.is_ok() {
            return match grpc {
                true => of_grpc(14, None).await,
                false => plain(StatusCode::SERVICE_UNAVAILABLE, "later"),
            };
        }
        let message = match grpc {
            true => unframed(&body.start),
            false => Some(body.start.as_slice()),
        };
        let taken = message.map(|message| self.0.take(parts.uri.path(), message));
        let done = ExportTraceServiceResponse::default().encode_to_vec();
        match (taken, grpc) {
            (Some(Some(Ok(()))), false) => typed(StatusCode::OK, "application/x-protobuf", done),
            (Some(Some(Ok(()))), true) => of_grpc(0, Some(done)).await,
            (Some(None), false) => plain(StatusCode::NOT_FOUND, "no such signal"),
            // UNIMPLEMENTED, INVALID_ARGUMENT
            (Some(None), true) => of_grpc(12, None).await,
            (_, true) => of_grpc(3, None).await,
            (_, false) => plain(StatusCode::BAD_REQUEST, "not an export request"),
        }
    }
}

impl Told {
    /// `None` for a path that is no signal's.
    fn take(&self, path: &str, message: &[u8]) -> Option<Result<(), DecodeError>> {
        Some(match path {
            "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                self.take_spans(message)
            }
            "/v1/logs" | "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
                self.take_logs(message)
            }
            "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                self.take_metrics(message)
            }
            _ => return None,
        })
    }

    fn take_spans(&self, message: &[u8]) -> Result<(), DecodeError> {
        for group in ExportTraceServiceRequest::decode(message)?.resource_spans {
            let resource = group.resource.unwrap_or_default().attributes;
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            lock(&self.spans).extend(spans.map(|span| Span {
                span,
                resource: resource.clone(),
            }));
        }
        Ok(())
    }

    fn take_logs(&self, message: &[u8]) -> Result<(), DecodeError> {
        for group in ExportLogsServiceRequest::decode(message)?.resource_logs {
            let resource = group.resource.unwrap_or_default().attributes;
            let scopes = group.scope_logs.into_iter();
            let logs = scopes.flat_map(|scope| scope.log_records);
            lock(&self.logs).extend(logs.map(|log| Log {
                log,
                resource: resource.clone(),
            }));
        }
        Ok(())
    }

    fn take_metrics(&self, message: &[u8]) -> Result<(), DecodeError> {
        for group in ExportMetricsServiceRequest::decode(message)?.resource_metrics {
            let resource = group.resource.unwrap_or_default().attributes;
            let scopes = group.scope_metrics.into_iter();
            let metrics = scopes.flat_map(|scope| scope.metrics);
            lock(&self.metrics).extend(metrics.map(|metric| Metric::new(metric, &resource)));
        }
        Ok(())
    }
}

/// The message of a unary call: a flag for compression, a length, the message.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    let whole = prefix.first() == Some(&0) && usize::try_from(length).ok()? == message.len();
    whole.then_some(message)
}

/// An answer whose status is in its trailers, as gRPC has it.
async fn of_grpc(status: u32, message: Option<Vec<u8>>) -> Response<Body> {
    let (writer, body) = streamed();
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    tokio::spawn(async move {
        if let Some(message) = message {
            let length = u32::try_from(message.len()).unwrap_or_default();
            let mut frame = vec![0];
            frame.extend(length.to_be_bytes());
            frame.extend(message);
            if !writer.data(Bytes::from(frame)).await {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.into());
        // A client that has gone needs no status.
        writer.trailers(trailers).await;
    });
    response
}

fn lock<T>(told: &Mutex<T>) -> MutexGuard<'_, T> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
