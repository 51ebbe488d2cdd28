//! Path patterns: which request paths a rule means.
//!
//! It refuses to know queries, hosts and methods, and it never normalises: a path that some servers
//! would read as another one is matched by no pattern but `/**`.

use std::fmt;

/// The longest pattern, in bytes: matching costs at most this times the length of the path.
const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern over the path of a request, matched byte by byte and case-sensitively: `*` is any run of
/// characters within one segment (an empty one too), `**` any run of characters at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Box<str>,
    tokens: Box<[Token]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Byte(u8),
    InSegment,
    Across,
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
        let mut tokens = Vec::with_capacity(text.len());
        for byte in text.bytes() {
            match (byte, tokens.last_mut()) {
                (b'*', Some(last @ Token::InSegment)) => *last = Token::Across,
                (b'*', Some(Token::Across)) => {}
                (b'*', _) => tokens.push(Token::InSegment),
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Ok(Self {
            text: text.into(),
            tokens: tokens.into(),
        })
    }

    /// Does the pattern mean this path (as received, without the query)? Time is at most the product
    /// of both lengths. A path whose meaning depends on who reads it (dot segments, escaped slashes or
    /// dots, backslashes) is meant by `/**` alone.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if *self.tokens == [Token::Byte(b'/'), Token::Across] {
            return path.starts_with('/');
        }
        if ambiguous(path) {
            return false;
        }
        // The set of tokens that may come next, as a row of an automaton without backtracking.
        let end = self.tokens.len();
        let mut now = vec![false; end + 1];
        now[0] = true;
        self.skip_wildcards(&mut now);
        for byte in path.bytes() {
            let mut next = vec![false; end + 1];
            for (at, token) in self.tokens.iter().enumerate() {
                if !now[at] {
                    continue;
                }
                match token {
                    Token::Byte(wanted) if *wanted == byte => next[at + 1] = true,
                    Token::InSegment if byte != b'/' => next[at] = true,
                    Token::Across => next[at] = true,
                    Token::Byte(_) | Token::InSegment => {}
                }
            }
            self.skip_wildcards(&mut next);
            if !next.contains(&true) {
                return false;
            }
            now = next;
        }
        now[end]
    }

    /// A wildcard may also stand for nothing.
    fn skip_wildcards(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if states[at] && !matches!(token, Token::Byte(_)) {
                states[at + 1] = true;
            }
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
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
