//! `postern schema`.

use crate::policy::schema;
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
    pub(super) fn run(self) -> ExitCode {
        let schema = match &self.kind {
            None => schema::all(),
            Some(kind) => match schema::of_kind(kind) {
                Some(schema) => schema,
                None => {
                    let known: Vec<&str> = schema::kinds().collect();
                    eprintln!("postern: there is no kind `{kind}`: {}", known.join(", "));
                    return ExitCode::from(2);
                }
            },
        };
        println!("{schema:#}");
        ExitCode::SUCCESS
    }
}
