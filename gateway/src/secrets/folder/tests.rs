//! Who may have read or written a value decides whether it is one.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn write(folder: &Path, name: &str, key: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    fs::create_dir_all(folder.join(name)).unwrap();
    let path = folder.join(name).join(key);
    fs::write(&path, text).unwrap();
    chmod(&path, mode);
    path
}

/// `NAME/KEY` as the kubelet mounts it.
fn mount(folder: &Path, name: &str, key: &str, text: &str) -> PathBuf {
    let name = folder.join(name);
    fs::create_dir_all(name.join("..2024_05_01")).unwrap();
    chmod(&name, 0o1777);
    fs::write(name.join("..2024_05_01").join(key), text).unwrap();
    chmod(&name.join("..2024_05_01").join(key), 0o644);
    symlink("..2024_05_01", name.join("..data")).unwrap();
    symlink(format!("..data/{key}"), name.join(key)).unwrap();
    name
}

fn find(contents: &Contents, name: &str, key: &str) -> Result<Vec<u8>, String> {
    let reference = SecretRef {
        name: name.into(),
        key: key.into(),
    };
    let found = &contents.keys[&reference];
    assert!(found.modified.is_some() || found.value.is_err());
    match &found.value {
        Ok(value) => Ok(value.expose().to_vec()),
        Err(problem) => Err(problem.to_string()),
    }
}

#[test]
fn values_lose_line_breaks_at_the_end_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "s", "a", "value\r\n\n", 0o600);
    write(folder.path(), "s", "b", " v\n\0w ", 0o400);
    let largest = vec![b'x'; usize::try_from(MAX_SECRET).unwrap()];
    write(folder.path(), "s", "c", &largest, 0o600);
    let contents = read(folder.path()).unwrap();
    assert_eq!(find(&contents, "s", "a").unwrap(), b"value");
    assert_eq!(find(&contents, "s", "b").unwrap(), b" v\n\0w ");
    assert_eq!(find(&contents, "s", "c").unwrap(), largest);
}

#[test]
fn what_others_may_know_or_cannot_be_a_credential_is_a_problem_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "s", "good", "value", 0o600);
    write(at, "s", "group", "value", 0o640);
    write(at, "s", "world", "value", 0o604);
    write(at, "s", "empty", "\n", 0o600);
    let too_large = vec![b'x'; usize::try_from(MAX_SECRET).unwrap() + 1];
    write(at, "s", "large", &too_large, 0o600);
    fs::create_dir(at.join("s/folder")).unwrap();
    nix::unistd::mkfifo(&at.join("s/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("/etc/shadow", at.join("s/outside")).unwrap();
    symlink("nowhere", at.join("s/dangling")).unwrap();
    let contents = read(at).unwrap();
    assert_eq!(find(&contents, "s", "good").unwrap(), b"value");
    for (key, expected) in [
        ("group", "mode 0640); run `chmod 600"),
        ("world", "mode 0604); run `chmod 600"),
        ("empty", "is empty"),
        ("large", "larger than 1048576 bytes"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
        ("outside", "not in the secrets folder"),
        ("dangling", "No such file"),
    ] {
        let problem = find(&contents, "s", key).unwrap_err();
        assert!(problem.contains(expected), "{key}: {problem}");
    }
}

#[test]
fn a_mounted_secret_needs_a_folder_that_is_shut() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let name = mount(at, "s", "key", "value");
    chmod(at, 0o700);
    assert_eq!(
        find(&read(at).unwrap(), "s", "key").unwrap(),
        b"value",
        "the secrets folder is for its owner alone"
    );
    chmod(at, 0o755);
    let problem = find(&read(at).unwrap(), "s", "key").unwrap_err();
    assert!(problem.contains("run `chmod 700"), "{problem}");
    chmod(&name.join("..2024_05_01"), 0o700);
    assert!(find(&read(at).unwrap(), "s", "key").is_ok());
    chmod(&name.join("..2024_05_01"), 0o755);
    chmod(&name.join("..2024_05_01/key"), 0o400);
    assert!(
        find(&read(at).unwrap(), "s", "key").is_ok(),
        "the file is for its owner alone"
    );
    // In the same folder, a file that is not mounted is held to its own mode.
    chmod(at, 0o700);
    write(at, "plain", "key", "value", 0o644);
    assert!(find(&read(at).unwrap(), "plain", "key").is_err());
}

#[test]
fn who_may_write_decides_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "s", "key", "value", 0o600);
    chmod(&at.join("s"), 0o775);
    let problem = find(&read(at).unwrap(), "s", "key").unwrap_err();
    assert!(problem.contains("chmod go-w"), "{problem}");
    chmod(&at.join("s"), 0o755);
    chmod(at, 0o777);
    let problem = read(at).err().unwrap().to_string();
    assert!(problem.contains("others may write"), "{problem}");
    chmod(at, 0o700);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(at.join("s/key"), Some(65534), None).unwrap();
        let problem = find(&read(at).unwrap(), "s", "key").unwrap_err();
        assert!(problem.contains("belongs to user 65534"), "{problem}");
    }
}

#[test]
fn drafts_are_passed_over_and_impossible_names_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "s", ".key.swp", "draft", 0o600);
    write(at, "s", "key~", "backup", 0o600);
    write(at, "Not_A_Name", "key", "value", 0o600);
    fs::write(at.join("README"), "text").unwrap();
    let contents = read(at).unwrap();
    assert!(contents.keys.is_empty());
    let ignored = ["Not_A_Name", "README", "s/key~"].map(|name| at.join(name));
    assert_eq!(contents.ignored, ignored);
    let missing = read(&at.join("nowhere")).err().unwrap().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
}
