//! What `exec` and `run` have in common: a policy that compiles, and the folders that go with it.

use super::Folders;
use super::check::show;
use super::output::{complain, plural};
use crate::app::Places;
use crate::inject::{self, InjectError, TokenError};
use crate::policy::{
    Gateway, Injection, Policy, SecretDocument, SecretIndex, SecretRef, SecretState, Severity,
    suggest,
};
use crate::secrets::folder::{self, Problem};
use crate::secrets::{SecretValue, Secrets};
use crate::store;
use crate::upstream::{IdentityError, Verifier};
use anyhow::{Context, Result, bail};
use http::HeaderValue;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
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

/// What the gateway would say of secrets: its own judgement of a secrets folder and the policy's documents, and
/// what it would make of their values.
pub(super) struct Known {
    secrets: Secrets,
    /// Values that are there and are not what some use of them takes, and why.
    unfit: BTreeMap<SecretRef, String>,
}

impl Known {
    /// # Errors
    /// What the gateway would not start with either, or what this user may not look at.
    pub(super) fn read(folder: &Path, policy: &Policy) -> Result<Self> {
        let contents = folder::read(folder).map_err(|problem| {
            let hint = sudo_hint(&problem);
            anyhow::anyhow!("--secrets {}: {problem}{hint}", folder.display())
        })?;
        let documents = policy.secrets.iter().map(copy).collect();
        let mut known = Self {
            secrets: Secrets::of(documents, contents),
            unfit: BTreeMap::new(),
        };
        for gateway in policy.gateways.values() {
            known.unfit.extend(known.unfit_for_start(gateway));
            for injection in gateway.injections() {
                known.unfit.extend(known.unfit_for(injection));
            }
        }
        Ok(known)
    }

    /// Is there a value?
    pub(super) fn has(&self, secret: &SecretRef) -> bool {
        self.secrets.get(secret).is_some()
    }

    /// Why the gateway would not set this, though all values of it are there.
    pub(super) fn objection(&self, injection: &Injection) -> Option<String> {
        match inject::try_out(injection, &self.secrets) {
            Ok(()) | Err(InjectError::Missing(_)) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// What the gateway itself needs, and could not start with.
    pub(super) fn objection_to_start(&self, gateway: &Gateway) -> Option<String> {
        let tls = &gateway.upstream_tls;
        let needed = tls.client_cert_refs().into_iter().flatten();
        let mut needed = tls.trust_bundle.iter().cloned().chain(needed);
        let unfit: BTreeMap<_, _> = self.unfit_for_start(gateway).into_iter().collect();
        needed.find_map(
            |secret| match (self.state_of_value(&secret), unfit.get(&secret)) {
                (SecretState::Missing, _) => Some(format!("secret {secret} is missing")),
                (SecretState::Unusable(why), _) => {
                    Some(format!("secret {secret} cannot be used: {why}"))
                }
                (SecretState::Present, why) => {
                    why.map(|why| format!("secret {secret} cannot be used: {why}"))
                }
            },
        )
    }

    fn unfit_for(&self, injection: &Injection) -> Vec<(SecretRef, String)> {
        let used: Vec<SecretRef> = injection.secret_refs().into_iter().cloned().collect();
        let (blamed, why) = match inject::try_out(injection, &self.secrets) {
            Ok(()) | Err(InjectError::Missing(_)) => return Vec::new(),
            Err(InjectError::Unusable { secret, what }) => (vec![secret], what.to_owned()),
            Err(InjectError::Token(error)) => match &*error {
                TokenError::Key { secret, what } => (vec![secret.clone()], (*what).to_owned()),
                other => (used.clone(), other.to_string()),
            },
            Err(other) => {
                let broken = |secret: &&SecretRef| {
                    let value = self.secrets.get(secret);
                    value.is_some_and(|value| HeaderValue::from_bytes(value.expose()).is_err())
                };
                let broken: Vec<SecretRef> = used.iter().filter(broken).cloned().collect();
                (broken, other.to_string())
            }
        };
        // Optional values are named nowhere in the policy; those that go with them are.
        let named = blamed.iter().any(|secret| used.contains(secret));
        let why = match blamed.first() {
            Some(secret) if !named => format!("its {}: {why}", secret.key),
            _ => why,
        };
        let blamed = if named { blamed } else { used };
        blamed
            .into_iter()
            .map(|secret| (secret, why.clone()))
            .collect()
    }

    /// Trust and identity, tried as the gateway does when it starts.
    fn unfit_for_start(&self, gateway: &Gateway) -> Option<(SecretRef, String)> {
        let tls = &gateway.upstream_tls;
        let bundle = tls.trust_bundle.as_ref();
        let pem = bundle.and_then(|bundle| self.secrets.get(bundle));
        let verifier = match Verifier::new(pem.as_ref().map(|pem| pem.expose())) {
            Ok(verifier) => verifier,
            Err(error) => return Some((bundle?.clone(), error.to_string())),
        };
        let [chain_of, key_of] = tls.client_cert_refs()?;
        let (chain, key) = (self.secrets.get(&chain_of)?, self.secrets.get(&key_of)?);
        let error = verifier.with_identity(chain.expose(), key.expose()).err()?;
        let blamed = match &error {
            IdentityError::Chain(_) | IdentityError::NoCertificate => chain_of,
            IdentityError::Key(_) | IdentityError::Pair(_) => key_of,
        };
        Some((blamed, error.to_string()))
    }

    /// A file stands before a document, whether it can be used or not.
    fn state_of_value(&self, secret: &SecretRef) -> SecretState {
        let snapshot = self.secrets.snapshot();
        match (snapshot.problem(secret), snapshot.get(secret)) {
            (Some(problem), _) => SecretState::Unusable(format!("{problem}{}", sudo_hint(problem))),
            (None, Some(_)) => SecretState::Present,
            (None, None) => SecretState::Missing,
        }
    }
}

/// Documents belong to the policy, which is still needed.
fn copy(document: &SecretDocument) -> SecretDocument {
    let values = document.values.iter();
    SecretDocument {
        name: document.name.clone(),
        values: values
            .map(|(key, value)| (key.clone(), SecretValue::new(value.expose().to_vec())))
            .collect(),
    }
}

impl SecretIndex for Known {
    fn state(&self, secret: &SecretRef) -> SecretState {
        match (self.state_of_value(secret), self.unfit.get(secret)) {
            (SecretState::Present, Some(why)) => {
                SecretState::Unusable(format!("{why}; write the right value there"))
            }
            (state, _) => state,
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
        let documents = vec![SecretDocument {
            name: "s".into(),
            values: [("shared".into(), value()), ("written".into(), value())].into(),
        }];
        let policy = Policy {
            secrets: documents,
            ..policy_of("  listeners: [{name: tls, protocol: TLS}]\n", "")
        };
        let known = Known::read(&folder, &policy).unwrap();
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
        assert!(Known::read(&folder.join("nope"), &policy).is_err());
    }

    fn policy_of(gateway: &str, documents: &str) -> Policy {
        let text = format!(
            "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {{name: g}}\nspec:\n{gateway}{documents}"
        );
        let compiled = crate::policy::compile(&[crate::policy::SourceFile {
            name: "policy.yaml".to_owned(),
            text: text.into(),
        }]);
        let told: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        compiled.policy.unwrap_or_else(|| panic!("{told:#?}"))
    }

    const TERMINATES: &str = "  listeners: [{name: tls, protocol: TLS, tls: {mode: Terminate}}]\n";

    /// An OpenAI route with this credential.
    fn credential(fields: &str) -> String {
        format!(
            "---
apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {{name: ai}}
spec:
  parentRefs: [{{kind: EgressGateway, name: g}}]
  rules: [{{matches: [{{provider: openai}}]}}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {{name: key}}
spec:
  parentRefs: [{{kind: AIProviderRoute, name: ai}}]
  secretRef: {{name: s}}
{fields}"
        )
    }

    #[test]
    fn a_value_that_the_gateway_would_not_take_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(folder.path().join("s")).unwrap();
        for (key, value) in [
            ("token", "a\nb"),
            ("key.json", r#"{"a":1}"#),
            ("ca.crt", "not pem"),
            ("tls.crt", "not pem"),
            ("tls.key", "not pem"),
            ("access_key_id", "AKIA"),
            ("secret_access_key", "secret"),
            ("session_token", "two words"),
        ] {
            write(folder.path(), key, value, 0o600);
        }
        let bundle = "  upstreamTLS: {additionalTrustBundleSecretRef: {name: s, key: ca.crt}}\n";
        let identity = "  upstreamTLS: {clientCertSecretRef: {name: s}}\n";
        let gcp = "  secretKey: key.json\n  target: ProviderAuth\n  providerAuth: {type: GCPServiceAccount}\n";
        let aws = "  target: ProviderAuth\n  providerAuth: {type: AWSv4, region: r, service: s}\n";
        let query = "  target: QueryParam\n  queryParamName: key\n";
        for (gateway, fields, key, why) in [
            ("", "", "token", "a header field cannot have"),
            ("", gcp, "key.json", "not the JSON key file"),
            ("", aws, "access_key_id", "its session_token: "),
            (bundle, query, "ca.crt", "no certificate"),
            (identity, query, "tls.crt", "no certificate"),
        ] {
            let policy = policy_of(&format!("{TERMINATES}{gateway}"), &credential(fields));
            let known = Known::read(folder.path(), &policy).unwrap();
            let state = known.state(&of(key));
            let SecretState::Unusable(told) = &state else {
                panic!("{key}: {state:?}");
            };
            assert!(told.contains(why), "{key}: {told}");
            let starts = known.objection_to_start(&policy.gateways["g"]);
            assert_eq!(starts.is_none(), gateway.is_empty(), "{key}: {starts:?}");
            let mut injections = policy.gateways["g"].injections();
            let objection = injections.find_map(|injection| known.objection(injection));
            assert_eq!(
                objection.is_some(),
                gateway.is_empty(),
                "{key}: {objection:?}"
            );
        }
        // In a query every byte can stand.
        let policy = policy_of(TERMINATES, &credential(query));
        let known = Known::read(folder.path(), &policy).unwrap();
        assert_eq!(known.state(&of("token")), SecretState::Present);
    }
}
