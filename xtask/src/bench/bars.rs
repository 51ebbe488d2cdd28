//! What a measure must come to, and what is aimed at, as ratios within a run where there is something to compare with.
//! It refuses to know how anything is measured.

/// A bar for the path `postern` of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) measure: &'static str,
    /// The path that it is divided by; `None`: the value itself counts.
    pub(super) against: Option<&'static str>,
    pub(super) side: Side,
    /// Hundredths of a ratio, or of the measure's unit.
    pub(super) bar: i64,
    /// Better than the bar, and what is aimed at.
    pub(super) aim: i64,
}

/// Which side of the bar is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    AtLeast,
    AtMost,
}

/// All of them.
pub(super) const BARS: &[Bar] = &[
    least("h1_1k", "envoy", 150, 200),
    least("h2_1k", "envoy", 150, 200),
    least("h1_64k", "envoy", 150, 200),
    least("h2_64k", "envoy", 150, 200),
    least("sse", "envoy", 150, 200),
    most("h1_p50", "envoy", 80, 50),
    most("h1_p99", "envoy", 80, 50),
    most("h2_p50", "envoy", 80, 50),
    most("h2_p99", "envoy", 80, 50),
    least("h1_1k", "mitmproxy", 2500, 2500),
    least("cold_1k", "envoy", 120, 200),
    least("bulk", "direct", 90, 95),
    most("first_byte", "direct", 50, 40),
    most("first_byte_h1", "direct", 50, 40),
    most("first_byte_py", "direct", 50, 40),
    most("decision", "small", 120, 110),
    most("kernel_decision", "small", 120, 110),
    least("traced_1k", "off", 90, 95),
    absolute("rss_idle", 25 * 1024, 20 * 1024),
    absolute("rss_per_connection", 12 * 1024, 10 * 1024),
];

impl Bar {
    /// Whether `hundredths` are on the good side of `limit`.
    pub(super) fn is_met(&self, hundredths: i64, limit: i64) -> bool {
        match self.side {
            Side::AtLeast => hundredths >= limit,
            Side::AtMost => hundredths <= limit,
        }
    }

    /// `at least` or `at most`.
    pub(super) fn words(&self) -> &'static str {
        match self.side {
            Side::AtLeast => "at least",
            Side::AtMost => "at most",
        }
    }
}

const fn least(measure: &'static str, against: &'static str, bar: i64, aim: i64) -> Bar {
    Bar {
        measure,
        against: Some(against),
        side: Side::AtLeast,
        bar,
        aim,
    }
}

const fn most(measure: &'static str, against: &'static str, bar: i64, aim: i64) -> Bar {
    Bar {
        measure,
        against: Some(against),
        side: Side::AtMost,
        bar,
        aim,
    }
}

/// `bar` and `aim` in whole units.
const fn absolute(measure: &'static str, bar: i64, aim: i64) -> Bar {
    Bar {
        measure,
        against: None,
        side: Side::AtMost,
        bar: bar * 100,
        aim: aim * 100,
    }
}
