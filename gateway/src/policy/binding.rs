//! Which sandboxes a gateway owns.
//!
//! It refuses to know cgroups themselves: it is given paths, and whoever asks finds a process's cgroup.

use std::fmt;
use std::sync::Arc;

use super::glob::Glob;

/// One `SandboxBinding`.
#[derive(Clone, Debug)]
pub struct Binding {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The `EgressGateway`, which exists.
    pub gateway: Arc<str>,
    /// The sandboxes meant.
    pub selector: Selector,
}

/// `spec.selector`, in one of its three forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `cgroup`: cgroups by path.
    Cgroup(CgroupGlob),
    /// `systemdUnit`: cgroups by the unit whose own they are.
    SystemdUnit(UnitGlob),
    /// `pid`: the cgroup in which this process is, which the caller finds.
    Pid(u32),
}

/// A pattern over a cgroup's path below the mount: `*` is any run within one name, `**` any run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupGlob {
    text: Box<str>,
    glob: Glob,
}

/// A pattern over a unit's name: `*` is any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitGlob {
    text: Box<str>,
    glob: Glob,
}

/// Why a text selects no cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It does not begin with `/`.
    #[error("a cgroup's path begins with `/`, the root of the cgroup mount")]
    Relative,
    /// It holds `.`, `..` or an empty name, which no cgroup has.
    #[error("no cgroup has such a path")]
    Path,
    /// The root, or a pattern that means it.
    #[error("that is the whole machine, the gateway included")]
    Everything,
    /// A `/`, a space or a control character in a unit's name.
    #[error("not the name of a unit")]
    Unit,
    /// The unit has no suffix, or one of a unit that has no cgroup.
    #[error("only services, scopes and slices have a cgroup")]
    Suffix,
    /// More than 4096 bytes (`PATH_MAX`, limits.h).
    #[error("the pattern is longer than 4096 bytes")]
    TooLong,
}

/// `PATH_MAX` of Linux' limits.h.
const MAX_PATTERN_BYTES: usize = 4096;

impl Selector {
    /// Does it mean the cgroup at this path below the cgroup mount (`/` is the root; a slash at either end
    /// makes no difference)? The cgroup itself is meant, with all below it as its one sandbox: a cgroup
    /// further down is not meant again. [`Selector::Pid`] means none by path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        match self {
            Self::Cgroup(pattern) => !path.is_empty() && pattern.glob.matches(path),
            Self::SystemdUnit(pattern) => {
                let name = path.rsplit('/').next().unwrap_or(path);
                !name.is_empty() && pattern.glob.matches(name)
            }
            Self::Pid(_) => false,
        }
    }

    /// Does this selector mean all that the other one means? `false` may also mean that it cannot be told.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cgroup(mine), Self::Cgroup(theirs)) => mine.glob.covers(&theirs.glob),
            (Self::SystemdUnit(mine), Self::SystemdUnit(theirs)) => mine.glob.covers(&theirs.glob),
            (Self::Pid(mine), Self::Pid(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

impl CgroupGlob {
    /// Reads a pattern as written in a policy.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(SelectorError::TooLong);
        }
        let path = text.strip_prefix('/').ok_or(SelectorError::Relative)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty()
            || path.bytes().all(|byte| matches!(byte, b'*' | b'/')) && path.contains("**")
        {
            return Err(SelectorError::Everything);
        }
        let wrong = |name: &str| matches!(name, "" | "." | "..");
        if path.split('/').any(wrong) || path.contains('\0') {
            return Err(SelectorError::Path);
        }
        Ok(Self {
            text: text.into(),
            glob: Glob::segmented(path),
        })
    }
}

impl UnitGlob {
    /// Reads a pattern as written in a policy.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(SelectorError::TooLong);
        }
        // systemd.unit(5), and the wildcard.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@*".contains(&byte);
        if text.is_empty() || !text.bytes().all(known) {
            return Err(SelectorError::Unit);
        }
        if text.bytes().all(|byte| byte == b'*') {
            return Err(SelectorError::Everything);
        }
        let suffixes = [".service", ".scope", ".slice"];
        let suffix = suffixes.iter().find_map(|suffix| text.strip_suffix(suffix));
        if suffix.is_none_or(str::is_empty) {
            return Err(SelectorError::Suffix);
        }
        Ok(Self {
            text: text.into(),
            glob: Glob::whole(text),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(pattern) => write!(out, "cgroup {}", pattern.text),
            Self::SystemdUnit(pattern) => write!(out, "unit {}", pattern.text),
            Self::Pid(pid) => write!(out, "pid {pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{CgroupGlob, Selector, SelectorError, UnitGlob};

    #[test]
    fn a_cgroup_is_selected_by_its_whole_path() {
        for (text, path, expected) in [
            ("/sandboxes/*", "/sandboxes/a", true),
            ("/sandboxes/*", "sandboxes/a/", true),
            ("/sandboxes/*", "/sandboxes/a/b", false),
            ("/sandboxes/*", "/sandboxes", false),
            ("/sandboxes/**", "/sandboxes/a/b", true),
            ("/sandboxes/a", "/sandboxes/a", true),
            ("/sandboxes/a", "/sandboxes/ab", false),
            ("/*", "/", false),
            ("/*", "/a", true),
        ] {
            let selector = Selector::Cgroup(CgroupGlob::parse(text).unwrap());
            assert_eq!(selector.matches(path), expected, "{text} and {path}");
        }
    }

    #[test]
    fn a_unit_is_selected_by_its_own_cgroup() {
        let selector = Selector::SystemdUnit(UnitGlob::parse("agent@*.service").unwrap());
        assert!(selector.matches("/system.slice/system-agent.slice/agent@1.service"));
        assert!(!selector.matches("/system.slice/agent@1.service/inner"));
        assert!(!selector.matches("/system.slice/other.service"));
        assert!(!selector.matches("/"));
    }

    #[test]
    fn a_process_selects_nothing_by_path() {
        assert!(!Selector::Pid(7).matches("/7"));
    }

    #[test]
    fn what_selects_nothing_or_everything_is_refused() {
        for (text, error) in [
            ("sandboxes", SelectorError::Relative),
            ("/", SelectorError::Everything),
            ("/**", SelectorError::Everything),
            ("/*/**", SelectorError::Everything),
            ("/a/../b", SelectorError::Path),
            ("/a//b", SelectorError::Path),
            ("//", SelectorError::Everything),
        ] {
            assert_eq!(CgroupGlob::parse(text), Err(error), "{text}");
        }
        for (text, error) in [
            ("", SelectorError::Unit),
            ("a/b.service", SelectorError::Unit),
            ("*", SelectorError::Everything),
            ("agent", SelectorError::Suffix),
            ("agent.timer", SelectorError::Suffix),
            (".service", SelectorError::Suffix),
        ] {
            assert_eq!(UnitGlob::parse(text), Err(error), "{text}");
        }
    }
}
