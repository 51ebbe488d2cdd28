//! A time limit that starts when something is first waited for, and starts again when it has come.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// See the module. Costs nothing until it is first needed.
#[derive(Debug, Default)]
pub struct Patience {
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Patience {
    /// Is it over? If nothing was waited for yet, it starts now; `limit` counts from there.
    pub fn is_over(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        if !self.running {
            self.start(limit);
        }
        self.sleep
            .as_mut()
            .is_some_and(|sleep| matches!(sleep.as_mut().poll(cx), Poll::Ready(())))
    }

    /// What was waited for has come.
    pub fn reset(&mut self) {
        self.running = false;
    }

    /// What came of a write to a peer that may take nothing for `limit` at a time.
    pub fn written<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.reset();
        } else if self.is_over(limit, cx) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client takes no more");
            return Poll::Ready(Err(error));
        }
        outcome
    }

    fn start(&mut self, limit: Duration) {
        self.running = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(Instant::now() + limit),
            None => self.sleep = Some(Box::pin(tokio::time::sleep(limit))),
        }
    }
}
