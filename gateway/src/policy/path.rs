//! Path patterns: which request paths a rule means.
//!
//! It refuses to know queries, hosts and methods, and it never normalises: a path that some servers
//! would read as another one is matched by no pattern but `/**`.

use std::fmt;

use super::glob::Glob;

/// The longest pattern, in bytes: matching costs at most this times the length of the path.
const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern over the path of a request, matched byte by byte and case-sensitively: `*` is any run of
/// characters within one segment (an empty one too), `**` any run of characters at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Box<str>,
    /// For a prefix, the path itself; what is below it is in `below`.
    glob: Glob,
    below: Option<Glob>,
}

/// Why a text is no [`PathPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("a path pattern begins with `/`")]
    Relative,
    /// It holds `?` or `#`.
    #[error("a path pattern is matched against the path alone, without query or fragment")]
    Query,
    /// It holds a character that no request path holds unescaped.
    #[error("a path pattern is made of visible ASCII characters")]
    Character,
    /// More than 1024 bytes.
    #[error("the path pattern is longer than 1024 bytes")]
    TooLong,
    /// It holds a `.` or `..` segment, or an escaped `/` or `.`, which match nothing.
    #[error(
        "the path pattern can never match: paths with dot segments or escaped slashes are refused"
    )]
    Unmatchable,
}

impl PathPattern {
    /// Reads a pattern as written in a policy.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        check(text)?;
        Ok(Self {
            text: text.into(),
            glob: Glob::segmented(text),
            below: None,
        })
    }

    /// This path and no other; `*` is a character like any other.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn exact(text: &str) -> Result<Self, PathError> {
        check(text)?;
        Ok(Self {
            text: text.into(),
            glob: Glob::literal(text),
            below: None,
        })
    }

    /// This path and everything below it, by whole segments: `/a` means `/a` and `/a/b`, not `/ab`. A slash at
    /// the end makes no difference; `*` is a character like any other. `/` means every path.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn prefix(text: &str) -> Result<Self, PathError> {
        check(text)?;
        let path = text.trim_end_matches('/');
        let below = Glob::below(path);
        let (glob, below) = if path.is_empty() {
            (below, None)
        } else {
            (Glob::literal(path), Some(below))
        };
        Ok(Self {
            text: text.into(),
            glob,
            below,
        })
    }

    /// Does the pattern mean every path?
    #[must_use]
    pub fn is_every_path(&self) -> bool {
        self.glob.is_every_path()
    }

    /// Does the pattern mean this path (as received, without the query)? Time is at most the product
    /// of both lengths. A path whose meaning depends on who reads it (dot segments, escaped slashes or
    /// dots, backslashes) is meant by `/**` alone.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.is_every_path() {
            return path.starts_with('/');
        }
        self.globs().any(|glob| glob.matches(path)) && !ambiguous(path)
    }

    /// Is there a path that both patterns mean?
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.globs()
            .any(|one| other.globs().any(|other| one.overlaps(other)))
    }

    /// Does this pattern mean every path that the other one does? `false` may also mean that it is not easy
    /// to say.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if other.glob.is_every_path() {
            return self.glob.is_every_path();
        }
        other
            .globs()
            .all(|theirs| self.globs().any(|mine| mine.covers(theirs)))
    }

    fn globs(&self) -> impl Iterator<Item = &Glob> {
        std::iter::once(&self.glob).chain(&self.below)
    }
}

/// As written.
impl fmt::Display for PathPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn check(text: &str) -> Result<(), PathError> {
    if !text.starts_with('/') {
        return Err(PathError::Relative);
    }
    if text.len() > MAX_PATTERN_BYTES {
        return Err(PathError::TooLong);
    }
    if text.contains(['?', '#']) {
        return Err(PathError::Query);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PathError::Character);
    }
    if ambiguous(text) {
        return Err(PathError::Unmatchable);
    }
    Ok(())
}

/// Would some server read the path as another one than its bytes say? Dot segments (with the path
/// parameters that some servers cut off first), escaped dots and slashes, backslashes, escaped NUL.
fn ambiguous(path: &str) -> bool {
    if path.contains('\\') {
        return true;
    }
    let lower = path.to_ascii_lowercase();
    ["%2e", "%2f", "%5c", "%00"]
        .iter()
        .any(|escape| lower.contains(escape))
        || path.split('/').any(|segment| {
            let name = segment.split(';').next().unwrap_or(segment);
            name == "." || name == ".."
        })
}

#[cfg(test)]
mod tests;
