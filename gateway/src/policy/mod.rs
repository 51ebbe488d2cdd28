//! The policy engine: documents in, decisions out. Pure: it refuses to know files, sockets, clocks and
//! everything asynchronous; whoever has those hands it texts and facts.
//!
//! Reading order, which is the order in which a policy flows:
//! `yaml` (text → tree with places; problems go to `problems`) → `decode` (tree → typed values, every problem kept) → `resource`
//! (the documents as written, `Raw*`) → `compile` (references,
//! defaults, conflicts, lints → [`Policy`]) → `decision` (what a [`Gateway`] answers, by `rules` and `index`). `host`,
//! `address`, `path`, `glob`, `model`, `binding`, `template`, `injection`, `token_source`, `provider` and `gateway` are the vocabulary;
//! `diagnostic` is how a problem is shown, `explain` how a decision is, and `schema` is what an editor knows of the documents.

mod address;
mod binding;
mod compile;
mod decision;
mod decode;
mod diagnostic;
pub mod explain;
mod gateway;
mod glob;
mod host;
mod index;
mod injection;
mod lookup;
mod model;
mod path;
mod problems;
mod provider;
mod resource;
mod rules;
pub mod schema;
mod secret_use;
mod template;
mod token_source;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

pub use address::{PortRange, embedded_v4, guarded, private};
pub use binding::{Binding, CgroupGlob, Selector, SelectorError, UnitGlob};
pub use compile::{compile, compile_partly};
pub use decision::{
    Denial, Destination, KernelRule, Permit, RequestFacts, RequestPermit, RuleName, Target,
};
pub use diagnostic::{Diagnostic, Severity, Span, Style};
pub use gateway::{
    CaptureBody, Class, DefaultPolicy, Dns, DnsTransport, DnsUpstream, Gateway, HostAlias, Limits,
    Listener, LookupFamily, Otlp, OtlpProtocol, Protocol, TlsMode, UpstreamTls,
};
pub use host::{Host, HostError, HostPattern};
pub use injection::{Injection, InjectionTarget};
pub use lookup::Naming;
pub use model::{ModelError, ModelPattern, TokenBudget};
pub use path::{PathError, PathPattern};
pub use problems::RulePlace;
pub(crate) use problems::suggest;
pub use provider::{HTTPS_PORT, Provider};
pub use secret_use::{SecretIndex, SecretState, SecretUse};
pub use template::{MissingSecret, SecretRef, Template};
pub(crate) use template::{is_secret_key, is_secret_name};
pub use token_source::{ClientAuthMethod, OAuth2Client, TokenSource, TokenUrl, TokenUrlError};

use crate::secrets::SecretValue;

/// The largest policy file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// One policy file, already read. Its text may hold secrets, so it is wiped on drop.
pub struct SourceFile {
    /// The name shown to people.
    pub name: String,
    /// The whole text; at most [`MAX_FILE_BYTES`].
    pub text: Zeroizing<String>,
}

/// Why one of the [`SourceFile`]s of a policy is not all there; what there is of its text is up to that place.
pub struct Unread {
    /// Position in the list of files.
    pub file: usize,
    /// What was found: a lower-case fragment.
    pub found: String,
    /// How to fix it.
    pub help: String,
}

/// What came of a folder.
#[derive(Debug)]
pub struct Compiled {
    /// `None` if any diagnostic is an error.
    pub policy: Option<Policy>,
    /// Every problem of every file, in the order of files and places.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the policy uses which secret, as far as it could be read.
    pub secret_uses: Vec<SecretUse>,
}

/// A valid policy.
#[derive(Debug)]
pub struct Policy {
    /// The gateways by name; at least one.
    pub gateways: BTreeMap<String, Arc<Gateway>>,
    /// The `Secret` documents, with the keys that hold a value.
    pub secrets: Vec<SecretDocument>,
    /// The `SandboxBinding` documents, as written; of those that mean one sandbox the first counts.
    pub bindings: Vec<Binding>,
}

/// One `Secret` document.
#[derive(Debug)]
pub struct SecretDocument {
    /// `metadata.name`.
    pub name: String,
    /// The decoded values by key; placeholders and empty values are left out.
    pub values: BTreeMap<String, SecretValue>,
}

impl Policy {
    /// The first binding that means the cgroup at this path below the cgroup mount. Bindings by pid are the
    /// caller's to resolve.
    #[must_use]
    pub fn binding_of(&self, path: &str) -> Option<&Binding> {
        let mut bindings = self.bindings.iter();
        bindings.find(|binding| binding.selector.matches(path))
    }
}

impl Compiled {
    /// What a check finds that knows the secrets at hand: the ones that are missing, or that others may read.
    /// Warnings, each at the place that uses the secret.
    #[must_use]
    pub fn lint_secrets(&self, index: &dyn SecretIndex) -> Vec<Diagnostic> {
        self.secret_uses
            .iter()
            .filter_map(|used| used.lint(index))
            .collect()
    }

    /// Every diagnostic, rendered one after the other as [`Diagnostic::render_with`] does; `files` are
    /// the ones that were compiled.
    #[must_use]
    pub fn report(&self, files: &[SourceFile], style: Style) -> String {
        self.diagnostics
            .iter()
            .map(|diagnostic| {
                let source = files
                    .iter()
                    .find(|file| Some(file.name.as_str()) == diagnostic.file())
                    .map_or("", |file| file.text.as_str());
                diagnostic.render_with(source, style)
            })
            .collect()
    }
}
