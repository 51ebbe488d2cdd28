//! What waits for the collector: bounded in number and in bytes. What does not fit is refused at once,
//! and whoever offers it never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Encoded items, first in first out.
pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    wake: Notify,
}

/// How much may wait, and how much goes into one export.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) items: usize,
    pub(super) bytes: usize,
    pub(super) batch_items: usize,
    /// One item may be larger, and then goes alone.
    pub(super) batch_bytes: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// May there be room for another item?
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.items.len() < self.limits.items && state.bytes < self.limits.bytes
    }

    /// Takes an item if there is room.
    pub(super) fn offer(&self, item: Vec<u8>) -> bool {
        let mut state = self.state();
        let bytes = state.bytes + item.len();
        if state.items.len() >= self.limits.items || bytes > self.limits.bytes {
            return false;
        }
        state.bytes = bytes;
        state.items.push_back(item);
        let waiting = state.items.len();
        drop(state);
        // The first starts the batch's time, and a full batch need not wait for its end.
        if waiting == 1 || waiting == self.limits.batch_items {
            self.wake.notify_one();
        }
        true
    }

    /// The next batch; empty if nothing waits.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        let mut state = self.state();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.limits.batch_items
            && let Some(next) = state.items.front()
        {
            bytes += next.len();
            if !batch.is_empty() && bytes > self.limits.batch_bytes {
                break;
            }
            batch.extend(state.items.pop_front());
        }
        state.bytes -= batch.iter().map(Vec::len).sum::<usize>();
        batch
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state().items.len()
    }

    /// Is there enough for one batch?
    pub(super) fn is_full_batch(&self) -> bool {
        let state = self.state();
        state.items.len() >= self.limits.batch_items || state.bytes >= self.limits.batch_bytes
    }

    /// Returns when something may have been added since the last call.
    pub(super) async fn added(&self) {
        self.wake.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        items: 4,
        bytes: 100,
        batch_items: 3,
        batch_bytes: 20,
    };

    #[test]
    fn what_does_not_fit_is_refused_by_number_and_by_bytes() {
        let queue = Queue::new(LIMITS);
        assert!((0..4).all(|_| queue.offer(vec![0])));
        assert!(!queue.offer(vec![0]));
        assert_eq!(queue.take().len(), 3);
        assert!(queue.offer(vec![0; 99]));
        assert!(!queue.offer(vec![0]), "100 bytes wait");
        assert!(!queue.has_room());
        assert_eq!(queue.take(), [vec![0]]);
        assert_eq!(queue.take(), [vec![0; 99]], "a large one goes alone");
        assert!(queue.take().is_empty());
        assert!(queue.offer(vec![0; 100]), "the room was given back");
    }

    #[test]
    fn batches_keep_the_order_and_the_limits() {
        let queue = Queue::new(LIMITS);
        for (byte, length) in [(1, 10), (2, 10), (3, 1), (4, 1)] {
            assert!(queue.offer(vec![byte; length]));
        }
        assert!(queue.is_full_batch());
        assert_eq!(queue.take(), [vec![1; 10], vec![2; 10]]);
        assert_eq!(queue.take(), [vec![3], vec![4]]);
        assert_eq!(queue.len(), 0);
    }
}
