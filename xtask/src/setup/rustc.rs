//! What a rustc says of itself: version, LLVM, and whether the sources of its libraries lie beside it.
//! It refuses to know where compilers come from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The workspace's `rust-version`: gateway-common is compiled by this compiler too.
const OLDEST: (u32, u32) = (1, 95);

/// A compiler that is new enough for this workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rustc {
    pub(super) path: PathBuf,
    /// As it prints it: `1.96.0`, `1.97.0-nightly`.
    pub(super) release: String,
    /// Its LLVM's major version, which the linker's must reach.
    pub(super) llvm: u32,
}

impl Rustc {
    /// Asks the compiler at `path`; `None` if it does not run or is too old.
    pub(super) fn probe(path: &Path) -> Option<Self> {
        let (release, llvm) = parse_version(&process::answer(Command::new(path).arg("-vV"))?)?;
        Some(Self {
            path: path.to_owned(),
            release,
            llvm,
        })
    }

    /// Whether `-Z build-std` finds what it compiles.
    pub(super) fn has_library_sources(&self) -> bool {
        process::answer(Command::new(&self.path).args(["--print", "sysroot"])).is_some_and(
            |sysroot| {
                Path::new(sysroot.trim())
                    .join("lib/rustlib/src/rust/library/Cargo.lock")
                    .exists()
            },
        )
    }
}

/// Reads `rustc -vV`: the release and LLVM's major version, if the release is new enough.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    (version >= OLDEST).then(|| (release.to_owned(), llvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(release: &str) -> String {
        format!(
            "rustc {release} (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\nLLVM version: 22.1.4\n"
        )
    }

    #[test]
    fn the_release_and_the_major_version_of_llvm_are_read() {
        assert_eq!(
            parse_version(&report("1.97.0-nightly")),
            Some(("1.97.0-nightly".to_owned(), 22))
        );
    }

    #[test]
    fn a_compiler_older_than_the_workspace_is_refused() {
        assert_eq!(parse_version(&report("1.94.1")), None);
        assert!(parse_version(&report("1.95.0")).is_some());
        assert!(parse_version(&report("2.0.0")).is_some());
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        assert_eq!(parse_version("release: 1.96.0\n"), None);
    }
}
