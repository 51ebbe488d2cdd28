//! Each rule against a small tree that keeps it and one that breaks it. It refuses to read the checkout: the suite does that.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::tree::Tree;
use super::{Problem, check};

/// A tree that keeps every rule.
const TIDY: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nmembers = [\n  \"gateway\",\n]\n",
    ),
    (
        "gateway/Cargo.toml",
        "[package]\nname = \"gateway\"\n\n[lints]\nworkspace = true\n",
    ),
    ("gateway/src/main.rs", "//! a\nfn main() {}\n"),
    (
        "gateway/src/policy/host.rs",
        "//! a\n// tokio is not here\n",
    ),
    (
        // What the exceptions are for; without it the exception would be a problem itself.
        "gateway/tests/sandbox/probe.rs",
        "//! a\nfn probe() { unsafe {} }\n",
    ),
    (
        "gateway/tests/privileges/code.rs",
        "//! a\nfn code() { unsafe {} }\n",
    ),
    ("README.md", "See policies/worked-example.\n"),
    (
        "ARCHITECTURE.md",
        "# A\n## Code map\n- `gateway/src/main.rs`, `policy/`, `policies/*/policy.yaml`, `Permit::new`, `/etc/ssl/`\n## Next\n`gone/`\n",
    ),
    (
        "policies/worked-example/policy.yaml",
        "kind: EgressGateway\n",
    ),
];

/// The problems of [`TIDY`] after `path` is given `text`, as `path:line: message`.
fn problems_with(path: &str, text: &str) -> Vec<String> {
    let mut files: Vec<(&str, &str)> = TIDY.to_vec();
    files.retain(|(existing, _)| *existing != path);
    files.push((path, text));
    check(&Tree::of(&files))
        .iter()
        .map(Problem::to_string)
        .collect()
}

fn assert_one(path: &str, text: &str, expected: &str) {
    let problems = problems_with(path, text);
    assert_eq!(problems.len(), 1, "{path} {text:?}: {problems:?}");
    assert!(
        problems[0].contains(expected),
        "{} has no {expected:?}",
        problems[0]
    );
}

fn assert_none(path: &str, text: &str) {
    let problems = problems_with(path, text);
    assert!(problems.is_empty(), "{path} {text:?}: {problems:?}");
}

#[test]
fn a_tidy_tree_has_no_problems() {
    assert_eq!(check(&Tree::of(TIDY)), []);
}

#[test]
fn every_rust_file_opens_with_module_docs() {
    assert_one(
        "xtask/src/a.rs",
        "fn a() {}\n",
        "xtask/src/a.rs:1: no `//!`",
    );
    assert_one("gateway/src/main.rs", "\n\n\n//! late\n", "no `//!`");
    assert_none("tests/src/a.rs", "#![no_std]\n\n//! a\n");
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let of = |lines: usize| format!("//! a\n{}", "\n".repeat(lines - 1));
    assert_none("gateway/src/a.rs", &of(500));
    assert_one("gateway/src/a.rs", &of(501), "501 lines");
}

#[test]
fn libraries_are_named_where_they_belong() {
    for (path, code, expected) in [
        (
            "gateway/src/app.rs",
            "use aya::Ebpf;",
            "gateway/src/app.rs:2: `aya`",
        ),
        (
            "gateway/src/http/h.rs",
            "type T = rustls::Error;",
            "`rustls`",
        ),
        (
            "gateway/src/http.rs",
            "use tokio_rustls::X;",
            "`tokio_rustls`",
        ),
        ("gateway/src/dns.rs", "use hyper_util::rt;", "`hyper_util`"),
        (
            "gateway/src/sniff.rs",
            "async fn a(_: tokio::Io) {}",
            "`tokio`",
        ),
        (
            "gateway/src/provider/x.rs",
            "use tokio_util::a;",
            "`tokio_util`",
        ),
        ("xtask/src/a.rs", "unsafe fn a() {}", "`unsafe`"),
        (
            "tests/tests/path.rs",
            "fn a() { unsafe { b() } }",
            "`unsafe`",
        ),
        ("gateway/src/kernel/maps.rs", "todo!()", "`todo`"),
    ] {
        assert_one(path, &format!("//! a\n{code}\n"), expected);
    }
    for (path, code) in [
        ("gateway/src/kernel.rs", "use aya::Ebpf;"),
        ("gateway/src/kernel/maps.rs", "use aya::maps::Map;"),
        ("gateway/src/tls/a.rs", "use rustls::X; use tokio::io;"),
        (
            "gateway/src/upstream/a.rs",
            "use rustls::X; use hyper::body;",
        ),
        ("gateway/src/sniff/tests.rs", "use tokio::net;"),
        ("gateway/src/sys.rs", "unsafe fn a() {}"),
        ("gateway-ebpf/src/main.rs", "unsafe fn a() {}"),
        (
            "gateway/src/cli.rs",
            "#![deny(unsafe_code)] const A: &str = \"hyper=warn, unsafe\";",
        ),
        (
            "gateway/src/cli/run.rs",
            "fn hyperbole(aya2: &'static str) {} /* rustls */",
        ),
    ] {
        assert_none(path, &format!("//! a\n{code}\n"));
    }
}

#[test]
fn a_library_that_a_pure_module_may_not_name_is_reported_by_each_rule_it_breaks() {
    let problems = problems_with("gateway/src/policy.rs", "//! a\nuse hyper::body;\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn unfinished_work_is_not_committed_even_in_comments() {
    let comment = format!("//! a\n// {}{}: later\n", "FIX", "ME");
    assert_one("gateway/src/a.rs", &comment, "a.rs:2: ");
    assert_none(
        "gateway/src/a.rs",
        "//! a\nconst T: &str = \"tmp.XXXXXX\";\n",
    );
}

#[test]
fn every_member_inherits_the_lints() {
    let path = "gateway/Cargo.toml";
    assert_one(path, "[package]\nname = \"gateway\"\n", "lints");
    assert_one(path, "[lints]\n[x]\nworkspace = true\n", "lints");
    assert_one(
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\n",
        "no members",
    );
}

#[test]
fn paths_of_one_machine_are_found_in_every_kind_of_file() {
    let folder = format!("/{}/", "work");
    assert_one(
        "vagrant/Vagrantfile",
        &format!("a\ncd {folder}main"),
        "Vagrantfile:2: ",
    );
    assert_one(".ci/run", &format!("x=\"{folder}\""), "one machine");
    assert_none(
        "docs/a.md",
        &format!("lib{folder} and ${{X}}{folder} and https://a.b{folder}"),
    );
}

#[test]
fn the_code_map_names_what_exists() {
    let map = |span: &str| format!("# A\n## The code map\n`{span}`\n");
    assert_one(
        "ARCHITECTURE.md",
        &map("gateway/src/gone.rs"),
        "ARCHITECTURE.md:3: `gateway/src/gone.rs`",
    );
    assert_one(
        "ARCHITECTURE.md",
        &map("policies/gone/*.yaml"),
        "`policies/gone`",
    );
    assert_one("ARCHITECTURE.md", "# A\n`gateway/`\n", "no section");
    assert_none("ARCHITECTURE.md", &map("gateway/"));
    assert_none("ARCHITECTURE.md", &map("policy/host.rs"));
}

#[test]
fn both_documents_have_to_be_there() {
    for missing in ["README.md", "ARCHITECTURE.md"] {
        let files: Vec<_> = TIDY
            .iter()
            .copied()
            .filter(|(path, _)| *path != missing && !path.starts_with("policies/"))
            .map(|(path, text)| {
                (
                    path,
                    if path == "ARCHITECTURE.md" {
                        "## Code map\n`gateway/`"
                    } else {
                        text
                    },
                )
            })
            .collect();
        let problems = check(&Tree::of(&files));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].to_string(), format!("{missing}:1: is missing"));
    }
}

#[test]
fn every_example_policy_is_introduced_somewhere() {
    assert_one(
        "policies/deny-all/policy.yaml",
        "a: b\n",
        "policies/deny-all:1: ",
    );
    let guide = "- `deny-all`: nothing leaves\n";
    let mut files = TIDY.to_vec();
    files.push(("policies/deny-all/policy.yaml", "a: b\n"));
    files.push(("policies/README.md", guide));
    assert_eq!(check(&Tree::of(&files)), []);
}
