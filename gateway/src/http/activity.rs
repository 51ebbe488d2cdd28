//! What goes on on a connection: how many requests are under way, and whether the client takes what it
//! is sent. Knows nothing of what they are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a look is taken, in parts of the limit.
const LOOKS: u32 = 4;

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Activity(Mutex<State>);

#[derive(Default)]
struct State {
    begun: u64,
    /// Since when each has had a piece of its response on its way to the client, if it has.
    under_way: HashMap<u64, Option<Instant>>,
    ended: Option<Instant>,
}

impl Activity {
    /// A request begins; its number.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(number, None);
        number
    }

    /// How many have begun.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// Is none under way?
    pub(super) fn is_none(&self) -> bool {
        self.lock().under_way.is_empty()
    }

    pub(super) fn end(&self, number: u64) {
        let mut state = self.lock();
        state.under_way.remove(&number);
        state.ended = Some(Instant::now());
    }

    /// A piece of a response has been handed over to be sent …
    pub(super) fn handed_over(&self, number: u64) {
        self.note(number, Some(Instant::now()));
    }

    /// … and the next one is asked for.
    pub(super) fn polled(&self, number: u64) {
        self.note(number, None);
    }

    /// Returns when no request has been under way for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            let (busy, still) = {
                let state = self.lock();
                let since = state.ended.unwrap_or(begun);
                (!state.under_way.is_empty(), since.elapsed())
            };
            if busy {
                tokio::time::sleep(limit).await;
            } else if still < limit {
                tokio::time::sleep(limit - still).await;
            } else {
                return;
            }
        }
    }

    /// Returns when a piece of a response has been on its way for `limit`: the client has stopped
    /// reading that response, and what is kept for it is kept for nothing.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            let state = self.lock();
            let mut since = state.under_way.values().flatten();
            if since.any(|since| since.elapsed() >= limit) {
                return;
            }
        }
    }

    fn note(&self, number: u64, since: Option<Instant>) {
        if let Some(place) = self.lock().under_way.get_mut(&number) {
            *place = since;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers and times are good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_that_nobody_takes_is_noticed_and_one_that_is_taken_is_not() {
        let activity = Activity::default();
        let limit = Duration::from_millis(80);
        let (taken, left) = (activity.begin(), activity.begin());
        activity.handed_over(taken);
        activity.polled(taken);
        let waited = tokio::time::timeout(limit * 3, activity.stalled(limit)).await;
        assert!(waited.is_err());
        activity.handed_over(left);
        let waited = tokio::time::timeout(limit * 20, activity.stalled(limit)).await;
        assert!(waited.is_ok());
        activity.end(left);
        activity.end(taken);
        let waited = tokio::time::timeout(limit * 20, activity.idle(limit)).await;
        assert!(waited.is_ok());
    }
}
