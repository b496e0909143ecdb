//! Following a run's events as they become durable.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::coordinator::Coordinator;
use crate::coordinator::error::GetError;
use crate::coordinator::slot::Slot;
use crate::ids::{RunId, Timestamp};
use crate::journal::Event;

/// The events of one run, from its first to its last: none is lost, however slowly they are read.
///
/// A watcher reads the journal and is woken by appends, so it holds no queue that could overflow.
pub struct Watch {
    coordinator: Coordinator,
    slot: Arc<Slot>,
    seen: u64,
    queue: VecDeque<WatchedEvent>,
    over: bool,
}

/// One event, with the record it came in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WatchedEvent {
    /// The record's place in the journal, from 1.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The event, with steps by name.
    pub event: Event<String>,
}

impl Coordinator {
    /// Follows a run from its start.
    #[must_use]
    pub fn watch(&self, run: &RunId) -> Watch {
        let slot = self.shared().slot(run);
        Watch {
            coordinator: self.clone(),
            slot,
            seen: 0,
            queue: VecDeque::new(),
            over: false,
        }
    }
}

impl Watch {
    /// The next event; waits for it if the run has not ended. Nothing after the last one, where there is
    /// no such run, and when the coordinator stops.
    ///
    /// # Errors
    ///
    /// Where the journal can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Result<Option<WatchedEvent>, GetError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            let slot = Arc::clone(&self.slot);
            let changed = slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let shared = self.coordinator.shared();
            let Some(journal) = shared.store.load_after(&slot.run, self.seen).await? else {
                if self.slot.is_active() {
                    changed.await;
                    continue;
                }
                self.over = true;
                continue;
            };
            let steps = journal.steps;
            for record in journal.records {
                self.seen = record.seq;
                for event in record.events {
                    self.over |= matches!(event, Event::Ended(_));
                    let event = event.map_step(|step| steps.name(step).to_string());
                    self.queue.push_back(WatchedEvent {
                        seq: record.seq,
                        at: record.at,
                        event,
                    });
                }
            }
            if self.queue.is_empty() {
                if shared.is_closing() {
                    return Ok(None);
                }
                if let Some(fleet) = shared.store.fleet()
                    && !slot.is_active()
                {
                    // Another worker may drive it, whose appends wake nobody here.
                    let look = tokio::time::sleep(fleet.terms().look);
                    tokio::select! {
                        () = changed => {}
                        () = look => {}
                    }
                } else {
                    changed.await;
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.coordinator.shared().forget_slot(&self.slot);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({}, {} records seen)", self.slot.run, self.seen)
    }
}
