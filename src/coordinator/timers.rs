//! When waiting runs go on: one task and one small entry per run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::coordinator::shared::Shared;
use crate::ids::{RunId, Timestamp};

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<(Timestamp, RunId)>>>,
    earlier: Notify,
}

impl Timers {
    /// Wakes the run at this instant, if it ever comes. An entry for a run that went on by other means does nothing.
    pub(crate) fn add(&self, at: Timestamp, run: RunId) {
        if at == Timestamp::NEVER {
            return;
        }
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let first = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        heap.push(Reverse((at, run)));
        drop(heap);
        if first {
            self.earlier.notify_one();
        }
    }

    /// What is due, and when the next one is.
    fn due(&self, now: Timestamp) -> (Vec<RunId>, Option<Timestamp>) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = heap.peek() {
            if *at > now {
                return (due, Some(*at));
            }
            if let Some(Reverse((_, run))) = heap.pop() {
                due.push(run);
            }
        }
        (due, None)
    }
}

/// Timers are in wall time, which may be set forward while this process sleeps by another clock: it looks again
/// after so long at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Wakes runs until the coordinator is gone.
pub(crate) async fn keep_time(shared: Weak<Shared>) {
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        if alive.is_closing() {
            return;
        }
        let now = alive.clock.now();
        let (due, next) = alive.timers.due(now);
        for run in due {
            // One at a time, so that a thousand timers that ring at once don't load a thousand journals.
            let Some(permit) = alive.run_permit().await else {
                return;
            };
            Shared::wake_run(&alive, &run, permit);
        }
        let timers: Arc<Timers> = Arc::clone(&alive.timers);
        let sleep = next.map(|next| next.since(now).min(LONGEST_SLEEP));
        drop(alive);
        match sleep {
            Some(sleep) => {
                tokio::select! {
                    () = timers.earlier.notified() => {}
                    () = tokio::time::sleep(sleep) => {}
                }
            }
            None => timers.earlier.notified().await,
        }
    }
}
