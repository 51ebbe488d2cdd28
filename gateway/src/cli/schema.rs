//! `postern schema`.

use super::USAGE;
use super::output::{complain, print};
use crate::policy::schema;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Print the JSON Schema of the policy documents
#[derive(Args)]
#[command(after_help = "\
One document is described at a time, as YAML editors want it. Exit status: 0, or 2 for an unknown kind.

Examples:
  postern schema > policy.schema.json
  postern schema EgressGateway

In a policy file:
  # yaml-language-server: $schema=policy.schema.json")]
pub(super) struct Schema {
    /// Only this kind
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

impl Schema {
    pub(super) fn run(self) -> Result<ExitCode> {
        let schema = match &self.kind {
            None => schema::all(),
            Some(kind) => match schema::of_kind(kind) {
                Some(schema) => schema,
                None => {
                    let known: Vec<&str> = schema::kinds().collect();
                    complain(&format!(
                        "postern: there is no kind `{kind}`; known: {}",
                        known.join(", ")
                    ));
                    return Ok(ExitCode::from(USAGE));
                }
            },
        };
        print(&format!("{schema:#}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
