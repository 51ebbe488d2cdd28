//! What a collector was told, as a suite wants to ask about it: spans, log records, metrics. It refuses
//! to know what they ought to say.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{self as metrics, NumberDataPoint};
use opentelemetry_proto::tonic::trace::v1 as proto;
use serde_json::{Map, Value, json};

/// A span, and the attributes of the resource it came from.
#[derive(Clone, Debug)]
pub struct Span {
    pub(super) span: proto::Span,
    pub(super) resource: Vec<KeyValue>,
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

/// A log record, and the attributes of the resource it came from.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) log: LogRecord,
    pub(super) resource: Vec<KeyValue>,
}

impl Log {
    /// The name of the event.
    pub fn name(&self) -> &str {
        &self.log.event_name
    }

    /// `INFO`, `WARN` or `ERROR`.
    pub fn severity(&self) -> &str {
        &self.log.severity_text
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.log.attributes, name)
    }

    /// The span it belongs to, in hexadecimal; empty without one.
    pub fn span_id(&self) -> String {
        crate::digest::hex(&self.log.span_id)
    }

    /// Everything, as a person would want to read it.
    pub fn to_json(&self) -> Value {
        let body = self.log.body.as_ref().map_or(Value::Null, of_any);
        json!({
            "name": self.name(),
            "severity": self.severity(),
            "body": body,
            "attributes": object(&self.log.attributes),
            "resource": object(&self.resource),
        })
    }
}

/// A metric as it was exported once.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// `sum`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// One a series.
    pub points: Vec<Point>,
    /// The attributes of the resource it came from.
    pub resource: Map<String, Value>,
}

/// One series of a metric.
#[derive(Clone, Debug)]
pub struct Point {
    /// What tells it from the others.
    pub attributes: Map<String, Value>,
    /// The value; of a histogram the sum.
    pub value: f64,
    /// How many values a histogram has.
    pub count: u64,
}

impl Metric {
    pub(super) fn new(metric: metrics::Metric, resource: &[KeyValue]) -> Self {
        let numbers = |points: Vec<NumberDataPoint>| points.into_iter().map(number).collect();
        let (kind, points) = match metric.data {
            Some(Data::Sum(sum)) if sum.is_monotonic => ("sum", numbers(sum.data_points)),
            Some(Data::Gauge(gauge)) => ("gauge", numbers(gauge.data_points)),
            Some(Data::Histogram(histogram)) => {
                let points = histogram.data_points.into_iter().map(|point| Point {
                    attributes: object(&point.attributes),
                    value: point.sum.unwrap_or_default(),
                    count: point.count,
                });
                ("histogram", points.collect())
            }
            _ => ("unknown", Vec::new()),
        };
        Self {
            name: metric.name,
            unit: metric.unit,
            kind,
            points,
            resource: object(resource),
        }
    }

    /// The sum over the series that have all of `wanted`.
    pub fn total(&self, wanted: &[(&str, &str)]) -> f64 {
        let has = |point: &&Point| {
            wanted
                .iter()
                .all(|(key, value)| point.attributes.get(*key) == Some(&json!(value)))
        };
        self.points
            .iter()
            .filter(has)
            .map(|point| point.value)
            .sum()
    }
}

fn number(point: NumberDataPoint) -> Point {
    let value = match point.value {
        // Exact up to 2^53.
        Some(Number::AsInt(number)) => number as f64,
        Some(Number::AsDouble(number)) => number,
        None => f64::NAN,
    };
    Point {
        attributes: object(&point.attributes),
        value,
        count: 1,
    }
}

fn of_any(value: &AnyValue) -> Value {
    value.value.as_ref().map_or(Value::Null, to_json)
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
