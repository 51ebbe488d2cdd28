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
    /// The gateway itself needs it, and does not start without; otherwise requests do.
    pub at_start: bool,
    /// The place may show a secret, and must not be quoted.
    pub(super) sensitive: bool,
}

/// What is known of a secret value, without the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// It is there.
    Present,
    /// It is nowhere.
    Missing,
    /// It is there, and the gateway does not take it: why, and what to do.
    Unusable(String),
}

/// Whoever knows which secrets there are.
pub trait SecretIndex {
    /// What is known of this one.
    fn state(&self, secret: &SecretRef) -> SecretState;
}

impl SecretUse {
    pub(super) fn lint(&self, index: &dyn SecretIndex) -> Option<Diagnostic> {
        let SecretRef { name, key } = &self.secret;
        let until = if self.at_start {
            "until then the gateway does not start"
        } else {
            "until then requests that need it get 503"
        };
        let (message, help) = match index.state(&self.secret) {
            SecretState::Present => return None,
            SecretState::Missing => (
                format!("secret `{}` is missing", self.secret),
                format!(
                    "put the value into the secrets folder as {name}/{key} (mode 0600); {until}"
                ),
            ),
            SecretState::Unusable(why) => (
                format!("secret `{}` cannot be used: {why}", self.secret),
                until.to_owned(),
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
