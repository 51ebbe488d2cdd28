//! Every way in which files are replaced in practice, with inotify and without.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::{AT_MOST, Poll, QUIET, Watcher};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A report that has not come by then will not come; the machine may be busy.
const SOON: Duration = Duration::from_secs(10);

async fn reports(watcher: &mut Watcher) {
    timeout(SOON, watcher.changed())
        .await
        .expect("no report of the change")
        .unwrap();
}

/// After the report of a change: its events come from a thread of their own, and what comes late is told once more.
async fn settles(watcher: &mut Watcher) {
    if timeout(QUIET * 5, watcher.changed()).await.is_ok() {
        stays_quiet(watcher).await;
    }
}

async fn stays_quiet(watcher: &mut Watcher) {
    let quiet = timeout(QUIET * 5, watcher.changed()).await;
    assert!(quiet.is_err(), "a report without a change");
}

fn watch(path: &Path) -> Watcher {
    let watcher = Watcher::new([path.to_owned()]);
    assert!(watcher.inotify.is_some(), "the tests are about inotify");
    watcher
}

#[tokio::test]
async fn a_file_made_written_renamed_over_allowed_and_removed_is_reported_each_time() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("name")).unwrap();
    let file = folder.path().join("name/key");
    let mut watcher = watch(folder.path());
    stays_quiet(&mut watcher).await;

    fs::write(&file, "1").unwrap();
    reports(&mut watcher).await;
    // In place, as `echo >` does.
    fs::write(&file, "2").unwrap();
    reports(&mut watcher).await;
    // Beside it and renamed, as editors do.
    let draft = folder.path().join("name/.key.swp");
    fs::write(&draft, "3").unwrap();
    fs::rename(&draft, &file).unwrap();
    reports(&mut watcher).await;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
    // Reading is no change.
    assert_eq!(fs::read(&file).unwrap(), b"3");
    stays_quiet(&mut watcher).await;
    fs::remove_file(&file).unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
}

#[tokio::test(start_paused = true)]
async fn events_of_one_burst_are_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = watch(folder.path());
    let (say, events) = tokio::sync::mpsc::channel(1);
    watcher.inotify.as_mut().unwrap().events = events;
    let begun = Instant::now();
    let saying = tokio::spawn(async move {
        for _ in 0..6 {
            say.send(()).await.unwrap();
            tokio::time::sleep(QUIET / 2).await;
        }
        say
    });
    reports(&mut watcher).await;
    // The last of them is half a time after the fifth.
    assert!(
        begun.elapsed() >= QUIET * 5 / 2 + QUIET,
        "{:?}",
        begun.elapsed()
    );
    stays_quiet(&mut watcher).await;
    drop(saying.await.unwrap());
}

#[tokio::test]
async fn a_burst_is_reported_and_a_burst_without_end_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let mut watcher = watch(folder.path());
    for number in 0..20 {
        fs::write(&file, number.to_string()).unwrap();
    }
    reports(&mut watcher).await;
    settles(&mut watcher).await;

    let started = Instant::now();
    let endless = tokio::spawn(async move {
        while started.elapsed() < 4 * AT_MOST {
            fs::write(&file, "x").unwrap();
            tokio::time::sleep(QUIET / 5).await;
        }
    });
    reports(&mut watcher).await;
    assert!(started.elapsed() < 3 * AT_MOST, "{:?}", started.elapsed());
    endless.abort();
}

#[tokio::test]
async fn what_happens_between_calls_and_in_a_dropped_call_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = watch(folder.path());
    fs::write(folder.path().join("key"), "1").unwrap();
    // Dropped in the middle of the burst, several times.
    for _ in 0..5 {
        drop(timeout(QUIET / 10, watcher.changed()).await);
    }
    reports(&mut watcher).await;
}

#[tokio::test]
async fn a_mounted_secret_that_is_swapped_by_its_link_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("name");
    let version = |number: u8| {
        let dated = format!("..2024_05_0{number}");
        fs::create_dir_all(name.join(&dated)).unwrap();
        fs::write(name.join(&dated).join("key"), [number]).unwrap();
        symlink(&dated, name.join("..data_tmp")).unwrap();
        fs::rename(name.join("..data_tmp"), name.join("..data")).unwrap();
    };
    version(1);
    symlink("..data/key", name.join("key")).unwrap();
    let mut watcher = watch(folder.path());
    version(2);
    reports(&mut watcher).await;
    assert_eq!(fs::read(name.join("key")).unwrap(), [2]);
    fs::remove_dir_all(name.join("..2024_05_01")).unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
    version(3);
    reports(&mut watcher).await;
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_again_is_still_watched() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("secrets");
    fs::create_dir(&folder).unwrap();
    let mut watcher = watch(&folder);
    fs::remove_dir(&folder).unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
    // A neighbour is nobody's business.
    fs::write(above.path().join("audit.jsonl"), "{}").unwrap();
    stays_quiet(&mut watcher).await;
    fs::create_dir_all(folder.join("name")).unwrap();
    reports(&mut watcher).await;
    fs::write(folder.join("name/key"), "1").unwrap();
    reports(&mut watcher).await;
    // Another folder, moved into its place.
    fs::create_dir_all(above.path().join("other/name")).unwrap();
    fs::rename(&folder, above.path().join("old")).unwrap();
    fs::rename(above.path().join("other"), &folder).unwrap();
    reports(&mut watcher).await;
    fs::write(folder.join("name/key"), "2").unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
}

#[tokio::test]
async fn a_single_file_is_watched_through_replacement_and_its_neighbours_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let mut watcher = watch(&file);
    fs::write(&file, "1").unwrap();
    reports(&mut watcher).await;
    settles(&mut watcher).await;
    fs::write(folder.path().join("draft"), "2").unwrap();
    stays_quiet(&mut watcher).await;
    fs::rename(folder.path().join("draft"), &file).unwrap();
    reports(&mut watcher).await;
}

#[tokio::test]
async fn without_inotify_the_files_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("name")).unwrap();
    let file = folder.path().join("name/key");
    fs::write(&file, "1").unwrap();
    let mut watcher = watch(folder.path());
    watcher.inotify = None;
    watcher.poll = Poll::new(&watcher.paths);
    // The same size and, as far as the clock of files tells, perhaps the same time.
    fs::write(&file, "2").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    reports(&mut watcher).await;
    let quiet = timeout(super::poll::EVERY * 2, watcher.changed()).await;
    assert!(quiet.is_err(), "a report without a change");
    fs::remove_dir_all(folder.path()).unwrap();
    reports(&mut watcher).await;
    fs::create_dir_all(folder.path()).unwrap();
    reports(&mut watcher).await;
}

#[tokio::test]
async fn inotify_that_fails_on_the_way_is_replaced_by_looking() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = watch(folder.path());
    let failed = watcher.inotify.as_ref().unwrap().failed.clone();
    failed.store(true, std::sync::atomic::Ordering::Release);
    fs::write(folder.path().join("key"), "1").unwrap();
    reports(&mut watcher).await;
    assert!(watcher.inotify.is_none());
    fs::write(folder.path().join("key"), "22").unwrap();
    reports(&mut watcher).await;
}
