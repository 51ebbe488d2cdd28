//! `docs/bench.svg`: what the last run of each member said, a row a measure, a bar a path, each as long as its share of the
//! longest of its measure. By hand: a bar is a rectangle. It refuses to compare measures with one another.

use std::fs;

use super::Order;
use super::compare::{Measure, Samples};
use super::traffic::kept;
use crate::Failure;
use crate::console::{Console, line};
use crate::workspace::Workspace;

/// Where the figure is, in the checkout.
const FIGURE: &str = "docs/bench.svg";
/// Which member's samples are drawn, and in which order.
const DRAWN: &[&str] = &["http", "tls", "splice", "cold", "telemetry"];
/// Pixels: of a bar, of the gap below a measure, of the columns.
const ROW: usize = 16;
const GAP: usize = 14;
const NAMES: usize = 250;
const WIDTH: usize = 760;
/// By path: ours stands out.
const COLOURS: &[(&str, &str)] = &[
    ("postern", "#1f6feb"),
    ("direct", "#9aa4af"),
    ("off", "#9aa4af"),
    ("envoy", "#b07cc6"),
    ("mitmproxy", "#d99a6c"),
];

pub(super) fn run(workspace: &Workspace, _: Console, _: &Order) -> Result<(), Failure> {
    let mut measures = Vec::new();
    for member in DRAWN {
        let file = kept(workspace).join(format!("{member}.txt"));
        if let Ok(text) = fs::read_to_string(file) {
            measures.extend(Samples::read(&text)?.measures);
        }
    }
    if measures.is_empty() {
        return Err(Failure::failed("no run has been kept")
            .hint("run: cargo xtask bench http --peers (without --quick)"));
    }
    let path = workspace.root.join(FIGURE);
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&path, svg(&measures)));
    written
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    line(format_args!("{FIGURE}: {} measures", measures.len()));
    Ok(())
}

fn svg(measures: &[Measure]) -> String {
    let mut at = 8;
    let mut body = String::new();
    for measure in measures {
        body += &label(at, measure);
        let longest = measure.paths().filter_map(|path| measure.spread(path));
        let longest = longest
            .map(|spread| spread.median)
            .max()
            .unwrap_or(1)
            .max(1);
        for path in measure.paths() {
            let Some(spread) = measure.spread(path) else {
                continue;
            };
            body += &bar(at, path, spread.median, longest);
            at += ROW;
        }
        at += GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{at}\" viewBox=\"0 0 {WIDTH} {at}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{at}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn label(at: usize, measure: &Measure) -> String {
    format!(
        "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{} ({})</text>\n",
        at + 11,
        measure.name,
        measure.unit
    )
}

fn bar(at: usize, path: &str, value: i64, longest: i64) -> String {
    let colour = COLOURS.iter().find(|(name, _)| *name == path);
    let colour = colour.map_or("#c8ccd1", |(_, colour)| colour);
    let room = i64::try_from(WIDTH - NAMES - 80).unwrap_or_default();
    let length = (value.max(0) * room / longest).max(1);
    let (text, end) = (
        at + 11,
        i64::try_from(NAMES).unwrap_or_default() + length + 5,
    );
    format!(
        "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{path}</text>\
         <rect x=\"{NAMES}\" y=\"{at}\" width=\"{length}\" height=\"{}\" fill=\"{colour}\"/>\
         <text x=\"{end}\" y=\"{text}\">{value}</text>\n",
        NAMES - 6,
        ROW - 3,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_longest_bar_is_the_largest_value_s() {
        let said = "unit bulk MiB/s\nsample bulk direct 0 2000\nsample bulk postern 0 1000";
        let svg = svg(&Samples::read(said).unwrap().measures);
        let room = WIDTH - NAMES - 80;
        assert!(svg.contains(&format!("width=\"{room}\" height")), "{svg}");
        assert!(
            svg.contains(&format!("width=\"{}\" height", room / 2)),
            "{svg}"
        );
        assert!(svg.contains("bulk (MiB/s)") && svg.ends_with("</svg>\n"));
    }
}
