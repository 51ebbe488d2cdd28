//! Samples of several measures, each taken on several paths in turn. It refuses to know what was measured, and compares
//! within a round alone: what disturbs a round disturbs all of its paths.

use std::collections::BTreeMap;

use super::bars::{BARS, Bar};
use super::spread::Spread;
use crate::Failure;

/// The path that others are compared with.
pub(super) const OURS: &str = "postern";

/// All that a program said, in the order in which it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Samples {
    pub(super) measures: Vec<Measure>,
}

/// By path, in the order in which they came first; values by round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) unit: String,
    paths: Vec<(String, BTreeMap<u32, i64>)>,
}

/// A bar, and what one run says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) bar: Bar,
    /// Hundredths.
    pub(super) found: Spread,
}

impl Samples {
    /// Lines as `unit MEASURE UNIT` and `sample MEASURE PATH ROUND VALUE`; other lines are for people.
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        let mut samples = Self::default();
        for said in text.lines() {
            let wrong = || Failure::failed(format!("no sample: {said}"));
            let words: Vec<&str> = said.split_whitespace().collect();
            match words.as_slice() {
                ["unit", name, unit] => samples.measures.push(Measure {
                    name: (*name).to_owned(),
                    unit: (*unit).to_owned(),
                    paths: Vec::new(),
                }),
                ["sample", name, path, round, value] => {
                    let known = samples.measures.iter_mut();
                    let measure = known
                        .rev()
                        .find(|known| known.name == *name)
                        .ok_or_else(wrong)?;
                    let round = round.parse().map_err(|_error| wrong())?;
                    measure.add(path, round, value.parse().map_err(|_error| wrong())?);
                }
                _ => {}
            }
        }
        samples.measures.retain(|measure| !measure.paths.is_empty());
        if samples.measures.is_empty() {
            return Err(Failure::failed("nothing was measured"));
        }
        Ok(samples)
    }

    /// The bars that this run can say something of.
    pub(super) fn judged(&self) -> Vec<Judged> {
        let judge = |bar: &Bar| {
            let measure = self.measures.iter().find(|one| one.name == bar.measure)?;
            let found = match bar.against {
                Some(other) => measure.ratio(OURS, other)?,
                None => measure.spread_by(OURS, |value| value * 100)?,
            };
            Some(Judged { bar: *bar, found })
        };
        BARS.iter().filter_map(judge).collect()
    }
}

impl Measure {
    /// Those that it was taken on.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(|(name, _)| name.as_str())
    }

    /// Of the rounds of `path`.
    pub(super) fn spread(&self, path: &str) -> Option<Spread> {
        self.spread_by(path, |value| value)
    }

    /// `path` divided by `other`, hundredths, of the rounds that have both.
    pub(super) fn ratio(&self, path: &str, other: &str) -> Option<Spread> {
        let (ours, theirs) = (self.values(path)?, self.values(other)?);
        let ratios = ours.iter().filter_map(|(round, value)| {
            let other = *theirs.get(round)?;
            // A path that did nothing in a round is no measure of another.
            (other > 0).then(|| value * 100 / other)
        });
        Spread::of(ratios.collect())
    }

    /// How many rounds there are of `path`.
    pub(super) fn rounds(&self, path: &str) -> usize {
        self.values(path).map_or(0, BTreeMap::len)
    }

    fn add(&mut self, path: &str, round: u32, value: i64) {
        let known = self.paths.iter().position(|(name, _)| name == path);
        let index = known.unwrap_or_else(|| {
            self.paths.push((path.to_owned(), BTreeMap::new()));
            self.paths.len() - 1
        });
        self.paths[index].1.insert(round, value);
    }

    fn spread_by(&self, path: &str, by: impl Fn(i64) -> i64) -> Option<Spread> {
        Spread::of(self.values(path)?.values().copied().map(by).collect())
    }

    fn values(&self, path: &str) -> Option<&BTreeMap<u32, i64>> {
        let found = self.paths.iter().find(|(name, _)| name == path);
        found.map(|(_, values)| values)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::bars::Side;
    use super::*;

    const SAID: &str = "a word for people
unit h1_1k req/s
unit nothing req/s
sample h1_1k envoy 0 100
sample h1_1k postern 0 180
sample h1_1k postern 1 50
sample h1_1k envoy 1 20
sample h1_1k envoy 2 1000
sample h1_1k postern 2 1400
sample h1_1k mitmproxy 0 0
";

    #[test]
    fn a_ratio_is_of_the_halves_of_a_round() {
        let samples = Samples::read(SAID).unwrap();
        let [measure] = samples.measures.as_slice() else {
            panic!("{samples:?}");
        };
        assert_eq!(measure.ratio("postern", "envoy").unwrap().median, 180);
        assert_eq!(measure.spread("postern").unwrap().median, 180);
        assert_eq!(measure.ratio("postern", "mitmproxy"), None);
        let judged = samples.judged();
        let [one] = judged.as_slice() else {
            panic!("{judged:?}");
        };
        assert_eq!(
            (one.bar.against, one.bar.side),
            (Some("envoy"), Side::AtLeast)
        );
        assert!(one.bar.is_met(one.found.median, one.bar.bar));
        assert!(!one.bar.is_met(one.found.median, one.bar.aim));
    }

    #[test]
    fn what_is_no_sample_is_an_error() {
        for wrong in [
            "",
            "unit h1_1k req/s",
            "sample h1_1k envoy 0 1",
            "unit a b\nsample a envoy 0 1.5",
            "unit a b\nsample a envoy x 1",
        ] {
            assert!(Samples::read(wrong).is_err(), "{wrong}");
        }
    }
}
