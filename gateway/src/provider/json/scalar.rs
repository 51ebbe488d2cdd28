//! What an extractor reports, and how a key may be spelt. It refuses to know how documents are read.

/// A scalar at a path of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written.
    Number(&'a str),
    /// A string, unescaped. A surrogate without its other half is U+FFFD.
    Text(&'a str),
    /// A number or string of more than [`super::MAX_SCALAR`] bytes, and of how many.
    TooLong(usize),
}

impl Scalar<'_> {
    /// The value of a number that is a whole one and fits.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The bytes of a string, unescaped.
    pub fn text_len(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::TooLong(length) => length,
            _ => 0,
        }
    }
}

/// A value at a path of interest, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// `None` for an object or an array, of which this is the beginning.
    pub scalar: Option<Scalar<'a>>,
    /// Every key on the way to it is spelt as in its path.
    pub exact: bool,
}

/// Does `key` mean `segment` to a server that folds cases as Unicode does? ASCII has two letters with a third case: the
/// long s (U+017F) and the Kelvin sign (U+212A).
pub(super) fn folds(segment: &str, key: &[u8]) -> bool {
    if segment.len() == key.len() {
        return segment.as_bytes().eq_ignore_ascii_case(key);
    }
    // Either takes more bytes than the letter that it means.
    std::str::from_utf8(key).is_ok_and(|key| {
        let plain = key.chars().map(|letter| match letter {
            'ſ' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        });
        plain.eq(segment.chars().map(|letter| letter.to_ascii_lowercase()))
    })
}
