//! Which sandboxes a gateway owns, as values: globs over cgroup paths and unit names. Refuses to know the
//! cgroup file system, systemd and processes; whoever has those asks here.

use std::sync::Arc;

/// A `SandboxBinding`: what it selects is attached to the gateway as it appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The gateway.
    pub gateway: Arc<str>,
    /// Which cgroups.
    pub selector: Selector,
}

/// What a binding selects by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The cgroup's path below the mount.
    Cgroup(CgroupGlob),
    /// The unit whose cgroup it is.
    SystemdUnit(UnitGlob),
    /// The cgroup that a process is in; resolved by the caller.
    Pid(u32),
}

impl Selector {
    /// Does the selector mean the cgroup with this path below the mount (`/a/b`)?
    pub fn matches(&self, cgroup: &str) -> bool {
        match self {
            Self::Cgroup(glob) => glob.0.matches(cgroup),
            Self::SystemdUnit(glob) => cgroup
                .rsplit('/')
                .next()
                .is_some_and(|unit| glob.0.matches(unit)),
            Self::Pid(_) => false,
        }
    }
}

/// `*` is any run within one segment, `**` any run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupGlob(Glob);

impl CgroupGlob {
    /// Reads a pattern such as `/sandboxes/*`.
    pub fn parse(text: &str) -> Self {
        Self(Glob::parse(text))
    }
}

/// `*` is any run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitGlob(Glob);

impl UnitGlob {
    /// Reads a pattern such as `agent@*.service`.
    pub fn parse(text: &str) -> Self {
        Self(Glob::parse(text))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(Box<[Token]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    InSegment,
    Across,
}

impl Glob {
    fn parse(text: &str) -> Self {
        let mut tokens: Vec<Token> = Vec::new();
        for byte in text.bytes() {
            match (byte, tokens.last_mut()) {
                (b'*', Some(last @ (Token::InSegment | Token::Across))) => *last = Token::Across,
                (b'*', _) => tokens.push(Token::InSegment),
                _ => tokens.push(Token::Byte(byte)),
            }
        }
        Self(tokens.into())
    }

    /// In time of at most the product of both lengths: which prefixes of the pattern match so far.
    fn matches(&self, text: &str) -> bool {
        let mut reached = vec![false; self.0.len() + 1];
        reached[0] = true;
        skip_stars(&self.0, &mut reached);
        for byte in text.bytes() {
            let mut next = vec![false; self.0.len() + 1];
            for (at, token) in self.0.iter().enumerate() {
                match token {
                    Token::Byte(wanted) => next[at + 1] |= reached[at] && *wanted == byte,
                    Token::InSegment => next[at] |= reached[at] && byte != b'/',
                    Token::Across => next[at] |= reached[at],
                }
            }
            skip_stars(&self.0, &mut next);
            reached = next;
        }
        reached[self.0.len()]
    }
}

/// A star may stand for nothing.
fn skip_stars(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if !matches!(token, Token::Byte(_)) {
            reached[at + 1] |= reached[at];
        }
    }
}
