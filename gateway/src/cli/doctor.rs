//! `postern doctor`.

use crate::doctor::{Verdict, examine};
use anyhow::Result;
use clap::Args;
use std::io::IsTerminal;
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
            println!("{}", serde_json::to_string_pretty(&findings)?);
        } else {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            for finding in &findings {
                let (sign, code) = match finding.verdict {
                    Verdict::Ok => ("ok     ", "32"),
                    Verdict::Less => ("less   ", "33"),
                    Verdict::Missing => ("missing", "31"),
                };
                let sign = if colour {
                    format!("\u{1b}[{code}m{sign}\u{1b}[0m")
                } else {
                    sign.to_owned()
                };
                println!("{sign}  {:<14} {}", finding.name, finding.found);
                if !finding.remedy.is_empty() {
                    println!("         {:<14} → {}", "", finding.remedy);
                }
            }
            println!(
                "\n{}",
                if works {
                    "Postern works here."
                } else {
                    "Postern does not work here yet."
                }
            );
        }
        Ok(ExitCode::from(u8::from(!works)))
    }
}
