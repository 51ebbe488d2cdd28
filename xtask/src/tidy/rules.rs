//! Rules about Rust files: module docs, length, forbidden text, and the tables of who may name what.
//! It refuses to know how files are read.

use super::Problem;
use super::source::{code_of, words};
use super::tree::Tree;

/// Where the project's own Rust code is.
const CODE: &[&str] = &[
    "gateway",
    "gateway-common",
    "gateway-ebpf",
    "xtask",
    "tests",
];
/// A file that is longer has more than one thing to say.
const MOST_LINES: usize = 500;
/// The module docs may follow a shebang or an attribute, no more.
const DOCS_WITHIN: usize = 3;

/// A name that only some places may mention.
struct NameRule {
    /// What exceptions refer to.
    id: &'static str,
    /// Whole identifiers or keywords, outside comments and literals.
    names: &'static [&'static str],
    /// Where the rule holds. A place is a file, a folder, or a module: `a/b` is `a/b.rs` and everything in `a/b/`.
    within: &'static [&'static str],
    /// Places inside of `within` that may name it.
    except: &'static [&'static str],
    /// Whether test files may name it anyway: a test of a pure parser may feed it from a socket.
    spares_tests: bool,
    message: &'static str,
}

const NAME_RULES: &[NameRule] = &[
    NameRule {
        id: "aya",
        names: &["aya", "aya_log", "aya_obj"],
        within: &["gateway/src"],
        except: &["gateway/src/kernel"],
        spares_tests: true,
        message: "only gateway/src/kernel/ talks to the kernel programs",
    },
    NameRule {
        id: "rustls",
        names: &["rustls", "tokio_rustls"],
        within: &["gateway/src"],
        except: &["gateway/src/tls", "gateway/src/upstream"],
        spares_tests: true,
        message: "only gateway/src/tls/ and upstream/ know the TLS library",
    },
    NameRule {
        id: "hyper",
        names: &["hyper", "hyper_util"],
        within: &["gateway/src"],
        except: &["gateway/src/http", "gateway/src/upstream"],
        spares_tests: true,
        message: "only gateway/src/http/ and upstream/ know the HTTP library",
    },
    NameRule {
        id: "pure",
        names: &[
            "aya",
            "hyper",
            "hyper_util",
            "rustls",
            "tokio",
            "tokio_rustls",
            "tokio_util",
        ],
        within: &[
            "gateway/src/policy",
            "gateway/src/provider",
            "gateway/src/sniff",
        ],
        except: &[],
        spares_tests: true,
        message: "policy/, sniff/ and provider/ are pure: values in, values out",
    },
    NameRule {
        id: "unsafe",
        names: &["unsafe"],
        within: CODE,
        except: &[
            "gateway/src/sys.rs",
            "gateway/src/sys",
            "gateway-common",
            "gateway-ebpf",
        ],
        spares_tests: false,
        message: "unsafe code is in gateway/src/sys, gateway-common and gateway-ebpf alone",
    },
    NameRule {
        id: "unfinished",
        names: &["todo", "unimplemented"],
        within: CODE,
        except: &[],
        spares_tests: false,
        message: "unfinished code is not committed",
    },
];

/// A place that breaks a name rule for a good reason.
struct Exception {
    /// The [`NameRule::id`].
    rule: &'static str,
    place: &'static str,
    #[expect(dead_code, reason = "read by whoever wonders about the exception")]
    reason: &'static str,
}

/// An exception that nothing needs any more is a problem too.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: "unsafe",
        place: "gateway/tests/sandbox/probe.rs",
        reason: "tries system calls by number, as hostile code would",
    },
    Exception {
        rule: "unsafe",
        place: "gateway/tests/privileges/code.rs",
        reason: "asks for executable memory, as hostile code would",
    },
];

/// Words that mark unfinished work, in comments as well. (Joined here, or this file would break its own rule.)
const MARKERS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = check_exceptions(tree, EXCEPTIONS);
    for (path, text) in rust_files(tree) {
        check_docs(path, text, &mut problems);
        check_length(path, text, &mut problems);
        for (line, word) in words(text).filter(|(_, word)| MARKERS.contains(word)) {
            problems.push(Problem::new(
                path,
                line,
                format!("`{word}`: unfinished work belongs in the issue tracker"),
            ));
        }
        let code = code_of(text);
        for rule in NAME_RULES {
            let excepted = EXCEPTIONS
                .iter()
                .any(|exception| exception.rule == rule.id && is_in(path, exception.place));
            if !excepted {
                problems.extend(rule.broken_in(path, &code));
            }
        }
    }
    problems
}

/// Exceptions of unknown rules, and those without a file that would break the rule.
fn check_exceptions(tree: &Tree, exceptions: &[Exception]) -> Vec<Problem> {
    let is_needed = |exception: &Exception| {
        let rule = NAME_RULES.iter().find(|rule| rule.id == exception.rule);
        rule.is_some_and(|rule| {
            rust_files(tree)
                .filter(|(path, _)| is_in(path, exception.place))
                .any(|(path, text)| !rule.broken_in(path, &code_of(text)).is_empty())
        })
    };
    exceptions
        .iter()
        .filter(|exception| !is_needed(exception))
        .map(|exception| {
            let message = format!(
                "the exception to `{}` for {} is not needed",
                exception.rule, exception.place
            );
            Problem::new("xtask/src/tidy/rules.rs", 1, message)
        })
        .collect()
}

impl NameRule {
    fn broken_in(&self, path: &str, code: &str) -> Vec<Problem> {
        let applies = self.within.iter().any(|place| is_in(path, place))
            && !self.except.iter().any(|place| is_in(path, place))
            && !(self.spares_tests && is_test(path));
        if !applies {
            return Vec::new();
        }
        words(code)
            .filter(|(_, word)| self.names.contains(word))
            .map(|(line, word)| Problem::new(path, line, format!("`{word}`: {}", self.message)))
            .collect()
    }
}

fn rust_files(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files()
        .filter(|(path, _)| path.ends_with(".rs") && CODE.iter().any(|place| is_in(path, place)))
}

fn check_docs(path: &str, text: &str, problems: &mut Vec<Problem>) {
    if !text
        .lines()
        .take(DOCS_WITHIN)
        .any(|line| line.starts_with("//!"))
    {
        problems.push(Problem::new(
            path,
            1,
            "no `//!` that says what the module does and what it refuses to know",
        ));
    }
}

fn check_length(path: &str, text: &str, problems: &mut Vec<Problem>) {
    let lines = text.lines().count();
    if lines > MOST_LINES {
        problems.push(Problem::new(
            path,
            MOST_LINES + 1,
            format!("{lines} lines; a file has at most {MOST_LINES}"),
        ));
    }
}

/// Whether `path` is the file `place`, its module file, or inside its folder.
fn is_in(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

/// `foo/tests.rs`, `foo/tests/bar.rs`.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_a_module_or_a_folder() {
        assert!(is_in("gateway/src/tls.rs", "gateway/src/tls"));
        assert!(is_in("gateway/src/tls/acceptor.rs", "gateway/src/tls"));
        assert!(is_in("gateway/src/sys.rs", "gateway/src/sys.rs"));
        assert!(!is_in("gateway/src/tlsx.rs", "gateway/src/tls"));
        assert!(!is_in("gateway-common/src/lib.rs", "gateway"));
    }

    #[test]
    fn an_exception_that_nothing_needs_is_a_problem() {
        let tree = Tree::of(&[
            ("gateway/src/app.rs", "//! a\nuse rustls::crypto;\n"),
            ("gateway/src/drain.rs", "//! a\n"),
        ]);
        let exception = |rule, place| Exception {
            rule,
            place,
            reason: "a test",
        };
        let needed = exception("rustls", "gateway/src/app.rs");
        assert_eq!(check_exceptions(&tree, &[needed]), []);
        for (rule, place) in [
            ("rustls", "gateway/src/drain.rs"),
            ("rustls", "gateway/src/gone.rs"),
            ("no such rule", "gateway/src/app.rs"),
        ] {
            assert_eq!(
                check_exceptions(&tree, &[exception(rule, place)]).len(),
                1,
                "{rule} {place}"
            );
        }
    }
}
