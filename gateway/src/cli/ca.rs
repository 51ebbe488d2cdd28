//! `postern ca`.

use super::STATE_DIR;
use crate::tls::Authority;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The authority that sandboxes of a gateway must trust
#[derive(Subcommand)]
pub(super) enum Ca {
    /// Print a gateway's certificate (PEM), never its key
    #[command(after_help = "\
Examples:
  postern ca export --gateway anthropic > postern-ca.pem
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
        let authority = Authority::load_or_create(&state_dir, &gateway)?;
        std::io::stdout()
            .write_all(authority.certificate_pem().as_bytes())
            .context("cannot write the certificate")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn missing(state_dir: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no state folder {}; `postern run` and `postern exec` make it, or name another with --state-dir",
        state_dir.display()
    )
}
