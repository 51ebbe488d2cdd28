//! Export requests as collectors read them, and answers as they give them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::telemetry::otlp::attributes::text;
use base64::Engine as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;

fn endpoint(protocol: Protocol) -> Endpoint {
    Endpoint::new(protocol, "http://c.example:4318/", Vec::new()).unwrap()
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::copy_from_slice(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        answer.headers_mut().insert(*name, value);
    }
    answer
}

fn partial(rejected_spans: i64) -> Vec<u8> {
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: "too big".to_owned(),
        }),
    }
    .encode_to_vec()
}

/// The message of these, with room in front of them or without.
fn message(resource: &Resource, items: &[Vec<u8>], room: usize) -> Bytes {
    let mut batch = Batch::new(room, 0);
    items.iter().for_each(|item| batch.add(item));
    Frame::new(resource).around(batch)
}

#[test]
fn items_put_together_by_hand_are_what_each_signal_s_message_says() {
    let resource = Resource {
        attributes: vec![text("service.name", "postern")],
        ..Resource::default()
    };
    let spans = ["one", "two"].map(|name| Span {
        name: name.to_owned(),
        ..Span::default()
    });
    let encoded: Vec<_> = spans.iter().map(Message::encode_to_vec).collect();
    let read = ExportTraceServiceRequest::decode(message(&resource, &encoded, 0)).unwrap();
    assert_eq!(read.resource_spans.len(), 1);
    assert_eq!(read.resource_spans[0].resource.as_ref(), Some(&resource));
    let scope = &read.resource_spans[0].scope_spans[0];
    assert_eq!(scope.spans, spans);
    assert_eq!(scope.scope.as_ref().unwrap().name, "postern");
    // Encoded whole, it is the same to the byte.
    let room = Frame::new(&resource).room();
    for room in [0, room - 1, room, room + 1] {
        let message = message(&resource, &encoded, room);
        assert_eq!(read.encode_to_vec(), message, "room {room}");
    }

    let log = LogRecord {
        event_name: "e".to_owned(),
        ..LogRecord::default()
    };
    let logs = message(&resource, &[log.encode_to_vec()], room);
    let read = ExportLogsServiceRequest::decode(logs).unwrap();
    assert_eq!(read.resource_logs[0].scope_logs[0].log_records, [log]);

    let metric = Metric {
        name: "m".to_owned(),
        ..Metric::default()
    };
    let metrics = message(&resource, &[metric.encode_to_vec()], room);
    let read = ExportMetricsServiceRequest::decode(metrics).unwrap();
    assert_eq!(read.resource_metrics[0].scope_metrics[0].metrics, [metric]);
}

#[test]
fn a_base_url_means_the_signal_s_own_path() {
    let of = |url: &str, signal| {
        let endpoint = Endpoint::new(Protocol::HttpProtobuf, url, Vec::new()).unwrap();
        let request = endpoint.request(signal, &Bytes::new()).unwrap();
        request.uri().to_string()
    };
    let base = "http://c.example:4318";
    assert_eq!(of(base, Signal::Traces), format!("{base}/v1/traces"));
    let slash = format!("{base}/");
    assert_eq!(of(&slash, Signal::Logs), format!("{base}/v1/logs"));
    let written_out = format!("{base}/v1/traces");
    assert_eq!(
        of(&written_out, Signal::Metrics),
        format!("{base}/v1/metrics")
    );
    let beneath = "https://c.example/otlp";
    assert_eq!(
        of(beneath, Signal::Traces),
        "https://c.example/otlp/v1/traces"
    );
}

#[test]
fn what_is_no_collector_is_refused() {
    for url in [
        "",
        "c.example:4318",
        "ftp://c.example",
        "http://",
        "http://c.example/?a=b",
    ] {
        let made = Endpoint::new(Protocol::HttpProtobuf, url, Vec::new());
        assert!(made.is_err(), "{url}");
    }
    let grpc = Endpoint::new(Protocol::Grpc, "http://c.example/path", Vec::new());
    assert!(grpc.is_err(), "gRPC has no paths of its own");
    let header = [("bad name".to_owned(), "secret".to_owned())];
    let error = Endpoint::new(Protocol::Grpc, "http://c.example", header).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_grpc_request_is_a_framed_message_to_the_service() {
    let headers = [("x-token".to_owned(), "t".to_owned())];
    let endpoint = Endpoint::new(Protocol::Grpc, "http://c.example:4317", headers).unwrap();
    let message = Bytes::from_static(b"abc");
    let request = endpoint.request(Signal::Logs, &message).unwrap();
    assert_eq!(
        request.uri().path(),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    );
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()[CONTENT_TYPE], "application/grpc");
    assert_eq!(request.headers()[TE], "trailers");
    assert_eq!(request.headers()["x-token"], "t");
    assert_eq!(&request.body()[..], b"\0\0\0\0\x03abc");
}

#[test]
fn http_answers() {
    let endpoint = endpoint(Protocol::HttpProtobuf);
    let verdict =
        |status, headers: &[_], body: &[u8]| endpoint.verdict(&answer(status, headers, body));
    let taken = |rejected, message: &str| Verdict::Taken {
        rejected,
        message: message.to_owned(),
    };
    assert_eq!(verdict(200, &[], b""), taken(0, ""));
    assert_eq!(verdict(200, &[], &partial(2)), taken(2, "too big"));
    assert_eq!(verdict(200, &[], &partial(-2)), taken(0, "too big"));
    for status in [429, 502, 503, 504] {
        let verdict = verdict(status, &[("retry-after", "7")], b"");
        let after = Some(Duration::from_secs(7));
        assert!(matches!(verdict, Verdict::Retry(at, _) if at == after));
    }
    assert!(matches!(verdict(503, &[], b""), Verdict::Retry(None, _)));
    for status in [301, 400, 401, 404, 413, 500] {
        assert!(matches!(verdict(status, &[], b""), Verdict::Refused(_)));
    }
}

#[test]
fn grpc_answers() {
    let endpoint = endpoint(Protocol::Grpc);
    let verdict =
        |status, headers: &[_], body: &[u8]| endpoint.verdict(&answer(status, headers, body));
    let mut framed = b"\0\0\0\0\x0b".to_vec();
    framed.extend(partial(1));
    let taken = verdict(200, &[("grpc-status", "0")], &framed);
    assert!(matches!(taken, Verdict::Taken { rejected: 1, .. }));
    let retried = |code| {
        matches!(
            verdict(200, &[("grpc-status", code)], b""),
            Verdict::Retry(..)
        )
    };
    assert!(["1", "4", "10", "11", "14", "15"].into_iter().all(retried));
    assert!(
        !["2", "3", "5", "7", "8", "12", "16", "x"]
            .into_iter()
            .any(retried)
    );
    // Not gRPC: a proxy's answer.
    assert!(matches!(verdict(503, &[], b""), Verdict::Retry(..)));
    assert!(matches!(verdict(200, &[], b""), Verdict::Refused(_)));
}

#[test]
fn an_exhausted_collector_is_asked_again_if_it_says_when() {
    let info = RetryInfo {
        delay: Some(Delay {
            seconds: 3,
            nanoseconds: 500_000_000,
        }),
    };
    let status = RpcStatus {
        details: vec![Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let details = base64::engine::general_purpose::STANDARD.encode(status.encode_to_vec());
    let headers = [
        ("grpc-status", "8"),
        ("grpc-status-details-bin", details.as_str()),
    ];
    let verdict = endpoint(Protocol::Grpc).verdict(&answer(200, &headers, b""));
    let after = Some(Duration::from_millis(3500));
    assert!(matches!(verdict, Verdict::Retry(at, _) if at == after));
}
