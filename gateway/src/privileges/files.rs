//! Landlock: which files and folders the process reaches from now on, whatever its rights. Knows paths and
//! two kinds of access; what the files are for is the caller's.

use super::Taken;
use caps::Capability;
use landlock::{
    ABI, Access, AccessFs, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel may know of Landlock at most; an older one gets what it knows. The newest that
/// was tested, so that no kernel forbids what nobody tried.
const NEWEST: ABI = ABI::V7;
/// Read by the gateway and the libraries in it: processes and namespaces, kernel settings and types, names
/// and certificates.
const SYSTEM: [&str; 11] = [
    "/proc",
    "/sys",
    "/dev/urandom",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
];
/// Folders whose entries are looked at for whose they are: a secrets folder has two levels.
const LEVELS: usize = 2;

/// Files and folders, with all that is below them. What does not exist when the process is confined stays
/// out of reach, and so does a folder that somebody removes and makes anew.
#[derive(Clone, Debug, Default)]
pub struct Files {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Files {
    /// Where names are resolved and certificates are, `/proc` and `/sys`: what any gateway reads.
    pub fn system() -> Self {
        let mut files = Self {
            read: SYSTEM.map(PathBuf::from).to_vec(),
            write: vec!["/dev/null".into()],
        };
        // Its real folder, because resolvers replace the file.
        let resolver = Path::new("/etc/resolv.conf").canonicalize();
        if let Some(folder) = resolver.as_deref().ok().and_then(Path::parent)
            && folder != Path::new("/etc")
        {
            files.read.push(folder.to_owned());
        }
        files
    }

    /// Adds what is only read. A file's folder comes with it: editors replace files.
    #[must_use]
    pub fn reading(mut self, path: &Path) -> Self {
        add(&mut self.read, path);
        self
    }

    /// Adds what is read, written, made and removed. A file's folder comes with it: logs are rotated.
    #[must_use]
    pub fn writing(mut self, path: &Path) -> Self {
        add(&mut self.write, path);
        self
    }

    /// The capabilities without which these could not be reached, because they are other users': none
    /// as a rule.
    pub(super) fn overrides(&self) -> Option<Capability> {
        let own = |path: &Path| !SYSTEM.iter().any(|system| path.starts_with(system));
        let read = |path: &PathBuf| own(path) && !reached(path, 0o4, LEVELS);
        // Read, enter and write.
        let write = |path: &PathBuf| own(path) && !reached(path, 0o6, 0);
        if self.write.iter().any(write) {
            Some(Capability::CAP_DAC_OVERRIDE)
        } else if self.read.iter().any(read) {
            Some(Capability::CAP_DAC_READ_SEARCH)
        } else {
            None
        }
    }
}

/// Enforces it.
pub(super) fn restrict(files: &Files) -> Taken {
    match enforce(files) {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(told(files)),
            // Older kernels know fewer kinds of access; those they know are restricted.
            RulesetStatus::PartiallyEnforced => {
                Ok(format!("{}, as far as this kernel knows how", told(files)))
            }
            RulesetStatus::NotEnforced => Err(
                "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= list)"
                    .to_owned(),
            ),
        },
        Err(error) => Err(error.to_string()),
    }
}

fn told(files: &Files) -> String {
    let shown: Vec<String> = files
        .write
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!("writes below {} alone", shown.join(", "))
}

fn enforce(files: &Files) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = AccessFs::from_all(NEWEST);
    Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.write, all & !never()))?
        .restrict_self()
}

/// Not even where it may write.
fn never() -> BitFlags<AccessFs> {
    AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::IoctlDev
}

/// Once, however many files of a folder there are.
fn add(paths: &mut Vec<PathBuf>, path: &Path) {
    let path = match path.parent() {
        Some(folder) if !path.is_dir() => folder,
        _ => path,
    };
    if !paths.iter().any(|other| other == path) {
        paths.push(path.to_owned());
    }
}

/// Could this user reach it, and what is below it to some depth, without overriding anybody's rights?
fn reached(path: &Path, wanted: u32, levels: usize) -> bool {
    let above = path
        .ancestors()
        .skip(1)
        .all(|folder| allowed(&folder.metadata().ok(), 0o1));
    above && below(path, wanted, levels)
}

fn below(path: &Path, wanted: u32, levels: usize) -> bool {
    let metadata = path.metadata().ok();
    let is_folder = metadata.as_ref().is_some_and(Metadata::is_dir);
    let enter = if is_folder { 0o1 } else { 0 };
    if !allowed(&metadata, wanted | enter) {
        return false;
    }
    if !is_folder || levels == 0 {
        return true;
    }
    fs::read_dir(path).is_ok_and(|entries| {
        entries
            .flatten()
            .all(|entry| below(&entry.path(), wanted, levels - 1))
    })
}

/// What does not exist is nobody's.
fn allowed(metadata: &Option<Metadata>, wanted: u32) -> bool {
    let Some(metadata) = metadata else {
        return true;
    };
    let granted = if metadata.uid() == geteuid().as_raw() {
        metadata.mode() >> 6
    } else if metadata.gid() == getegid().as_raw() {
        metadata.mode() >> 3
    } else {
        metadata.mode()
    };
    granted & wanted == wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn folder(mode: u32, owner: Option<u32>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        if owner.is_some() {
            chown(&file, owner, owner).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_told_once_however_many_files_are_in_it() {
        let folder = folder(0o600, None);
        let socket = folder.path().join("socket");
        let files = Files::default().writing(folder.path()).writing(&socket);
        let shown = folder.path().display();
        assert_eq!(told(&files), format!("writes below {shown} alone"));
    }

    #[test]
    fn rights_are_overridden_only_where_a_file_is_anothers_alone() {
        let own = Files::default().reading(folder(0o600, None).path());
        assert_eq!(own.overrides(), None);
        if !geteuid().is_root() {
            return;
        }
        let open = folder(0o644, Some(1000));
        assert_eq!(Files::default().reading(open.path()).overrides(), None);
        let closed = folder(0o600, Some(1000));
        assert_eq!(
            Files::default().reading(closed.path()).overrides(),
            Some(Capability::CAP_DAC_READ_SEARCH)
        );
        chown(closed.path(), Some(1000), None).unwrap();
        assert_eq!(
            Files::default().writing(closed.path()).overrides(),
            Some(Capability::CAP_DAC_OVERRIDE)
        );
    }

    #[test]
    fn a_file_stands_for_its_folder_because_files_are_replaced() {
        let folder = folder(0o600, None);
        let file = folder.path().join("policy.yaml");
        assert_eq!(Files::default().reading(&file).read, [folder.path()]);
    }
}
