//! What can go wrong between a step and its participant, and when it does.

use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use crate::failure::FailureMode;
use crate::step::StepError;

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

impl Fault {
    /// What the caller sees of it.
    pub(super) async fn seen_by(self, step: &str) -> StepError {
        match self {
            Fault::NotDone => StepError::not_done(format!("`{step}` is not available"))
                .with_mode(FailureMode::ApiUnavailable),
            Fault::Rejected => StepError::rejected(format!("`{step}` refuses")),
            Fault::Stop => StepError::stop(format!("`{step}` wants no more")),
            Fault::LostRequest | Fault::LostReply | Fault::Late => {
                StepError::in_doubt(format!("the connection to `{step}` was reset"))
                    .with_mode(FailureMode::SystemNetwork)
            }
            Fault::NoAnswer | Fault::NoAnswerAfterEffect => std::future::pending().await,
            // Not `panic!`: a planned panic has no need to be printed by the panic hook.
            Fault::Panic | Fault::PanicAfterEffect => {
                std::panic::resume_unwind(Box::new(format!("planned panic of `{step}`")))
            }
            // These two are no errors, and nobody asks what they look like.
            Fault::Twice | Fault::Slow(_) => StepError::not_done("nothing is wrong"),
        }
    }
}

/// One number out of what names a call (FNV-1a).
pub(super) fn mix(seed: u64, step: &str, side: Side, call: u32) -> u64 {
    let side = match side {
        Side::Execute => 1,
        Side::Undo => 2,
    };
    let numbers = seed.to_le_bytes().into_iter().chain(call.to_le_bytes());
    let bytes = numbers.chain([side]).chain(step.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
