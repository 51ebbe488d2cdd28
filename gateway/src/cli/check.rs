//! `postern check`.

mod github;

use super::load::Known;
use super::output::{causes, complain, plural, print};
use crate::policy::{Diagnostic, Severity, SourceFile, Style};
use crate::store::{self, Loaded, StoreError};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a policy folder: all problems at once, each with its place and its remedy
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 no errors (there may be warnings), 1 errors, 2 wrong usage, 125 the folder cannot be \
read. It is the same for every format.

Examples:
  postern check policies/anthropic
  postern check --secrets /var/lib/postern/secrets /etc/postern/policy
  postern check --format json /etc/postern/policy
  postern check --format github policies/anthropic

The last one is for a workflow of GitHub Actions: problems show beside the lines.")]
pub(super) struct Check {
    /// Folder of policy files, or one file
    #[arg(value_name = "DIR")]
    policy: PathBuf,
    /// Folder of NAME/KEY files: warn of secrets that the gateway would not find there, or not take
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// For people, one JSON document, or workflow commands for GitHub Actions
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode> {
        let format = if self.json { Format::Json } else { self.format };
        let (loaded, diagnostics) = match self.diagnose() {
            Ok(diagnosed) => diagnosed,
            Err(error) => {
                // Who reads documents gets one, and the status all the same.
                let path = match &self.secrets {
                    Some(secrets) if !error.is::<StoreError>() => secrets,
                    _ => &self.policy,
                };
                let unread = Diagnostic::of_path(Severity::Error, path, causes(&error));
                match format {
                    Format::Json => print(&json(&[unread]).to_string())?,
                    Format::Github => print(&github::command(&unread))?,
                    Format::Text => {}
                }
                return Err(error);
            }
        };
        let diagnostics = &diagnostics;
        let errors = count(diagnostics, Severity::Error);
        let warnings = count(diagnostics, Severity::Warning);
        match format {
            Format::Json => print(&json(diagnostics).to_string())?,
            Format::Github => {
                for diagnostic in diagnostics {
                    print(&github::command(diagnostic))?;
                }
            }
            Format::Text => {
                for diagnostic in diagnostics {
                    complain(show(diagnostic, &loaded.files).trim_end_matches('\n'));
                }
                let gateways = loaded
                    .compiled
                    .policy
                    .map(|policy| policy.gateways.into_keys().collect::<Vec<_>>().join(", "));
                let warnings = plural(warnings, "warning");
                let verdict = match gateways {
                    Some(names) => format!("ok, gateway {names}, {warnings}"),
                    None => format!("{}, {warnings}", plural(errors, "error")),
                };
                print(&format!("{}: {verdict}", self.policy.display()))?;
            }
        }
        Ok(ExitCode::from(u8::from(errors > 0)))
    }

    fn diagnose(&self) -> Result<(Loaded, Vec<Diagnostic>)> {
        let loaded = store::load(&self.policy)?;
        let mut diagnostics = loaded.compiled.diagnostics.clone();
        if let (Some(folder), Some(policy)) = (&self.secrets, &loaded.compiled.policy) {
            let known = Known::read(folder, policy)?;
            diagnostics.extend(loaded.compiled.lint_secrets(&known));
        }
        Ok((loaded, diagnostics))
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

/// One object a diagnostic.
pub(super) fn json(diagnostics: &[Diagnostic]) -> serde_json::Value {
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
