//! `postern detach`: lets go of sandboxes, through the daemon while there is one, else of what an ended
//! one left pinned.

use super::Usage;
use super::daemon::{AdminSocket, REFUSED, outcome};
use super::load::require_root;
use super::output::{complain, print};
use super::run::RUN;
use crate::admin::{Client, ClientError, Request, SandboxInfo, Which};
use crate::app::{Entry, Registry};
use crate::kernel::Pins;
use crate::sandbox::locate::{Hierarchy, Target};
use anyhow::{Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Let go of sandboxes: of the running daemon, or those that an ended one keeps shut
#[derive(Args)]
#[command(after_help = "\
What is let go of reaches the network freely afterwards. A sandbox of `postern run` stays shut when \
the daemon ends or dies, until it is let go of here or attached by another.

Exit status: 0 let go of; 1 not attached; 2 wrong usage; 125 failed.

Examples:
  postern detach /agents/a1
  postern detach 3
  postern detach --all")]
pub(super) struct Detach {
    /// The cgroup (its folder, or its path below the mount), or the sandbox's number in `postern status`
    #[arg(value_name = "CGROUP|ID")]
    sandbox: Option<String>,
    /// Every sandbox
    #[arg(long, conflicts_with = "sandbox")]
    all: bool,
    #[command(flatten)]
    admin: AdminSocket,
}

impl Detach {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.sandbox.is_none() && !self.all {
            let what = "which one? Name a cgroup, a number in `postern status`, or --all";
            return Err(Usage(what.to_owned()).into());
        }
        match self.admin.connect() {
            Ok(client) => match self.through(client) {
                Ok(let_go) => {
                    if let_go.is_empty() {
                        print("nothing was attached")?;
                    }
                    for sandbox in let_go {
                        print(&format!("{sandbox} detached from {}", sandbox.gateway))?;
                    }
                    Ok(ExitCode::SUCCESS)
                }
                Err(error) => Ok(outcome(Err(error))),
            },
            Err(ClientError::NoDaemon(_)) => self.directly(),
            Err(error) => Ok(outcome(Err(error))),
        }
    }

    fn through(&self, mut client: Client) -> Result<Vec<SandboxInfo>, ClientError> {
        let request = match &self.sandbox {
            None => Request::DetachAll,
            Some(named) => Request::Detach {
                which: match named.parse() {
                    Ok(id) => Which::Id(id),
                    Err(_path) => Which::Cgroup(path_of(named)),
                },
            },
        };
        client.change(&request)
    }

    /// Without a daemon the pins are all there is.
    fn directly(&self) -> Result<ExitCode> {
        require_root("letting go of what an ended daemon keeps shut")?;
        let pins = Pins::open()?;
        let paths = paths();
        let ids = match &self.sandbox {
            None => pins.cgroups()?,
            Some(named) if named.parse::<u32>().is_ok() => bail!(
                "sandbox numbers are the daemon's, and none listens on {}; name the cgroup instead",
                self.admin.path.display()
            ),
            Some(named) => match Hierarchy::find()?.locate(&Target::Cgroup(named.into())) {
                Ok(located) => vec![located.id],
                Err(error) => {
                    complain(&format!("postern: {error}"));
                    return Ok(ExitCode::from(REFUSED));
                }
            },
        };
        if ids.is_empty() {
            print("nothing was attached")?;
        }
        for id in ids {
            let named = match &self.sandbox {
                Some(named) => named.clone(),
                None => name(&paths, id),
            };
            if !pins.remove(id)? {
                complain(&format!("postern: {named} is not attached"));
                return Ok(ExitCode::from(REFUSED));
            }
            print(&format!("{named}: detached"))?;
        }
        if self.sandbox.is_none() {
            pins.clear()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What an ended daemon keeps shut, by the paths that cgroups were attached under.
pub(super) fn left_behind() -> Result<Vec<String>> {
    require_root("a look at it")?;
    let paths = paths();
    let ids = Pins::open()?.cgroups()?;
    Ok(ids.into_iter().map(|id| name(&paths, id)).collect())
}

/// As the daemon wrote them down; without that there are numbers.
fn paths() -> BTreeMap<u64, String> {
    let registry = Registry::open(&Path::new(RUN).join("attached"));
    let entries = registry.and_then(|registry| registry.entries());
    let named = |entry: Entry| (entry.cgroup, entry.path.display().to_string());
    entries.unwrap_or_default().into_iter().map(named).collect()
}

fn name(paths: &BTreeMap<u64, String>, id: u64) -> String {
    let known = paths.get(&id).cloned();
    known.unwrap_or_else(|| format!("cgroup {id}"))
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
