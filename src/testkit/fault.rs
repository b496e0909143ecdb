//! What can go wrong between a step and its participant, and when it does.

use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

/// What goes wrong in one call of a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It answers that it did nothing, and that a later call may succeed.
    NotDone,
    /// It answers that it did nothing, and never will.
    Rejected,
    /// The request is lost: nothing happens, and the caller gets an error that leaves it in doubt.
    LostRequest,
    /// The reply is lost: it happens, and the caller gets an error that leaves it in doubt.
    LostReply,
    /// The caller gets an error that leaves it in doubt; the request arrives later: right after the next
    /// call under the same key, or when nothing else happens any more.
    Late,
    /// Nothing happens, and no answer ever comes.
    NoAnswer,
    /// It happens, and no answer ever comes.
    NoAnswerAfterEffect,
    /// The network delivers the request twice.
    Twice,
    /// The caller's code panics before it has sent anything.
    Panic,
    /// The caller's code panics after the effect.
    PanicAfterEffect,
    /// The answer takes so much longer.
    Slow(Duration),
    /// The step asks to end the run, having done nothing. Of an undo: as [`Fault::NotDone`].
    Stop,
}

/// Which side of a step a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Execute,
    Undo,
}

/// Which calls of which step fail how: the first that matches counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    planned: HashMap<(String, Side), Vec<Planned>>,
}

#[derive(Clone, Debug)]
struct Planned {
    first: u32,
    last: u32,
    fault: Fault,
}

impl Faults {
    pub(super) fn plan(
        &mut self,
        step: String,
        side: Side,
        calls: &impl RangeBounds<u32>,
        fault: Fault,
    ) {
        let first = match calls.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let last = match calls.end_bound() {
            Bound::Included(last) => *last,
            Bound::Excluded(after) => after.saturating_sub(1),
            Bound::Unbounded => u32::MAX,
        };
        self.planned
            .entry((step, side))
            .or_default()
            .push(Planned { first, last, fault });
    }

    pub(super) fn of_call(&self, step: &str, side: Side, call: u32) -> Option<Fault> {
        let planned = self.planned.get(&(step.to_owned(), side))?;
        planned
            .iter()
            .find(|planned| (planned.first..=planned.last).contains(&call))
            .map(|planned| planned.fault.clone())
    }
}
