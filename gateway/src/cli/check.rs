//! `postern check`.

mod github;

use crate::policy::{
    Diagnostic, SecretDocument, SecretIndex, SecretRef, SecretState, Severity, SourceFile, Style,
};
use crate::store;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check a policy folder: all problems at once, each with its place and its remedy
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 no errors (there may be warnings), 1 errors, 2 wrong usage, 125 the folder cannot be
read. It is the same for every format.

Examples:
  postern check policies/anthropic
  postern check --secrets /var/lib/postern/secrets /etc/postern/policy
  postern check --format json /etc/postern/policy
  postern check --format github policies/anthropic    # in a workflow: problems show beside the lines")]
pub(super) struct Check {
    /// Folder of policy files, or one file
    #[arg(value_name = "DIR")]
    policy: PathBuf,
    /// Folder of NAME/KEY files: warn of secrets that are missing there, or that others may read
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
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
        let mut diagnostics = loaded.compiled.diagnostics.clone();
        if let (Some(folder), Some(policy)) = (&self.secrets, &loaded.compiled.policy) {
            if !folder.is_dir() {
                return super::fail(&format!("--secrets {}: not a folder", folder.display()));
            }
            let documents = &policy.secrets;
            let known = Known { folder, documents };
            diagnostics.extend(loaded.compiled.lint_secrets(&known));
        }
        let diagnostics = &diagnostics;
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

/// The secrets folder and the policy's own documents. A file stands before a document, as it does for the gateway.
struct Known<'a> {
    folder: &'a Path,
    documents: &'a [SecretDocument],
}

impl SecretIndex for Known<'_> {
    fn state(&self, secret: &SecretRef) -> SecretState {
        let file = self.folder.join(&*secret.name).join(&*secret.key);
        if let Ok(metadata) = std::fs::metadata(&file)
            && metadata.is_file()
        {
            let mode = metadata.mode() & 0o7777;
            return if mode & 0o077 == 0 {
                SecretState::Present
            } else {
                SecretState::Exposed { mode }
            };
        }
        let written = self.documents.iter().any(|document| {
            document.name == *secret.name && document.values.contains_key(&*secret.key)
        });
        if written {
            SecretState::Present
        } else {
            SecretState::Missing
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{Known, Path};
    use crate::policy::{SecretDocument, SecretIndex, SecretRef, SecretState};
    use crate::secrets::SecretValue;
    use std::os::unix::fs::PermissionsExt;

    fn write(folder: &Path, key: &str, mode: u32) {
        let file = folder.join("s").join(key);
        std::fs::write(&file, "v").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_in_the_folder_or_in_a_document_or_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("s")).unwrap();
        write(folder.path(), "private", 0o600);
        write(folder.path(), "shared", 0o640);
        let value = || SecretValue::new(b"v".to_vec());
        let documents = [SecretDocument {
            name: "s".into(),
            values: [("shared".into(), value()), ("written".into(), value())].into(),
        }];
        let known = Known {
            folder: folder.path(),
            documents: &documents,
        };
        for (key, state) in [
            ("private", SecretState::Present),
            ("shared", SecretState::Exposed { mode: 0o640 }),
            ("written", SecretState::Present),
            ("absent", SecretState::Missing),
        ] {
            let secret = SecretRef {
                name: "s".into(),
                key: key.into(),
            };
            assert_eq!(known.state(&secret), state, "{key}");
        }
    }
}
