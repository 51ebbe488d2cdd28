//! Which models an `AIProviderRoute` means, and how many tokens it grants.
//!
//! It refuses to know where a request names its model and how tokens are counted.

use std::fmt;
use std::sync::Arc;

use super::glob::Glob;

/// The longest pattern, in bytes; the names of models have a few dozen.
const MAX_PATTERN_BYTES: usize = 256;

/// A pattern over the name of a model, case-sensitive: `*` is any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelPattern {
    text: Box<str>,
    glob: Glob,
}

/// Why a text is no [`ModelPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Nothing.
    #[error("the name of a model is not empty")]
    Empty,
    /// A space, a control character or one outside ASCII.
    #[error("the name of a model is made of visible ASCII characters")]
    Character,
    /// More than 256 bytes.
    #[error("the pattern is longer than 256 bytes")]
    TooLong,
}

/// A `TokenBudget` filter: what one rule grants. At least one bound is set; tokens are input and output together,
/// as the provider counts them, unless a bound says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBudget {
    /// `NAME#N`, the route and the number of its rule: what consumption is counted under. Unique in a policy.
    pub route: Arc<str>,
    /// Tokens in one day.
    pub max_tokens_per_day: Option<u64>,
    /// Tokens in one execution of a sandbox.
    pub max_tokens_per_execution: Option<u64>,
    /// Output tokens that one request may ask for.
    pub max_output_tokens_per_request: Option<u64>,
}

impl ModelPattern {
    /// Reads a pattern as written in a policy.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        if text.is_empty() {
            return Err(ModelError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(ModelError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ModelError::Character);
        }
        Ok(Self {
            text: text.into(),
            glob: Glob::whole(text),
        })
    }

    /// Does the pattern mean this model?
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        self.glob.matches(model)
    }

    /// Does this pattern mean every model that the other one does? `false` may also mean that it is not easy
    /// to say.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.glob.covers(&other.glob)
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
