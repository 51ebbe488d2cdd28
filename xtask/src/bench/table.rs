//! Compared samples as a table or as JSON. It refuses to fail for a bar that is not met: figures of a busy machine say
//! little, and what they say is printed.

use super::compare::{Judged, Measure, OURS, Samples};
use super::spread::{Spread, decimal};
use crate::console::{Console, Style, line, result};

/// Tells all of it: the medians with their quartiles, what is ours against each other path, and the bars.
pub(super) fn tell(console: Console, bench: &str, samples: &Samples, json: bool) {
    let judged = samples.judged();
    if json {
        return result(as_json(bench, samples, &judged));
    }
    line(format_args!(
        "{:<26}{:<10}{:>10}   {:<19} {OURS} against it (quartiles)",
        "measure", "path", "median", "quartiles"
    ));
    for measure in &samples.measures {
        for path in measure.paths() {
            line(row(measure, path));
        }
    }
    for one in &judged {
        line(verdict(console, one));
    }
}

fn row(measure: &Measure, path: &str) -> String {
    let Some(Spread { median, low, high }) = measure.spread(path) else {
        return String::new();
    };
    let against = measure.ratio(OURS, path).filter(|_| path != OURS);
    let against = against.map_or_else(String::new, |ratio| {
        format!(
            "{}x ({} to {})",
            decimal(ratio.median),
            decimal(ratio.low),
            decimal(ratio.high)
        )
    });
    format!(
        "{:<26}{path:<10}{median:>10}   {:<19} {against}",
        format!("{} {}", measure.name, measure.unit),
        format!("{low} to {high}"),
    )
}

fn verdict(console: Console, Judged { bar, found }: &Judged) -> String {
    let (style, word) = if bar.is_met(found.median, bar.aim) {
        (Style::Good, "aim met")
    } else if bar.is_met(found.median, bar.bar) {
        (Style::Good, "met")
    } else {
        (Style::Warn, "not met")
    };
    let (against, times) = match bar.against {
        Some(other) => (format!(" against {other}"), "x"),
        None => (String::new(), ""),
    };
    format!(
        "{}: {}{against} is {}{times}; {} {}{times}, better {}{times}",
        console.paint(style, word),
        bar.measure,
        decimal(found.median),
        bar.words(),
        decimal(bar.bar),
        decimal(bar.aim),
    )
}

/// Names, units and numbers alone: nothing that would have to be escaped.
fn as_json(bench: &str, samples: &Samples, judged: &[Judged]) -> String {
    let measures = samples.measures.iter().map(|measure| {
        let paths = measure.paths().filter_map(|path| {
            let value = measure.spread(path)?.json();
            let ratio = measure.ratio(OURS, path).filter(|_| path != OURS);
            let ratio = ratio.map_or_else(String::new, |ratio| {
                format!(",\"ours_against_it\":{}", hundredths(ratio))
            });
            let rounds = measure.rounds(path);
            Some(format!(
                "{{\"path\":\"{path}\",\"rounds\":{rounds},\"value\":{value}{ratio}}}"
            ))
        });
        format!(
            "{{\"measure\":\"{}\",\"unit\":\"{}\",\"paths\":[{}]}}",
            measure.name,
            measure.unit,
            paths.collect::<Vec<_>>().join(",")
        )
    });
    let bars = judged.iter().map(|Judged { bar, found }| {
        let against = bar
            .against
            .map_or_else(|| "null".to_owned(), |other| format!("\"{other}\""));
        format!(
            "{{\"measure\":\"{}\",\"against\":{against},\"found\":{},\"{}\":{},\"aim\":{},\"met\":{}}}",
            bar.measure,
            decimal(found.median),
            bar.words().replace(' ', "_"),
            decimal(bar.bar),
            decimal(bar.aim),
            bar.is_met(found.median, bar.bar),
        )
    });
    format!(
        "{{\"bench\":\"{bench}\",\"measures\":[{}],\"bars\":[{}]}}",
        measures.collect::<Vec<_>>().join(","),
        bars.collect::<Vec<_>>().join(",")
    )
}

fn hundredths(Spread { median, low, high }: Spread) -> String {
    let [median, low, high] = [median, low, high].map(decimal);
    format!("{{\"median\":{median},\"low\":{low},\"high\":{high}}}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn json_says_each_path_and_each_bar() {
        let said = "unit h1_1k req/s\nsample h1_1k direct 0 500\nsample h1_1k envoy 0 100\nsample h1_1k postern 0 120";
        let samples = Samples::read(said).unwrap();
        let json = as_json("http", &samples, &samples.judged());
        assert!(
            json.contains(r#""path":"direct","rounds":1,"value":{"median":500,"low":500,"high":500},"ours_against_it":{"median":0.24"#),
            "{json}"
        );
        assert!(
            json.ends_with(
                r#""bars":[{"measure":"h1_1k","against":"envoy","found":1.20,"at_least":1.50,"aim":2.00,"met":false}]}"#
            ),
            "{json}"
        );
    }
}
