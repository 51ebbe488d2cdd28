//! Keeps room in the table of redirected connections, which all sandboxes share: one look at it for the whole
//! gateway, on a thread that may block. Knows records by their age and their sandbox alone.

use crate::kernel::FlowTable;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often it is looked at: one system call while nobody waits.
const LOOK: Duration = Duration::from_millis(250);
/// A record that nobody came for: its handshake fell out of the queue. Longer than SYN retries take.
const STALE: Duration = Duration::from_secs(180);
/// Records of one sandbox that may wait: as many as fit the queue of one of its listeners, and a sixteenth
/// part of the table. More of them are connections that never come to be (their packets carry a signature
/// that the listener does not want, or leave by another device); its oldest go.
const MOST: usize = 4_096;

/// Sweeps for as long as it is let.
pub(super) async fn sweep(mut table: FlowTable) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let look = move || {
            let removed = table.sweep(since_boot(), nanoseconds(STALE), MOST);
            (table, removed)
        };
        // It ends with the runtime, or with a panic: then so does the gateway.
        let Ok((swept, removed)) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        table = swept;
        if removed > 0 {
            tracing::debug!(removed, "flow records that nobody came for");
        }
    }
}

fn since_boot() -> u64 {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let now = nix::time::clock_gettime(clock).map(Duration::from);
    nanoseconds(now.unwrap_or_default())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
