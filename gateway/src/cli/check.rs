//! `postern check`.

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
Exit status: 0 no errors (there may be warnings), 1 errors, 125 the folder cannot be read.

Examples:
  postern check policies/anthropic
  postern check --format json /etc/postern/policy")]
pub(super) struct Check {
    /// Folder of policy files, or one file
    #[arg(value_name = "DIR")]
    policy: PathBuf,
    /// For people, or one JSON document
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
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
            Format::Json => println!("{}", json(&loaded.compiled.diagnostics)),
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
