//! The secrets as they are now: the policy's documents and, before them, the secrets folder. Reading is
//! lock-free and sees a change at once. It refuses to know when to look for changes (that is
//! [`follow`](super::follow)'s business) and what the values are used for.

use super::folder::{self, Contents, Problem};
use super::snapshot::Snapshot;
use super::{Documents, SecretValue};
use crate::policy::{SecretDocument, SecretRef};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// Somebody who must know of values before they can be used: the redactors.
pub trait Follower: Send + Sync {
    /// Called before `next` can be seen by anybody else, and now and then with what is known
    /// already. Must be quick, and must not change the store.
    fn follow(&self, next: &Snapshot);
}

/// The secrets of one process. What is wrong with one secret is that secret's alone: it counts as
/// missing, and the log says why.
pub struct Secrets {
    now: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

/// The documents of a policy that is not in force yet.
pub struct Prepared {
    documents: Documents,
    snapshot: Snapshot,
}

impl Prepared {
    /// What the secrets will be.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// What the next snapshot is made of.
#[derive(Default)]
struct State {
    documents: Documents,
    /// As last read; if that failed, what it failed on.
    contents: Contents,
    failure: Option<Arc<Problem>>,
    /// Names the folder has had, all of which are closed while it cannot be read.
    names: BTreeSet<Arc<str>>,
    ignored: BTreeSet<PathBuf>,
    followers: Vec<Weak<dyn Follower>>,
    /// Nothing is given out any more.
    closed: bool,
}

impl Secrets {
    /// Reads the folder, if there is one, over the policy's documents.
    ///
    /// # Errors
    /// A [`Problem`] of the folder itself. Those of its files are logged, and their secrets missing.
    pub fn load(documents: Vec<SecretDocument>, folder: Option<&Path>) -> Result<Self, Problem> {
        let secrets = Self::empty(folder);
        {
            let mut state = secrets.lock();
            state.documents = keep(documents);
            if let Some(folder) = folder {
                let contents = folder::read(folder)?;
                state.read(Ok(contents));
            }
            secrets.publish(&mut state);
        }
        Ok(secrets)
    }

    /// From what has been read, without a word in the log: for whoever says what is wrong in another way.
    pub fn of(documents: Vec<SecretDocument>, contents: Contents) -> Self {
        let secrets = Self::empty(None);
        let mut state = secrets.lock();
        state.documents = keep(documents);
        state.contents = contents;
        let snapshot = state.snapshot(&state.documents, &Snapshot::default());
        drop(state);
        secrets.now.store(Arc::new(snapshot));
        secrets
    }

    /// From values at hand.
    pub fn from_values(values: impl IntoIterator<Item = (SecretRef, SecretValue)>) -> Self {
        let secrets = Self::empty(None);
        let values = values.into_iter();
        let mut state = secrets.lock();
        state.documents = values.map(|(of, value)| (of, Arc::new(value))).collect();
        secrets.publish(&mut state);
        drop(state);
        secrets
    }

    /// The value, if it exists and may be used. Never waits.
    pub fn get(&self, reference: &SecretRef) -> Option<Arc<SecretValue>> {
        self.now.load().get(reference).cloned()
    }

    /// All of them at one moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.now.load_full()
    }

    /// Shows every value to `f`, for redaction.
    pub fn for_each_value(&self, mut f: impl FnMut(&[u8])) {
        for value in self.now.load().values() {
            f(value.expose());
        }
    }

    /// Says when something has changed, by the number of the snapshot; for what is derived from secrets
    /// and takes its time (client certificates, trust bundles).
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells `follower` of the values now and before each change, for as long as it exists.
    pub fn add_follower(&self, follower: &Arc<impl Follower + 'static>) {
        let mut state = self.lock();
        follower.follow(&self.now.load());
        let weak: Weak<dyn Follower> = Arc::downgrade(follower) as Weak<dyn Follower>;
        state.followers.push(weak);
    }

    /// What the secrets would be with these documents in place of the policy's present ones.
    pub fn prepare(&self, documents: Vec<SecretDocument>) -> Prepared {
        let documents = keep(documents);
        let snapshot = self.lock().snapshot(&documents, &self.now.load());
        Prepared {
            documents,
            snapshot,
        }
    }

    /// Adds what was prepared to what there is: for the moment in which some requests are decided by the
    /// former policy and some by the next. [`Secrets::settle`] ends it.
    pub fn admit(&self, prepared: &Prepared) {
        let mut state = self.lock();
        let documents = prepared.documents.iter();
        state
            .documents
            .extend(documents.map(|(of, value)| (of.clone(), Arc::clone(value))));
        self.publish(&mut state);
    }

    /// Replaces the policy's documents. What was a secret by a former document alone is none any more.
    pub fn settle(&self, prepared: Prepared) {
        let mut state = self.lock();
        state.documents = prepared.documents;
        self.publish(&mut state);
    }

    /// The folder, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Reads the folder again. Blocks while it reads. A folder that cannot be read closes every name
    /// that it has had; the others stay.
    pub fn reload(&self) {
        let Some(folder) = &self.folder else {
            return;
        };
        let mut state = self.lock();
        state.read(folder::read(folder));
        self.publish(&mut state);
    }

    /// Tells every follower again, so that it can forget what is long gone.
    pub fn remind(&self) {
        let mut state = self.lock();
        let now = self.now.load_full();
        state.tell(&now);
    }

    /// Gives no value out any more, for good: nobody would notice if one was withdrawn.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.publish(&mut state);
    }

    fn empty(folder: Option<&Path>) -> Self {
        Self {
            now: ArcSwap::default(),
            changes: watch::Sender::new(0),
            folder: folder.map(Path::to_owned),
            state: Mutex::default(),
        }
    }

    /// One writer at a time: of two changes the later is the one that stays.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &mut State) {
        let former = self.now.load_full();
        let next = state.snapshot(&state.documents, &former);
        let changes = next.changes_since(&former);
        if changes.is_empty() {
            return;
        }
        // Before anybody can send a new value, everybody can recognise it.
        state.tell(&next);
        let number = next.number();
        self.now.store(Arc::new(next));
        changes.log();
        self.changes.send_replace(number);
    }
}

impl State {
    fn read(&mut self, read: Result<Contents, Problem>) {
        match read {
            Ok(contents) => {
                let ignored: BTreeSet<PathBuf> = contents.ignored.iter().cloned().collect();
                for path in ignored.difference(&self.ignored) {
                    tracing::warn!(path = %path.display(), "not a NAME/KEY file of the secrets folder: not used");
                }
                self.ignored = ignored;
                let names = contents.keys.keys().map(|of| Arc::clone(&of.name));
                self.names = names.chain(contents.unlisted.keys().cloned()).collect();
                self.contents = contents;
                self.failure = None;
            }
            Err(problem) => {
                self.contents = Contents::default();
                self.failure = Some(Arc::new(problem));
            }
        }
    }

    /// A key of the folder stands before that of a document, whether it can be used or not.
    fn snapshot(&self, documents: &Documents, former: &Snapshot) -> Snapshot {
        let mut values = BTreeMap::new();
        let mut problems = BTreeMap::new();
        if self.closed {
            return Snapshot::new(former, values, problems, BTreeMap::new());
        }
        let mut names = self.contents.unlisted.clone();
        if let Some(failure) = &self.failure {
            let all = self.names.iter().cloned();
            names.extend(all.map(|name| (name, Arc::clone(failure))));
        }
        for (reference, value) in documents {
            if !names.contains_key(&reference.name) {
                values.insert(reference.clone(), Arc::clone(value));
            }
        }
        for (reference, found) in &self.contents.keys {
            match &found.value {
                Ok(value) => {
                    values.insert(reference.clone(), Arc::clone(value));
                }
                Err(problem) => {
                    values.remove(reference);
                    problems.insert(reference.clone(), Arc::clone(problem));
                }
            }
        }
        Snapshot::new(former, values, problems, names)
    }

    fn tell(&mut self, next: &Snapshot) {
        self.followers.retain(|follower| match follower.upgrade() {
            Some(follower) => {
                follower.follow(next);
                true
            }
            None => false,
        });
    }
}

/// Documents live as long as the policy: their values go where they are safe.
fn keep(documents: Vec<SecretDocument>) -> Documents {
    let mut kept = Documents::new();
    for document in documents {
        let name: Arc<str> = document.name.into();
        for (key, value) in document.values {
            let reference = SecretRef {
                name: Arc::clone(&name),
                key: key.into(),
            };
            kept.insert(reference, Arc::new(SecretValue::kept(value.expose())));
        }
    }
    kept
}

#[cfg(test)]
mod tests;
