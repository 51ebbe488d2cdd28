//! The eleven metrics, by name, unit, kind and attributes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::telemetry::samples;
use gateway_common::SandboxCounters;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, NumberDataPoint};
use std::sync::Mutex;

fn find(metrics: &Metrics, name: &str) -> Metric {
    let all = metrics.collect();
    all.into_iter().find(|m| m.name == name).unwrap()
}

fn histogram(metrics: &Metrics, name: &str) -> Vec<HistogramDataPoint> {
    match find(metrics, name).data {
        Some(Data::Histogram(histogram)) => histogram.data_points,
        other => panic!("{other:?}"),
    }
}

fn sum(metrics: &Metrics, name: &str) -> Vec<NumberDataPoint> {
    match find(metrics, name).data {
        Some(Data::Sum(sum)) if sum.is_monotonic => sum.data_points,
        other => panic!("{other:?}"),
    }
}

fn keys(attributes: &[KeyValue]) -> Vec<&str> {
    attributes.iter().map(|a| a.key.as_str()).collect()
}

#[test]
fn all_eleven_are_told_with_their_units() {
    let metrics = Metrics::default();
    metrics.request(&samples::request());
    metrics.connection_allowed();
    let counted = Mutex::new(SandboxCounters::default());
    metrics.follow(
        SandboxId::from_number(1),
        Box::new(move || {
            let mut counted = counted.lock().unwrap();
            counted.redirected += 1;
            Some(*counted)
        }),
    );
    let told: Vec<(String, String)> = metrics
        .collect()
        .into_iter()
        .map(|metric| (metric.name, metric.unit))
        .collect();
    let expected = [
        ("postern.connections", "{connection}"),
        ("postern.requests", "{request}"),
        ("http.server.request.duration", "s"),
        ("http.client.request.duration", "s"),
        ("gen_ai.client.token.usage", "{token}"),
        ("postern.kernel.verdicts", "{verdict}"),
        ("postern.upstream.pool", "{connection}"),
        ("postern.tls.leaf_cache", "{lookup}"),
        ("postern.policy.generation", "{generation}"),
        ("postern.policy.reload.failures", "{failure}"),
        ("postern.telemetry.dropped", "{item}"),
    ];
    let expected = expected.map(|(name, unit)| (name.to_owned(), unit.to_owned()));
    assert_eq!(told, expected);
}

#[test]
fn a_request_is_measured_on_both_sides_and_its_tokens_are_counted() {
    let metrics = Metrics::default();
    metrics.request(&samples::request());
    metrics.request(&samples::request());
    let server = histogram(&metrics, "http.server.request.duration");
    assert_eq!(server.len(), 1);
    assert_eq!(server[0].count, 2);
    assert_eq!(server[0].bucket_counts.iter().sum::<u64>(), 2);
    assert_eq!(server[0].bucket_counts.len(), DURATIONS.len() + 1);
    assert!(server[0].sum.unwrap() >= 0.04);
    let expected = [
        "http.request.method",
        "url.scheme",
        "http.response.status_code",
        "network.protocol.version",
    ];
    assert_eq!(keys(&server[0].attributes), expected);
    let client = histogram(&metrics, "http.client.request.duration");
    assert!(client[0].sum.unwrap() < server[0].sum.unwrap());
    assert!(keys(&client[0].attributes).contains(&"server.address"));
    let tokens = histogram(&metrics, "gen_ai.client.token.usage");
    let mut sums: Vec<_> = tokens.iter().map(|point| point.sum.unwrap()).collect();
    sums.sort_by(f64::total_cmp);
    assert_eq!(sums, [10.0, 200.0]);
}

#[test]
fn a_bound_belongs_to_the_bucket_beneath_it() {
    let histogram = Family::<LeafLookup, Histogram>::histograms(Buckets(&[1.0, 2.0]));
    for value in [0.5, 1.0, 1.5, 2.0, 2.5] {
        histogram.with(&LeafLookup(LeafUse::Hit), |h| h.record(value));
    }
    let metric = histogram.collect(SystemTime::now(), "h", "1", "");
    let Some(Data::Histogram(told)) = metric.unwrap().data else {
        panic!("not a histogram");
    };
    let point = &told.data_points[0];
    assert_eq!(point.bucket_counts, [2, 2, 1]);
    assert_eq!((point.min, point.max), (Some(0.5), Some(2.5)));
}

#[test]
fn what_was_denied_is_told_by_reason_and_stage() {
    let metrics = Metrics::default();
    metrics.connection_denied(DenyReason::NoRule, Stage::Kernel);
    metrics.connection_denied(DenyReason::NameNotAllowed, Stage::Dns);
    metrics.connection_allowed();
    let connections = sum(&metrics, "postern.connections");
    assert_eq!(connections.len(), 3);
    let failed = samples::request();
    metrics.request(&crate::telemetry::RequestRecord {
        sent: None,
        answered: None,
        provider: None,
        reason: Some(DenyReason::RequestNotAllowed),
        status: Some(403),
        ..failed
    });
    let requests = sum(&metrics, "postern.requests");
    let expected = ["postern.decision", "postern.deny.reason"];
    assert_eq!(keys(&requests[0].attributes), expected);
    let all = metrics.collect();
    assert!(all.iter().all(|m| m.name != "http.client.request.duration"));
}

#[test]
fn names_that_a_sandbox_makes_up_do_not_fill_the_memory() {
    let metrics = Metrics::default();
    for number in 0..3000 {
        let mut record = samples::request();
        record.model = Some(format!("model-{number}"));
        record.host = format!("host-{number}.example");
        record.method = format!("METHOD{number}");
        metrics.request(&record);
    }
    let server = histogram(&metrics, "http.server.request.duration");
    assert_eq!(server.len(), 1, "the method is another");
    for name in ["http.client.request.duration", "gen_ai.client.token.usage"] {
        let points = histogram(&metrics, name);
        assert_eq!(points.len(), 2001);
        let overflow: Vec<_> = points
            .iter()
            .filter(|point| keys(&point.attributes) == ["otel.metric.overflow"])
            .collect();
        assert_eq!(overflow.len(), 1);
        assert!(overflow[0].count >= 1000);
        let value = overflow[0].attributes[0].value.as_ref().unwrap();
        assert_eq!(value.value, Some(any_value::Value::BoolValue(true)));
    }
}

#[test]
fn a_generation_is_a_gauge_and_failures_grow() {
    let metrics = Metrics::default();
    metrics.generation(4);
    metrics.reload_failed();
    metrics.reload_failed();
    let Some(Data::Gauge(gauge)) = find(&metrics, "postern.policy.generation").data else {
        panic!("not a gauge");
    };
    let value = |point: &NumberDataPoint| match point.value {
        Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(n)) => n,
        _ => -1,
    };
    assert_eq!(value(&gauge.data_points[0]), 4);
    let failures = sum(&metrics, "postern.policy.reload.failures");
    assert_eq!(value(&failures[0]), 2);
    // A restart is a new count: what a collector needs to tell it from a reset.
    assert!(failures[0].start_time_unix_nano > 0);
}
