//! `postern ca`.

use super::STATE_DIR;
use super::output::{complain, print};
use crate::tls::{self, Authority, AuthorityError};
use anyhow::{Result, bail};
use clap::Subcommand;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The authority that sandboxes of a gateway must trust
#[derive(Subcommand)]
pub(super) enum Ca {
    /// Print a gateway's certificate (PEM), never its key
    #[command(after_help = "\
A gateway that has none yet gets it now, so that images can be built before its first start; that is said
on standard error.

Examples:
  sudo postern ca export --gateway anthropic > postern-ca.pem
  docker build --secret id=ca,src=postern-ca.pem .")]
    Export {
        /// Name of the EgressGateway
        #[arg(long)]
        gateway: String,
        /// Folder with the authorities
        #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
        state_dir: PathBuf,
    },
}

impl Ca {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self::Export { gateway, state_dir } = self;
        let plain = !gateway.is_empty()
            && gateway.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
            })
            && !gateway.starts_with('.');
        if !plain {
            bail!(
                "--gateway {gateway}: the name of an EgressGateway has lower-case letters, digits, '-' and '.' only"
            );
        }
        if !state_dir.is_dir() {
            return Err(missing(&state_dir));
        }
        let known = tls::known(&state_dir).map_err(hinted)?;
        let authority = Authority::load_or_create(&state_dir, &gateway).map_err(hinted)?;
        if !known.contains(&gateway) {
            let others = if known.is_empty() {
                "none had one".to_owned()
            } else {
                format!("there are those of {}", known.join(", "))
            };
            complain(&format!(
                "postern: gateway {gateway} had no authority yet: this is a new one, for when a policy has an EgressGateway of that name ({others})"
            ));
        }
        print(authority.certificate_pem().trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn hinted(error: AuthorityError) -> anyhow::Error {
    match &error {
        AuthorityError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{error}; run it with sudo, or name a folder of yours with --state-dir")
        }
        _ => error.into(),
    }
}

fn missing(state_dir: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no state folder {}; `postern run` and `postern exec` make it, or name another with --state-dir",
        state_dir.display()
    )
}
