//! Counters, histograms and families of them, one member a series, as OTLP data points. Bounded: what a
//! sandbox names must not fill the memory.

use crate::telemetry::otlp::attributes::{flag, nanoseconds, signed};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram as Histograms, HistogramDataPoint, Metric,
    NumberDataPoint, Sum,
};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

/// Series of one metric; the rest is counted together (the cardinality limit that OpenTelemetry's metrics
/// SDK specification has as its default).
const MAX_SERIES: usize = 2000;

/// What tells a series from the others.
pub(super) trait Series: Clone + Eq + Hash {
    /// As attributes.
    fn attributes(&self) -> Vec<KeyValue>;
}

/// What a series holds.
pub(super) trait Instrument {
    /// The metric made of all members.
    fn data(members: &[Arc<Member<Self>>], since: u64, now: u64) -> Data
    where
        Self: Sized;
}

/// All series of one metric.
pub(super) struct Family<S, I> {
    make: Box<dyn Fn() -> I + Send + Sync>,
    members: RwLock<HashMap<S, Arc<Member<I>>>>,
    /// For series beyond the limit.
    overflow: OnceLock<Arc<Member<I>>>,
}

/// One series.
pub(super) struct Member<I> {
    attributes: Vec<KeyValue>,
    instrument: I,
}

impl<S: Series, I: Instrument> Family<S, I> {
    fn new(make: impl Fn() -> I + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            members: RwLock::default(),
            overflow: OnceLock::new(),
        }
    }

    /// Does something to the instrument of a series.
    pub(super) fn with(&self, series: &S, act: impl FnOnce(&I)) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get(series) {
            return act(&member.instrument);
        }
        drop(members);
        act(&self.member(series).instrument);
    }

    /// The metric, if there is anything to tell.
    pub(super) fn collect(
        &self,
        since: SystemTime,
        name: &str,
        unit: &str,
        description: &str,
    ) -> Option<Metric> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = members.values().cloned().collect();
        drop(members);
        all.extend(self.overflow.get().cloned());
        let (since, now) = (nanoseconds(since), nanoseconds(SystemTime::now()));
        let data = (!all.is_empty()).then(|| I::data(&all, since, now))?;
        Some(metric(name, unit, description, data))
    }

    fn member(&self, series: &S) -> Arc<Member<I>> {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get(series) {
            return Arc::clone(member);
        }
        let new = |attributes| {
            Arc::new(Member {
                attributes,
                instrument: (self.make)(),
            })
        };
        if members.len() >= MAX_SERIES {
            let overflow = || new(vec![flag("otel.metric.overflow", true)]);
            return Arc::clone(self.overflow.get_or_init(overflow));
        }
        let member = new(series.attributes());
        members.insert(series.clone(), Arc::clone(&member));
        member
    }
}

impl<S: Series> Family<S, Counter> {
    pub(super) fn counters() -> Self {
        Self::new(Counter::default)
    }
}

impl<S: Series> Family<S, Histogram> {
    pub(super) fn histograms(buckets: Buckets) -> Self {
        Self::new(move || Histogram::new(buckets))
    }
}

/// Only ever grows.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl Instrument for Counter {
    fn data(members: &[Arc<Member<Self>>], since: u64, now: u64) -> Data {
        let points = members.iter().map(|member| {
            let value = member.instrument.0.load(Ordering::Relaxed);
            point(member.attributes.clone(), value, since, now)
        });
        sum(points.collect())
    }
}

/// Upper bounds, ascending.
#[derive(Clone, Copy)]
pub(super) struct Buckets(pub(super) &'static [f64]);

/// How values are spread.
pub(super) struct Histogram {
    bounds: &'static [f64],
    // Held for one addition: cheaper than the atomics that would have to agree.
    state: Mutex<Spread>,
}

struct Spread {
    counts: Vec<u64>,
    sum: f64,
    least: f64,
    most: f64,
}

impl Histogram {
    fn new(Buckets(bounds): Buckets) -> Self {
        Self {
            bounds,
            state: Mutex::new(Spread {
                counts: vec![0; bounds.len() + 1],
                sum: 0.0,
                least: f64::INFINITY,
                most: f64::NEG_INFINITY,
            }),
        }
    }

    pub(super) fn record(&self, value: f64) {
        // A bound belongs to the bucket beneath it.
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = state.counts.get_mut(bucket) {
            *count += 1;
        }
        state.sum += value;
        state.least = state.least.min(value);
        state.most = state.most.max(value);
    }

    fn point(&self, attributes: Vec<KeyValue>, since: u64, now: u64) -> HistogramDataPoint {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.counts.iter().sum();
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: since,
            time_unix_nano: now,
            count,
            sum: Some(state.sum),
            bucket_counts: state.counts.clone(),
            explicit_bounds: self.bounds.to_vec(),
            min: (count > 0).then_some(state.least),
            max: (count > 0).then_some(state.most),
            ..HistogramDataPoint::default()
        }
    }
}

impl Instrument for Histogram {
    fn data(members: &[Arc<Member<Self>>], since: u64, now: u64) -> Data {
        let points = members.iter().map(|member| {
            let attributes = member.attributes.clone();
            member.instrument.point(attributes, since, now)
        });
        Data::Histogram(Histograms {
            data_points: points.collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        })
    }
}

/// A metric of one series that only grows.
pub(super) fn monotonic(
    since: SystemTime,
    value: u64,
    name: &str,
    unit: &str,
    description: &str,
) -> Option<Metric> {
    let now = nanoseconds(SystemTime::now());
    let point = point(Vec::new(), value, nanoseconds(since), now);
    Some(metric(name, unit, description, sum(vec![point])))
}

/// A metric of one series that is what it is.
pub(super) fn gauge(value: u64, name: &str, unit: &str, description: &str) -> Option<Metric> {
    let point = point(Vec::new(), value, 0, nanoseconds(SystemTime::now()));
    let data = Data::Gauge(Gauge {
        data_points: vec![point],
    });
    Some(metric(name, unit, description, data))
}

fn sum(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum {
        data_points,
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: true,
    })
}

fn point(attributes: Vec<KeyValue>, value: u64, since: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(Value::AsInt(signed(value))),
        ..NumberDataPoint::default()
    }
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}
