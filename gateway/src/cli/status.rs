//! `postern status`: what the running daemon says of itself.

use super::daemon::{AdminSocket, Paint, duration, outcome, plain};
use super::detach::left_behind;
use super::output::{causes, complain, put};
use crate::admin::{Client, ClientError, SandboxInfo, Status as Standing};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Show the running daemon: its gateways, sandboxes, counters and protections
#[derive(Args)]
#[command(after_help = "\
Without a daemon it says what an ended one keeps shut.

Exit status: 0 shown; 125 no daemon, or it failed.

Examples:
  postern status
  postern status --json | jq '.sandboxes[] | {label, connections}'")]
pub(super) struct Status {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminSocket,
}

impl Status {
    pub(super) fn run(self) -> Result<ExitCode> {
        let standing = match self.ask() {
            Ok(standing) => standing,
            Err(error) => {
                let is_gone = matches!(error, ClientError::NoDaemon(_));
                if self.json {
                    put(&serde_json::to_string_pretty(&no_standing(&error))?)?;
                }
                let status = outcome(Err(error));
                if is_gone {
                    complain(&kept_shut());
                }
                return Ok(status);
            }
        };
        if self.json {
            put(&serde_json::to_string_pretty(&standing)?)?;
        } else {
            put(show(&standing, Paint::for_stdout()).trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn ask(&self) -> Result<Standing, ClientError> {
        Client::connect_briefly(&self.admin.path)?.status()
    }
}

/// For who reads JSON: that there is no standing, why, and what an ended daemon keeps shut (`null` where that cannot
/// be told).
fn no_standing(error: &ClientError) -> serde_json::Value {
    let left = match error {
        ClientError::NoDaemon(_) => left_behind().ok(),
        _ => None,
    };
    serde_json::json!({"error": error.to_string(), "kept_shut": left})
}

/// What an ended daemon has left, as far as this user may look.
fn kept_shut() -> String {
    let left = match left_behind() {
        Ok(left) => left,
        Err(error) => {
            return format!(
                "postern: whether an ended daemon keeps sandboxes shut cannot be told: {}; try sudo",
                causes(&error)
            );
        }
    };
    if left.is_empty() {
        return "postern: no ended daemon keeps a sandbox shut".to_owned();
    }
    let mut lines = vec![
        "postern: an ended daemon keeps these shut until `postern run` serves them again or `postern detach` sets them free:".to_owned(),
    ];
    lines.extend(left.iter().map(|left| format!("  {}", plain(left))));
    lines.join("\n")
}

/// The whole of it for people. Ends in a line break.
fn show(standing: &Standing, paint: Paint) -> String {
    let mut lines = vec![format!(
        "postern {}, process {}, up {}{}",
        standing.version,
        standing.pid,
        duration(standing.uptime),
        if standing.draining { ", draining" } else { "" },
    )];
    lines.push(format!(
        "policy  {}, generation {}, {} not taken since the start",
        plain(&standing.policy),
        standing.generation,
        plural(standing.reload_failures, "change"),
    ));
    if let Some(error) = &standing.reload_error {
        let now = standing.started + standing.uptime;
        let ago = standing
            .reload_failed_at
            .map(|at| format!(", {} ago", duration(now.saturating_sub(at))))
            .unwrap_or_default();
        let text = format!("the last change was not taken{ago}: {}", plain(error));
        lines.push(format!("        {}", paint.paint("31", &text)));
    }
    if standing.denials_not_recorded > 0 {
        lines.push(format!(
            "records {} were too many to record each",
            plural(standing.denials_not_recorded, "denial")
        ));
    }
    lines.push(String::new());
    let gateways = standing.gateways.iter().map(|gateway| {
        let of_it = |sandbox: &&SandboxInfo| sandbox.gateway == gateway.name;
        let count = standing.sandboxes.iter().filter(of_it).count();
        vec![
            plain(&gateway.name),
            count.to_string(),
            plain(&gateway.problems.join("; ")),
        ]
    });
    lines.extend(table(&["GATEWAY", "SANDBOXES", "PROBLEMS"], gateways));
    lines.push(String::new());
    if standing.sandboxes.is_empty() {
        lines.push("no sandbox is attached; see `postern attach --help`".to_owned());
    } else {
        let columns = [
            "ID",
            "LABEL",
            "CGROUP",
            "GATEWAY",
            "STATE",
            "SINCE",
            "OPEN",
            "REDIRECTED",
            "REFUSED",
            "LISTENS IN",
            "BY",
        ];
        let now = standing.started + standing.uptime;
        let rows = standing.sandboxes.iter().map(|sandbox| row(sandbox, now));
        lines.extend(table(&columns, rows));
    }
    lines.push(String::new());
    let protections = standing.protections.iter().map(|protection| {
        let active = if protection.active { "yes" } else { "NO" };
        vec![
            plain(&protection.name),
            active.to_owned(),
            plain(&protection.detail),
        ]
    });
    lines.extend(table(&["PROTECTION", "ACTIVE", "WHAT"], protections));
    lines.join("\n") + "\n"
}

fn row(sandbox: &SandboxInfo, now: u64) -> Vec<String> {
    let private = sandbox
        .namespaces
        .iter()
        .filter(|namespace| namespace.private)
        .count();
    let listens = match (sandbox.namespaces.len() - private, private) {
        (0, 0) => "nowhere".to_owned(),
        (0, own) => format!("{own} of its own"),
        (_, 0) => "the host's".to_owned(),
        (_, own) => format!("the host's and {own}"),
    };
    vec![
        sandbox.id.to_string(),
        plain(&sandbox.label),
        plain(&sandbox.cgroup),
        plain(&sandbox.gateway),
        if sandbox.open { "open" } else { "shut" }.to_owned(),
        duration(now.saturating_sub(sandbox.since)),
        sandbox.connections.to_string(),
        sandbox.redirected.to_string(),
        sandbox.refusals().to_string(),
        listens,
        plain(&sandbox.origin),
    ]
}

/// Columns as wide as their widest entry; the last one as wide as it likes.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let header = columns.iter().map(|name| (*name).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let lengths = all.iter().filter_map(|row| row.get(column));
            lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    all.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
