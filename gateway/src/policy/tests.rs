//! The engine as a whole: golden diagnostics, the example policies, and inputs nobody would write.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod arbitrary;
mod compiling;
mod examples;
mod golden;
mod mistakes;
mod mutated;
mod secret_uses;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::compile::compile;
use super::{Compiled, Policy, SourceFile, Style};

/// The workspace's root.
pub(super) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(super) fn source(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        text: Zeroizing::new(text.to_owned()),
    }
}

/// The YAML files of a folder, in the order of their names.
pub(super) fn folder(path: &Path) -> Vec<SourceFile> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        source(name, &std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

fn report(compiled: &Compiled, files: &[SourceFile]) -> String {
    compiled.report(files, Style::default())
}

/// Compiles a text that must be valid, without warnings.
pub(super) fn valid(text: &str) -> Policy {
    let files = [source("policy.yaml", text)];
    let compiled = compile(&files);
    assert!(
        compiled.diagnostics.is_empty(),
        "{}",
        report(&compiled, &files)
    );
    compiled.policy.unwrap()
}

/// Compiles a text that must be valid, whatever its warnings say: rules made to meet make each other idle.
pub(super) fn accepted(text: &str) -> Policy {
    let files = [source("policy.yaml", text)];
    let compiled = compile(&files);
    let told = report(&compiled, &files);
    compiled.policy.expect(&told)
}
