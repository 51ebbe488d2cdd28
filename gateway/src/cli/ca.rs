//! `postern ca`.

use super::output::{complain, print};
use super::{STATE_DIR, Usage};
use crate::tls::{self, Authority, AuthorityError};
use anyhow::{Context, Result};
use clap::Subcommand;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The authority that sandboxes of a gateway must trust
#[derive(Subcommand)]
pub(super) enum Ca {
    /// Print a gateway's certificate (PEM), never its key
    #[command(after_help = "\
A gateway that has none yet gets it now, so that images can be built before its first start, and so does a state \
folder that does not exist; that is said on standard error.

Exit status: 0 printed; 2 wrong usage; 125 the state folder cannot be used.

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
            return Err(Usage(format!(
                "--gateway {gateway}: the name of an EgressGateway has lower-case letters, digits, '-' and '.' only"
            ))
            .into());
        }
        if !state_dir.exists() {
            make(&state_dir)?;
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

/// As `run` and `exec` make it: for its owner alone.
fn make(state_dir: &Path) -> Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir);
    made.with_context(|| {
        format!(
            "cannot make the state folder {}; run it with sudo, or name a folder of yours with --state-dir",
            state_dir.display()
        )
    })?;
    complain(&format!(
        "postern: made the state folder {}",
        state_dir.display()
    ));
    Ok(())
}
