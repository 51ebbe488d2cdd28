//! The accounts: what is charged to each rule today, and to each execution.
//!
//! It refuses to know files, clocks and threads: the day is given.

use super::Wanted;
use crate::policy::TokenBudget;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Seconds in a day of UTC, as POSIX counts them.
pub(super) const DAY: u64 = 24 * 60 * 60;

/// What is charged: spent, or reserved by a call under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    version: Version,
    /// Days since the epoch, of which `today` tells.
    day: u64,
    /// By account.
    today: BTreeMap<String, u64>,
    /// By execution and account.
    executions: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The format of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1")]
    One,
}

/// Who spends what on which grant.
#[derive(Clone)]
pub(super) struct Account {
    /// The gateway and its rule.
    pub(super) name: Arc<str>,
    pub(super) execution: Arc<str>,
    pub(super) budget: Arc<TokenBudget>,
}

/// A bound of a `TokenBudget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `maxTokensPerDay`
    Day,
    /// `maxTokensPerExecution`
    Execution,
    /// `maxOutputTokensPerRequest`
    Output,
}

impl Bound {
    /// The field of the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "maxTokensPerDay",
            Self::Execution => "maxTokensPerExecution",
            Self::Output => "maxOutputTokensPerRequest",
        }
    }
}

/// A call that goes beyond a bound. Numbers are tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// `NAME#N`: the rule whose budget it is.
    pub route: Arc<str>,
    /// Which bound.
    pub bound: Bound,
    /// The bound.
    pub limit: u64,
    /// Spent, and reserved by calls under way.
    pub used: u64,
    /// What the call may take.
    pub asked: u64,
    /// When there will be more, in seconds since the epoch; `None`: never.
    pub resets_at: Option<u64>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            route,
            bound,
            limit,
            used,
            asked,
            ..
        } = self;
        let bound = bound.as_str();
        write!(
            out,
            "{bound} of {route} is {limit} tokens; {used} are spent or reserved, and this call may take {asked}"
        )
    }
}

impl Ledger {
    /// Begins another day if it is one. A clock that was set back does not give back what is spent.
    pub(super) fn turn_to(&mut self, day: u64) {
        if day > self.day {
            self.today.clear();
        }
        self.day = day;
    }

    /// Forgets the executions of other boots.
    pub(super) fn keep_boot(&mut self, boot: &str) {
        let is_of = |name: &str| name.split(':').next() == Some(boot);
        self.executions.retain(|name, _| is_of(name));
    }

    pub(super) fn forget(&mut self, execution: &str) {
        self.executions.remove(execution);
    }

    /// Charges what is wanted; says how many.
    pub(super) fn charge(&mut self, account: &Account, wanted: Wanted) -> Result<u64, Exceeded> {
        let tokens = wanted.least;
        let budget = &account.budget;
        let (today, execution) = self.charged(account);
        let bounds = [
            (Bound::Day, budget.max_tokens_per_day, today),
            (Bound::Execution, budget.max_tokens_per_execution, execution),
        ];
        let mut granted = wanted.most.max(tokens);
        for (bound, limit, used) in bounds {
            let Some(limit) = limit else { continue };
            let left = limit.saturating_sub(used);
            if tokens > left {
                return Err(Exceeded {
                    route: Arc::clone(&budget.route),
                    bound,
                    limit,
                    used,
                    asked: tokens,
                    resets_at: (bound == Bound::Day).then(|| (self.day + 1) * DAY),
                });
            }
            let spare = left.saturating_sub(wanted.spared);
            granted = granted.min(spare.max(tokens));
        }
        self.add(account, self.day, granted);
        Ok(granted)
    }

    /// Replaces what was charged on `day` by what was used.
    pub(super) fn settle(&mut self, account: &Account, day: u64, charged: u64, used: u64) {
        if let Some(more) = used.checked_sub(charged) {
            return self.add(account, day, more);
        }
        let less = |charged_in_all: &mut u64| {
            *charged_in_all = charged_in_all.saturating_sub(charged - used);
        };
        let name = &*account.name;
        // An execution that is over has no entry, and gets none again.
        let execution = self.executions.get_mut(&*account.execution);
        execution.and_then(|of| of.get_mut(name)).map(less);
        if day == self.day {
            self.today.get_mut(name).map(less);
        }
    }

    fn add(&mut self, account: &Account, day: u64, tokens: u64) {
        let (today, execution) = self.entries(account);
        if let Some(execution) = execution {
            *execution = execution.saturating_add(tokens);
        }
        if day == today.0 {
            *today.1 = today.1.saturating_add(tokens);
        }
    }

    fn charged(&self, account: &Account) -> (u64, u64) {
        let of = |accounts: &BTreeMap<String, u64>| accounts.get(&*account.name).copied();
        let execution = self.executions.get(&*account.execution).and_then(of);
        (
            of(&self.today).unwrap_or_default(),
            execution.unwrap_or_default(),
        )
    }

    /// The day's entry with its day, and the execution's if that is bounded.
    fn entries(&mut self, account: &Account) -> ((u64, &mut u64), Option<&mut u64>) {
        let name = || account.name.to_string();
        let executions = &mut self.executions;
        let execution = account.budget.max_tokens_per_execution.map(|_| {
            let of = executions.entry(account.execution.to_string());
            of.or_default().entry(name()).or_default()
        });
        let today = self.today.entry(name()).or_default();
        ((self.day, today), execution)
    }
}
