//! `postern detach`: lets go of sandboxes, through the daemon while there is one, else of what an ended
//! one left pinned.

use super::daemon::{AdminSocket, REFUSED, outcome};
use crate::admin::{Client, ClientError, Request, Which};
use crate::kernel::Pins;
use crate::sandbox::locate::{Hierarchy, Target};
use anyhow::{Result, bail};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Let go of sandboxes: of the running daemon, or those that an ended one keeps shut
#[derive(Args)]
#[command(after_help = "\
What is let go of reaches the network freely afterwards. A sandbox of `postern run` stays shut when
the daemon ends or dies, until it is let go of here or attached by another.

Exit status: 0 let go of; 1 not attached; 2 wrong usage; 125 failed.

Examples:
  postern detach /agents/a1
  postern detach 3
  postern detach --all")]
pub(super) struct Detach {
    /// The cgroup (its folder, or its path below the mount), or the sandbox's number in `postern status`
    #[arg(value_name = "CGROUP|ID", required_unless_present = "all")]
    sandbox: Option<String>,
    /// Every sandbox
    #[arg(long, conflicts_with = "sandbox")]
    all: bool,
    #[command(flatten)]
    admin: AdminSocket,
}

impl Detach {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.admin.connect() {
            Ok(client) => Ok(outcome(self.through(client))),
            Err(ClientError::NoDaemon(_)) => self.directly(),
            Err(error) => Ok(outcome(Err(error))),
        }
    }

    fn through(&self, mut client: Client) -> Result<(), ClientError> {
        let request = match &self.sandbox {
            None => Request::DetachAll,
            Some(named) => Request::Detach {
                which: match named.parse() {
                    Ok(id) => Which::Id(id),
                    Err(_path) => Which::Cgroup(path_of(named)),
                },
            },
        };
        let let_go = client.change(&request)?;
        if let_go.is_empty() {
            println!("nothing was attached");
        }
        for sandbox in let_go {
            println!("{sandbox} detached from {}", sandbox.gateway);
        }
        Ok(())
    }

    /// Without a daemon the pins are all there is.
    fn directly(&self) -> Result<ExitCode> {
        let pins = Pins::open()?;
        let ids = match &self.sandbox {
            None => pins.cgroups()?,
            Some(named) if named.parse::<u32>().is_ok() => bail!(
                "sandbox numbers are the daemon's, and none listens on {}; name the cgroup instead",
                self.admin.path.display()
            ),
            Some(named) => match Hierarchy::find()?.locate(&Target::Cgroup(named.into())) {
                Ok(located) => vec![located.id],
                Err(error) => {
                    eprintln!("postern: {error}");
                    return Ok(ExitCode::from(REFUSED));
                }
            },
        };
        if ids.is_empty() {
            println!("nothing was attached");
        }
        for id in ids {
            if !pins.remove(id)? {
                eprintln!("postern: cgroup {id} is not attached");
                return Ok(ExitCode::from(REFUSED));
            }
            println!("cgroup {id}: detached");
        }
        if self.sandbox.is_none() {
            pins.clear()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The path below the mount. One that is gone may be attached still, under the path that it had.
fn path_of(named: &str) -> String {
    let below = |hierarchy: Hierarchy| match hierarchy.locate(&Target::Cgroup(named.into())) {
        Ok(located) => located.path,
        Err(_gone) => {
            let rest = Path::new(named).strip_prefix(hierarchy.mount());
            let rest = rest.unwrap_or(Path::new(named)).display().to_string();
            format!("/{}", rest.trim_start_matches('/'))
        }
    };
    Hierarchy::find().map_or_else(|_none| named.to_owned(), below)
}
