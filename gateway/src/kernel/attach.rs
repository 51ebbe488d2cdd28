//! Attaches the programs to cgroups, and takes over what another process left attached. Knows not what
//! the programs decide.

use super::error::KernelError;
use super::maps::RuleSet;
use super::pins::Pins;
use super::programs::{Kernel, LoadedProgram};
use super::tables::Tables;
use crate::sys::{self, bpf::CgroupLink};
use gateway_common::Settings;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracing::{info, warn};

/// The gateway's number for an attached sandbox; never zero, and never used twice as long as the maps
/// live that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub(super) u32);

impl SandboxId {
    /// The number as records carry it.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Of no sandbox.
    #[cfg(test)]
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// The links of one attached sandbox. Dropping it detaches, unless pins or copies of the descriptors
/// exist.
pub struct Attachment {
    /// The sandbox's number.
    pub sandbox: SandboxId,
    pub(super) cgroup: u64,
    pub(super) ruleset: Option<RuleSet>,
    links: Vec<(&'static str, OwnedFd)>,
    is_resumed: bool,
}

impl Attachment {
    /// The link descriptors, for a process that keeps the sandbox shut if this one dies.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(|(_, link)| link.as_fd())
    }

    /// The programs that are attached.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.links.iter().map(|(name, _)| *name)
    }

    /// The cgroup's kernel id.
    pub fn cgroup(&self) -> u64 {
        self.cgroup
    }

    /// Does it go on with the number, rules and listeners that an earlier daemon gave it? Then the
    /// rules of then are in force until the next [`Kernel::activate`].
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}

impl Kernel {
    /// Attaches all programs to a cgroup. Until [`Kernel::activate`] everything in it is refused.
    ///
    /// # Errors
    /// [`KernelError::Attach`]; nothing stays attached then.
    pub fn attach(
        &self,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
    ) -> Result<Attachment, KernelError> {
        let mut links = Vec::new();
        for program in self.programs() {
            links.push((program.name, program.link(cgroup)?));
        }
        Ok(Attachment {
            sandbox: self.tables().new_sandbox()?,
            cgroup: cgroup_id,
            ruleset: None,
            links,
            is_resumed: false,
        })
    }

    /// As [`Kernel::attach`], and keeps the links pinned: the sandbox stays shut when this process ends.
    ///
    /// # Errors
    /// Also [`KernelError::Pins`].
    pub fn attach_pinned(
        &self,
        pins: &Pins,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
    ) -> Result<Attachment, KernelError> {
        let attachment = self.attach(cgroup, cgroup_id)?;
        let links = attachment
            .links
            .iter()
            .map(|(name, link)| (*name, link.as_fd()));
        pins.replace(cgroup_id, links)?;
        Ok(attachment)
    }

    /// Takes over the cgroup that an ended daemon kept shut; `None` if none did. There is no instant
    /// without: each of its links gets this process's program in the place of the old one at once. Links
    /// of another layout of the maps are let go of when new ones are in force; then the sandbox starts
    /// anew ([`Attachment::is_resumed`] says no), as refused as before.
    ///
    /// Until listeners are there again under [`Kernel::add_listener`], at best at the ports of
    /// [`Kernel::listeners_of`], nothing is redirected.
    ///
    /// # Errors
    /// [`KernelError`]; the cgroup stays as shut as it was.
    pub fn adopt(
        &self,
        pins: &Pins,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
    ) -> Result<Option<Attachment>, KernelError> {
        let Some(found) = pins.links(cgroup_id)? else {
            return Ok(None);
        };
        let settings = self.tables().settings(cgroup_id);
        match (self.matching(found, cgroup_id), settings) {
            (Some(links), Some(settings)) => {
                let resumed = self.resume(pins, cgroup, cgroup_id, links, settings);
                resumed.map(Some)
            }
            _ => {
                info!(
                    cgroup_id,
                    "pinned links are of another version; replacing them"
                );
                let attachment = self.attach_pinned(pins, cgroup, cgroup_id)?;
                if let Some(settings) = settings.filter(|settings| settings.sandbox != 0) {
                    let mut tables = self.tables();
                    tables.deactivate(cgroup_id, SandboxId(settings.sandbox));
                    let old = tables.ruleset(&settings);
                    tables.remove_rules(old);
                }
                Ok(Some(attachment))
            }
        }
    }

    /// The pinned links, one for each program that must be there, and for others if they are; `None` if
    /// one is missing or is not what its name says.
    fn matching(
        &self,
        mut found: BTreeMap<String, OwnedFd>,
        cgroup: u64,
    ) -> Option<Vec<(&LoadedProgram, Option<OwnedFd>)>> {
        let mut links = Vec::new();
        for program in self.programs() {
            let link = found.remove(program.name);
            let wanted = CgroupLink {
                cgroup,
                attach_type: program.attach_type,
            };
            let fits = match &link {
                Some(link) => match sys::bpf::cgroup_link(link.as_fd()) {
                    Ok(link) => link == wanted,
                    Err(error) => {
                        warn!(%error, program = program.name, "pinned link not understood");
                        false
                    }
                },
                None => program.is_optional,
            };
            if !fits {
                return None;
            }
            links.push((program, link));
        }
        Some(links)
    }

    fn resume(
        &self,
        pins: &Pins,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
        found: Vec<(&LoadedProgram, Option<OwnedFd>)>,
        settings: Settings,
    ) -> Result<Attachment, KernelError> {
        let mut links = Vec::new();
        for (program, link) in found {
            let link = match link {
                Some(link) => {
                    sys::bpf::update_link(link.as_fd(), program.fd.as_fd()).map_err(|source| {
                        KernelError::Attach {
                            name: program.name,
                            source,
                        }
                    })?;
                    link
                }
                None => {
                    let link = program.link(cgroup)?;
                    pins.add(cgroup_id, program.name, link.as_fd())?;
                    link
                }
            };
            links.push((program.name, link));
        }
        let mut tables = self.tables();
        let (sandbox, ruleset) = identity(&mut tables, &settings)?;
        Ok(Attachment {
            sandbox,
            cgroup: cgroup_id,
            ruleset,
            links,
            is_resumed: settings.sandbox != 0,
        })
    }

    /// Sets a cgroup free: removes its pins and links, then what the maps have of it.
    ///
    /// # Errors
    /// If the pins cannot be removed; then it stays attached, but everything in it is refused.
    pub fn detach(&self, pins: &Pins, mut attachment: Attachment) -> Result<(), KernelError> {
        let removed = pins.remove(attachment.cgroup);
        attachment.links.clear();
        self.deactivate(&mut attachment);
        removed?;
        Ok(())
    }
}

/// The number and rules that the settings name, or a new number where the earlier daemon died before it
/// had written any.
fn identity(
    tables: &mut Tables,
    settings: &Settings,
) -> Result<(SandboxId, Option<RuleSet>), KernelError> {
    if settings.sandbox == 0 {
        return Ok((tables.new_sandbox()?, None));
    }
    tables.resume(*settings);
    Ok((SandboxId(settings.sandbox), Some(tables.ruleset(settings))))
}
