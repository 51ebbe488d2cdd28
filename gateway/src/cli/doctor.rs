//! `postern doctor`.

use super::daemon::Paint;
use super::output::print;
use crate::doctor::{Finding, Verdict, examine};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Say what of Postern works on this machine, what does not, and what to do
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 Postern works here, 1 something it needs is missing.

Examples:
  sudo postern doctor
  sudo postern doctor --json")]
pub(super) struct Doctor {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let findings = runtime.block_on(async { examine() });
        let works = findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Missing);
        if self.json {
            print(&serde_json::to_string_pretty(&findings)?)?;
        } else {
            print(&text(&findings, works))?;
        }
        Ok(ExitCode::from(u8::from(!works)))
    }
}

fn text(findings: &[Finding], works: bool) -> String {
    let paint = Paint::for_stdout();
    let mut lines = Vec::new();
    for finding in findings {
        let (sign, code) = match finding.verdict {
            Verdict::Ok => ("ok     ", "32"),
            Verdict::Less => ("less   ", "33"),
            Verdict::Missing => ("missing", "31"),
        };
        let sign = paint.paint(code, sign);
        lines.push(format!("{sign}  {:<14} {}", finding.name, finding.found));
        if !finding.remedy.is_empty() {
            lines.push(format!("         {:<14} → {}", "", finding.remedy));
        }
    }
    let verdict = if works {
        "Postern works here."
    } else {
        "Postern does not work here yet."
    };
    lines.push(format!("\n{verdict}"));
    lines.join("\n")
}
