//! Every folder of `tests/golden/policy` is a policy with one kind of problem, and `expected.txt` is what
//! its author is told. `UPDATE_GOLDEN=1` writes the texts anew, to be read before they are committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{compile, folder, report, workspace};
use crate::policy::Severity;

#[test]
fn every_problem_is_told_as_expected() {
    let root = workspace().join("tests/golden/policy");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = String::new();
    let mut first_of: BTreeMap<String, String> = BTreeMap::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let case = entry.unwrap().path();
        if !case.is_dir() {
            continue;
        }
        cases += 1;
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let files = folder(&case);
        let compiled = compile(&files);
        let errors = compiled
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity() == Severity::Error)
            .count();
        assert_eq!(
            compiled.policy.is_none(),
            errors > 0,
            "{name}: a policy with errors is none, one without is whole"
        );
        let verdict = if compiled.policy.is_some() {
            "accepted"
        } else {
            "refused"
        };
        let mut told = report(&compiled, &files);
        writeln!(
            told,
            "{verdict}: {errors} errors, {} warnings",
            compiled.diagnostics.len() - errors
        )
        .unwrap();
        let expected_path = case.join("expected.txt");
        assert!(!told.contains("never-shown"), "{name} shows a secret");
        if update {
            std::fs::write(&expected_path, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if told != expected {
            writeln!(
                differences,
                "== {name}\n-- expected\n{expected}-- told\n{told}"
            )
            .unwrap();
        }
        assert!(
            !compiled.diagnostics.is_empty(),
            "{name} has no problem to tell"
        );
        if let Some(other) = first_of.insert(told, name.clone()) {
            panic!("{name} and {other} are the same case");
        }
    }
    assert!(
        differences.is_empty(),
        "run with UPDATE_GOLDEN=1 if this is what was meant:\n{differences}"
    );
    assert!(cases >= 150, "{cases} cases in {}", root.display());
}
