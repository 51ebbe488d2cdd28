//! A median and the quartiles around it. It refuses to know what of.

/// The median, and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) median: i64,
    pub(super) low: i64,
    pub(super) high: i64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(mut values: Vec<i64>) -> Option<Self> {
        values.sort_unstable();
        let at = |quarter: usize| values.get((values.len().checked_sub(1)? * quarter + 2) / 4);
        Some(Self {
            median: *at(2)?,
            low: *at(1)?,
            high: *at(3)?,
        })
    }

    /// As a JSON object.
    pub(super) fn json(self) -> String {
        let Self { median, low, high } = self;
        format!("{{\"median\":{median},\"low\":{low},\"high\":{high}}}")
    }
}

/// Hundredths, as a person writes them: `1.35`.
pub(super) fn decimal(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let hundredths = hundredths.abs();
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}
