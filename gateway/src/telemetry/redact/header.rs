//! Header fields as a record has them: as much as may be known of them, in one text.

use http::HeaderName;
use std::ops::Range;

/// Bytes of one value: with as many fields as a record has, less than common servers' limit for a whole head.
const MAX_VALUE: usize = 1024;

/// The fields of one message, in order, repeated ones too. They share no memory with the message: a record lives for as
/// long as an answer takes.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: String,
    fields: Vec<(HeaderName, Range<usize>)>,
}

impl Headers {
    /// With room for so many, and for so many bytes of values.
    pub(super) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            fields: Vec::with_capacity(fields),
        }
    }

    /// Another field, and what is shown of its value.
    pub(in crate::telemetry) fn push(&mut self, name: HeaderName, shown: &str) {
        let start = self.text.len();
        if shown.len() <= MAX_VALUE {
            self.text.push_str(shown);
        } else {
            let end = shown.floor_char_boundary(MAX_VALUE);
            self.text.push_str(shown.get(..end).unwrap_or_default());
            self.text.push('…');
        }
        self.fields.push((name, start..self.text.len()));
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Each with what is shown of it.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &str)> + Clone {
        let shown = |at: &Range<usize>| self.text.get(at.clone()).unwrap_or_default();
        self.fields.iter().map(move |(name, at)| (name, shown(at)))
    }
}
