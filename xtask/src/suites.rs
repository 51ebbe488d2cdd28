//! `cargo xtask test`: the suites, their order, and the table at the end. [`ALL`] is the list to edit.
//! It refuses to know what a suite tests, beyond what it needs to be started.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::binary::{self, Kind};
use crate::console::{Console, Style, line, seconds};
use crate::process::{self, command_line};
use crate::workspace::{Workspace, is_root};
use crate::{setup, tidy, vm};

/// One line of the summary.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    needs: Needs,
    work: Work,
}

/// What has to be there before a suite is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// `setup`: the gateway's build script compiles the kernel programs.
    Toolchain,
    /// And the right to make namespaces and cgroups.
    ToolchainAndRoot,
    /// And a built `postern`, and the right to make namespaces, cgroups and eBPF programs.
    BinaryAndRoot,
}

#[derive(Debug)]
enum Work {
    /// Arguments of `cargo` (none of them with a blank), one command after the other.
    Cargo(&'static [&'static str]),
    /// As `Cargo`, of commands that run tests: a suite that runs none has failed.
    Tests(&'static [&'static str]),
    /// As `Cargo`, if this subcommand is installed; otherwise the suite is skipped, with how to install it.
    CargoPlugin {
        plugin: &'static str,
        install: &'static str,
        command: &'static str,
    },
    Tidy,
    /// These of `cargo xtask vm test`, on the oldest supported kernel.
    Guest(&'static [&'static str]),
}

/// Every suite, in the order they run.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "fmt",
        about: "rustfmt finds nothing to change",
        needs: Needs::Toolchain,
        work: Work::Cargo(&[
            // rustfmt would colour its differences in a file too.
            "fmt --all --check -- --color never",
            "fmt --check --manifest-path gateway-ebpf/Cargo.toml -- --color never",
        ]),
    },
    Suite {
        name: "clippy",
        about: "no warning in any target of the workspace",
        needs: Needs::Toolchain,
        work: Work::Cargo(&["clippy --workspace --all-targets -- -D warnings"]),
    },
    Suite {
        name: "tidy",
        about: "house rules: file length, module docs, who may import what",
        needs: Needs::Nothing,
        work: Work::Tidy,
    },
    Suite {
        name: "unit",
        about: "unit, golden and documentation tests of gateway, gateway-common and xtask",
        needs: Needs::Toolchain,
        work: Work::Tests(&[
            "test --no-fail-fast -p gateway -p gateway-common -p xtask --lib --bins",
            "test --no-fail-fast -p gateway -p gateway-common --doc",
        ]),
    },
    Suite {
        name: "sandbox",
        about: "the cage against somebody who wants out (as root)",
        needs: Needs::ToolchainAndRoot,
        work: Work::Tests(&[
            "test --no-fail-fast -p gateway --test sandbox --test admin --test privileges",
        ]),
    },
    Suite {
        name: "deny",
        about: "licences, sources and duplicates of dependencies (with cargo-deny)",
        needs: Needs::Nothing,
        work: Work::CargoPlugin {
            plugin: "deny",
            install: "cargo install cargo-deny --locked",
            // Advisories need a database from the network: CI must not fail for what was published overnight.
            command: "deny check bans licenses sources",
        },
    },
    Suite {
        name: "e2e",
        about: "the built gateway against mock upstreams in namespaces (as root)",
        needs: Needs::BinaryAndRoot,
        work: Work::Tests(&["test --no-fail-fast -p e2e -- --test-threads=1"]),
    },
    Suite {
        name: "vm",
        about: "the oldest kernel, in a guest: its verifier, its hooks, attached groups (as root, on Debian)",
        needs: Needs::BinaryAndRoot,
        work: Work::Guest(&["verifier", "kernel", "attach"]),
    },
];

/// Fuzzed responses that are searched for secrets: a minute's worth. A plain `cargo test` has a fiftieth of them.
const SCRUB_CASES: &str = "100000";

/// Runs the suites named in `only`, or all, and prints a table; fails if one of them did.
pub(crate) fn run(workspace: &Workspace, console: Console, only: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = only
        .iter()
        .find(|name| ALL.iter().all(|suite| suite.name != name.as_str()))
    {
        let names: Vec<_> = ALL.iter().map(|suite| suite.name).collect();
        return Err(Failure::usage(format!("there is no suite `{unknown}`"))
            .hint(&format!("there are: {}", names.join(", "))));
    }
    let suites = ALL
        .iter()
        .filter(|suite| only.is_empty() || only.iter().any(|name| name == suite.name));

    let mut prepared = Prepared::default();
    let mut rows = Vec::new();
    for suite in suites {
        let start = Instant::now();
        line("");
        console.heading(&format!("{}: {}", suite.name, suite.about));
        let result = match prepared.provide(workspace, console, suite.needs) {
            Ok(binary) => suite.run(workspace, console, binary.as_deref()),
            Err(failure) => Outcome::Failed(failure.to_string()),
        };
        if let Outcome::Failed(why) = &result {
            line(format_args!(
                "{} {why}",
                console.paint(Style::Bad, "failed:")
            ));
        }
        rows.push((suite.name, result, start.elapsed()));
    }
    summary(console, &rows)
}

#[derive(Debug)]
enum Outcome {
    /// With what the summary adds.
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl Suite {
    fn run(&self, workspace: &Workspace, console: Console, binary: Option<&Path>) -> Outcome {
        let mut tests = TestCount::default();
        let beyond = workspace.root.join(format!("target/beyond-{}", self.name));
        // There is none when nothing was built yet.
        drop(fs::remove_file(&beyond));
        let mut run = |arguments: &str| {
            let mut cargo = workspace.cargo();
            cargo.args(arguments.split_whitespace());
            if let Some(binary) = binary {
                cargo.env("POSTERN_BIN", binary);
            }
            line(format_args!("$ {}", command_line(&cargo)));
            if matches!(self.work, Work::Tests(_)) {
                cargo.env("POSTERN_TEST_BEYOND", &beyond);
                cargo.env("POSTERN_SCRUB_CASES", SCRUB_CASES);
                process::watched(&mut cargo, |text| tests.read(text))
            } else {
                process::shown(&mut cargo)
            }
        };
        let result = match &self.work {
            Work::Tidy => tidy::run(workspace, console),
            Work::Guest(names) => {
                return binary.map_or_else(
                    || Outcome::Failed("a guest needs the binary".to_owned()),
                    |binary| in_guest(workspace, console, binary, names),
                );
            }
            // Every command runs, so that one run shows everything there is to repair.
            Work::Cargo(commands) | Work::Tests(commands) => commands
                .iter()
                .map(|arguments| run(arguments))
                .fold(Ok(()), Result::and),
            Work::CargoPlugin {
                plugin,
                install,
                command,
            } => {
                let mut version = workspace.cargo();
                if process::answer(version.args([plugin, "--version"])).is_none() {
                    let why = format!("cargo-{plugin} not installed; {install}");
                    return skipped(console, why);
                }
                run(command)
            }
        };
        match result {
            Ok(()) if matches!(self.work, Work::Tests(_)) => {
                // No test has said so: there is no file.
                let reasons = fs::read_to_string(&beyond).unwrap_or_default();
                tests.outcome(&reasons)
            }
            Ok(()) => Outcome::Passed(String::new()),
            Err(failure) => Outcome::Failed(failure.to_string()),
        }
    }
}

fn skipped(console: Console, why: String) -> Outcome {
    line(format_args!(
        "{} {why}",
        console.paint(Style::Warn, "skipped:")
    ));
    Outcome::Skipped(why)
}

fn in_guest(workspace: &Workspace, console: Console, binary: &Path, names: &[&str]) -> Outcome {
    match vm::oldest(workspace, console, binary, names) {
        Ok(vm::Quick::Passed(note)) => Outcome::Passed(note),
        Ok(vm::Quick::Skipped(why)) => skipped(console, why),
        Err(failure) => Outcome::Failed(failure.to_string()),
    }
}

/// What lines as `test result: ok. 3 passed; 0 failed; 1 ignored; …` add up to. Programs with a main function of their
/// own print no such line, but one `test NAME ... ok` a test as libtest does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct TestCount {
    passed: u32,
    ignored: u32,
    /// `... ok` since the last summary, which includes them.
    unsummed: u32,
}

impl TestCount {
    fn read(&mut self, text: &str) {
        let Some((_, counts)) = text
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
            let is_ok = text.starts_with("test ") && text.trim_end().ends_with(" ... ok");
            self.unsummed += u32::from(is_ok);
            return;
        };
        self.unsummed = 0;
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u32>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }

    /// A suite whose tests have all gone (a renamed folder, a wrong filter) must not look healthy.
    /// With the tests that say that they cannot show anything here: a line each, the name, a tab and why.
    fn outcome(self, beyond: &str) -> Outcome {
        let mut note = match (self.passed + self.unsummed, self.ignored) {
            (0, _) => return Outcome::Failed("not one test was run".to_owned()),
            (passed, 0) => format!("{passed} tests"),
            (passed, ignored) => format!("{passed} tests, {ignored} ignored"),
        };
        if !beyond.is_empty() {
            let parts = format!("\t{}", vm::results::PARTLY);
            let partly = beyond.lines().filter(|line| line.contains(&parts)).count();
            let wholly = beyond.lines().count() - partly;
            let (tests, parts) = (
                format!("{wholly} beyond this machine"),
                format!("{partly} in part"),
            );
            let said = match (wholly, partly) {
                (_, 0) => tests,
                (0, _) => format!("{parts} beyond this machine"),
                _ => format!("{tests}, {parts}"),
            };
            note.push_str(&format!(", {said}:"));
            for reason in beyond.lines() {
                note.push_str(&format!("\n           {}", reason.replace('\t', ": ")));
            }
        }
        Outcome::Passed(note)
    }
}

/// Set-up and build, done once and only if a suite that runs needs them. What failed is not tried again.
#[derive(Debug, Default)]
struct Prepared {
    toolchain: Option<Result<(), String>>,
    binary: Option<Result<PathBuf, String>>,
}

impl Prepared {
    fn provide(
        &mut self,
        workspace: &Workspace,
        console: Console,
        needs: Needs,
    ) -> Result<Option<PathBuf>, Failure> {
        if needs == Needs::Nothing {
            return Ok(None);
        }
        if needs != Needs::Toolchain && !is_root() {
            return Err(Failure::failed("needs root")
                .hint("run: sudo -E env \"PATH=$PATH\" cargo xtask test"));
        }
        let text = |failure: Failure| failure.to_string();
        self.toolchain
            .get_or_insert_with(|| setup::run(workspace, console, None).map_err(text))
            .clone()
            .map_err(Failure::failed)?;
        if needs != Needs::BinaryAndRoot {
            return Ok(None);
        }
        self.binary
            .get_or_insert_with(|| binary::build(workspace, console, Kind::Debug).map_err(text))
            .clone()
            .map(Some)
            .map_err(Failure::failed)
    }
}

fn summary(console: Console, rows: &[(&str, Outcome, Duration)]) -> Result<(), Failure> {
    line("");
    console.heading("summary");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome, time) in rows {
        let (style, word, why) = match outcome {
            Outcome::Passed(note) => {
                passed += 1;
                (Style::Good, "passed", note.as_str())
            }
            Outcome::Failed(why) => {
                failed += 1;
                (Style::Bad, "failed", why.lines().next().unwrap_or_default())
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                (Style::Warn, "skipped", why.as_str())
            }
        };
        let row = format!(
            "{name:<8} {} {:>8}  {why}",
            console.paint(style, &format!("{word:<7}")),
            seconds(*time)
        );
        line(row.trim_end());
    }
    if skipped > 0 {
        line(format_args!("{skipped} skipped"));
    }
    line(format_args!("{passed} passed, {failed} failed"));
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "{failed} of {} suites failed",
            rows.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lines: &[&str]) -> TestCount {
        let mut count = TestCount::default();
        for line in lines {
            count.read(line);
        }
        count
    }

    #[test]
    fn test_counts_add_up_over_programs() {
        let lines = [
            "running 3 tests\n",
            "test a::b ... ok\n",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
            "my test result: ok. 9 passed; 0 failed\n",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "test a sentence about the sandbox ... ok\n",
            "test another ... FAILED\n",
        ];
        let expected = TestCount {
            passed: 5,
            ignored: 1,
            unsummed: 1,
        };
        assert_eq!(count(&lines), expected);
    }

    #[test]
    fn a_suite_without_a_test_has_failed() {
        let none = count(&["test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured\n"]);
        assert!(matches!(none.outcome(""), Outcome::Failed(_)));
        let some = count(&["test result: ok. 1 passed; 0 failed; 4 ignored; 0 measured\n"]);
        assert!(matches!(some.outcome(""), Outcome::Passed(note) if note == "1 tests, 4 ignored"));
        let told = "1 tests, 4 ignored, 1 beyond this machine:\n           a::b: no such hook";
        assert!(
            matches!(some.outcome("a::b\tno such hook\n"), Outcome::Passed(note) if note == told)
        );
        let told =
            "1 tests, 4 ignored, 1 in part beyond this machine:\n           c: but for vsock";
        assert!(
            matches!(some.outcome("c\tbut for vsock\n"), Outcome::Passed(note) if note == told)
        );
    }
}
