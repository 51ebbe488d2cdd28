//! `/proc/self/mountinfo` as values. Knows the file's format (proc_pid_mountinfo(5)) and nothing of what
//! the mounts are for.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount, as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique id of the mount, and of the mount it sits on.
    pub id: u64,
    pub parent: u64,
    /// `major:minor` of the file system, as written.
    pub device: String,
    /// Which directory of the file system is the root of this mount.
    pub root: PathBuf,
    /// Where it is, relative to this process's root.
    pub point: PathBuf,
    /// Nothing can be written through this mount.
    pub read_only: bool,
    /// File system type, such as `ext4` or `cgroup2`.
    pub kind: String,
}

/// The mounts of this process's mount namespace, in the kernel's order.
///
/// # Errors
/// If the file cannot be read or has a line that is not a mount.
pub fn read() -> io::Result<Vec<Mount>> {
    parse(&std::fs::read("/proc/self/mountinfo")?)
}

/// Parses the contents of a mountinfo file.
///
/// # Errors
/// `InvalidData` for a line that is not a mount.
pub fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line_to_mount(line).ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .collect()
}

/// Where `directory` of the file system `device` (a path from the file system's own root) can be
/// seen in these mounts.
pub fn views<'a>(
    mounts: &'a [Mount],
    device: &'a str,
    directory: &'a Path,
) -> impl Iterator<Item = PathBuf> + 'a {
    mounts
        .iter()
        .filter(move |mount| mount.device == device)
        .filter_map(move |mount| {
            let rest = directory.strip_prefix(&mount.root).ok()?;
            Some(join(&mount.point, rest))
        })
}

/// The mount that `path` (absolute, without symbolic links) is on, and the path's place in that
/// file system.
pub fn locate<'a>(mounts: &'a [Mount], path: &Path) -> Option<(&'a Mount, PathBuf)> {
    // Of several mounts on one point the last is the visible one; `max_by_key` gives the last.
    let mount = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    Some((mount, join(&mount.root, rest)))
}

/// `Path::join` would add a trailing slash for an empty rest.
pub fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(rest)
    }
}

fn line_to_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || fields.next().and_then(|field| str::from_utf8(field).ok());
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let device = text()?.to_owned();
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let read_only = has_ro(fields.next()?);
    // Any number of optional fields, then a lone dash.
    fields.find(|field| *field == b"-")?;
    let kind = str::from_utf8(fields.next()?).ok()?.to_owned();
    // After the source: the options of the file system itself, which may be read-only as a whole.
    let read_only = read_only || fields.nth(1).is_some_and(has_ro);
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        read_only,
        kind,
    })
}

fn has_ro(options: &[u8]) -> bool {
    options
        .split(|&byte| byte == b',')
        .any(|option| option == b"ro")
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash).
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (
            b'\\',
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ],
        ) = (first, tail)
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const EXAMPLE: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        40 27 254:1 /@home /home rw shared:3 master:1 - btrfs /dev/vdb rw\n\
        41 27 254:1 /@home/a\\040b /srv/a\\040b ro - btrfs /dev/vdb rw\n";

    #[test]
    fn a_line_with_and_without_optional_fields_is_read() {
        let mounts = parse(EXAMPLE).unwrap();
        assert_eq!(mounts[0].kind, "ext4");
        assert_eq!(mounts[1].root, Path::new("/@home"));
        assert_eq!(mounts[2].point, Path::new("/srv/a b"));
        assert!(mounts[2].read_only && !mounts[1].read_only);
    }

    #[test]
    fn a_line_cut_short_is_an_error() {
        assert!(parse(b"27 1 254:0 / / rw,relatime\n").is_err());
    }

    #[test]
    fn a_directory_is_found_under_every_mount_that_shows_it() {
        let mounts = parse(EXAMPLE).unwrap();
        let (mount, place) = locate(&mounts, Path::new("/home/a b/secret")).unwrap();
        assert_eq!(place, Path::new("/@home/a b/secret"));
        let seen: Vec<_> = views(&mounts, &mount.device, &place).collect();
        assert_eq!(
            seen,
            [Path::new("/home/a b/secret"), Path::new("/srv/a b/secret")]
        );
    }

    #[test]
    fn the_deepest_mount_owns_a_path_and_names_are_compared_whole() {
        let mounts = parse(EXAMPLE).unwrap();
        assert_eq!(locate(&mounts, Path::new("/homes")).unwrap().0.kind, "ext4");
        assert_eq!(locate(&mounts, Path::new("/home")).unwrap().0.kind, "btrfs");
    }
}
