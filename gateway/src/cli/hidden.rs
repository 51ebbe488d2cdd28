//! How the audit log is kept from the sandbox of `exec`: with its whole folder, because files that were put
//! aside lie beside it, and a file that replaces a hidden one is not hidden. Knows not how hiding is done.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders that a command cannot do without (and what contains them): the system's, and those that the
/// sandbox has its own of.
const NEEDED: [&str; 13] = [
    "/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/var", "/var/tmp", "/tmp", "/run", "/dev",
    "/proc", "/sys",
];

/// The audit log's folder, if a command that needs the folders `used` can do without it.
pub(super) fn folder<'a>(
    audit: &Path,
    used: impl IntoIterator<Item = &'a Path>,
) -> Option<PathBuf> {
    let folder = audit.parent()?.canonicalize().ok()?;
    let holds = |needed: &Path| {
        // Programs are found under either name.
        let real = needed.canonicalize();
        needed.starts_with(&folder) || real.is_ok_and(|real| real.starts_with(&folder))
    };
    let mut used = used.into_iter().chain(NEEDED.map(Path::new));
    (!used.any(holds)).then_some(folder)
}

/// The audit log's files: what is hidden where its folder cannot be.
pub(super) fn files(audit: &Path) -> impl Iterator<Item = PathBuf> {
    let aside = (1..=crate::telemetry::AuditLog::KEPT).map(move |number| {
        let mut name = OsString::from(audit);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    });
    std::iter::once(audit.to_owned()).chain(aside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_folder_of_its_own_is_hidden_and_one_that_is_needed_is_not() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().canonicalize().unwrap();
        let work = real.join("project/work");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::create_dir(real.join("log")).unwrap();
        std::os::unix::fs::symlink(&work, real.join("link")).unwrap();
        let hidden = |folder: &Path| self::folder(&folder.join("audit.jsonl"), [work.as_path()]);
        assert_eq!(hidden(&real.join("log")), Some(real.join("log")));
        for needed in ["project", "project/work", "", "link"] {
            assert_eq!(hidden(&real.join(needed)), None, "{needed}");
        }
        for needed in ["/", "/tmp", "/var", "/usr", "/etc", "/run"] {
            assert_eq!(hidden(Path::new(needed)), None, "{needed}");
        }
    }

    #[test]
    fn files_that_were_put_aside_are_among_the_log_s() {
        let all: Vec<_> = files(Path::new("/x/a.jsonl")).collect();
        assert_eq!(all.first().unwrap(), Path::new("/x/a.jsonl"));
        assert_eq!(all.last().unwrap(), Path::new("/x/a.jsonl.5"));
        assert_eq!(all.len(), 6);
    }
}
