//! The threads that serve connections, one a processor, each with a runtime of its own: the tasks of a connection and of
//! its upstream's are on one thread, where one wakes the other without a system call. On a runtime that moves tasks
//! between its threads a request costs a third more. It refuses to know what runs on them.

use crate::sys;
use std::cell::Cell;
use std::io;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long nobody has freed much before what was freed is given back: a worker that is at work needs it again.
const QUIET: Duration = Duration::from_secs(1);
/// One that is never quiet gives back all the same, after so many times that long.
const PATIENCE: u32 = 30;

thread_local! {
    static HERE: Cell<Worker> = const { Cell::new(Worker(0)) };
    static FREED: Rc<Freed> = Rc::default();
}

/// How often much was freed on this thread, and the word that it was.
#[derive(Default)]
struct Freed {
    times: Cell<u64>,
    word: Notify,
}

/// To be called on a worker when a connection has come to rest, or is over.
pub fn has_freed() {
    FREED.with(|freed| {
        freed.times.set(freed.times.get().wrapping_add(1));
        freed.word.notify_one();
    });
}

/// Gives back to the system what connections of this thread have freed, once no more of them do. For as long as the
/// thread has work that leaves things to free.
async fn tidy(freed: Rc<Freed>, give_back: impl Fn()) {
    let mut given = 0;
    loop {
        freed.word.notified().await;
        // A word may be left of what is given back by now.
        if freed.times.get() == given {
            continue;
        }
        for _ in 0..PATIENCE {
            given = freed.times.get();
            tokio::time::sleep(QUIET).await;
            if freed.times.get() == given {
                break;
            }
        }
        give_back();
    }
}

/// Which of them: for telling what is near from what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker(usize);

impl Worker {
    /// Whose thread this is; all that are no worker's count as one.
    pub fn here() -> Self {
        HERE.get()
    }
}

/// All of them. Dropped, they end with what runs on them.
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Workers {
    /// As many as this process has processors.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let mut workers = Self {
            handles: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            next: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        };
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            let run = move || {
                HERE.set(Worker(number));
                runtime.block_on(async {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tidy(FREED.with(Rc::clone), sys::give_back_freed) => {}
                    }
                });
            };
            let name = format!("worker-{number}");
            workers
                .threads
                .push(thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(workers)
    }

    /// Whose turn it is, or who comes after that one and has fewer tasks: whoever sends every other connection away at
    /// once shall not have all that stay on one thread.
    pub fn next(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.handles.len();
        let (first, second) = (
            &self.handles[turn % count],
            &self.handles[(turn + 1) % count],
        );
        let tasks = |handle: &Handle| handle.metrics().num_alive_tasks();
        if tasks(second) < tasks(first) {
            second
        } else {
            first
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // What they served is on record when they have ended.
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test(start_paused = true)]
    async fn what_was_freed_is_given_back_in_quiet_and_once() {
        let (given, freed) = (Cell::new(0), FREED.with(Rc::clone));
        let beat = Duration::from_millis(500);
        let work = async {
            tokio::time::sleep(10 * QUIET).await;
            assert_eq!(given.get(), 0, "nothing was freed");
            for _ in 0..4 {
                has_freed();
                tokio::time::sleep(beat).await;
            }
            assert_eq!(given.get(), 0, "it is not quiet");
            tokio::time::sleep(10 * QUIET).await;
            assert_eq!(given.get(), 1);
            for _ in 0..=2 * PATIENCE {
                has_freed();
                tokio::time::sleep(beat).await;
            }
            assert_eq!(given.get(), 2, "it was never quiet");
        };
        tokio::select! {
            () = tidy(freed, || given.set(given.get() + 1)) => {}
            () = work => {}
        }
    }

    #[test]
    fn each_in_turn_and_what_runs_is_dropped_with_them() {
        let workers = Workers::start().expect("workers");
        let (tell, told) = channel();
        let turns = workers.handles.len();
        for _ in 0..2 * turns {
            let tell = tell.clone();
            workers.next().spawn(async move {
                tell.send(Worker::here().0).expect("a listener");
                std::future::pending::<()>().await;
                drop(tell);
            });
        }
        drop(tell);
        let mut heard: Vec<_> = (0..2 * turns)
            .map(|_| told.recv().expect("a word"))
            .collect();
        heard.sort_unstable();
        let twice: Vec<_> = (1..=turns).flat_map(|number| [number, number]).collect();
        assert_eq!(heard, twice);
        for _ in 0..2 * turns {
            workers.next().spawn(std::future::pending::<()>());
            // Ends before the next comes.
            let passing = workers.next().spawn(async {});
            while !passing.is_finished() {
                std::thread::yield_now();
            }
        }
        let alive = workers.handles.iter().map(|handle| handle.metrics());
        let alive: Vec<_> = alive.map(|metrics| metrics.num_alive_tasks()).collect();
        let (least, most) = (alive.iter().min(), alive.iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| most - least <= 2)
        );
        drop(workers);
        assert!(
            told.recv().is_err(),
            "the senders are gone with their tasks"
        );
        assert_eq!(Worker::here(), Worker(0));
    }
}
