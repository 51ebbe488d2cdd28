//! House rules that no compiler checks, as a suite: what every file looks like, and which way dependencies point.
//! The rules are tables in `rules`; it refuses to repair anything.

mod documents;
mod rules;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt::{self, Display, Formatter};
use std::time::Instant;

use crate::Failure;
use crate::console::{Console, Style, line, seconds};
use crate::workspace::Workspace;
use tree::Tree;

/// Checks every rule against the checkout and lists what breaks one, as `file:line: message`.
pub(crate) fn run(workspace: &Workspace, console: Console) -> Result<(), Failure> {
    let start = Instant::now();
    let tree = Tree::read(&workspace.root)
        .map_err(|error| Failure::failed(format!("cannot read the checkout: {error}")))?;
    let problems = check(&tree);
    for problem in &problems {
        line(problem);
    }
    if problems.is_empty() {
        line(format_args!(
            "{} {}",
            console.paint(
                Style::Good,
                &format!("tidy: {} files keep every rule", tree.file_count())
            ),
            console.paint(Style::Dim, &format!("({})", seconds(start.elapsed()))),
        ));
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "tidy: {} problems",
            problems.len()
        )))
    }
}

/// All problems, by file and line.
fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = rules::check(tree);
    problems.extend(documents::check(tree));
    problems.sort();
    problems
}

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// Relative to the checkout.
    path: String,
    /// From 1.
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
