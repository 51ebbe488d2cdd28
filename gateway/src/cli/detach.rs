//! `postern detach`: lets go of what an ended `run` left pinned.

use crate::kernel::Pins;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Let go of sandboxes that an ended `run` keeps shut
#[derive(Args)]
#[command(after_help = "\
A sandbox attached by `postern run` stays shut when the daemon ends or dies; what is let go of here
reaches the network freely afterwards.

Examples:
  postern detach /sys/fs/cgroup/agents/a1
  postern detach --all")]
pub(super) struct Detach {
    /// The cgroup's folder
    #[arg(value_name = "CGROUP", required_unless_present = "all")]
    cgroup: Option<PathBuf>,
    /// Every sandbox
    #[arg(long, conflicts_with = "cgroup")]
    all: bool,
}

impl Detach {
    pub(super) fn run(self) -> Result<ExitCode> {
        let pins = Pins::open()?;
        let ids = match &self.cgroup {
            Some(cgroup) => {
                let metadata = cgroup
                    .metadata()
                    .with_context(|| cgroup.display().to_string())?;
                vec![metadata.ino()]
            }
            None => pins.cgroups()?,
        };
        for id in ids {
            if pins.remove(id)? {
                println!("cgroup {id}: detached");
            } else {
                bail!("cgroup {id} is not attached");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
