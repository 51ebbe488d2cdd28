//! The one thread that keeps the accounts: it takes what waits as one batch, so that many calls share one write.
//!
//! It refuses to know what a call is.

use super::file::{FileError, StateFile, boot};
use super::held::Held;
use super::ledger::{Account, DAY, Ledger};
use super::reservation::Charged;
use super::{Budgets, Refusal, Wanted};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// How long settlements may wait for company.
const DELAY: Duration = Duration::from_secs(1);
/// Messages that are taken at a time.
const BATCH: usize = 4096;

/// What a charge came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) day: u64,
    pub(super) tokens: u64,
}

/// Why nothing is charged.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) refusal: Refusal,
    /// Calls under way hold what it would take.
    pub(super) may_wait: bool,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            may_wait: false,
        }
    }
}

pub(super) enum Message {
    Charge {
        /// Where it is given back.
        budgets: Arc<Budgets>,
        account: Account,
        wanted: Wanted,
        reply: oneshot::Sender<Result<Charged, Denied>>,
    },
    /// A call no longer holds what it was charged.
    Settle {
        account: Account,
        day: u64,
        charged: u64,
        used: u64,
    },
    Forget(Box<str>),
    Flush(Sender<()>),
}

impl Message {
    /// Is somebody waiting for it?
    fn is_urgent(&self) -> bool {
        matches!(self, Self::Charge { .. } | Self::Flush(_))
    }
}

/// Ends when all senders are gone.
pub(super) fn start(file: StateFile) -> std::io::Result<Sender<Message>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("budgets".to_owned())
        .spawn(move || run(&file, &receiver))?;
    Ok(sender)
}

fn run(file: &StateFile, messages: &Receiver<Message>) {
    let mut waiting: Vec<Message> = Vec::new();
    let mut held = Held::default();
    let mut since = None;
    loop {
        let message = match since {
            None => messages.recv().or(Err(RecvTimeoutError::Disconnected)),
            Some(since) => messages.recv_timeout(DELAY.saturating_sub(elapsed(since))),
        };
        let over = matches!(message, Err(RecvTimeoutError::Disconnected));
        waiting.extend(message);
        waiting.extend(messages.try_iter().take(BATCH));
        let due = since.is_some_and(|since| elapsed(since) >= DELAY);
        if over || due || waiting.iter().any(Message::is_urgent) {
            since = None;
            if let Err(error) = commit(file, &mut held, &mut waiting) {
                tracing::error!(%error, "token budgets cannot be kept: calls that need one are refused");
                refuse(&mut waiting);
            }
        }
        if over {
            return;
        }
        if !waiting.is_empty() && since.is_none() {
            since = Some(Instant::now());
        }
    }
}

fn elapsed(since: Instant) -> Duration {
    since.elapsed()
}

/// Does what was asked and writes it down; answers when that is done, and leaves `waiting` as it was if it cannot be.
fn commit(file: &StateFile, held: &mut Held, waiting: &mut Vec<Message>) -> Result<(), FileError> {
    if waiting.is_empty() {
        return Ok(());
    }
    let locked = file.lock()?;
    let before = locked.read()?;
    let mut ledger = before.clone();
    ledger.keep_boot(boot());
    let day = today();
    ledger.turn_to(day);
    let mut holding = held.clone();
    let answers: Vec<_> = waiting
        .iter()
        .map(|message| apply(&mut ledger, &mut holding, message, day))
        .collect();
    if ledger != before {
        locked.write(&ledger)?;
    }
    drop(locked);
    *held = holding;
    for (message, answer) in waiting.drain(..).zip(answers) {
        match (message, answer) {
            (
                Message::Charge {
                    budgets,
                    account,
                    reply,
                    ..
                },
                Some(answer),
            ) => {
                let answer = answer.map(|granted| Charged::new(budgets, account, granted));
                // Who does not wait any more spends nothing: what is dropped here is given back.
                if reply.send(answer).is_err() {
                    tracing::debug!("a call went away before it was granted");
                }
            }
            (Message::Flush(done), _) if done.send(()).is_err() => {
                tracing::debug!("nobody waits for the budgets any more");
            }
            _ => {}
        }
    }
    Ok(())
}

fn apply(
    ledger: &mut Ledger,
    held: &mut Held,
    message: &Message,
    day: u64,
) -> Option<Result<Granted, Denied>> {
    match message {
        Message::Charge { reply, .. } if reply.is_closed() => {
            Some(Err(Refusal::Unavailable.into()))
        }
        Message::Charge {
            account, wanted, ..
        } => Some(match ledger.charge(account, *wanted) {
            Ok(tokens) => {
                held.take(account, tokens);
                Ok(Granted { day, tokens })
            }
            Err(exceeded) => Err(Denied {
                may_wait: held.may_make_room(account, &exceeded, wanted.own),
                refusal: Refusal::Exceeded(exceeded),
            }),
        }),
        Message::Settle {
            account,
            day,
            charged,
            used,
        } => {
            held.give_back(account, *charged);
            if charged != used {
                ledger.settle(account, *day, *charged, *used);
            }
            None
        }
        Message::Forget(execution) => {
            ledger.forget(execution);
            None
        }
        Message::Flush(_) => None,
    }
}

/// Settlements wait on; whoever asks is told.
fn refuse(waiting: &mut Vec<Message>) {
    for message in std::mem::take(waiting) {
        match message {
            Message::Charge { reply, .. } => {
                if reply.send(Err(Refusal::Unavailable.into())).is_err() {
                    tracing::debug!("a call went away before it was refused");
                }
            }
            // Its sender is dropped, which tells.
            Message::Flush(_) => {}
            Message::Settle { .. } | Message::Forget(_) => waiting.push(message),
        }
    }
}

/// Days since the epoch, in UTC.
fn today() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs() / DAY
}
