//! Tasks without which the gateway would go on in name only. One that ends before it is told to takes
//! the process down, and with it every sandbox's way out: never silently on.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` until one of `ends` is cancelled. If it panics, or returns before that, the process aborts.
pub(super) fn spawn(
    tasks: &TaskTracker,
    name: &'static str,
    ends: [CancellationToken; 2],
    work: impl Future<Output = ()> + Send + 'static,
) {
    let [stop, gone] = ends;
    tasks.spawn(async move {
        let mut working = tokio::spawn(work);
        let ended = tokio::select! {
            // In this order: work that ends because it was told to as well is no failure.
            biased;
            () = stop.cancelled() => None,
            () = gone.cancelled() => None,
            ended = &mut working => Some(ended),
        };
        match ended {
            None => working.abort(),
            Some(ended) => {
                let how = match ended {
                    Ok(()) => "it returned".to_owned(),
                    Err(error) => error.to_string(),
                };
                tracing::error!(
                    task = name,
                    how,
                    "a task that must not end has ended; aborting"
                );
                std::process::abort();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the test's own process aborts.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_that_ends_when_it_is_told_to_is_no_failure() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        for _ in 0..200 {
            let told = stop.clone();
            let work = async move { told.cancelled().await };
            spawn(
                &tasks,
                "test",
                [stop.clone(), CancellationToken::new()],
                work,
            );
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
