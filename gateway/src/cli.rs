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
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where authorities and other state live unless `--state-dir` says otherwise (FHS 3.0 §5.8).
const STATE_DIR: &str = "/var/lib/postern";

/// A failure of the gateway's own, as `docker run` and `env` have it; 126 and 127 are the command's.
const FAILED: u8 = 125;

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

/// The only way out of an AI-agent sandbox: decides by policy, injects the credentials that the
/// sandbox never holds, and records what was done.
#[derive(Parser)]
#[command(name = "postern", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  postern check policies/anthropic
  postern explain --policy policies/anthropic https://api.anthropic.com/v1/messages --method POST
  sudo postern secret set anthropic-credentials --from-stdin api-key
  sudo postern exec --policy policies/anthropic -- my-agent --task 'fix the tests'
  sudo postern run --policy /etc/postern/policy --attach /sys/fs/cgroup/agents/a1=anthropic
  sudo postern attach --container 4f66ad9b1c2e --gateway anthropic
  sudo postern tail --denied
  sudo postern ca export --gateway anthropic > postern-ca.pem")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log filter, such as warn, info or gateway=debug [default: error for exec, info elsewhere]
    #[arg(long, global = true, value_name = "FILTER", env = "POSTERN_LOG")]
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
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
    let level = cli.log_level.as_deref().unwrap_or(default);
    if let Err(message) = log::init(level, cli.log_format) {
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

/// What was asked for cannot be meant, which clap could not know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);
