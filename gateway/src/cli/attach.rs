//! `postern attach`: a cgroup that exists becomes a sandbox of the running daemon.

use super::daemon::{AdminSocket, outcome};
use super::output::{complain, print};
use crate::admin::{AttachRequest, ClientError, Failure, Request, SandboxInfo};
use crate::sandbox::locate::{Hierarchy, Target};
use crate::sandbox::risks::risks;
use anyhow::Result as Outcome;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make a cgroup that exists a sandbox of the running daemon
#[derive(Args)]
#[command(after_help = "\
The processes in it, now and later, reach nothing but what the gateway's policy allows. They are not \
confined otherwise: what could leave the cgroup is told as a warning. To make TLS work for them, have \
them trust what `postern ca export --gateway G` prints.

Exit status: 0 attached; 1 refused (no such cgroup or gateway, several of that name, or one that is \
inside or above an attached one); 2 wrong usage; 125 no daemon, or it failed.

Examples:
  postern attach /agents/a1 --gateway anthropic
  postern attach --unit agent@1.service --gateway anthropic --label alice
  postern attach --container 4f66ad9b1c2e --gateway research")]
pub(super) struct Attach {
    #[command(flatten)]
    what: What,
    /// EgressGateway of the daemon's policy
    #[arg(long, value_name = "NAME")]
    gateway: String,
    /// What records and `postern tail` call it [default: the cgroup's path]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    #[command(flatten)]
    admin: AdminSocket,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The cgroup's folder, or its path below the mount
    #[arg(value_name = "CGROUP")]
    cgroup: Option<PathBuf>,
    /// The cgroup that a process is in
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// The cgroup of a unit of the system's systemd
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// The cgroup of a container, by 12 digits of its id or more
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

impl Attach {
    pub(super) fn run(self) -> Outcome<ExitCode> {
        let (attached, risks) = match self.attach() {
            Ok(done) => done,
            Err(error) => return Ok(outcome(Err(error))),
        };
        for risk in risks {
            complain(&format!("postern: warning: {risk}"));
        }
        for sandbox in attached {
            print(&format!("{sandbox} attached to {}", sandbox.gateway))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What was attached, and what could leave it.
    fn attach(self) -> Result<(Vec<SandboxInfo>, Vec<String>), ClientError> {
        // Here and not in the daemon: a process's number is this pid namespace's.
        let Some(target) = self.what.target() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let hierarchy = Hierarchy::find().map_err(Failure::from)?;
        let located = hierarchy.locate(&target).map_err(Failure::from)?;
        let request = Request::Attach(AttachRequest {
            cgroup: located.path,
            cgroup_id: located.id,
            gateway: self.gateway,
            label: self.label,
            origin: format!("attach {target}"),
        });
        let attached = self.admin.connect()?.change(&request)?;
        Ok((attached, risks(&located.directory)))
    }
}

impl What {
    /// clap sees to it that there is exactly one.
    fn target(&self) -> Option<Target> {
        let cgroup = self.cgroup.clone().map(Target::Cgroup);
        cgroup
            .or(self.pid.map(Target::Pid))
            .or(self.unit.clone().map(Target::Unit))
            .or(self.container.clone().map(Target::Container))
    }
}
