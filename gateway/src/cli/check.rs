//! `postern check`.

mod github;

use crate::policy::{Diagnostic, Severity, SourceFile, Style};
use crate::store;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a policy folder: all problems at once, each with its place and its remedy
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 no errors (there may be warnings), 1 errors, 2 wrong usage, 125 the folder cannot be
read. It is the same for every format.

Examples:
  postern check policies/anthropic
  postern check --format json /etc/postern/policy
  postern check --format github policies/anthropic    # in a workflow: problems show beside the lines")]
pub(super) struct Check {
    /// Folder of policy files, or one file
    #[arg(value_name = "DIR")]
    policy: PathBuf,
    /// For people, one JSON document, or workflow commands for GitHub Actions
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let loaded = match store::load(&self.policy) {
            Ok(loaded) => loaded,
            Err(error) => return super::fail(&error.to_string()),
        };
        let diagnostics = &loaded.compiled.diagnostics;
        let errors = count(diagnostics, Severity::Error);
        let warnings = count(diagnostics, Severity::Warning);
        match self.format {
            Format::Json => println!("{}", json(diagnostics)),
            Format::Github => {
                for diagnostic in diagnostics {
                    println!("{}", github::command(diagnostic));
                }
            }
            Format::Text => {
                for diagnostic in diagnostics {
                    eprint!("{}", show(diagnostic, &loaded.files));
                }
                let gateways = loaded
                    .compiled
                    .policy
                    .map(|policy| policy.gateways.into_keys().collect::<Vec<_>>().join(", "));
                match gateways {
                    Some(names) => {
                        println!(
                            "{}: ok, gateway {names}, {warnings} warnings",
                            self.policy.display()
                        );
                    }
                    None => println!(
                        "{}: {errors} errors, {warnings} warnings",
                        self.policy.display()
                    ),
                }
            }
        }
        ExitCode::from(u8::from(errors > 0))
    }
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity() == severity)
        .count()
}

/// A diagnostic for people: with colours and lines on a terminal, plain elsewhere.
pub(super) fn show(diagnostic: &Diagnostic, files: &[SourceFile]) -> String {
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = Style {
        color: terminal,
        unicode: terminal,
    };
    let source = files
        .iter()
        .find(|file| Some(file.name.as_str()) == diagnostic.file())
        .map_or("", |file| file.text.as_str());
    diagnostic.render_with(source, style)
}

fn json(diagnostics: &[Diagnostic]) -> serde_json::Value {
    diagnostics
        .iter()
        .map(|diagnostic| {
            json!({
                "severity": match diagnostic.severity() {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "file": diagnostic.file(),
                "line": diagnostic.span().map(|span| span.line),
                "column": diagnostic.span().map(|span| span.column),
                "message": diagnostic.message(),
                "expected": diagnostic.expected(),
                "help": diagnostic.help(),
            })
        })
        .collect()
}
