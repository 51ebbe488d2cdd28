//! Token budgets: what a rule grants in a day and in one execution of a sandbox, reserved before a call and settled after
//! it.
//!
//! It refuses to know requests and providers: it is given numbers. What is charged is on disk before it is granted, so
//! that a crash leaves no more than the truth; what a call did not use is given back within a second. One thread does
//! all of it, in batches ([`worker`]); gateways that share a state folder share its budgets.

mod file;
mod held;
mod ledger;
mod reservation;
mod worker;

pub use ledger::{Bound, Exceeded};
pub use reservation::Reservation;

use crate::policy::TokenBudget;
use ledger::Account;
use reservation::Charged;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use worker::{Denied, Message};

/// How long the last settlements may take when the gateway ends.
const FLUSH: Duration = Duration::from_secs(5);

/// The budgets of a state folder.
pub struct Budgets {
    worker: Sender<Message>,
    /// A call has given back what it held.
    freed: Notify,
    /// What streams under way wait for, tokens by account.
    awaited: Mutex<BTreeMap<Arc<str>, u64>>,
}

/// Why nothing is granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is not that much left.
    #[error("{0}")]
    Exceeded(Exceeded),
    /// What has been spent cannot be read or written.
    #[error("what has been spent is not known: see the gateway's log")]
    Unavailable,
}

/// Who spends: one execution of a sandbox.
#[derive(Clone)]
pub struct Meter {
    budgets: Arc<Budgets>,
    execution: Arc<str>,
}

/// How many tokens a call wants.
#[derive(Clone, Copy)]
struct Wanted {
    least: u64,
    /// If they are left.
    most: u64,
    /// What it has already, and does not give back while it waits for more.
    own: u64,
    /// What is to be left of the rest if there is more than the least.
    spared: u64,
}

/// A stream that waits for so many tokens, for as long as this is kept.
struct Waits<'a> {
    budgets: &'a Budgets,
    account: &'a Account,
    tokens: u64,
}

impl<'a> Waits<'a> {
    fn new(budgets: &'a Budgets, account: &'a Account, tokens: u64) -> Self {
        let mut awaited = budgets.awaited();
        let of = awaited.entry(Arc::clone(&account.name)).or_default();
        *of = of.saturating_add(tokens);
        Self {
            budgets,
            account,
            tokens,
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut awaited = self.budgets.awaited();
        if let Some(of) = awaited.get_mut(&self.account.name) {
            *of = of.saturating_sub(self.tokens);
        }
        awaited.retain(|_, tokens| *tokens > 0);
    }
}

impl Budgets {
    /// The budgets kept in this folder, which need not exist yet.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(state: &Path) -> std::io::Result<Self> {
        let worker = worker::start(file::StateFile::new(state))?;
        let freed = Notify::new();
        Ok(Self {
            worker,
            freed,
            awaited: Mutex::default(),
        })
    }

    /// Forgets what an execution has spent, because it is over.
    pub fn forget(&self, execution: &str) {
        self.tell(Message::Forget(execution.into()));
    }

    /// Writes what is settled; waits a few seconds at most. Blocks: not for async code.
    pub fn flush(&self) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.tell(Message::Flush(done));
        if let Err(error) = is_done.recv_timeout(FLUSH) {
            tracing::warn!(%error, "token budgets not settled: what was reserved counts as spent");
        }
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, u64>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: Message) {
        if self.worker.send(message).is_err() {
            tracing::error!("the keeper of the token budgets has ended");
        }
    }
}

impl Meter {
    /// For one execution, whose name is its own on this machine: see [`execution`].
    pub fn new(budgets: Arc<Budgets>, execution: Arc<str>) -> Self {
        Self { budgets, execution }
    }

    /// Charges `tokens` to a rule of a gateway: not less than the first number, and as many up to the last as are left.
    ///
    /// Where that is too much, and would not be if calls under way gave back what they hold, it waits for that: as long
    /// as `patience`.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing is charged.
    pub async fn reserve(
        &self,
        gateway: &str,
        budget: &Arc<TokenBudget>,
        tokens: RangeInclusive<u64>,
        patience: Duration,
    ) -> Result<Reservation, Refusal> {
        let account = Account {
            name: format!("{gateway}/{}", budget.route).into(),
            execution: Arc::clone(&self.execution),
            budget: Arc::clone(budget),
        };
        let wanted = Wanted {
            least: *tokens.start(),
            most: *tokens.end(),
            own: 0,
            spared: 0,
        };
        let charged = grant(Arc::clone(&self.budgets), account, wanted, patience).await?;
        Ok(Reservation::new(charged, patience))
    }

    /// Forgets what the execution has spent.
    pub fn forget(&self) {
        self.budgets.forget(&self.execution);
    }
}

/// The name of an execution: the boot, and what the sandbox is called in it.
pub fn execution(cgroup: u64, sandbox: u32) -> Arc<str> {
    format!("{}:{cgroup}:{sandbox}", file::boot()).into()
}

/// Charges what is wanted, once it fits; waits for what others hold, no longer than `patience`. Streams under way come
/// before calls that take what they can get, of which there may be many.
async fn grant(
    budgets: Arc<Budgets>,
    account: Account,
    mut wanted: Wanted,
    patience: Duration,
) -> Result<Charged, Refusal> {
    let until = Instant::now() + patience;
    let is_stream = wanted.own > 0;
    let mut waits = None;
    loop {
        // Before it asks, so that nothing is given back unheard.
        let mut freed = std::pin::pin!(budgets.freed.notified());
        freed.as_mut().enable();
        if !is_stream {
            let awaited = budgets.awaited().get(&account.name).copied();
            wanted.spared = awaited.unwrap_or_default();
        }
        let denied = match charge(&budgets, &account, wanted).await {
            Ok(charged) => return Ok(charged),
            Err(denied) => denied,
        };
        if is_stream && denied.may_wait {
            waits.get_or_insert_with(|| Waits::new(&budgets, &account, wanted.most));
        }
        if !denied.may_wait || timeout_at(until, freed).await.is_err() {
            return Err(denied.refusal);
        }
    }
}

async fn charge(
    budgets: &Arc<Budgets>,
    account: &Account,
    wanted: Wanted,
) -> Result<Charged, Denied> {
    let (reply, answer) = oneshot::channel();
    budgets.tell(Message::Charge {
        budgets: Arc::clone(budgets),
        account: account.clone(),
        wanted,
        reply,
    });
    answer.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the keeper of the token budgets has ended");
        Err(Refusal::Unavailable.into())
    })
}

#[cfg(test)]
mod tests;
