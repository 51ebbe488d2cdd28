//! Token budgets: what a rule grants in a day and in one execution of a sandbox, reserved before a call and settled after
//! it.
//!
//! It refuses to know requests and providers: it is given numbers. What is charged is on disk before it is granted, so
//! that a crash leaves no more than the truth; what a call did not use is given back within a second. One thread does
//! all of it, in batches ([`worker`]); gateways that share a state folder share its budgets.

mod file;
mod held;
mod ledger;
mod worker;

pub use ledger::{Bound, Exceeded};

use crate::policy::TokenBudget;
use ledger::Account;
use std::future::Future;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use worker::{Denied, Granted, Message};

/// What a stream is granted beyond what it needs just now, tokens, so that it does not ask for each of its events.
const STEP: u64 = 1024;
/// How long the last settlements may take when the gateway ends.
const FLUSH: Duration = Duration::from_secs(5);

/// The budgets of a state folder.
pub struct Budgets {
    worker: Sender<Message>,
    /// A call is over.
    freed: Notify,
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

/// Tokens that are charged already. Unless they are settled they stay so.
pub struct Reservation {
    budgets: Arc<Budgets>,
    account: Account,
    day: u64,
    tokens: u64,
    /// What was spent of it; if nobody says, all.
    used: Option<u64>,
    asked: Option<oneshot::Receiver<Result<Granted, Denied>>>,
}

impl Budgets {
    /// The budgets kept in this folder, which need not exist yet.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(state: &Path) -> std::io::Result<Self> {
        let worker = worker::start(file::StateFile::new(state))?;
        let freed = Notify::new();
        Ok(Self { worker, freed })
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
        let until = Instant::now() + patience;
        loop {
            // Before it asks, so that nothing is given back unheard.
            let mut freed = std::pin::pin!(self.budgets.freed.notified());
            freed.as_mut().enable();
            let (least, wish) = (*tokens.start(), *tokens.end());
            let asked = self.budgets.charge(&account, least, wish);
            let denied = match answer(asked.await) {
                Ok(granted) => return Ok(self.reserved(account, granted)),
                Err(denied) => denied,
            };
            if !denied.may_wait || timeout_at(until, freed).await.is_err() {
                return Err(denied.refusal);
            }
        }
    }

    fn reserved(&self, account: Account, granted: Granted) -> Reservation {
        Reservation {
            budgets: Arc::clone(&self.budgets),
            account,
            day: granted.day,
            tokens: granted.tokens,
            used: None,
            asked: None,
        }
    }

    /// Forgets what the execution has spent.
    pub fn forget(&self) {
        self.budgets.forget(&self.execution);
    }
}

impl Budgets {
    fn charge(
        &self,
        account: &Account,
        tokens: u64,
        wish: u64,
    ) -> oneshot::Receiver<Result<Granted, Denied>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Charge {
            account: account.clone(),
            tokens,
            wish,
            reply,
        });
        answer
    }
}

impl Reservation {
    /// How many tokens are charged.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Ready when `tokens` are charged in all; charges more if it must.
    pub fn poll_cover(&mut self, cx: &mut Context<'_>, tokens: u64) -> Poll<Result<(), Refusal>> {
        while tokens > self.tokens {
            let missing = tokens - self.tokens;
            let asked = self.asked.get_or_insert_with(|| {
                self.budgets
                    .charge(&self.account, missing, missing.saturating_add(STEP))
            });
            let granted = answer(ready!(Pin::new(asked).poll(cx)));
            self.asked = None;
            let granted = granted.map_err(|denied| denied.refusal)?;
            self.tokens = self.tokens.saturating_add(granted.tokens);
            self.day = granted.day;
        }
        Poll::Ready(Ok(()))
    }

    /// What was really spent, which may be more than what was charged.
    pub fn settle(mut self, used: u64) {
        self.used = Some(used);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budgets.tell(Message::Settle {
            account: self.account.clone(),
            day: self.day,
            charged: self.tokens,
            used: self.used.unwrap_or(self.tokens),
        });
        // After it is told, so that whoever asks now asks after that.
        self.budgets.freed.notify_waiters();
    }
}

/// The name of an execution: the boot, and what the sandbox is called in it.
pub fn execution(cgroup: u64, sandbox: u32) -> Arc<str> {
    format!("{}:{cgroup}:{sandbox}", file::boot()).into()
}

fn answer(
    answer: Result<Result<Granted, Denied>, oneshot::error::RecvError>,
) -> Result<Granted, Denied> {
    match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "the keeper of the token budgets has ended");
            Err(Refusal::Unavailable.into())
        }
    }
}

#[cfg(test)]
mod tests;
