//! What follows `cargo xtask vm`: arguments in, one [`Order`] or a usage error out. It refuses to know what is done.

use std::num::{NonZero, ParseIntError};

use super::kernels::DEFAULT;
use super::suites::{Lsm, TestOptions};
use super::tree::quoted;
use crate::Failure;
use crate::args::{take_flag, take_value, usage};

/// One `vm` command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    List,
    Test(TestOptions),
    /// An empty command: a prompt.
    Shell {
        kernel: String,
        with_lsm: bool,
        command: String,
    },
    Box {
        kernel: String,
    },
    Vagrant {
        kernel: String,
    },
}

/// Takes the words after `vm` that it understands out of `rest`.
pub(crate) fn parse(rest: &mut Vec<String>) -> Result<Order, Failure> {
    if rest.is_empty() {
        return Err(usage(
            "`vm` needs one of test, shell, box, vagrant, list".to_owned(),
        ));
    }
    let order = rest.remove(0);
    // What comes after `--` is the guest's.
    let command = match rest.iter().position(|word| word == "--") {
        Some(at) => {
            let words = rest.split_off(at);
            match &words[1..] {
                // A line for the guest's shell, or the words of one command.
                [line] => line.clone(),
                words => words
                    .iter()
                    .map(|word| quoted(word))
                    .collect::<Vec<_>>()
                    .join(" "),
            }
        }
        None => String::new(),
    };
    let takes_command = order == "shell";
    if !takes_command && !command.is_empty() {
        return Err(usage(format!("`vm {order}` takes no command")));
    }
    let mut kernels = Vec::new();
    while let Some(names) = take_value(rest, "--kernel")? {
        kernels.extend(names.split(',').map(str::to_owned));
    }
    let one = |kernels: Vec<String>| match kernels.as_slice() {
        [] => Ok(DEFAULT.to_owned()),
        [kernel] => Ok(kernel.clone()),
        _ => Err(usage(format!("`vm {order}` takes one kernel"))),
    };
    Ok(match order.as_str() {
        "list" => Order::List,
        "test" => {
            let mut suites = Vec::new();
            while let Some(names) = take_value(rest, "--suite")? {
                suites.extend(names.split(',').map(str::to_owned));
            }
            Order::Test(TestOptions {
                kernels,
                suites,
                filter: take_value(rest, "--filter")?,
                lsm: lsm(rest)?,
                wan: take_flag(rest, "--wan"),
                keep: take_flag(rest, "--keep"),
                jobs: jobs(rest)?,
            })
        }
        "shell" => Order::Shell {
            with_lsm: match lsm(rest)? {
                Lsm::On => true,
                Lsm::Off => false,
                Lsm::Both => return Err(usage("`vm shell` boots one guest".to_owned())),
            },
            kernel: one(kernels)?,
            command,
        },
        "box" => Order::Box {
            kernel: one(kernels)?,
        },
        "vagrant" => Order::Vagrant {
            kernel: one(kernels)?,
        },
        unknown => return Err(usage(format!("there is no command `vm {unknown}`"))),
    })
}

fn lsm(rest: &mut Vec<String>) -> Result<Lsm, Failure> {
    match take_value(rest, "--lsm")?.as_deref() {
        None | Some("on") => Ok(Lsm::On),
        Some("off") => Ok(Lsm::Off),
        Some("both") => Ok(Lsm::Both),
        Some(other) => Err(usage(format!("--lsm is on, off or both, not `{other}`"))),
    }
}

fn jobs(rest: &mut Vec<String>) -> Result<Option<NonZero<usize>>, Failure> {
    let wrong = |text: &str, error: &ParseIntError| {
        usage(format!(
            "--jobs is a number of guests, not `{text}`: {error}"
        ))
    };
    take_value(rest, "--jobs")?
        .map(|text| {
            text.parse()
                .map_err(|error: ParseIntError| wrong(&text, &error))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn words(line: &str) -> Result<Order, Failure> {
        parse(&mut line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn kernels_and_suites_can_be_listed_or_repeated() {
        let expected = Order::Test(TestOptions {
            kernels: vec!["6.1".to_owned(), "7.3".to_owned()],
            suites: vec!["denied".to_owned(), "http".to_owned()],
            lsm: Lsm::Off,
            jobs: NonZero::new(3),
            ..TestOptions::default()
        });
        assert_eq!(
            words("test --kernel 6.1,7.3 --suite denied --suite=http --lsm off --jobs 3").unwrap(),
            expected
        );
    }

    #[test]
    fn a_shell_takes_a_command_and_one_kernel() {
        let expected = Order::Shell {
            kernel: DEFAULT.to_owned(),
            with_lsm: true,
            command: "'demo' '--lsm' 'x'".to_owned(),
        };
        assert_eq!(words("shell -- demo --lsm x").unwrap(), expected);
        let line = ["shell", "--", "cd /srv && ls"].map(str::to_owned);
        assert!(matches!(
            parse(&mut line.to_vec()),
            Ok(Order::Shell { command, .. }) if command == "cd /srv && ls"
        ));
        assert!(words("shell --kernel 6.1,7.3").is_err());
        assert!(words("list -- demo").is_err());
        assert!(words("test --lsm maybe").is_err());
        assert!(words("test --jobs 0").is_err());
        assert!(words("shell --lsm both").is_err());
        assert!(words("").is_err());
    }
}
