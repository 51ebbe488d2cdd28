//! The secrets at one moment, and what became of them since another. It refuses to know where they come
//! from, and names them only: no value gets into the log.

use super::SecretValue;
use super::folder::Problem;
use crate::policy::SecretRef;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Never changes; the store has another one when something did.
#[derive(Default)]
pub struct Snapshot {
    number: u64,
    values: HashMap<SecretRef, Arc<SecretValue>>,
    problems: BTreeMap<SecretRef, Arc<Problem>>,
    /// Names of which nothing is known but why.
    names: BTreeMap<Arc<str>, Arc<Problem>>,
}

impl Snapshot {
    /// The one after `former`. What has the same value is the same value.
    pub(super) fn new(
        former: &Self,
        mut values: BTreeMap<SecretRef, Arc<SecretValue>>,
        problems: BTreeMap<SecretRef, Arc<Problem>>,
        names: BTreeMap<Arc<str>, Arc<Problem>>,
    ) -> Self {
        for (reference, value) in &mut values {
            if let Some(known) = former.values.get(reference)
                && known.is_same(value)
            {
                *value = Arc::clone(known);
            }
        }
        Self {
            number: former.number + 1,
            values: values.into_iter().collect(),
            problems,
            names,
        }
    }

    /// The value, if it exists and may be used.
    pub fn get(&self, reference: &SecretRef) -> Option<&Arc<SecretValue>> {
        self.values.get(reference)
    }

    /// Every value, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<SecretValue>> {
        self.values.values()
    }

    /// Why there is no value, if that is more than that nobody wrote one. For the log: it has paths in it.
    pub fn problem(&self, reference: &SecretRef) -> Option<&Arc<Problem>> {
        self.problems
            .get(reference)
            .or_else(|| self.names.get(&reference.name))
    }

    /// Counts the changes.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn changes_since(&self, former: &Self) -> Changes {
        let mut changes = Changes::default();
        for (reference, value) in &self.values {
            match former.values.get(reference) {
                None => changes.added.push(reference.to_string()),
                Some(known) if !known.is_same(value) => changes.changed.push(reference.to_string()),
                Some(_) => {}
            }
        }
        for reference in former.values.keys() {
            if !self.values.contains_key(reference) {
                changes.removed.push(reference.to_string());
            }
        }
        // A reason is known by its words: most have no other identity.
        for (reference, problem) in &self.problems {
            let known = former.problems.get(reference).map(ToString::to_string);
            if known.as_deref() != Some(&problem.to_string()) {
                let what = reference.to_string();
                changes.broken.push((what, Arc::clone(problem)));
            }
        }
        for (name, problem) in &self.names {
            let known = former.names.get(name).map(ToString::to_string);
            if known.as_deref() != Some(&problem.to_string()) {
                changes.broken.push((name.to_string(), Arc::clone(problem)));
            }
        }
        let gone = former
            .problems
            .keys()
            .any(|of| !self.problems.contains_key(of));
        let listed = former.names.keys().any(|of| !self.names.contains_key(of));
        changes.mended = gone || listed;
        changes
    }
}

/// What became of them, by name.
#[derive(Default)]
pub(super) struct Changes {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    broken: Vec<(String, Arc<Problem>)>,
    mended: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        let lists = [&self.added, &self.changed, &self.removed];
        lists.iter().all(|list| list.is_empty()) && self.broken.is_empty() && !self.mended
    }

    pub(super) fn log(&self) {
        for (lists, what) in [
            (&self.added, "secret added"),
            (
                &self.changed,
                "secret changed: used from the next request on",
            ),
        ] {
            for secret in lists {
                tracing::info!(secret, "{what}");
            }
        }
        for secret in &self.removed {
            tracing::warn!(secret, "secret gone: requests that need it get 503");
        }
        for (secret, problem) in &self.broken {
            tracing::error!(secret, %problem, "secret cannot be used: requests that need it get 503");
        }
    }
}
