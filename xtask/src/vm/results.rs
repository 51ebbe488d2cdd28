//! What test programs said, as sets: which tests there are and how each of them ended. It compares runs, and refuses to
//! know where they were made.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::kernels::Cannot;

/// How a reason begins that is about a part of a test.
pub(crate) const PARTLY: &str = "but for ";

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// `#[ignore]`d, which only its author can do.
    Ignored,
    /// It says itself that this machine cannot show it, and why.
    Beyond,
    /// Begun and never ended: the program was killed, or the guest fell over.
    Unfinished,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Ignored => "ignored",
            Self::Beyond => "beyond",
            Self::Unfinished => "unfinished",
        })
    }
}

/// `SUITE::TEST` and its end, of one run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Results {
    verdicts: BTreeMap<String, Verdict>,
    /// Of those that are [`Verdict::Beyond`].
    reasons: BTreeMap<String, String>,
    /// `SUITE::TEST` and what of it was not shown.
    parts: Vec<(String, String)>,
}

impl Results {
    /// Adds what the program of `suite` printed (`test NAME ... ok`, as libtest does), and how many that were.
    pub(super) fn read(&mut self, suite: &str, output: &str) -> usize {
        let before = self.verdicts.len();
        // A test that is let to print puts its own lines between its name and its end.
        let mut open: Option<String> = None;
        for line in output.lines() {
            if let Some((name, end)) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.split_once(" ... "))
            {
                // `should panic` is a remark of libtest's, not a part of the name.
                let name = name.strip_suffix(" - should panic").unwrap_or(name);
                let name = format!("{suite}::{name}");
                match verdict(end) {
                    Some(verdict) => {
                        self.verdicts.insert(name, verdict);
                    }
                    None => {
                        self.verdicts.insert(name.clone(), Verdict::Unfinished);
                        open = Some(name);
                    }
                }
            } else if let (Some(name), Some(verdict)) = (&open, verdict(line)) {
                self.verdicts.insert(name.clone(), verdict);
                open = None;
            }
        }
        self.verdicts.len() - before
    }

    /// Did a test of `suite` fail, or not come to its end?
    pub(super) fn has_failed(&self, suite: &str) -> bool {
        self.verdicts.iter().any(|(name, verdict)| {
            matches!(verdict, Verdict::Failed | Verdict::Unfinished)
                && name
                    .strip_prefix(suite)
                    .is_some_and(|rest| rest.starts_with("::"))
        })
    }

    /// Takes in what tests of `suite` say that they cannot show here: a line each, `TEST`, a tab and why. Where that is
    /// "but for" a part, the test is what it is.
    pub(super) fn excuse(&mut self, suite: &str, reasons: &str) {
        for (test, reason) in reasons.lines().filter_map(|line| line.split_once('\t')) {
            let name = format!("{suite}::{test}");
            if reason.starts_with(PARTLY) {
                self.parts.push((name, reason.to_owned()));
                continue;
            }
            // One that failed nevertheless has failed.
            if let Some(verdict) = self.verdicts.get_mut(&name)
                && *verdict == Verdict::Passed
            {
                *verdict = Verdict::Beyond;
                self.reasons.insert(name, reason.to_owned());
            }
        }
    }

    /// Adds a test that was not even begun, and why.
    pub(super) fn beyond(&mut self, suite: &str, test: &str, reason: &str) {
        let name = format!("{suite}::{test}");
        self.verdicts.insert(name.clone(), Verdict::Beyond);
        self.reasons.insert(name, reason.to_owned());
    }

    /// Those with this verdict.
    pub(super) fn with(&self, wanted: Verdict) -> impl Iterator<Item = &str> {
        self.verdicts
            .iter()
            .filter(move |(_, verdict)| **verdict == wanted)
            .map(|(name, _)| name.as_str())
    }

    /// How many with this verdict.
    pub(super) fn count(&self, wanted: Verdict) -> usize {
        self.with(wanted).count()
    }

    /// One line a test, for the file beside the logs.
    pub(super) fn table(&self) -> String {
        self.verdicts
            .iter()
            .map(|(name, verdict)| format!("{verdict}\t{name}\n"))
            .collect()
    }

    /// What was not shown of tests that were: `SUITE::TEST: but for …`.
    pub(super) fn parts(&self) -> impl Iterator<Item = String> {
        self.parts
            .iter()
            .map(|(name, part)| format!("{name}: {part}"))
    }

    /// What is wrong with this run of `kernel`, given the failures that are the kernel's own; and those, with their reasons.
    pub(super) fn judge(&self, kernel: &str, cannot: &[Cannot]) -> Judgement {
        let mut judgement = Judgement::default();
        for (name, verdict) in &self.verdicts {
            let excuse = cannot
                .iter()
                .find(|entry| entry.kernel == kernel && entry.test == name);
            match (verdict, excuse) {
                (Verdict::Beyond, _) => {
                    let reason = self.reasons.get(name).map_or("", String::as_str);
                    judgement.excused.push(format!("{name}: {reason}"));
                }
                (Verdict::Passed | Verdict::Ignored, None) => {}
                (Verdict::Passed | Verdict::Ignored, Some(excuse)) => {
                    judgement.problems.push(format!(
                        "{name} is {verdict}, though it should be beyond this kernel: {}",
                        excuse.reason
                    ))
                }
                (_, Some(excuse)) => judgement.excused.push(format!("{name}: {}", excuse.reason)),
                (_, None) => judgement.problems.push(format!("{name} {verdict}")),
            }
        }
        judgement
    }
}

/// See [`Results::judge`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) problems: Vec<String>,
    pub(super) excused: Vec<String>,
}

fn verdict(text: &str) -> Option<Verdict> {
    let text = text.trim();
    // Two runs of the same machine may differ in a remark (`ignored, because …`) or a time (`ok <1.2s>`).
    let word = text.split([',', ' ']).next().unwrap_or(text);
    match word {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed),
        "ignored" => Some(Verdict::Ignored),
        _ => None,
    }
}

/// Tests that one run has and another has not: `(test, runs without it)`.
pub(super) fn missing<'a>(runs: &[(&'a str, &'a Results)]) -> Vec<(&'a str, Vec<&'a str>)> {
    in_some(runs, |results, test| !results.verdicts.contains_key(test))
}

/// Tests that one run ignores and another runs: `(test, runs that ignore it)`.
pub(super) fn ignored_in_part<'a>(runs: &[(&'a str, &'a Results)]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut found = in_some(runs, |results, test| {
        results.verdicts.get(test) == Some(&Verdict::Ignored)
    });
    found.retain(|(test, with)| {
        let having = runs
            .iter()
            .filter(|(_, results)| results.verdicts.contains_key(*test));
        with.len() < having.count()
    });
    found
}

/// Every test of any run, with the runs that `is_so` holds for.
fn in_some<'a>(
    runs: &[(&'a str, &'a Results)],
    is_so: impl Fn(&Results, &str) -> bool,
) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut everywhere: Vec<&str> = runs
        .iter()
        .flat_map(|(_, results)| results.verdicts.keys().map(String::as_str))
        .collect();
    everywhere.sort_unstable();
    everywhere.dedup();
    everywhere
        .into_iter()
        .filter_map(|test| {
            let with: Vec<&str> = runs
                .iter()
                .filter(|(_, results)| is_so(results, test))
                .map(|(run, _)| *run)
                .collect();
            (!with.is_empty()).then_some((test, with))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 5 tests\ntest a::b ... ok\ntest a sentence ... FAILED\ntest c - should panic ... ok\n\
        test d ... ignored, needs a GPU\ntest talks ... a line of its own\nok\ntest cut ... ";

    fn results() -> Results {
        let mut results = Results::default();
        assert_eq!(results.read("s", OUTPUT), 6);
        results
    }

    #[test]
    fn every_end_of_a_test_is_told_apart() {
        let results = results();
        let all = |wanted| results.with(wanted).collect::<Vec<_>>();
        assert_eq!(all(Verdict::Passed), ["s::a::b", "s::c", "s::talks"]);
        assert_eq!(all(Verdict::Failed), ["s::a sentence"]);
        assert_eq!(all(Verdict::Ignored), ["s::d"]);
        assert_eq!(all(Verdict::Unfinished), ["s::cut"]);
    }

    #[test]
    fn a_test_that_cannot_show_anything_here_is_named_with_its_reason() {
        let mut results = results();
        results.excuse("s", "a::b\tno such hook\na sentence\twhatever\nnobody\twhy");
        results.excuse("s", "talks\tbut for vsock: no such family");
        assert_eq!(
            results.parts().collect::<Vec<_>>(),
            ["s::talks: but for vsock: no such family"]
        );
        assert!(results.with(Verdict::Passed).any(|test| test == "s::talks"));
        assert!(results.has_failed("s") && !results.has_failed("t"));
        assert_eq!(
            results.with(Verdict::Beyond).collect::<Vec<_>>(),
            ["s::a::b"]
        );
        assert_eq!(results.judge("1.0", &[]).excused, ["s::a::b: no such hook"]);
        assert_eq!(results.count(Verdict::Failed), 1);
        results.beyond("t", "other", "booted without it");
        let excused = results.judge("1.0", &[]).excused;
        assert_eq!(excused[1], "t::other: booted without it");
    }

    #[test]
    fn an_excuse_counts_for_its_kernel_and_only_for_a_failure() {
        let excuse = |test| Cannot {
            kernel: "1.0",
            test,
            reason: "no such hook",
        };
        let cannot = [excuse("s::a sentence"), excuse("s::a::b")];
        let judgement = results().judge("1.0", &cannot);
        assert_eq!(judgement.excused, ["s::a sentence: no such hook"]);
        assert_eq!(judgement.problems.len(), 2, "{judgement:?}");
        assert!(judgement.problems[0].contains("a::b"));
        assert_eq!(results().judge("2.0", &cannot).excused, [""; 0]);
    }

    #[test]
    fn a_test_that_one_run_has_not_is_missed() {
        let mut other = results();
        other.verdicts.remove("s::d");
        let whole = results();
        let runs = [("host", &whole), ("1.0", &other)];
        assert_eq!(missing(&runs), [("s::d", vec!["1.0"])]);
        assert!(ignored_in_part(&runs).is_empty(), "missed is not ignored");
    }
}
