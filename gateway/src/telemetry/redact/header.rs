//! A header field as a record has it. Most are shown as they are, and share their bytes with the message.

use super::REDACTED;
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;

/// Bytes of one value: with as many fields as a record has, less than common servers' limit for a whole head.
const MAX_VALUE: usize = 1024;

/// Its name, and what is shown of its value.
#[derive(Clone, Debug)]
pub struct Header {
    /// As it was sent.
    pub name: HeaderName,
    /// What may be known of it.
    pub value: Shown,
}

/// What is shown of a value.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Nothing of it.
    Redacted,
    /// All.
    Whole(HeaderValue),
    /// What is left of it.
    Text(String),
}

impl Shown {
    /// As much as a record has room for.
    pub(super) fn of(value: &HeaderValue) -> Self {
        if value.len() <= MAX_VALUE {
            Self::Whole(value.clone())
        } else {
            Self::text_of(value.as_bytes())
        }
    }

    /// The same of something that is no header's value any more.
    pub(super) fn text_of(bytes: &[u8]) -> Self {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if text.len() > MAX_VALUE {
            text.truncate(text.floor_char_boundary(MAX_VALUE));
            text.push('…');
        }
        Self::Text(text)
    }

    /// For people to read.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Redacted => REDACTED.into(),
            Self::Whole(value) => String::from_utf8_lossy(value.as_bytes()),
            Self::Text(text) => text.into(),
        }
    }
}
