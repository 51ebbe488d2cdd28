//! What a call has been granted: charged from the moment it is written down until somebody says what was spent of it.
//!
//! It refuses to know why a call wants more, and what it does with it.

use super::ledger::Account;
use super::worker::{Granted, Message};
use super::{Budgets, Refusal, Wanted, grant};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What a stream is granted beyond what it needs just now, tokens, so that it does not ask for each of its events.
pub(super) const STEP: u64 = 1024;

/// Tokens that are charged already. Unless they are settled they stay so.
pub struct Reservation {
    /// Its own, but for who gives back what is held for too long.
    charged: Arc<Mutex<Charged>>,
    /// How long it waits for what others hold.
    patience: Duration,
    asked: Option<Asked>,
}

/// Shared as the response is that it belongs to.
type Asked = Pin<Box<dyn Future<Output = Result<Charged, Refusal>> + Send + Sync>>;

/// Tokens on their way to who asked for them, and then in his hands. When it is dropped it is settled: whoever is not
/// there any more to take it has spent nothing.
pub(super) struct Charged {
    budgets: Arc<Budgets>,
    account: Account,
    day: u64,
    tokens: u64,
    /// The most that it has been, which may be what was spent by the time some of it is given back.
    most: u64,
    /// What has been covered of it.
    covered: u64,
    /// What was spent of it; if nobody says, the most that it has been.
    used: Option<u64>,
}

impl Reservation {
    pub(super) fn new(mut charged: Charged, patience: Duration) -> Self {
        charged.used = None;
        Self {
            charged: Arc::new(Mutex::new(charged)),
            patience,
            asked: None,
        }
    }

    /// How many tokens are charged.
    pub fn tokens(&self) -> u64 {
        lock(&self.charged).tokens
    }

    /// How many were charged at most at any time.
    pub fn most(&self) -> u64 {
        lock(&self.charged).most
    }

    /// Ready when `tokens` are charged in all; charges more if it must, and waits for what others hold as long as it
    /// was willing to when it was reserved. What it holds itself is nothing to wait for.
    pub fn poll_cover(&mut self, cx: &mut Context<'_>, tokens: u64) -> Poll<Result<(), Refusal>> {
        loop {
            let mut charged = lock(&self.charged);
            charged.covered = charged.covered.max(tokens);
            let missing = tokens.saturating_sub(charged.tokens);
            if missing == 0 {
                return Poll::Ready(Ok(()));
            }
            let asked = self.asked.get_or_insert_with(|| {
                let wanted = Wanted {
                    least: missing,
                    most: missing.saturating_add(STEP),
                    own: charged.tokens,
                    spared: 0,
                };
                let budgets = Arc::clone(&charged.budgets);
                Box::pin(grant(
                    budgets,
                    charged.account.clone(),
                    wanted,
                    self.patience,
                ))
            });
            drop(charged);
            let more = ready!(asked.as_mut().poll(cx));
            self.asked = None;
            lock(&self.charged).absorb(more?);
        }
    }

    /// After `delay` gives back what is charged beyond `least` and what is covered by then. From then on it has to be
    /// covered as it is needed.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn give_back_after(&self, delay: Duration, least: u64) {
        if self.tokens() <= least {
            return;
        }
        let charged = Arc::downgrade(&self.charged);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Not if it is over.
            if let Some(charged) = charged.upgrade() {
                let mut charged = lock(&charged);
                let keep = charged.covered.saturating_add(least);
                charged.give_back_beyond(keep);
            }
        });
    }

    /// What was really spent, which may be more than what was charged.
    pub fn settle(self, used: u64) {
        lock(&self.charged).used = Some(used);
    }
}

impl Charged {
    /// Charged to `account` by the thread that keeps it.
    pub(super) fn new(budgets: Arc<Budgets>, account: Account, granted: Granted) -> Self {
        let Granted { day, tokens } = granted;
        Self {
            budgets,
            account,
            day,
            tokens,
            most: tokens,
            covered: 0,
            used: Some(0),
        }
    }

    fn absorb(&mut self, mut more: Self) {
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.most = self.most.max(self.tokens);
        self.day = more.day;
        more.tokens = 0;
    }

    fn give_back_beyond(&mut self, keep: u64) {
        if let Some(more) = self.tokens.checked_sub(keep).filter(|more| *more > 0) {
            self.tokens = keep;
            self.tell(more, 0);
        }
    }

    fn tell(&self, charged: u64, used: u64) {
        self.budgets.tell(Message::Settle {
            account: self.account.clone(),
            day: self.day,
            charged,
            used,
        });
        // After it is told, so that whoever asks now asks after that.
        self.budgets.freed.notify_waiters();
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        let used = self.used.unwrap_or(self.most);
        if (self.tokens, used) != (0, 0) {
            self.tell(self.tokens, used);
        }
    }
}

fn lock(charged: &Mutex<Charged>) -> MutexGuard<'_, Charged> {
    charged.lock().unwrap_or_else(PoisonError::into_inner)
}
