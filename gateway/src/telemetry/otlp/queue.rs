//! What waits for the collector: bounded in number and in bytes. What does not fit is refused at once,
//! and whoever offers it never waits.

use super::batch::Batch;
use super::encode::delimited;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Encoded items, first in first out.
pub(super) struct Queue {
    limits: Limits,
    /// In front of each batch, bytes.
    room: usize,
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

/// Items are in batches from the first, so that each is copied once, to where it leaves from.
#[derive(Default)]
struct State {
    full: VecDeque<Batch>,
    /// The last, which takes more.
    open: Batch,
    /// How long the one before it was: likely it will be as long, and need not grow while others wait for the lock.
    expected: usize,
    /// Of all.
    items: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(limits: Limits, room: usize) -> Self {
        Self {
            limits,
            room,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// May there be room for another item?
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.items < self.limits.items && state.bytes < self.limits.bytes
    }

    /// Takes an item if there is room.
    pub(super) fn offer(&self, item: &[u8]) -> bool {
        let mut state = self.state();
        let bytes = state.bytes + delimited(item.len());
        if state.items >= self.limits.items || bytes > self.limits.bytes {
            return false;
        }
        state.bytes = bytes;
        state.items += 1;
        let waiting = state.items;
        self.open(&mut state, item.len()).add(item);
        drop(state);
        // The first starts the batch's time, and a full batch need not wait for its end.
        if waiting == 1 || waiting == self.limits.batch_items {
            self.wake.notify_one();
        }
        true
    }

    /// The batch that an item of this length goes to.
    fn open<'a>(&self, state: &'a mut State, item: usize) -> &'a mut Batch {
        let open = &state.open;
        let is_full = open.items() >= self.limits.batch_items
            || open.length_with(item) > self.limits.batch_bytes;
        if open.items() == 0 {
            state.open = Batch::new(self.room, state.expected);
        } else if is_full {
            state.expected = open.length().min(self.limits.batch_bytes);
            let next = Batch::new(self.room, state.expected);
            let full = std::mem::replace(&mut state.open, next);
            state.full.push_back(full);
        }
        &mut state.open
    }

    /// The next batch; `None` if nothing waits.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        let next = match state.full.pop_front() {
            Some(full) => full,
            None => std::mem::take(&mut state.open),
        };
        // What left half empty says that there is not much to come.
        if next.items() < self.limits.batch_items / 2 {
            state.expected = 0;
        }
        state.items -= next.items();
        state.bytes -= next.length();
        (next.items() > 0).then_some(next)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state().items
    }

    /// Is there enough for one batch?
    pub(super) fn is_full_batch(&self) -> bool {
        let state = self.state();
        !state.full.is_empty()
            || state.open.items() >= self.limits.batch_items
            || state.open.length() >= self.limits.batch_bytes
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
    /// Of each item: its key and its length.
    const AROUND: usize = 2;

    fn of(length: usize) -> Vec<u8> {
        vec![7; length - AROUND]
    }

    /// How many are in the next batch, and their bytes.
    fn taken(queue: &Queue) -> Option<(usize, usize)> {
        let batch = queue.take()?;
        Some((batch.items(), batch.length()))
    }

    #[test]
    fn what_does_not_fit_is_refused_by_number_and_by_bytes() {
        let queue = Queue::new(LIMITS, 9);
        assert!((0..4).all(|_| queue.offer(&of(3))));
        assert!(!queue.offer(&of(3)));
        assert_eq!(taken(&queue), Some((3, 9)));
        assert!(queue.offer(&of(97)));
        assert!(!queue.offer(&of(3)), "100 bytes wait");
        assert!(!queue.has_room());
        assert_eq!(taken(&queue), Some((1, 3)));
        assert_eq!(taken(&queue), Some((1, 97)), "a large one goes alone");
        assert_eq!(taken(&queue), None);
        assert!(queue.offer(&of(100)), "the room was given back");
    }

    #[test]
    fn batches_keep_the_order_and_the_limits() {
        let queue = Queue::new(LIMITS, 0);
        for (byte, length) in [(1, 10), (2, 10), (3, 4), (4, 4)] {
            assert!(!queue.is_full_batch() || byte > 2);
            assert!(queue.offer(&vec![byte; length - AROUND]));
        }
        assert!(queue.is_full_batch());
        let all: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        let items: Vec<_> = all.iter().map(Batch::items).collect();
        assert_eq!(items, [2, 2]);
        let bytes: Vec<_> = all.into_iter().map(|batch| batch.behind(b"")).collect();
        assert_eq!(
            bytes[0].as_ref(),
            b"\x12\x08\x01\x01\x01\x01\x01\x01\x01\x01\x12\x08\x02\x02\x02\x02\x02\x02\x02\x02"
        );
        assert_eq!(bytes[1].as_ref(), b"\x12\x02\x03\x03\x12\x02\x04\x04");
        assert_eq!(queue.len(), 0);
        assert!(!queue.is_full_batch());
    }
}
