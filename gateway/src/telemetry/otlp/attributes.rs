//! Attributes as OTLP has them, and those that every span and log record of a sandbox bears.

use super::encode::Attributes;
use crate::telemetry::record::Who;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use std::time::{SystemTime, UNIX_EPOCH};

pub(in crate::telemetry) fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// OTLP integers are signed; a count beyond that would be a mistake elsewhere.
pub(in crate::telemetry) fn number(key: impl Into<String>, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(signed(value)))
}

pub(in crate::telemetry) fn flag(key: impl Into<String>, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

pub(super) fn texts(key: impl Into<String>, values: &[String]) -> KeyValue {
    let values = values.iter().cloned().map(string).collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

/// A value on its own: the body of a log record.
pub(super) fn string(value: String) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value)),
    }
}

pub(in crate::telemetry) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// As OTLP writes times. Zero before 1970, which means "unknown" there.
pub(in crate::telemetry) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whose it was and where it was meant to go.
pub(super) fn of_who(who: &Who, to: &mut impl Attributes) {
    to.text("postern.sandbox", &who.sandbox);
    to.number("postern.cgroup.id", who.cgroup);
    to.number("process.pid", who.tgid.into());
    to.text("process.executable.name", &who.comm);
    to.text("user.id", &who.uid.to_string());
    to.number("postern.generation", who.generation);
    to.text("destination.address", &who.destination.ip().to_string());
    to.number("destination.port", who.destination.port().into());
    to.present([("process.executable.path", who.executable.as_deref())]);
}

fn attribute(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
