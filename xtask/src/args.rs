//! The command line: arguments in, one [`Invocation`] or a usage error out.
//! It refuses to know what the commands do beyond their help.

use crate::setup::Route;
use crate::{Failure, bench, vm};

const HELP: &str = "\
cargo xtask: set up, build, show and test Postern

Usage: cargo xtask <COMMAND> [OPTIONS]

Commands:
  setup   Install what build and tests need; the second time it finds everything there
          --route rustup|debian   insist on where the compiler of the kernel programs comes from
  build   Set up, then compile the postern binary
          --release               optimised
  dist    Compile what is shipped: optimised again, by what it does under load (needs root)
  demo    Set up, build, and show the gateway at work on this machine (needs root)
          --release
  test    Run the suites in order; one that fails does not stop the others
          --only NAME             only this suite (can be repeated)
          --list                  say which suites there are
  tidy    Check the house rules: file length, module docs, who may import what
  fuzz    Fuzz the pure parsers (needs a nightly toolchain and cargo-fuzz)
          [TARGET]                one target; otherwise each in turn
          --seconds N             for so long each (default 60)
  bench   Measure what Postern costs, side by side within one run (needs root)
          kernel                  socket calls with the cgroup programs and without
          http | tls              requests on kept connections; on a new connection each
          splice | cold           bulk bytes; a cold client behind 40 ms of round trip
          policy | scale          decisions with few rules and many; memory
          telemetry               throughput with a collector and without
          soak --minutes N        mixed load and faults, until something grows (default 30)
          plot                    what the last runs said, as docs/bench.svg
          --peers                 http, tls: Envoy and mitmproxy beside it (installs them)
          --rounds N              instead of 5
          --json                  one JSON object instead of a table
          --quick                 two short rounds, of the release build: to see that it works
  vm      Guests of every kernel that users run, made and booted here (needs root and Debian)
          test                    the verifier's view and the end-to-end suites, in a guest each
          --kernel LIST           6.1 (default), 6.12, 7.3, 5.10, host, or all: host and every supported one
          --suite LIST            only these suites; --filter TEXT only tests with TEXT in their names
          --lsm on|off|both       with or without BPF's LSM hooks (default on)
          --jobs N                guests at a time (default: three for two processors)
          --wan                   40 ms there and back, one packet in a hundred lost
          --keep                  leave the guest's disks in target/vm
          shell                   a prompt with postern, the example policies and `demo`
          --kernel K --lsm on|off as above; `-- COMMAND` runs one command instead
          box [--kernel K]        a Vagrant box for libvirt, in target/vm
          vagrant [--kernel K]    bring that box up with vagrant/ and try the gateway in it
          list                    the kernels and where they come from
  help    This text

Examples:
  cargo xtask build --release
  sudo -E env \"PATH=$PATH\" cargo xtask dist
  sudo -E env \"PATH=$PATH\" cargo xtask demo
  cargo xtask test --only fmt --only clippy
  cargo xtask fuzz client_hello --seconds 600
  sudo -E env \"PATH=$PATH\" cargo xtask bench http --peers
  cargo xtask vm test --kernel 6.1,7.3 --suite verifier
  cargo xtask vm test --kernel all --suite escape --lsm both
  cargo xtask vm shell -- demo

Exit codes: 0 everything worked, 1 a step failed, 2 the command line makes no sense.
Colours: off when standard output is no terminal, or with NO_COLOR=1.
";

/// Long enough for a smoke test of every target within a CI run.
const FUZZ_SECONDS: u32 = 60;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Help(&'static str),
    Setup {
        route: Option<Route>,
    },
    Build {
        release: bool,
    },
    Dist,
    Demo {
        release: bool,
    },
    ListSuites,
    /// Empty `only`: every suite.
    Test {
        only: Vec<String>,
    },
    Tidy,
    Fuzz {
        target: Option<String>,
        seconds: u32,
    },
    Bench(bench::Order),
    Vm(vm::Order),
}

/// Parses what follows the program's name. Without anything it asks for help, which is a usage error to a script.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, Failure> {
    let mut arguments = arguments.into_iter();
    let Some(command) = arguments.next() else {
        return Err(Failure::usage(format!("no command given\n\n{HELP}")));
    };
    let mut rest: Vec<String> = arguments.collect();
    // What follows `--` is somebody else's.
    if rest
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--help" || argument == "-h")
    {
        return Ok(Invocation::Help(HELP));
    }
    let invocation = match command.as_str() {
        "help" | "--help" | "-h" => Invocation::Help(HELP),
        "setup" => Invocation::Setup {
            route: take_value(&mut rest, "--route")?
                .map(|name| {
                    Route::parse(&name)
                        .ok_or_else(|| usage(format!("--route is rustup or debian, not `{name}`")))
                })
                .transpose()?,
        },
        "build" => Invocation::Build {
            release: take_flag(&mut rest, "--release"),
        },
        "dist" => Invocation::Dist,
        "demo" => Invocation::Demo {
            release: take_flag(&mut rest, "--release"),
        },
        "test" => {
            let list = take_flag(&mut rest, "--list");
            let mut only = Vec::new();
            while let Some(name) = take_value(&mut rest, "--only")? {
                only.push(name);
            }
            if list {
                Invocation::ListSuites
            } else {
                Invocation::Test { only }
            }
        }
        "tidy" => Invocation::Tidy,
        "fuzz" => Invocation::Fuzz {
            seconds: take_value(&mut rest, "--seconds")?
                .map(|text| {
                    text.parse()
                        .map_err(|error| usage(format!("--seconds `{text}`: {error}")))
                })
                .transpose()?
                .unwrap_or(FUZZ_SECONDS),
            target: if rest.first().is_some_and(|first| !first.starts_with('-')) {
                Some(rest.remove(0))
            } else {
                None
            },
        },
        "bench" => Invocation::Bench(bench::parse(&mut rest)?),
        "vm" => Invocation::Vm(vm::parse(&mut rest)?),
        unknown => return Err(usage(format!("there is no command `{unknown}`"))),
    };
    match rest.first() {
        None => Ok(invocation),
        Some(extra) => Err(usage(format!("`{command}` does not take `{extra}`"))),
    }
}

pub(crate) fn usage(message: String) -> Failure {
    Failure::usage(message).hint("`cargo xtask help` lists the commands and their options")
}

/// Removes a flag, however often it was given.
pub(crate) fn take_flag(arguments: &mut Vec<String>, flag: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != flag);
    arguments.len() < before
}

/// Removes the first `--option value` or `--option=value`.
pub(crate) fn take_value(
    arguments: &mut Vec<String>,
    option: &str,
) -> Result<Option<String>, Failure> {
    let joined = |argument: &str| {
        argument
            .strip_prefix(option)
            .and_then(|rest| rest.strip_prefix('='))
            .map(str::to_owned)
    };
    for index in 0..arguments.len() {
        if let Some(value) = joined(&arguments[index]) {
            arguments.remove(index);
            return Ok(Some(value));
        }
        if arguments[index] == option {
            if index + 1 == arguments.len() {
                return Err(usage(format!("`{option}` needs a value")));
            }
            arguments.remove(index);
            return Ok(Some(arguments.remove(index)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::process::ExitCode;

    use super::*;

    fn words(line: &str) -> Result<Invocation, Failure> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn suites_can_be_chosen_in_both_spellings() {
        assert_eq!(
            words("test --only fmt --only=clippy").unwrap(),
            Invocation::Test {
                only: vec!["fmt".to_owned(), "clippy".to_owned()]
            }
        );
    }

    #[test]
    fn a_fuzz_target_may_come_before_or_after_its_options() {
        let expected = Invocation::Fuzz {
            target: Some("sni".to_owned()),
            seconds: 5,
        };
        assert_eq!(words("fuzz sni --seconds 5").unwrap(), expected);
        assert_eq!(words("fuzz --seconds=5 sni").unwrap(), expected);
    }

    #[test]
    fn what_a_command_does_not_take_is_a_usage_error() {
        for line in [
            "",
            "frobnicate",
            "build --fast",
            "dist --fast",
            "tidy now",
            "test --only",
            "setup --route snap",
            "fuzz --seconds -1",
            "fuzz a b",
            "bench",
            "bench kernel now",
        ] {
            let failure = words(line).unwrap_err();
            assert_eq!(failure.exit_code(), ExitCode::from(2), "{line}");
        }
    }

    #[test]
    fn help_is_one_option_away_from_every_command() {
        for line in ["help", "--help", "build --help", "fuzz -h"] {
            assert_eq!(words(line).unwrap(), Invocation::Help(HELP), "{line}");
        }
    }
}
