//! Lines survive whatever becomes of the file.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::collections::HashSet;

/// Every line in the folder, whichever file it is in.
fn lines(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        all.extend(text.lines().map(str::to_owned));
    }
    all
}

fn append(log: &LogFile, text: &str, urgent: bool) -> io::Result<()> {
    log.append(format!("{text}\n").as_bytes(), urgent)
}

fn small(bytes: u64, kept: u32) -> Limits {
    Limits { bytes, kept }
}

#[test]
fn a_full_file_is_put_aside_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = LogFile::open(&path, small(20, 3)).unwrap();
    for number in 0..50 {
        append(&log, &format!("line {number:02}"), number % 2 == 0).unwrap();
    }
    log.sync().unwrap();
    // Two lines of eight bytes fit into twenty.
    assert_eq!(fs::read_to_string(&path).unwrap(), "line 48\nline 49\n");
    let aside = |number: u32| fs::read_to_string(log.shared.numbered(number));
    assert_eq!(aside(1).unwrap(), "line 46\nline 47\n");
    assert_eq!(aside(3).unwrap(), "line 42\nline 43\n");
    assert!(aside(4).is_err());
    let mode = fs::metadata(log.shared.numbered(3)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_line_longer_than_the_limit_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = LogFile::open(&path, small(20, 3)).unwrap();
    let long = "x".repeat(100);
    append(&log, &long, false).unwrap();
    append(&log, "short", false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "short\n");
    assert_eq!(lines(folder.path()).len(), 2);
}

#[test]
fn what_a_killed_gateway_left_of_a_line_spoils_none_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for (left, then) in [
        ("", "next\n"),
        ("whole\n", "whole\nnext\n"),
        ("whole\nhal", "whole\nhal\nnext\n"),
    ] {
        fs::write(&path, left).unwrap();
        let log = LogFile::open(&path, small(1000, 3)).unwrap();
        append(&log, "next", false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), then);
        append(&log, "last", false).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{then}last\n"),
            "{left:?}"
        );
    }
}

#[test]
fn several_that_share_a_file_lose_no_line_while_it_rotates() {
    const WRITERS: usize = 4;
    const LINES: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            // As of another process each: descriptors and counts of their own.
            let log = LogFile::open(&path, small(2000, 1000)).unwrap();
            scope.spawn(move || {
                for line in 0..LINES {
                    append(
                        &log,
                        &format!("writer {writer} line {line}"),
                        line % 50 == 0,
                    )
                    .unwrap();
                }
            });
        }
    });
    let found: HashSet<String> = lines(folder.path()).into_iter().collect();
    assert_eq!(found.len(), WRITERS * LINES);
    // Each counts its own bytes: together they may fill a file as many times over.
    let bytes: usize = found.iter().map(|line| line.len() + 1).sum();
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert!(files >= bytes / (WRITERS * 2100), "{files} files");
}

#[test]
fn a_file_that_was_moved_away_or_removed_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = LogFile::open(&path, small(1000, 3)).unwrap();
    let look = || {
        let long_ago = Instant::now().checked_sub(2 * LOOK_EVERY).unwrap();
        log.shared.state().looked = long_ago;
    };
    append(&log, "before", false).unwrap();
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    // However long that took, nobody looks now.
    log.shared.state().looked = Instant::now() + Duration::from_secs(3600);
    append(&log, "moved", false).unwrap();
    look();
    append(&log, "after", false).unwrap();
    let elsewhere = fs::read_to_string(folder.path().join("elsewhere")).unwrap();
    assert_eq!(elsewhere, "before\nmoved\n", "what was open is not lost");
    assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
    fs::remove_file(&path).unwrap();
    look();
    append(&log, "again", false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "again\n");
    // And where there can be none, it says so.
    let gone = folder.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let log = LogFile::open(&gone.join("audit.jsonl"), small(1000, 3)).unwrap();
    fs::remove_dir_all(&gone).unwrap();
    log.shared.state().looked = Instant::now().checked_sub(2 * LOOK_EVERY).unwrap();
    assert!(append(&log, "nowhere", false).is_err());
}

#[test]
fn a_full_disk_is_an_error_and_the_next_line_is_whole() {
    // /dev/full takes nothing, as a full disk.
    let log = LogFile::open(Path::new("/dev/full"), small(u64::MAX, 3)).unwrap();
    assert!(append(&log, "lost", false).is_err());
    assert!(log.shared.state().cut);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    log.shared.state().file = Arc::new(append_to(&path).unwrap());
    append(&log, "kept", false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "\nkept\n");
    assert!(!log.shared.state().cut);
}

#[test]
fn a_failed_sync_is_told_with_the_next_line_which_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = LogFile::open(&path, small(1000, 3)).unwrap();
    log.shared.broken.store(true, Ordering::Relaxed);
    assert!(append(&log, "one", false).is_err());
    assert!(append(&log, "two", false).is_ok());
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}
