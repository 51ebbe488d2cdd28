//! Rules about what is not code: manifests, README.md, ARCHITECTURE.md, and text that belongs to one machine.
//! It refuses to judge prose.

use super::Problem;
use super::tree::Tree;

/// Folders of machines that the project was built on: text with one of them works nowhere else.
/// (Joined here, or this file would break its own rule.)
const MACHINE_FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/fa", "rm/")];
/// Where example policies may be introduced to a reader.
const GUIDES: &[&str] = &["README.md", "ARCHITECTURE.md", "policies/README.md"];
/// The code map may shorten paths that start with this.
const MAP_BASE: &str = "gateway/src";

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_lints(tree, &mut problems);
    check_machine_paths(tree, &mut problems);
    check_code_map(tree, &mut problems);
    check_policies(tree, &mut problems);
    problems
}

/// A lint that no crate inherits checks nothing.
fn check_lints(tree: &Tree, problems: &mut Vec<Problem>) {
    let members = tree.text("Cargo.toml").map(members).unwrap_or_default();
    if members.is_empty() {
        problems.push(Problem::new(
            "Cargo.toml",
            1,
            "the workspace has no members",
        ));
    }
    for member in members {
        let path = format!("{member}/Cargo.toml");
        let inherits = tree.text(&path).is_some_and(|manifest| {
            let mut lines = manifest.lines().map(str::trim);
            lines.by_ref().any(|line| line == "[lints]")
                && lines
                    .take_while(|line| !line.starts_with('['))
                    .any(|line| line == "workspace = true")
        });
        if !inherits {
            problems.push(Problem::new(
                &path,
                1,
                "does not inherit the workspace's lints: [lints] workspace = true",
            ));
        }
    }
}

/// The strings of `members = […]`, on one line or many.
fn members(manifest: &str) -> Vec<&str> {
    let list = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'));
    list.map(|(list, _)| list.split('"').skip(1).step_by(2).collect())
        .unwrap_or_default()
}

fn check_machine_paths(tree: &Tree, problems: &mut Vec<Problem>) {
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            for folder in MACHINE_FOLDERS
                .iter()
                .filter(|folder| is_rooted(line, folder))
            {
                problems.push(Problem::new(
                    path,
                    index + 1,
                    format!("`{folder}` is a folder of one machine"),
                ));
            }
        }
    }
}

/// Whether `folder` occurs as an absolute path, not as the end of a longer one.
fn is_rooted(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/*})".contains(c))
    })
}

fn check_code_map(tree: &Tree, problems: &mut Vec<Problem>) {
    for document in ["README.md", "ARCHITECTURE.md"] {
        if tree.text(document).is_none() {
            problems.push(Problem::new(document, 1, "is missing"));
        }
    }
    let Some(text) = tree.text("ARCHITECTURE.md") else {
        return;
    };
    let paths = code_map(text);
    if paths.is_empty() {
        problems.push(Problem::new(
            "ARCHITECTURE.md",
            1,
            "has no section `Code map` with paths in backticks",
        ));
    }
    for (line, path) in paths {
        if !tree.has(path) && !tree.has(&format!("{MAP_BASE}/{path}")) {
            problems.push(Problem::new(
                "ARCHITECTURE.md",
                line,
                format!("`{path}` in the code map does not exist"),
            ));
        }
    }
}

/// Paths in backticks in the section headed "Code map", with their lines, without what follows a wildcard.
fn code_map(text: &str) -> Vec<(usize, &str)> {
    let mut section: Option<usize> = None;
    let mut fenced = false;
    let mut paths = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        let level = line.chars().take_while(|c| *c == '#').count();
        if !fenced && level > 0 {
            if line.to_lowercase().contains("code map") {
                section = Some(level);
            } else if section.is_some_and(|opened| level <= opened) {
                section = None;
            }
        }
        if section.is_some() && !fenced {
            let spans = line.split('`').skip(1).step_by(2);
            paths.extend(spans.filter_map(path_of).map(|path| (index + 1, path)));
        }
    }
    paths
}

/// A code span that means a file or folder of ours.
fn path_of(span: &str) -> Option<&str> {
    let looks_like_one = span.contains('/')
        || [".rs", ".toml", ".md", ".yaml"]
            .iter()
            .any(|end| span.ends_with(end));
    let is_other = span.starts_with('/')
        || span.contains("://")
        || span.contains("::")
        || span.contains(char::is_whitespace);
    if !looks_like_one || is_other {
        return None;
    }
    let fixed = span.split(['*', '<', '{']).next()?;
    let fixed = if fixed.len() < span.len() {
        fixed.rsplit_once('/')?.0
    } else {
        fixed
    };
    Some(fixed.trim_end_matches('/'))
}

fn check_policies(tree: &Tree, problems: &mut Vec<Problem>) {
    for folder in tree.folders_in("policies") {
        let is_mentioned = GUIDES
            .iter()
            .filter_map(|guide| tree.text(guide))
            .any(|text| text.contains(folder));
        if !is_mentioned {
            problems.push(Problem::new(
                &format!("policies/{folder}"),
                1,
                format!("is mentioned in none of {}", GUIDES.join(", ")),
            ));
        }
    }
}
