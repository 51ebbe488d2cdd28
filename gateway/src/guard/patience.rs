//! A time limit that starts when something is first waited for, and starts again when it has come.

use std::future::Future;
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

    fn start(&mut self, limit: Duration) {
        self.running = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(Instant::now() + limit),
            None => self.sleep = Some(Box::pin(tokio::time::sleep(limit))),
        }
    }
}
