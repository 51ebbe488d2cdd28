//! What reaches a collector, whatever mood it is in.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::outcome::DenyReason;
use crate::telemetry::samples;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::atomic::AtomicUsize;

/// A collector that answers as it is told to.
#[derive(Default)]
struct Fake {
    /// HTTP status; zero for a connection that fails.
    status: AtomicUsize,
    tries: AtomicUsize,
    taken: Mutex<Vec<(String, Bytes)>>,
}

impl Fake {
    fn new(status: usize) -> Arc<Self> {
        let fake = Self::default();
        fake.status.store(status, Ordering::Relaxed);
        Arc::new(fake)
    }

    fn of(&self, path: &str) -> Vec<Bytes> {
        let taken = self.taken.lock().unwrap();
        let of_path = taken.iter().filter(|(at, _)| at.as_str() == path);
        of_path.map(|(_, message)| message.clone()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.of("/v1/traces").into_iter();
        requests
            .map(|message| ExportTraceServiceRequest::decode(message).unwrap())
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    fn logs(&self) -> Vec<LogRecord> {
        let requests = self.of("/v1/logs").into_iter();
        requests
            .map(|message| ExportLogsServiceRequest::decode(message).unwrap())
            .flat_map(|request| request.resource_logs)
            .flat_map(|resource| resource.scope_logs)
            .flat_map(|scope| scope.log_records)
            .collect()
    }

    /// As last exported.
    fn metrics(&self) -> Vec<Metric> {
        let last = self.of("/v1/metrics").pop().unwrap();
        let request = ExportMetricsServiceRequest::decode(last).unwrap();
        let scope = request.resource_metrics.into_iter().next().unwrap();
        scope.scope_metrics.into_iter().next().unwrap().metrics
    }
}

impl OtlpTransport for Arc<Fake> {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, TransportError>> + Send>> {
        let fake = Arc::clone(self);
        Box::pin(async move {
            fake.tries.fetch_add(1, Ordering::Relaxed);
            let status = fake.status.load(Ordering::Relaxed);
            if status == 0 {
                return Err("connection refused".into());
            }
            if status == 200 {
                let path = request.uri().path().to_owned();
                let taken = (path, request.into_body());
                fake.taken.lock().unwrap().push(taken);
            }
            let mut response = http::Response::new(Bytes::new());
            *response.status_mut() = http::StatusCode::from_u16(u16::try_from(status).unwrap())?;
            Ok(response)
        })
    }
}

fn exporter(fake: &Arc<Fake>, metrics: &Arc<Metrics>) -> Exporter {
    let settings = ExporterSettings {
        gateway: "g".to_owned(),
        endpoint: "http://c.example:4318".to_owned(),
        protocol: Protocol::HttpProtobuf,
        headers: Vec::new(),
        metrics_every: Duration::from_secs(10),
    };
    Exporter::new(settings, Arc::new(Arc::clone(fake)), Arc::clone(metrics)).unwrap()
}

/// The sum of what was dropped for this reason.
fn dropped(metrics: &Metrics, loss: &str) -> i64 {
    let all = metrics.collect();
    let metric = all.iter().find(|m| m.name == "postern.telemetry.dropped");
    let Some(Data::Sum(sum)) = &metric.unwrap().data else {
        panic!("not a sum");
    };
    sum.data_points
        .iter()
        .filter(|point| said(&point.attributes, "postern.telemetry.loss").as_deref() == Some(loss))
        .map(|point| match point.value {
            Some(number_data_point::Value::AsInt(value)) => value,
            _ => 0,
        })
        .sum()
}

fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    })
}

#[tokio::test(start_paused = true)]
async fn each_record_has_a_span_and_what_went_wrong_a_log_record() {
    let (fake, metrics) = (Fake::new(200), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let mut record = samples::request();
    record.span = Begun::new(Some(parent));
    exporter.request(&record);
    exporter.connection(&samples::connection());
    exporter.denied(&samples::denial());
    tokio::time::sleep(Duration::from_secs(2)).await;

    let spans = fake.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "chat claude-haiku-4-5",
        "egress.connection",
        "egress.denied",
    ];
    assert_eq!(names, expected);
    let of = |key: &str| said(&spans[0].attributes, key);
    assert_eq!(of("url.query").as_deref(), Some("beta=true"));
    assert_eq!(of("gen_ai.usage.input_tokens").as_deref(), Some("100"));
    let cached = of("gen_ai.usage.cache_read.input_tokens");
    assert_eq!(cached.as_deref(), Some("64"));
    assert_eq!(of("destination.address").as_deref(), Some("192.0.2.1"));
    let injected = of("postern.credential.injected");
    assert_eq!(injected.as_deref(), Some("anthropic-key"));
    assert_eq!(spans[0].parent_span_id.len(), 8);
    // Recorded though its parent is not, which is somewhere else.
    assert_eq!(spans[0].flags, 0x301);
    let events: Vec<_> = spans[0].events.iter().map(|e| e.name.as_str()).collect();
    let expected = [
        "http.request.headers",
        "http.request.body",
        "http.response.headers",
    ];
    assert_eq!(events, expected);
    let headers = &spans[0].events[0].attributes;
    let accept = said(headers, "http.request.header.accept");
    assert_eq!(accept.as_deref(), Some("a, b"));
    let times: Vec<_> = spans[0].events.iter().map(|e| e.time_unix_nano).collect();
    assert!(times[0] == spans[0].start_time_unix_nano && times[2] > times[0]);
    assert!(spans[0].end_time_unix_nano > times[2]);
    let outcome = said(&spans[1].attributes, "postern.outcome");
    assert_eq!(outcome.as_deref(), Some("ok"));

    let logs = fake.logs();
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert_eq!(logs[0].event_name, "egress.denied");
    assert_eq!(logs[0].severity_text, "WARN");
    assert_eq!(logs[0].span_id, spans[2].span_id);
    let reason = said(&logs[0].attributes, "postern.deny.reason");
    assert_eq!(reason.as_deref(), Some("no_rule"));
}

/// What the telemetry reference names.
#[tokio::test(start_paused = true)]
async fn every_attribute_of_the_reference_is_there() {
    let (fake, metrics) = (Fake::new(200), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    let mut request = samples::request();
    request.usage.cache_creation_input_tokens = Some(3);
    request.reason = Some(DenyReason::RequestNotAllowed);
    request.error = Some("upstream_connect");
    exporter.request(&request);
    exporter.connection(&samples::connection());
    exporter.denied(&samples::denial());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let who = [
        "postern.sandbox",
        "postern.cgroup.id",
        "process.pid",
        "process.executable.name",
        "process.executable.path",
        "user.id",
        "postern.generation",
        "postern.decision",
        "destination.address",
    ];
    let of_request = [
        "http.request.method",
        "http.response.status_code",
        "server.address",
        "server.port",
        "url.scheme",
        "url.path",
        "url.query",
        "network.protocol.version",
        "error.type",
        "postern.rule",
        "postern.credential.injected",
        "postern.upstream.reused",
        "postern.deny.reason",
        "postern.deny.stage",
        "gen_ai.provider.name",
        "gen_ai.system",
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.response.finish_reasons",
    ];
    let of_connection = [
        "postern.bytes.up",
        "postern.bytes.down",
        "postern.duration_ms",
        "postern.outcome",
    ];
    let of_denial = ["postern.deny.reason", "postern.deny.stage"];
    let of_body = [
        "postern.body.base64",
        "postern.body.bytes",
        "postern.body.truncated",
        "postern.body.content_encoding",
    ];
    let spans = fake.spans();
    let missing = |attributes: &[KeyValue], wanted: &[&str]| -> Vec<String> {
        let lacks = wanted.iter().filter(|key| said(attributes, key).is_none());
        lacks.map(|key| (*key).to_owned()).collect()
    };
    for (span, own) in spans
        .iter()
        .zip([&of_request[..], &of_connection, &of_denial])
    {
        let wanted = [&who[..], own].concat();
        let missing = missing(&span.attributes, &wanted);
        assert!(missing.is_empty(), "{}: {missing:?}", span.name);
        let mut keys: Vec<_> = span.attributes.iter().map(|pair| &pair.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), span.attributes.len(), "each key once");
    }
    let mut bodies = spans[0].events.iter();
    let body = bodies.find(|event| event.name == "http.request.body");
    assert!(missing(&body.unwrap().attributes, &of_body).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_denied_or_failed_request_and_reloads_are_logged() {
    let (fake, metrics) = (Fake::new(200), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    let denied = DenyReason::RequestNotAllowed;
    for (reason, error, status) in [
        (Some(denied), None, 403),
        (None, Some("upstream_connect"), 502),
        (None, Some("client_closed"), 200),
        (None, None, 503),
    ] {
        exporter.request(&RequestRecord {
            reason,
            error,
            status: Some(status),
            ..samples::request()
        });
    }
    exporter.reloaded(2, 1);
    exporter.reload_failed(2, "policy.yaml:3:1: unknown field");
    exporter.not_recorded(9);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let logs = fake.logs();
    let told: Vec<_> = logs
        .iter()
        .map(|log| (log.event_name.as_str(), log.severity_text.as_str()))
        .collect();
    let expected = [
        ("egress.denied", "WARN"),
        ("egress.failed", "ERROR"),
        ("policy.reloaded", "INFO"),
        ("policy.reload_failed", "ERROR"),
        ("egress.not_recorded", "WARN"),
    ];
    assert_eq!(told, expected);
    let spans = fake.spans();
    let errors: Vec<_> = spans
        .iter()
        .map(|span| said(&span.attributes, "error.type"))
        .collect();
    let expected = [
        None,
        Some("upstream_connect"),
        Some("client_closed"),
        Some("503"),
    ];
    assert_eq!(errors, expected.map(|error| error.map(str::to_owned)));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_while_the_collector_was_away_arrives_when_it_is_back() {
    let (fake, metrics) = (Fake::new(0), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    for _ in 0..1000 {
        exporter.connection(&samples::connection());
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tries = fake.tries.load(Ordering::Relaxed);
    assert!((5..60).contains(&tries), "it backs off: {tries}");
    fake.status.store(200, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.spans().len(), 1000);
    assert_eq!(fake.of("/v1/traces").len(), 2, "512 and the rest");
    assert_eq!(dropped(&metrics, "gave_up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_stays_away_costs_a_bounded_queue_and_a_count() {
    let (fake, metrics) = (Fake::new(503), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    let all = QUEUED + 500;
    for _ in 0..all {
        exporter.connection(&samples::connection());
    }
    assert_eq!(exporter.spans.len(), QUEUED);
    assert_eq!(dropped(&metrics, "queue_full"), 500);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(dropped(&metrics, "gave_up"), 512, "one batch, not the rest");
    fake.status.store(200, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.spans().len(), QUEUED - 512);
}

#[tokio::test(start_paused = true)]
async fn a_span_that_the_collector_does_not_want_is_counted_and_not_sent_again() {
    let (fake, metrics) = (Fake::new(400), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    exporter.connection(&samples::connection());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(dropped(&metrics, "rejected"), 1);
    assert_eq!(fake.tries.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_sends_what_waits_and_the_metrics_last() {
    let (fake, metrics) = (Fake::new(200), Arc::new(Metrics::default()));
    let exporter = Arc::new(exporter(&fake, &metrics));
    exporter.denied(&samples::denial());
    let closing = Arc::clone(&exporter);
    let begun = std::time::Instant::now();
    tokio::task::spawn_blocking(move || closing.shut_down())
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(fake.spans().len(), 1);
    assert_eq!(fake.logs().len(), 1);
    assert!(fake.metrics().len() > 3);
    assert_eq!(fake.taken.lock().unwrap().last().unwrap().0, "/v1/metrics");
    exporter.denied(&samples::denial());
    assert_eq!(dropped(&metrics, "shutdown"), 2, "a span and a log record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_does_not_hold_up_the_end() {
    let (fake, metrics) = (Fake::new(0), Arc::new(Metrics::default()));
    let exporter = exporter(&fake, &metrics);
    exporter.denied(&samples::denial());
    let begun = std::time::Instant::now();
    tokio::task::spawn_blocking(move || exporter.shut_down())
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(dropped(&metrics, "shutdown"), 2);
}

#[tokio::test(start_paused = true)]
async fn metrics_come_every_so_often_with_the_resource() {
    let (fake, metrics) = (Fake::new(200), Arc::new(Metrics::default()));
    let _exporter = exporter(&fake, &metrics);
    metrics.request(&samples::request());
    tokio::time::sleep(Duration::from_secs(35)).await;
    let requests = fake.of("/v1/metrics");
    assert_eq!(requests.len(), 3);
    let request = ExportMetricsServiceRequest::decode(requests[0].clone()).unwrap();
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let of = |key: &str| said(&resource.attributes, key).unwrap();
    assert_eq!(of("service.name"), "postern");
    assert_eq!(of("postern.gateway"), "g");
    assert_eq!(of("service.version"), env!("CARGO_PKG_VERSION"));
    assert!(of("service.instance.id").starts_with(&of("host.name")));
}
