//! `postern tail`: what the running daemon decides, as it decides it.

mod line;

use super::daemon::{AdminSocket, Paint, REFUSED, outcome};
use super::output::put;
use crate::admin::{Client, ClientError, Streamed, TailRequest};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Follow what is decided, live
#[derive(Args)]
#[command(after_help = "\
One line a denial, request and connection from now on, with the time in UTC; requests and connections \
are told when they end. What was before is in the audit log.

Exit status: 0 the daemon went down, or nobody reads any more; 1 no such sandbox, or cut off for reading \
too slowly; 125 no daemon, or it failed.

Examples:
  postern tail --denied
  postern tail --sandbox a1 --json | jq .host")]
pub(super) struct Tail {
    /// Denials alone
    #[arg(long)]
    denied: bool,
    /// One JSON object a line, as in the audit log
    #[arg(long)]
    json: bool,
    /// Of one sandbox: its label, cgroup, or number in `postern status`
    #[arg(long, value_name = "X")]
    sandbox: Option<String>,
    #[command(flatten)]
    admin: AdminSocket,
}

impl Tail {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.admin.connect() {
            Ok(client) => self.follow(client),
            Err(error) => Ok(outcome(Err(error))),
        }
    }

    fn follow(&self, client: Client) -> Result<ExitCode> {
        let request = TailRequest {
            denied: self.denied,
            sandbox: self.sandbox.clone(),
        };
        let records = match client.tail(request) {
            Ok(records) => records,
            Err(error) => return Ok(outcome(Err(error))),
        };
        let paint = Paint::for_stdout();
        for told in records {
            let shown = match told {
                Ok(Streamed::Record(record)) if self.json => record.to_string(),
                Ok(Streamed::Record(record)) => line::show(&record, paint),
                Ok(Streamed::Lagged(count)) => {
                    eprintln!(
                        "postern: read too slowly, {count} records were not shown; they are in the audit log"
                    );
                    return Ok(ExitCode::from(REFUSED));
                }
                Ok(Streamed::Ended(why)) => {
                    eprintln!("postern: {why}");
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) => return Ok(outcome(Err(error))),
            };
            if !put(&shown)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        Ok(outcome(Err(ClientError::NoDaemon(self.admin.path.clone()))))
    }
}
