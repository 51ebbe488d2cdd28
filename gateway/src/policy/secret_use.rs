//! Where a policy uses which secret, and what there is to say about it once someone knows the secrets.
//!
//! It refuses to know where secrets are kept; whoever checks brings an index. No value comes near.

use super::{Diagnostic, SecretRef, Severity, Span};

/// A place in a policy that uses a secret value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The value meant.
    pub secret: SecretRef,
    /// The file.
    pub file: String,
    /// Where in it.
    pub span: Span,
    /// The place may show a secret, and must not be quoted.
    pub(super) sensitive: bool,
}

/// What is known of a secret value, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// It is there.
    Present,
    /// It is nowhere.
    Missing,
    /// It is in a file that others may read, and that the gateway will therefore not take.
    Exposed {
        /// The file's permission bits.
        mode: u32,
    },
}

/// Whoever knows which secrets there are.
pub trait SecretIndex {
    /// What is known of this one.
    fn state(&self, secret: &SecretRef) -> SecretState;
}

impl SecretUse {
    pub(super) fn lint(&self, index: &dyn SecretIndex) -> Option<Diagnostic> {
        let SecretRef { name, key } = &self.secret;
        let (message, help) = match index.state(&self.secret) {
            SecretState::Present => return None,
            SecretState::Missing => (
                format!("secret `{}` is missing", self.secret),
                format!(
                    "put the value into the secrets folder as {name}/{key} (mode 0600); until then requests that need it get 503"
                ),
            ),
            SecretState::Exposed { mode } => (
                format!(
                    "secret `{}` may be read by others (mode {mode:04o})",
                    self.secret
                ),
                format!(
                    "run `chmod 600 {name}/{key}` in the secrets folder; the gateway refuses to start as it is"
                ),
            ),
        };
        Some(Diagnostic {
            severity: Severity::Warning,
            file: Some(self.file.clone()),
            span: Some(self.span),
            message,
            expected: None,
            help: Some(help),
            sensitive: self.sensitive,
        })
    }
}
