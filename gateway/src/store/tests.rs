//! A folder is read whole or not at all.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::load;
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

const GATEWAY: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec: {listeners: [{name: tls, protocol: TLS}]}
";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), GATEWAY).unwrap();
    folder
}

fn told(folder: &Path) -> Vec<String> {
    let loaded = load(folder).unwrap();
    let told: Vec<String> = loaded
        .compiled
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let text = diagnostic.to_string();
            text.replace(&format!("{}/", folder.display()), "")
        })
        .collect();
    let refused = told.iter().any(|told| told.contains(": error: "));
    assert_eq!(loaded.compiled.policy.is_none(), refused);
    told
}

#[test]
fn what_cannot_be_read_is_an_error_beside_the_others_and_never_left_out() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(told(folder.path()), [""; 0]);
    symlink("nowhere", at("b.yaml")).unwrap();
    fs::create_dir(at("d.yaml")).unwrap();
    nix::unistd::mkfifo(&at("p.yml"), Mode::S_IRUSR).unwrap();
    fs::write(at("t.yaml"), b"kind: x\nname: \xff\n").unwrap();
    fs::write(at("u.yaml"), "kind: Unknown\n").unwrap();
    let told = told(folder.path());
    assert_eq!(
        told[..4],
        [
            "b.yaml:1:1: error: the file cannot be read: No such file or directory (os error 2)",
            "d.yaml:1:1: error: neither a file nor a link to one",
            "p.yml:1:1: error: neither a file nor a link to one",
            "t.yaml:2:7: error: byte 14 is not UTF-8 text",
        ]
    );
    assert!(
        told[4..].iter().any(|told| told.starts_with("u.yaml:")),
        "{told:#?}"
    );
}

#[test]
fn a_file_that_becomes_unreadable_is_a_change() {
    let folder = folder();
    let more = folder.path().join("b.yaml");
    fs::write(&more, "").unwrap();
    let before = load(folder.path()).unwrap().digest;
    fs::remove_file(&more).unwrap();
    symlink("nowhere", &more).unwrap();
    assert_ne!(load(folder.path()).unwrap().digest, before);
}

#[test]
fn a_file_that_is_too_large_is_told_as_such_whatever_letter_is_cut() {
    let folder = folder();
    let text = format!("#{}", "\u{20ac}".repeat(400_000));
    fs::write(folder.path().join("b.yaml"), text).unwrap();
    let told = told(folder.path());
    assert!(
        told[0].starts_with("b.yaml:1:1: error: the file has 10485"),
        "{told:#?}"
    );
}

#[test]
fn links_to_files_are_files_also_as_kubernetes_lays_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("..2026")).unwrap();
    fs::write(at("..2026/g.yaml"), GATEWAY).unwrap();
    symlink("..2026", at("..data")).unwrap();
    symlink("..data/g.yaml", at("g.yaml")).unwrap();
    assert_eq!(told(folder.path()), [""; 0]);
}

#[test]
fn what_looks_like_a_part_of_the_policy_and_is_none_is_warned_of() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("b.YAML"), GATEWAY).unwrap();
    fs::write(at("c.json"), "{}").unwrap();
    fs::write(at("README.md"), "words").unwrap();
    fs::write(at("policy.schema.json"), "{}").unwrap();
    fs::write(at(".hidden.json"), "{}").unwrap();
    for (name, file) in [("more", "d.yaml"), ("docs", "text.md"), (".git", "x.yaml")] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join(file), GATEWAY).unwrap();
    }
    assert_eq!(
        told(folder.path()),
        [
            "b.YAML: warning: the file is no part of the policy, whose files end in .yaml or .yml",
            "c.json: warning: the file is no part of the policy, whose files end in .yaml or .yml",
            "more: warning: the folder holds YAML files, and is no part of this policy",
        ]
    );
    // Without a file of its own it is no policy, and those that may be meant are named.
    fs::remove_file(at("a.yaml")).unwrap();
    let Err(error) = load(folder.path()) else {
        panic!("nothing was loaded");
    };
    let error = error.to_string();
    assert!(error.contains("perhaps one of these is meant: "), "{error}");
    let more = at("more").display().to_string();
    assert!(error.ends_with(&format!(": {more})")), "{error}");
}
