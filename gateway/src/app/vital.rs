//! Tasks without which the gateway would go on in name only. One that ends before it is told to takes
//! the process down, and with it every sandbox's way out: never silently on.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs `work` until one of `ends` is cancelled, of which it may know itself. If it panics, or returns before
/// that, the process aborts.
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
            biased;
            () = stop.cancelled() => None,
            () = gone.cancelled() => None,
            ended = &mut working => Some(ended),
        };
        let how = match ended {
            None => {
                working.abort();
                return;
            }
            // Both at once: it was told to.
            Some(_) if stop.is_cancelled() || gone.is_cancelled() => return,
            // Nobody but a runtime that shuts down cancels it.
            Some(Err(error)) if error.is_cancelled() => return,
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) => "it returned".to_owned(),
        };
        tracing::error!(
            task = name,
            how,
            "a task that must not end has ended; aborting"
        );
        std::process::abort();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An abort here takes the test with it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_ends_as_it_is_told_to_takes_nothing_down() {
        for _ in 0..2_000 {
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            let told = stop.clone();
            let ends = [stop.clone(), CancellationToken::new()];
            spawn(&tasks, "test", ends, async move { told.cancelled().await });
            tokio::task::yield_now().await;
            stop.cancel();
            tasks.close();
            tasks.wait().await;
        }
    }

    /// In a process of its own, which is this test again.
    #[test]
    fn one_that_ends_by_itself_takes_the_process_down() {
        use std::os::unix::process::ExitStatusExt;
        const HOW: &str = "POSTERN_TEST_VITAL";
        if let Ok(how) = std::env::var(HOW) {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let tasks = TaskTracker::new();
            return runtime.block_on(async {
                let ends = [CancellationToken::new(), CancellationToken::new()];
                let ends_badly = async move { assert_eq!(how, "returns") };
                spawn(&tasks, "test", ends, ends_badly);
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            });
        }
        for how in ["returns", "panics"] {
            let program = std::env::current_exe().expect("this program");
            let ended = std::process::Command::new(program)
                .args([
                    "--exact",
                    "app::vital::tests::one_that_ends_by_itself_takes_the_process_down",
                ])
                .env(HOW, how)
                .output()
                .expect("this program runs");
            assert_eq!(ended.status.signal(), Some(6), "{how}: {ended:?}");
        }
    }

    #[test]
    fn a_runtime_that_shuts_down_takes_nothing_down() {
        for _ in 0..100 {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .expect("a runtime");
            let tasks = TaskTracker::new();
            runtime.block_on(async {
                for _ in 0..20 {
                    let ends = [CancellationToken::new(), CancellationToken::new()];
                    spawn(&tasks, "test", ends, std::future::pending());
                }
            });
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
        }
    }
}
