//! When something last moved, told by one task to another that bounds how long nothing may. It refuses to know what
//! moves.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// See the module. Clones are of the same thing.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    /// It has moved.
    pub fn moved(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// What is left of `limit` since it last moved; `None` if nothing is, or if it never has.
    #[must_use]
    pub fn left(&self, limit: Duration) -> Option<Duration> {
        let still = self.lock().map(|last| last.elapsed())?;
        limit.checked_sub(still).filter(|left| !left.is_zero())
    }

    /// What `task` gives; `None` once nothing has moved for `limit`, counted from here at the earliest.
    pub async fn within<F: Future>(
        &self,
        limit: Duration,
        mut task: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut wait = limit;
        loop {
            match tokio::time::timeout(wait, task.as_mut()).await {
                Ok(done) => return Some(done),
                Err(_elapsed) => wait = self.left(limit)?,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // A time is good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_moves_has_all_the_time_it_needs_and_what_stops_has_the_limit() {
        let progress = Progress::default();
        let mover = progress.clone();
        let slow = pin!(async move {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                mover.moved();
            }
        });
        assert_eq!(progress.within(LIMIT, slow).await, Some(()));
        let begun = Instant::now();
        let stuck = pin!(std::future::pending::<()>());
        assert_eq!(progress.within(LIMIT, stuck).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_moves_has_the_limit_too() {
        let begun = Instant::now();
        let stuck = pin!(std::future::pending::<()>());
        assert_eq!(Progress::default().within(LIMIT, stuck).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
