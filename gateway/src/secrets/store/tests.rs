//! What a change does to what is given out, and who hears of it first.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn reference(name: &str, key: &str) -> SecretRef {
    SecretRef {
        name: name.into(),
        key: key.into(),
    }
}

fn write(folder: &Path, name: &str, key: &str, text: &str) -> PathBuf {
    fs::create_dir_all(folder.join(name)).unwrap();
    let path = folder.join(name).join(key);
    fs::write(&path, text).unwrap();
    chmod(&path, 0o600);
    path
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn document(name: &str, values: &[(&str, &str)]) -> SecretDocument {
    let values = values.iter().map(|(key, value)| {
        let value = SecretValue::new(value.as_bytes().to_vec());
        ((*key).to_owned(), value)
    });
    SecretDocument {
        name: name.into(),
        values: values.collect(),
    }
}

fn shown(secrets: &Secrets, name: &str, key: &str) -> Option<String> {
    let value = secrets.get(&reference(name, key))?;
    Some(String::from_utf8(value.expose().to_vec()).unwrap())
}

fn is(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn a_file_stands_before_a_document() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "s", "k", "from-file\n");
    let documents = vec![document("s", &[("k", "from-document"), ("other", "kept")])];
    let secrets = Secrets::load(documents, Some(folder.path())).unwrap();
    assert_eq!(shown(&secrets, "s", "k"), is("from-file"));
    assert_eq!(shown(&secrets, "s", "other"), is("kept"));
    assert_eq!(shown(&secrets, "s", "absent"), None);
    secrets.settle(secrets.prepare(vec![document("s", &[("k", "from-document")])]));
    assert_eq!(shown(&secrets, "s", "k"), is("from-file"));
    assert_eq!(shown(&secrets, "s", "other"), None);
    fs::remove_file(folder.path().join("s/k")).unwrap();
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), is("from-document"));
}

#[test]
fn a_file_that_cannot_be_used_closes_its_secret_alone_and_uncovers_no_document() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "s", "k", "from-file");
    write(folder.path(), "t", "k", "another");
    let documents = vec![document("s", &[("k", "from-document"), ("other", "kept")])];
    let secrets = Secrets::load(documents, Some(folder.path())).unwrap();
    chmod(&file, 0o644);
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), None);
    let problem = secrets
        .snapshot()
        .problem(&reference("s", "k"))
        .unwrap()
        .to_string();
    assert!(problem.contains("chmod 600"), "{problem}");
    assert_eq!(shown(&secrets, "s", "other"), is("kept"));
    assert_eq!(shown(&secrets, "t", "k"), is("another"));
    chmod(&file, 0o600);
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), is("from-file"));
    assert!(secrets.snapshot().problem(&reference("s", "k")).is_none());
}

#[test]
fn the_same_holds_at_the_start_but_a_folder_that_cannot_be_read_is_an_error_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "s", "k", "v");
    chmod(&file, 0o644);
    let secrets = Secrets::load(Vec::new(), Some(folder.path())).unwrap();
    assert_eq!(shown(&secrets, "s", "k"), None);
    chmod(folder.path(), 0o777);
    assert!(Secrets::load(Vec::new(), Some(folder.path())).is_err());
}

#[test]
fn a_folder_that_is_gone_closes_what_it_had_until_it_is_back() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("secrets");
    write(&folder, "s", "k", "from-file");
    let documents = vec![
        document("s", &[("k", "overridden")]),
        document("d", &[("k", "kept")]),
    ];
    let secrets = Secrets::load(documents, Some(&folder)).unwrap();
    fs::rename(&folder, above.path().join("away")).unwrap();
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), None);
    assert_eq!(shown(&secrets, "d", "k"), is("kept"));
    fs::rename(above.path().join("away"), &folder).unwrap();
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), is("from-file"));
}

#[test]
fn subscribers_hear_of_changes_alone_and_what_is_the_same_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "s", "k", "one");
    let secrets = Secrets::load(Vec::new(), Some(folder.path())).unwrap();
    let changed = secrets.changed();
    let first = secrets.get(&reference("s", "k")).unwrap();
    write(folder.path(), "s", "k", "one\n");
    secrets.reload();
    assert!(!changed.has_changed().unwrap());
    write(folder.path(), "t", "k", "two");
    secrets.reload();
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow(), secrets.snapshot().number());
    assert!(Arc::ptr_eq(
        &first,
        &secrets.get(&reference("s", "k")).unwrap()
    ));
}

/// Writes down what it is told, and what could be had from the store at that moment.
#[derive(Default)]
struct Witness {
    store: Mutex<Weak<Secrets>>,
    told: Mutex<Vec<(Option<String>, Option<String>)>>,
}

impl Follower for Witness {
    fn follow(&self, next: &Snapshot) {
        let key = reference("s", "k");
        let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).unwrap();
        let store = self.store.lock().unwrap().upgrade();
        let usable = store
            .and_then(|store| store.get(&key))
            .map(|value| text(&value));
        let told = next.get(&key).map(|value| text(value));
        self.told.lock().unwrap().push((told, usable));
    }
}

#[test]
fn followers_know_a_value_before_it_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "s", "k", "one");
    let secrets = Arc::new(Secrets::load(Vec::new(), Some(folder.path())).unwrap());
    let witness = Arc::new(Witness::default());
    *witness.store.lock().unwrap() = Arc::downgrade(&secrets);
    secrets.add_follower(&witness);
    write(folder.path(), "s", "k", "two");
    secrets.reload();
    secrets.remind();
    secrets.close();
    assert_eq!(
        *witness.told.lock().unwrap(),
        [
            (is("one"), is("one")),
            (is("two"), is("one")),
            (is("two"), is("two")),
            (None, is("two")),
        ]
    );
    assert_eq!(shown(&secrets, "s", "k"), None);
    secrets.reload();
    assert_eq!(shown(&secrets, "s", "k"), None, "closed is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_disk_is_followed_and_no_reader_ever_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "s", "k", "value 0");
    let secrets = Arc::new(Secrets::load(Vec::new(), Some(folder.path())).unwrap());
    let following = super::super::follow(&secrets);
    let mut changed = secrets.changed();
    let reader = {
        let secrets = Arc::clone(&secrets);
        tokio::task::spawn_blocking(move || {
            let mut last = 0;
            while last < 3 {
                let value = shown(&secrets, "s", "k").unwrap();
                let number = value.strip_prefix("value ").unwrap().parse().unwrap();
                assert!(number >= last, "{number} after {last}");
                last = number;
            }
        })
    };
    for number in 1..=3 {
        let draft = write(folder.path(), "s", ".draft", &format!("value {number}"));
        fs::rename(draft, folder.path().join("s/k")).unwrap();
        tokio::time::timeout(Duration::from_secs(10), changed.changed())
            .await
            .expect("the change was not followed")
            .unwrap();
        assert_eq!(shown(&secrets, "s", "k"), is(&format!("value {number}")));
    }
    reader.await.unwrap();
    drop(following);
}
