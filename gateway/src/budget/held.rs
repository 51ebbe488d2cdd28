//! What calls under way hold of their budgets and may give back, so that another can wait for it. It refuses to know
//! what is spent; what other gateways hold is not among it.

use super::ledger::{Account, Bound, Exceeded};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tokens, by account, and by account and execution.
#[derive(Clone, Default)]
pub(super) struct Held(BTreeMap<Key, u64>);

type Key = (Arc<str>, Option<Arc<str>>);

impl Held {
    /// A call of the account has so many more.
    pub(super) fn take(&mut self, account: &Account, tokens: u64) {
        for key in keys(account) {
            let held = self.0.entry(key).or_default();
            *held = held.saturating_add(tokens);
        }
    }

    /// A call has so many less.
    pub(super) fn give_back(&mut self, account: &Account, tokens: u64) {
        for key in keys(account) {
            let left = self.of(&key).saturating_sub(tokens);
            if left == 0 {
                self.0.remove(&key);
            } else {
                self.0.insert(key, left);
            }
        }
    }

    /// Would the call, which has `own` of them itself, fit if all that others hold were given back?
    pub(super) fn may_make_room(&self, account: &Account, exceeded: &Exceeded, own: u64) -> bool {
        let [day, execution] = keys(account);
        let held = match exceeded.bound {
            Bound::Day => self.of(&day),
            Bound::Execution => self.of(&execution),
            Bound::Output => 0,
        };
        let held = held.saturating_sub(own);
        let spent = exceeded.used.saturating_sub(held);
        held > 0 && spent.saturating_add(exceeded.asked) <= exceeded.limit
    }

    fn of(&self, key: &Key) -> u64 {
        self.0.get(key).copied().unwrap_or_default()
    }
}

fn keys(account: &Account) -> [Key; 2] {
    let execution = Arc::clone(&account.execution);
    [None, Some(execution)].map(|execution| (Arc::clone(&account.name), execution))
}
