//! What `exec` and `run` have in common: a policy that compiles, and the folders that go with it.

use super::Folders;
use super::check::show;
use crate::app::Places;
use crate::policy::{Policy, Severity};
use crate::store;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Folders, made and checked.
pub(super) struct Settled {
    pub(super) policy: PathBuf,
    pub(super) state: PathBuf,
    pub(super) secrets: PathBuf,
    pub(super) audit: PathBuf,
    /// Is it put aside when it is full?
    pub(super) rotates: bool,
}

/// A policy that compiles.
pub(super) struct Loaded {
    pub(super) policy: Policy,
    /// Of its texts, so that changes are noticed; `None` for a policy that is in no file.
    pub(super) digest: Option<u64>,
}

impl Settled {
    pub(super) fn places(&self) -> Places<'_> {
        Places {
            state: &self.state,
            secrets: Some(&self.secrets),
            audit: Some(&self.audit),
            rotates: self.rotates,
        }
    }
}

impl Folders {
    /// Makes the state folder (root's alone) and the secrets folder in it, or finds the one that is named. From here on the process
    /// holds secrets: it leaves no core dump, and nobody but root may look into its memory.
    pub(super) fn settle(&self) -> Result<Settled> {
        crate::doctor::require_kernel().map_err(anyhow::Error::msg)?;
        nix::sys::prctl::set_dumpable(false).context("cannot make the process non-dumpable")?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot turn core dumps off")?;
        let policy = self
            .policy
            .canonicalize()
            .with_context(|| format!("--policy {}", self.policy.display()))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir)
            .with_context(|| {
                format!("cannot make the state folder {}", self.state_dir.display())
            })?;
        let state = self.state_dir.canonicalize()?;
        // Made if need be, so that a secret can be added to a gateway that runs.
        let secrets = match &self.secrets {
            Some(folder) => folder.clone(),
            None => default_secrets(&state),
        };
        if self.secrets.is_none() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&secrets)
                .with_context(|| format!("cannot make {}", secrets.display()))?;
        }
        let secrets = secrets.canonicalize().with_context(|| {
            format!(
                "--secrets {} (`postern secret set` makes it)",
                secrets.display()
            )
        })?;
        let audit = match &self.audit {
            Some(file) => std::path::absolute(file)?,
            None => state.join("audit.jsonl"),
        };
        Ok(Settled {
            policy,
            state,
            secrets,
            audit,
            rotates: true,
        })
    }
}

/// The secrets folder that goes with a state folder.
pub(super) fn default_secrets(state: &Path) -> PathBuf {
    state.join("secrets")
}

/// A connection is two descriptors. The soft limit is for programs that use select(2); a sandbox's
/// command keeps it, so `exec` raises its own only when the sandbox's first process exists.
pub(super) fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of descriptors")
}

/// Loads a policy, showing its problems on standard error. Errors end it, warnings don't.
pub(super) fn policy(folders: &Settled) -> Result<Loaded> {
    let loaded = store::load(&folders.policy)?;
    for diagnostic in &loaded.compiled.diagnostics {
        eprint!("{}", show(diagnostic, &loaded.files));
    }
    let errors = loaded
        .compiled
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity() == Severity::Error)
        .count();
    match loaded.compiled.policy {
        Some(policy) => Ok(Loaded {
            policy,
            digest: Some(loaded.digest),
        }),
        None => bail!(
            "the policy in {} has {errors} error{}; nothing was started",
            folders.policy.display(),
            if errors == 1 { "" } else { "s" },
        ),
    }
}
