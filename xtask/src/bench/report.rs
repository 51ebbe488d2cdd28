//! Samples of several measures, each taken without and with what is measured, as a table or as JSON.
//! It refuses to know what was measured, and to judge by less than what one run shows.

use std::collections::BTreeMap;

use super::spread::{Spread, decimal};
use crate::Failure;
use crate::console::{Console, Style, line};

/// What a measure may cost.
pub(super) struct Bar {
    /// Which one.
    pub(super) measure: &'static str,
    /// With less without, median over the rounds, nanoseconds.
    pub(super) most: i64,
    /// And what is aimed at.
    pub(super) aim: i64,
}

/// By measure, in the order in which they came: per round, without and with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Samples {
    order: Vec<String>,
    rounds: BTreeMap<String, BTreeMap<u32, Pair>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Pair {
    without: Option<i64>,
    with: Option<i64>,
}

/// What is told of one measure, nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    without: Spread,
    with: Spread,
    /// Of each round's difference: what disturbs a round disturbs both its halves.
    cost: Spread,
}

impl Samples {
    /// Lines as `sample MEASURE without|with ROUND NANOSECONDS`; other lines are for people.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let mut samples = Self::default();
        for said in text.lines() {
            let words: Vec<&str> = said.split_whitespace().collect();
            let ["sample", measure, side, round, value] = words.as_slice() else {
                continue;
            };
            let wrong = || Failure::failed(format!("no sample: {said}"));
            let value: i64 = value.parse().map_err(|_error| wrong())?;
            let round: u32 = round.parse().map_err(|_error| wrong())?;
            if !samples.rounds.contains_key(*measure) {
                samples.order.push((*measure).to_owned());
            }
            let rounds = samples.rounds.entry((*measure).to_owned()).or_default();
            let pair = rounds.entry(round).or_default();
            match *side {
                "without" => pair.without = Some(value),
                "with" => pair.with = Some(value),
                _ => return Err(wrong()),
            }
        }
        if samples.order.is_empty() {
            return Err(Failure::failed("nothing was measured"));
        }
        Ok(samples)
    }

    fn summary(&self, measure: &str) -> Result<Summary, Failure> {
        let pairs: Vec<(i64, i64)> = self
            .rounds
            .get(measure)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|pair| Some((pair.without?, pair.with?)))
            .collect();
        let spread = |values: Vec<i64>| {
            Spread::of(values)
                .ok_or_else(|| Failure::failed(format!("{measure}: no round has both halves")))
        };
        Ok(Summary {
            without: spread(pairs.iter().map(|(without, _)| *without).collect())?,
            with: spread(pairs.iter().map(|(_, with)| *with).collect())?,
            cost: spread(pairs.iter().map(|(without, with)| with - without).collect())?,
        })
    }
}

/// Tells all of it. A bar that is not met is said, and no failure: figures of a busy machine say little.
pub(super) fn tell(
    console: Console,
    bench: &str,
    samples: &Samples,
    bars: &[Bar],
    json: bool,
) -> Result<(), Failure> {
    let summaries = samples
        .order
        .iter()
        .map(|measure| Ok((measure.as_str(), samples.summary(measure)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    if json {
        line(as_json(bench, samples, &summaries, bars));
        return Ok(());
    }
    line(format_args!(
        "{:<14}{:>12}{:>12}{:>8}   what it costs more (quartiles)",
        "measure", "without", "with", "ratio"
    ));
    for (measure, told) in &summaries {
        line(format_args!(
            "{measure:<14}{:>12}{:>12}{:>8}   {} ({} to {})",
            nanoseconds(told.without.median),
            nanoseconds(told.with.median),
            ratio(told),
            nanoseconds(told.cost.median),
            nanoseconds(told.cost.low),
            nanoseconds(told.cost.high),
        ));
    }
    for bar in bars {
        let Some((_, told)) = summaries.iter().find(|(name, _)| *name == bar.measure) else {
            return Err(Failure::failed(format!("{} was not measured", bar.measure)));
        };
        let (style, word) = match told.cost.median {
            cost if cost <= bar.aim => (Style::Good, "what is aimed at"),
            cost if cost <= bar.most => (Style::Good, "within the bar"),
            _ => (Style::Warn, "beyond the bar"),
        };
        line(format_args!(
            "{}: {} costs {} more; at most {}, better {}",
            console.paint(style, word),
            bar.measure,
            nanoseconds(told.cost.median),
            nanoseconds(bar.most),
            nanoseconds(bar.aim),
        ));
    }
    Ok(())
}

/// `820 ns`, `1.35 µs`.
fn nanoseconds(value: i64) -> String {
    if value.abs() < 1000 {
        return format!("{value} ns");
    }
    format!("{} µs", decimal(value / 10))
}

/// With against without, of the medians: `1.35`.
fn ratio(told: &Summary) -> String {
    decimal(told.with.median * 100 / told.without.median.max(1))
}

/// Measures, sides and numbers alone: nothing that would have to be escaped.
fn as_json(bench: &str, samples: &Samples, summaries: &[(&str, Summary)], bars: &[Bar]) -> String {
    let mut text = format!("{{\"bench\":\"{bench}\",\"unit\":\"ns\",\"measures\":[");
    for (index, (measure, told)) in summaries.iter().enumerate() {
        let rounds = samples.rounds.get(*measure).map_or(0, BTreeMap::len);
        let comma = if index == 0 { "" } else { "," };
        text += &format!(
            "{comma}{{\"measure\":\"{measure}\",\"rounds\":{rounds},\"without\":{},\"with\":{},\"cost\":{},\"ratio\":{}}}",
            told.without.json(),
            told.with.json(),
            told.cost.json(),
            ratio(told),
        );
    }
    text.push_str("],\"bars\":[");
    for (index, bar) in bars.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text += &format!(
            "{comma}{{\"measure\":\"{}\",\"most\":{},\"aim\":{}}}",
            bar.measure, bar.most, bar.aim
        );
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const SAID: &str = "a word for people
sample connect without 0 1000
sample connect with 0 2300
sample connect with 1 9100
sample connect without 1 8000
sample connect without 2 1200
sample connect with 2 2400
sample connect without 3 1
";

    #[test]
    fn what_a_round_costs_is_the_difference_of_its_halves() {
        let told = Samples::read(SAID).unwrap().summary("connect").unwrap();
        assert_eq!(told.cost.median, 1200, "{told:?}");
        assert_eq!((told.cost.low, told.cost.high), (1200, 1300));
        assert_eq!(told.without.median, 1200);
        assert_eq!(ratio(&told), "2.00");
    }

    #[test]
    fn json_has_each_measure_and_each_bar() {
        let samples = Samples::read(SAID).unwrap();
        let told = samples.summary("connect").unwrap();
        let bar = Bar {
            measure: "connect",
            most: 2,
            aim: 1,
        };
        assert_eq!(
            as_json("kernel", &samples, &[("connect", told)], &[bar]),
            "{\"bench\":\"kernel\",\"unit\":\"ns\",\"measures\":[{\"measure\":\"connect\",\"rounds\":4,\
             \"without\":{\"median\":1200,\"low\":1200,\"high\":8000},\
             \"with\":{\"median\":2400,\"low\":2400,\"high\":9100},\
             \"cost\":{\"median\":1200,\"low\":1200,\"high\":1300},\"ratio\":2.00}],\
             \"bars\":[{\"measure\":\"connect\",\"most\":2,\"aim\":1}]}"
        );
    }

    #[test]
    fn no_samples_are_no_result() {
        for wrong in [
            "",
            "sample connect",
            "sample connect aside 0 1",
            "sample c with x 1",
        ] {
            assert!(Samples::read(wrong).is_err(), "{wrong}");
        }
        let half = Samples::read("sample connect with 0 1").unwrap();
        assert!(half.summary("connect").is_err());
    }

    #[test]
    fn times_are_as_short_as_they_are_clear() {
        for (value, text) in [
            (999, "999 ns"),
            (-30, "-30 ns"),
            (1350, "1.35 µs"),
            (-1350, "-1.35 µs"),
            (38_913, "38.91 µs"),
        ] {
            assert_eq!(nanoseconds(value), text);
        }
    }
}
