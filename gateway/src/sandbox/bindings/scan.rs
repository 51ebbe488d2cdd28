//! One reading of the tree after the other, and what changed in between. Knows no inotify, no threads and no
//! time.

use super::{Bound, Event};
use crate::policy::{Binding, Selector};
use crate::sandbox::cgroup;
use crate::sandbox::locate::{DEEPEST, Hierarchy, LocateError, MOST, is_system_unit, is_within};
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What is bound now, by path below the mount.
pub(super) struct Scan {
    hierarchy: Hierarchy,
    own: String,
    bound: BTreeMap<Arc<str>, Bound>,
    // By binding: a number that was followed once is not followed again, for it may be another process.
    pids: BTreeMap<Arc<str>, Followed>,
    // Said once each.
    said: HashSet<String>,
    last: Arc<[Binding]>,
}

struct Followed {
    pid: u32,
    path: String,
    id: u64,
}

impl Scan {
    pub(super) fn new(hierarchy: Hierarchy) -> Result<Self, LocateError> {
        let own = hierarchy.of_pid(std::process::id())?.path;
        Ok(Self {
            hierarchy,
            own,
            bound: BTreeMap::new(),
            pids: BTreeMap::new(),
            said: HashSet::new(),
            last: Arc::new([]),
        })
    }

    /// Reads the tree and says what is new. `watch` is given every folder in which something may appear.
    pub(super) fn read(
        &mut self,
        bindings: &Arc<[Binding]>,
        watch: &mut dyn FnMut(&Path),
    ) -> Vec<Event> {
        if !Arc::ptr_eq(&self.last, bindings) {
            self.last = Arc::clone(bindings);
            self.said.clear();
        }
        self.follow(bindings);
        let mut events = self.let_go(bindings);
        if bindings.is_empty() {
            return events;
        }
        let mut left = MOST;
        let root = self.hierarchy.mount().to_owned();
        let mut folders = vec![(root, 0)];
        while let Some((folder, depth)) = folders.pop() {
            left = left.saturating_sub(1);
            if left == 0 {
                self.say(format!("more than {MOST} cgroups: bindings see no further"));
                break;
            }
            let Some(path) = self.hierarchy.below(&folder) else {
                continue;
            };
            if self.bound.contains_key(path.as_str()) {
                continue;
            }
            if depth > 0
                && let Some(bound) = self.candidate(bindings, &folder, &path)
            {
                self.bound.insert(Arc::clone(&bound.path), bound.clone());
                events.push(Event::Bound(bound));
                continue;
            }
            // Before it is read, so that nothing appears unseen between the two.
            watch(&folder);
            if depth < DEEPEST {
                // One that cannot be read is gone, or is by the next time.
                let children = cgroup::children(&folder).unwrap_or_default();
                folders.extend(children.into_iter().map(|child| (child, depth + 1)));
            }
        }
        events
    }

    /// What is gone, is no longer owned, or is owned by another gateway. A cgroup made again under the
    /// same path is another one.
    fn let_go(&mut self, bindings: &[Binding]) -> Vec<Event> {
        let mut events = Vec::new();
        let all: Vec<Bound> = self.bound.values().cloned().collect();
        for bound in all {
            if self.hierarchy.is_gone(&bound.directory, bound.id) {
                self.bound.remove(&bound.path);
                events.push(Event::Gone(bound));
                continue;
            }
            match self.owner(bindings, &bound.path, bound.id) {
                None => {
                    self.bound.remove(&bound.path);
                    events.push(Event::Unbound(bound));
                }
                Some(owner) if owner.gateway != bound.gateway => {
                    let changed = Bound {
                        gateway: Arc::clone(&owner.gateway),
                        binding: Arc::clone(&owner.name),
                        ..bound
                    };
                    self.bound
                        .insert(Arc::clone(&changed.path), changed.clone());
                    events.push(Event::Bound(changed));
                }
                Some(_) => {}
            }
        }
        events
    }

    fn candidate(&mut self, bindings: &[Binding], folder: &Path, path: &str) -> Option<Bound> {
        let id = folder.metadata().ok()?.ino();
        let owner = self.owner(bindings, path, id)?;
        let bound = Bound {
            directory: folder.to_owned(),
            path: path.into(),
            id,
            gateway: Arc::clone(&owner.gateway),
            binding: Arc::clone(&owner.name),
        };
        if is_within(&self.own, path) {
            self.say(format!(
                "{path} has the gateway itself in it: the binding {} leaves it alone",
                bound.binding
            ));
            return None;
        }
        // What is bound stays bound: letting go of it first would set it free for a moment.
        let inner = self.bound.keys().find(|inner| is_within(inner, path));
        if let Some(inner) = inner.cloned() {
            self.say(format!(
                "{path} contains {inner}, which is bound already: the binding {} waits for its end",
                bound.binding
            ));
            return None;
        }
        Some(bound)
    }

    /// The first binding, in the policy's order, that owns a cgroup.
    fn owner<'a>(&self, bindings: &'a [Binding], path: &str, id: u64) -> Option<&'a Binding> {
        bindings.iter().find(|binding| match &binding.selector {
            Selector::Pid(pid) => self.pids.get(&binding.name).is_some_and(|followed| {
                followed.pid == *pid && followed.path == path && followed.id == id
            }),
            // Users and sandboxes name their own cgroups as they like, and would so choose their gateway.
            selector @ Selector::SystemdUnit(_) => is_system_unit(path) && selector.matches(path),
            selector @ Selector::Cgroup(_) => selector.matches(path),
        })
    }

    fn follow(&mut self, bindings: &[Binding]) {
        self.pids.retain(|name, followed| {
            bindings.iter().any(|binding| {
                binding.name == *name && binding.selector == Selector::Pid(followed.pid)
            })
        });
        for binding in bindings {
            let Selector::Pid(pid) = binding.selector else {
                continue;
            };
            if self.pids.contains_key(&binding.name) {
                continue;
            }
            match self.hierarchy.of_pid(pid) {
                Ok(located) if located.path != "/" => {
                    let followed = Followed {
                        pid,
                        path: located.path,
                        id: located.id,
                    };
                    self.pids.insert(Arc::clone(&binding.name), followed);
                }
                Ok(_root) => self.say(format!(
                    "process {pid} is in the root cgroup: the binding {} cannot attach it",
                    binding.name
                )),
                Err(LocateError::NoProcess(_)) => {}
                Err(error) => self.say(format!("binding {}: {error}", binding.name)),
            }
        }
    }

    fn say(&mut self, what: String) {
        if !self.said.contains(&what) {
            tracing::warn!("{what}");
            self.said.insert(what);
        }
    }
}
