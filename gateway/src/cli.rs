//! The command line: one file a subcommand. Only here does the gateway print.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking to the person at the terminal is what this module is for"
)]

mod attach;
mod ca;
mod check;
mod daemon;
mod detach;
mod doctor;
mod exec;
mod explain;
mod hidden;
mod learn;
mod load;
mod output;
mod run;
mod schema;
mod secret;
mod status;
mod tail;

use crate::telemetry::log;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where authorities and other state live unless `--state-dir` says otherwise (FHS 3.0 §5.8).
const STATE_DIR: &str = "/var/lib/postern";

/// A failure of the gateway's own, as `docker run` and `env` have it; 126 and 127 are the command's.
const FAILED: u8 = 125;

/// Says what is logged where no option does.
const LOG_VARIABLE: &str = "POSTERN_LOG";

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

/// The only way out of an AI-agent sandbox: decides by policy, injects the credentials that the
/// sandbox never holds, and records what was done.
#[derive(Parser)]
#[command(name = "postern", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  postern check policies/anthropic
  postern explain --policy policies/locked-down github.com:22
  sudo postern secret set anthropic-credentials --from-stdin api-key
  sudo postern exec --policy policies/anthropic -- my-agent
  sudo postern run --policy /etc/postern/policy
  sudo postern attach --container 4f66ad9b1c2e --gateway anthropic
  sudo postern tail --denied
  sudo postern ca export --gateway anthropic > postern-ca.pem")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log filter, such as warn, info or gateway=debug [default: error for exec, info elsewhere]
    #[arg(long, global = true, value_name = "FILTER", env = LOG_VARIABLE)]
    log_level: Option<String>,
    /// Log lines for people or for machines
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: log::Format,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command in a sandbox of its own whose only way out is the gateway
    Exec(exec::Exec),
    /// Run a command with everything allowed, record what it used, print the smallest policy for it
    Learn(learn::Learn),
    /// Run the gateway in the foreground for sandboxes that exist already
    Run(run::Run),
    /// Check a policy folder: all problems at once, each with its place and its remedy
    Check(check::Check),
    /// Say what would become of a request, connection or name, by which rule, or what is missing
    Explain(explain::Explain),
    /// Print the JSON Schema of the policy documents
    Schema(schema::Schema),
    /// The authority that sandboxes of a gateway must trust
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Write, list and remove the secrets that gateways inject
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Make a cgroup that exists a sandbox of the running daemon
    Attach(attach::Attach),
    /// Let go of sandboxes: of the running daemon, or those that an ended one keeps shut
    Detach(detach::Detach),
    /// Show the running daemon: its gateways, sandboxes, counters and protections
    Status(status::Status),
    /// Follow what is decided, live
    Tail(tail::Tail),
    /// Say what of Postern works on this machine, what does not, and what to do
    Doctor(doctor::Doctor),
}

/// Where things are: the same for every subcommand that serves.
#[derive(Args)]
struct Folders {
    /// Folder of policy files, or one file
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// Folder of NAME/KEY secret files (0600), followed while it changes [default: STATE_DIR/secrets]
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Folder for authorities and other state
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Append one JSON line a denial, connection and request to this file
    /// [default: STATE_DIR/audit.jsonl]
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

/// Parses, runs, and turns the outcome into an exit status: 0, the command's own, 1 for a policy
/// with errors or what the daemon refuses, 2 for wrong usage, 125 for a failure of the gateway.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let source = matches.value_source("log_level");
        Cli::from_arg_matches(&matches).map(|cli| (cli, source))
    });
    let (cli, level_source) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let status = if error.use_stderr() {
                usage_status()
            } else {
                0
            };
            if let Err(error) = error.print() {
                output::complain(&format!("postern: {error}"));
            }
            return ExitCode::from(status);
        }
    };
    let default = match cli.command {
        Command::Exec(_) | Command::Learn(_) => "error",
        _ => "info",
    };
    let by_variable = level_source == Some(ValueSource::EnvVariable);
    // A variable that is empty is one that is not set, as for most programs; an option is not.
    let level = cli.log_level.as_deref();
    let level = level.filter(|level| !(by_variable && level.is_empty()));
    let level = level.unwrap_or(default);
    if let Err(message) = log::init(level, cli.log_format) {
        let message = if by_variable {
            message.replacen("--log-level", LOG_VARIABLE, 1)
        } else {
            message
        };
        output::complain(&format!("postern: {message}"));
        return ExitCode::from(usage_status());
    }
    let debug_kernel = level.contains("debug") || level.contains("trace");
    let outcome = match cli.command {
        Command::Exec(exec) => exec.run(debug_kernel),
        Command::Learn(learn) => learn.run(debug_kernel),
        Command::Run(run) => run.run(debug_kernel),
        Command::Check(check) => check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Schema(schema) => schema.run(),
        Command::Ca(ca) => ca.run(),
        Command::Secret(secret) => secret.run(),
        Command::Attach(attach) => attach.run(),
        Command::Detach(detach) => detach.run(),
        Command::Status(status) => status.run(),
        Command::Tail(tail) => tail.run(),
        Command::Doctor(doctor) => doctor.run(),
    };
    match outcome {
        Ok(status) => status,
        Err(error) => {
            let status = match error.downcast_ref::<Usage>() {
                Some(_) => usage_status(),
                None => FAILED,
            };
            output::complain(&format!("postern: {}", output::causes(&error)));
            ExitCode::from(status)
        }
    }
}

/// For `exec` and `learn` everything below 125 may be the command's own status.
fn usage_status() -> u8 {
    let first = std::env::args_os().nth(1);
    if first.is_some_and(|first| first == "exec" || first == "learn") {
        FAILED
    } else {
        USAGE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::Cli;
    use clap::CommandFactory;

    /// Every command with its name.
    fn commands(of: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
        let after = of.get_after_help().map(ToString::to_string);
        found.push((name.to_owned(), after.unwrap_or_default()));
        for below in of.get_subcommands().filter(|below| !below.is_hide_set()) {
            commands(below, &format!("{name} {}", below.get_name()), found);
        }
    }

    /// A terminal of eighty columns wraps what is longer: an example would be broken, and a line that is wrapped by hand
    /// leave an orphan.
    #[test]
    fn help_reads_well_at_eighty_columns() {
        let mut found = Vec::new();
        commands(&Cli::command(), "postern", &mut found);
        assert!(found.len() > 15, "{found:#?}");
        for (name, after) in found {
            for line in after.lines() {
                let example = line.starts_with("  ");
                assert!(
                    !example || line.chars().count() <= 80,
                    "{name}: an example is too long: {line}"
                );
                assert!(
                    example || line.is_empty() || line.ends_with(['.', ':']),
                    "{name}: wrapped by hand: {line}"
                );
            }
            let leaf = !matches!(name.as_str(), "postern" | "postern ca" | "postern secret");
            let says = after.contains("Exit status:") || after.contains("The exit status is");
            assert!(!leaf || says, "{name} does not say its exit status");
        }
    }
}

/// What was asked for cannot be meant, which clap could not know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);
