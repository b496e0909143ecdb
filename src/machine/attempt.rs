//! What the end of an attempt means: tried again, given up, or done.

use std::time::Duration;

use crate::failure::{FailedEffect, Failure, PartialSuccess};
use crate::ids::Timestamp;
use crate::journal::Event;
use crate::machine::scope::EffectNow;
use crate::machine::state::State;
use crate::policy::{GiveUp, Retry, RetryVerdict};
use crate::saga::{Graph, StepKind};
use crate::step::{StepIx, Value};

/// How a call ended.
#[derive(Clone, Debug)]
pub enum AttemptResult {
    /// `execute` succeeded.
    Done(Value),
    /// `execute` succeeded, with a part of its work.
    DoneInPart(Value, Box<PartialSuccess>),
    /// `execute` or `compensate` failed.
    Failed(Failure),
    /// `execute` asked to end the run.
    Stopped(String),
    /// `compensate` succeeded.
    Undone,
    /// The future was told to stop and dropped.
    Interrupted,
    /// The call was announced and not made.
    NotStarted,
}

impl State {
    /// The event for the end of an `execute`.
    #[must_use]
    pub fn step_ended(
        &self,
        graph: &Graph,
        step: StepIx,
        result: AttemptResult,
        took: Duration,
        now: Timestamp,
    ) -> Event<StepIx> {
        let took_us = micros(took);
        match result {
            AttemptResult::Done(output) => Event::StepDone {
                step,
                output,
                partial: None,
                asks: false,
                took_us,
            },
            AttemptResult::DoneInPart(output, partial) => Event::StepDone {
                step,
                output,
                asks: self.asks_about(graph, step, &partial, now),
                partial: Some(partial),
                took_us,
            },
            AttemptResult::Stopped(reason) => Event::StepStopped {
                step,
                reason,
                took_us,
            },
            AttemptResult::Interrupted | AttemptResult::Undone => {
                Event::StepInterrupted { step, took_us }
            }
            AttemptResult::NotStarted => Event::StepNotStarted { step },
            AttemptResult::Failed(failure) => {
                let place = self.place(graph, step);
                let (node, definition) = (self.node(step), place.graph.step(place.step));
                let mut failure = failure.at(&*self.table.name(step), node.round, node.attempts);
                if definition.kind == StepKind::ReadOnly {
                    // Never in doubt (rule E6).
                    failure = failure.effect(FailedEffect::NotDone);
                }
                let in_doubt =
                    failure.effect == FailedEffect::InDoubt || node.effect == EffectNow::InDoubt;
                let charge = Charge {
                    calls: node.charged,
                    since: node.charged_since,
                    delay: node.last_delay,
                };
                let verdict = if definition.inside().is_some() {
                    // What tries again is inside, or a recovery (rule N2).
                    RetryVerdict::GiveUp(GiveUp::NotRetryable)
                } else if definition.at_most_once && in_doubt {
                    RetryVerdict::GiveUp(GiveUp::AtMostOnce)
                } else {
                    charge.verdict(&definition.retry, &failure, now, self.seed(step))
                };
                let (retry_at, gave_up) = outcome(verdict, now);
                Event::StepFailed {
                    step,
                    failure: Box::new(failure),
                    retry_at,
                    gave_up,
                    took_us,
                }
            }
        }
    }

    /// The event for the end of a `compensate`.
    #[must_use]
    pub fn undo_ended(
        &self,
        graph: &Graph,
        step: StepIx,
        result: AttemptResult,
        took: Duration,
        now: Timestamp,
    ) -> Event<StepIx> {
        let took_us = micros(took);
        let place = self.place(graph, step);
        let (node, definition) = (self.node(step), place.graph.step(place.step));
        let failure = match result {
            AttemptResult::Undone => return Event::Undone { step, took_us },
            AttemptResult::NotStarted | AttemptResult::Interrupted => {
                return Event::UndoNotStarted { step };
            }
            AttemptResult::Failed(failure) => failure,
            AttemptResult::Stopped(_) | AttemptResult::Done(_) | AttemptResult::DoneInPart(..) => {
                Failure::new(
                    crate::FailureMode::StepContract,
                    "a compensation can only succeed or fail",
                )
            }
        };
        let failure = failure.at(&*self.table.name(step), node.round, node.undo_attempts);
        let charge = Charge {
            calls: node.undo_charged,
            since: node.undo_since,
            delay: node.undo_delay,
        };
        let seed = self.seed(step).rotate_left(32);
        let (retry_at, gave_up) = outcome(
            charge.verdict(&definition.undo_retry, &failure, now, seed),
            now,
        );
        Event::UndoFailed {
            step,
            failure: Box::new(failure),
            retry_at,
            gave_up,
            took_us,
        }
    }
}

/// What counts against a retry policy's limits.
struct Charge {
    calls: u32,
    since: Option<Timestamp>,
    delay: Option<Duration>,
}

impl Charge {
    fn verdict(&self, retry: &Retry, failure: &Failure, now: Timestamp, seed: u64) -> RetryVerdict {
        let since_first = self.since.map_or(Duration::ZERO, |since| now.since(since));
        retry.verdict(failure, self.calls, since_first, self.delay, seed)
    }
}

fn outcome(verdict: RetryVerdict, now: Timestamp) -> (Option<Timestamp>, Option<GiveUp>) {
    match verdict {
        RetryVerdict::Again { after } => (Some(now.after(after)), None),
        RetryVerdict::GiveUp(why) => (None, Some(why)),
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
