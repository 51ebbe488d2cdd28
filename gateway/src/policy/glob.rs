//! Globs over bytes: `*` is any run within one segment (an empty one too), `**` any run at all.
//!
//! It refuses to know what the text is that is matched (a path, a model, a cgroup) and never folds case.

/// A pattern, matched without backtracking: time is at most the product of both lengths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Glob {
    tokens: Box<[Token]>,
    /// How many bytes the pattern begins with before its first wildcard.
    literal: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Byte(u8),
    InSegment,
    Across,
}

impl Glob {
    /// A pattern over text in segments, which `/` divides.
    pub(super) fn segmented(text: &str) -> Self {
        let mut tokens = Vec::with_capacity(text.len());
        for byte in text.bytes() {
            match (byte, tokens.last_mut()) {
                (b'*', Some(last @ Token::InSegment)) => *last = Token::Across,
                (b'*', Some(Token::Across)) => {}
                (b'*', _) => tokens.push(Token::InSegment),
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Self::new(tokens)
    }

    /// A pattern over text without segments: `*` is any run.
    pub(super) fn whole(text: &str) -> Self {
        let mut tokens = Vec::with_capacity(text.len());
        for byte in text.bytes() {
            match (byte, tokens.last()) {
                (b'*', Some(Token::Across)) => {}
                (b'*', _) => tokens.push(Token::Across),
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Self::new(tokens)
    }

    /// This text and no other; `*` is itself.
    pub(super) fn literal(text: &str) -> Self {
        Self::new(text.bytes().map(Token::Byte).collect())
    }

    /// Everything below this text: `text/**`, where `*` in the text is itself.
    pub(super) fn below(text: &str) -> Self {
        let mut tokens: Vec<Token> = text.bytes().map(Token::Byte).collect();
        tokens.extend([Token::Byte(b'/'), Token::Across]);
        Self::new(tokens)
    }

    fn new(tokens: Vec<Token>) -> Self {
        let literal = tokens
            .iter()
            .take_while(|token| matches!(token, Token::Byte(_)))
            .count();
        Self {
            tokens: tokens.into(),
            literal,
        }
    }

    /// Is it `/**`, every path?
    pub(super) fn is_every_path(&self) -> bool {
        *self.tokens == [Token::Byte(b'/'), Token::Across]
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        // Most texts differ here already, and comparing costs little.
        let Some((start, rest)) = text.split_at_checked(self.literal) else {
            return false;
        };
        let (prefix, tokens) = self.tokens.split_at(self.literal);
        let same = |(token, byte): (&Token, &u8)| *token == Token::Byte(*byte);
        if !prefix.iter().zip(start).all(same) {
            return false;
        }
        match tokens {
            [] => rest.is_empty(),
            [Token::Across] => true,
            _ => run(tokens, rest),
        }
    }

    /// Is there a text that both patterns match?
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        // Row by row: may the rests from here on match one text? From the ends backwards.
        let columns = other.tokens.len() + 1;
        let mut below = vec![false; columns];
        for row in (0..=self.tokens.len()).rev() {
            let mine = self.tokens.get(row);
            let mut now = vec![false; columns];
            for column in (0..columns).rev() {
                let theirs = other.tokens.get(column);
                let right = now.get(column + 1).copied().unwrap_or_default();
                let diagonal = below.get(column + 1).copied().unwrap_or_default();
                now[column] = match (mine, theirs) {
                    (None, None) => true,
                    (Some(Token::Byte(one)), Some(Token::Byte(other))) => one == other && diagonal,
                    (mine, theirs) => {
                        let skip_mine = is_wild(mine) && below[column];
                        let skip_theirs = is_wild(theirs) && right;
                        // A wildcard swallows the other's byte and stays.
                        let swallow_theirs = swallows(mine, theirs) && right;
                        let swallow_mine = swallows(theirs, mine) && below[column];
                        skip_mine || skip_theirs || swallow_theirs || swallow_mine
                    }
                };
            }
            below = now;
        }
        below[0]
    }

    /// Does every text that `other` matches match this one too? Asked of what people write: `false` may also
    /// mean that it is not easy to say.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let (prefix, rest) = self.tokens.split_at(self.literal);
        if !other.tokens.starts_with(prefix) {
            return false;
        }
        let remaining = &other.tokens[self.literal..];
        match rest {
            [Token::Across] => true,
            [Token::InSegment] => remaining
                .iter()
                .all(|token| !matches!(token, Token::Across | Token::Byte(b'/'))),
            // A literal text is covered if it is matched.
            _ if other.literal == other.tokens.len() => {
                let bytes: Option<Vec<u8>> = remaining.iter().map(|token| token.byte()).collect();
                bytes.is_some_and(|bytes| run(rest, &bytes))
            }
            _ => false,
        }
    }
}

impl Token {
    fn byte(self) -> Option<u8> {
        match self {
            Self::Byte(byte) => Some(byte),
            Self::InSegment | Self::Across => None,
        }
    }
}

fn is_wild(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::InSegment | Token::Across))
}

fn swallows(wild: Option<&Token>, byte: Option<&Token>) -> bool {
    match (wild, byte) {
        (Some(Token::Across), Some(Token::Byte(_))) => true,
        (Some(Token::InSegment), Some(Token::Byte(byte))) => *byte != b'/',
        _ => false,
    }
}

/// The set of tokens that may come next, as a row of an automaton.
fn run(tokens: &[Token], text: &[u8]) -> bool {
    let end = tokens.len();
    let mut now = vec![false; end + 1];
    let mut next = vec![false; end + 1];
    now[0] = true;
    skip_wildcards(tokens, &mut now);
    for byte in text {
        next.fill(false);
        for (at, token) in tokens.iter().enumerate() {
            if !now[at] {
                continue;
            }
            match token {
                Token::Byte(wanted) if wanted == byte => next[at + 1] = true,
                Token::InSegment if *byte != b'/' => next[at] = true,
                Token::Across => next[at] = true,
                Token::Byte(_) | Token::InSegment => {}
            }
        }
        skip_wildcards(tokens, &mut next);
        if !next.contains(&true) {
            return false;
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[end]
}

/// A wildcard may also stand for nothing.
fn skip_wildcards(tokens: &[Token], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if states[at] && !matches!(token, Token::Byte(_)) {
            states[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests;
