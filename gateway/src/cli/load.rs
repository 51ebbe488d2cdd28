//! What `exec` and `run` have in common: a policy that compiles, and the folders that go with it.

use super::Folders;
use super::check::show;
use super::output::{complain, plural};
use crate::app::Places;
use crate::policy::{
    Policy, SecretDocument, SecretIndex, SecretRef, SecretState, Severity, suggest,
};
use crate::secrets::folder::{self, Contents, Problem};
use crate::store;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::DirBuilder;
use std::io;
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

/// A gateway that the policy does not have, with what is meant perhaps.
pub(super) fn no_gateway<'a>(wanted: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let known = suggest(wanted, "gateways", &known);
    format!("there is no gateway `{wanted}`: {known}")
}

/// Before anything is looked at that only root may see, so that this is what is said.
pub(super) fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root; run it with sudo")
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

/// What the gateway would say of secrets: its own judgement of a secrets folder, and the policy's documents.
pub(super) struct Known<'a> {
    contents: Contents,
    documents: &'a [SecretDocument],
}

impl<'a> Known<'a> {
    /// # Errors
    /// What the gateway would not start with either, or what this user may not look at.
    pub(super) fn read(folder: &Path, documents: &'a [SecretDocument]) -> Result<Self> {
        let contents = folder::read(folder).map_err(|problem| {
            let hint = sudo_hint(&problem);
            anyhow::anyhow!("--secrets {}: {problem}{hint}", folder.display())
        })?;
        Ok(Self {
            contents,
            documents,
        })
    }
}

impl SecretIndex for Known<'_> {
    /// A file stands before a document, whether it can be used or not.
    fn state(&self, secret: &SecretRef) -> SecretState {
        let unusable =
            |problem: &Problem| SecretState::Unusable(format!("{problem}{}", sudo_hint(problem)));
        if let Some(problem) = self.contents.unlisted.get(&secret.name) {
            return unusable(problem);
        }
        match self.contents.keys.get(secret).map(|found| &found.value) {
            Some(Ok(_)) => return SecretState::Present,
            Some(Err(problem)) => return unusable(problem),
            None => {}
        }
        let written = self.documents.iter().any(|document| {
            document.name == *secret.name && document.values.contains_key(&*secret.key)
        });
        if written {
            SecretState::Present
        } else {
            SecretState::Missing
        }
    }
}

/// The gateway is root; who asks may not be.
fn sudo_hint(problem: &Problem) -> &'static str {
    match problem {
        Problem::Read { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
            "; whether the gateway can use it is seen with sudo"
        }
        _ => "",
    }
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
        complain(show(diagnostic, &loaded.files).trim_end_matches('\n'));
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
            "the policy in {} has {}; nothing was started",
            folders.policy.display(),
            plural(errors, "error"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::secrets::SecretValue;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn of(key: &str) -> SecretRef {
        SecretRef {
            name: "s".into(),
            key: key.into(),
        }
    }

    fn write(folder: &Path, key: &str, value: &str, mode: u32) {
        let file = folder.join("s").join(key);
        fs::write(&file, value).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_judged_as_the_gateway_does() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("secrets");
        fs::create_dir_all(folder.join("s/..1")).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        write(&folder, "private", "v", 0o600);
        write(&folder, "shared", "v", 0o640);
        write(&folder, "empty", "\n", 0o600);
        // As Kubernetes mounts them: 0644, which is fine below a folder of 0700.
        write(&folder, "..1/mounted", "v", 0o644);
        symlink("..1/mounted", folder.join("s/mounted")).unwrap();
        fs::write(above.path().join("elsewhere"), "v").unwrap();
        symlink("../../elsewhere", folder.join("s/outside")).unwrap();
        let value = || SecretValue::new(b"v".to_vec());
        let documents = [SecretDocument {
            name: "s".into(),
            values: [("shared".into(), value()), ("written".into(), value())].into(),
        }];
        let known = Known::read(&folder, &documents).unwrap();
        for (key, state) in [
            ("private", SecretState::Present),
            ("mounted", SecretState::Present),
            ("written", SecretState::Present),
            ("absent", SecretState::Missing),
        ] {
            assert_eq!(known.state(&of(key)), state, "{key}");
        }
        for (key, why) in [
            ("shared", "chmod 600"),
            ("empty", "is empty"),
            ("outside", "not in the secrets folder"),
        ] {
            let state = known.state(&of(key));
            let SecretState::Unusable(told) = &state else {
                panic!("{key}: {state:?}");
            };
            assert!(told.contains(why), "{told}");
        }
        assert!(Known::read(&folder.join("nope"), &[]).is_err());
    }
}
