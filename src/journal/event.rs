//! What can happen to a run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::failure::{FailedEffect, Failure, PartialSuccess};
use crate::ids::Timestamp;
use crate::journal::{Migrated, SkippedEffect};
use crate::policy::{Explanation, GiveUp, RecoveryStrategy};
use crate::step::{Probed, StepIx, Value};

/// One fact about a run.
///
/// In memory a step is its number; in the written form (`Event<String>`) it is its name. Durations are
/// in microseconds and were measured; instants are those of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event<S = StepIx> {
    /// The run was accepted.
    RunStarted(Arc<RunStarted>),
    /// A coordinator took the run over: all attempts that were in flight are interrupted.
    Claimed {
        /// The run's new fence.
        fence: u64,
        /// Who claims.
        worker: String,
    },
    /// An `execute` is about to be called.
    StepStarted {
        /// The step.
        step: S,
        /// The step's round.
        round: u32,
        /// Which call of this step, from 1, over the run's life.
        attempt: u32,
        /// The key of the round's effect.
        key: Arc<str>,
        /// The rounds of the steps before it whose outputs fed its input, in the order in which the
        /// definition has them (rule K3). Left out where all are 1.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fed_by: Vec<u32>,
        /// What `map`s made of earlier outputs for this input, in wiring order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mapped: Vec<Value>,
        /// How many items a fan-out has: its list is known only now (rule K3).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        items: Option<u32>,
    },
    /// The `execute` succeeded.
    StepDone {
        /// The step.
        step: S,
        /// Its output.
        output: Value,
        /// What it says of itself where it did a part of its work.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<Box<PartialSuccess>>,
        /// Whether the policy has an answer to that, so that all comes to rest and a decision is made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        asks: bool,
        /// How long the call took.
        took_us: u64,
    },
    /// The `execute` failed.
    StepFailed {
        /// The step.
        step: S,
        /// How.
        failure: Box<Failure>,
        /// When the step is tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
        /// Why it isn't.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gave_up: Option<GiveUp>,
        /// How long the call took.
        took_us: u64,
    },
    /// The `execute` asked to end the run early.
    StepStopped {
        /// The step.
        step: S,
        /// Its reason.
        reason: String,
        /// How long the call took.
        took_us: u64,
    },
    /// The call was told to end and its future dropped: in doubt, and not a failure.
    StepInterrupted {
        /// The step.
        step: S,
        /// How long the call took.
        took_us: u64,
    },
    /// The announced `execute` was never called.
    StepNotStarted {
        /// The step.
        step: S,
    },
    /// The step's condition does not hold: it is passed over (rule K3).
    PassedOver {
        /// The step.
        step: S,
    },
    /// The step begins to wait for a signal, or for a time.
    WaitBegan {
        /// The step.
        step: S,
        /// The step's round.
        round: u32,
        /// When it has waited long enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// The step has waited: either output or failure is there.
    WaitOver {
        /// The step.
        step: S,
        /// Whether its time was up; otherwise it took the signal that came first.
        expired: bool,
        /// What it gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
        /// How it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Box<Failure>>,
    },
    /// Somebody sent a signal: it is kept for the wait with its name (rule I5).
    Signalled(Box<Signalled>),
    /// A probe answered about a step in doubt.
    Probed {
        /// The step.
        step: S,
        /// The answer.
        answer: Probed<Value>,
        /// What the probe failed with, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// One decision over all failures, or on command.
    Decided(Arc<Decision<S>>),
    /// A `compensate` is about to be called.
    UndoStarted {
        /// The step.
        step: S,
        /// The round that is undone.
        round: u32,
        /// Which call of this step's `compensate`, from 1, over the run's life.
        attempt: u32,
        /// The key of the undo.
        key: Arc<str>,
    },
    /// The `compensate` succeeded: the round's effect is gone.
    Undone {
        /// The step.
        step: S,
        /// How long the call took.
        took_us: u64,
    },
    /// The `compensate` failed.
    UndoFailed {
        /// The step.
        step: S,
        /// How.
        failure: Box<Failure>,
        /// When it is tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
        /// Why it isn't.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gave_up: Option<GiveUp>,
        /// How long the call took.
        took_us: u64,
    },
    /// The announced `compensate` was never called.
    UndoNotStarted {
        /// The step.
        step: S,
    },
    /// Somebody asked for the run to be cancelled.
    CancelRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// What they were told.
        told: CancelTold,
    },
    /// The pivot turned out to be done: the run goes forward in spite of the cancel.
    CancelTooLate,
    /// The run's deadline passed. Past the pivot it is only reported.
    DeadlinePassed {
        /// Whether the run was past the pivot.
        past_pivot: bool,
    },
    /// An operator says what became of an effect in doubt.
    Resolved {
        /// The step.
        step: S,
        /// What they say.
        answer: Probed<Value>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// What follows in this record is what the command with this token became: the same command again does nothing.
    Commanded {
        /// The command's token.
        token: Arc<str>,
    },
    /// An operator replaces a step's input, which opens a new round (rule K4).
    InputEdited {
        /// The step.
        step: S,
        /// The round that begins.
        round: u32,
        /// The new input.
        input: Value,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator takes a step as done without its being called.
    Skipped {
        /// The step.
        step: S,
        /// Whether there is an effect to undo.
        effect: SkippedEffect,
        /// What its dependents get.
        output: Value,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator says that a step was undone by hand.
    MarkedCompensated {
        /// The step.
        step: S,
        /// The round that was undone.
        round: u32,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator has the undos tried again that failed or wait.
    UndosRetried {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nothing starts any more until the run is resumed.
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The pause is over.
    Resumed {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator gives the run up: it ends as soon as nothing is in flight.
    AbandonRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An `execute` tells how far it has come; the newest report counts.
    Progress {
        /// The step.
        step: S,
        /// What it told.
        value: Value,
    },
    /// The run goes on with another definition: what follows names that one's steps.
    Migrated(Box<Migrated>),
    /// The run waits for an operator.
    Parked(Box<Parking>),
    /// The run has ended.
    Ended(End),
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunStarted {
    /// The saga's name.
    pub saga: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Its structural fingerprint.
    pub fingerprint: Arc<str>,
    /// The run's random id, the first part of all its keys: 32 hex digits.
    pub uid: Arc<str>,
    /// The trace that the run belongs to: 32 hex digits.
    pub trace_id: Arc<str>,
    /// The `traceparent` that the start was handed (W3C Trace Context, version 00): its trace is
    /// [`trace_id`](Self::trace_id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The `tracestate` that came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The input.
    pub input: Value,
    /// SHA-256 of the input's canonical JSON; absent in the memory store, which compares the inputs themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_digest: Option<String>,
    /// When the run's time is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What the run can be found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The run that this one does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redo_of: Option<String>,
    /// The coordinator that started it.
    pub worker: Arc<str>,
}

/// A signal, as it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signalled {
    /// The path of the step that waits for it, or will.
    pub name: Arc<str>,
    /// What makes it the same signal when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Arc<str>>,
    /// What it carried.
    pub sent: Value,
    /// What the wait makes of that.
    pub kept: Value,
    /// When it was accepted.
    pub at: Timestamp,
    /// Whether that was after the wait was over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What made a decision necessary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Steps failed for good, or the deadline passed: the policy was asked.
    Failures,
    /// The run was cancelled.
    Cancel,
    /// A step asked to end the run.
    Stop {
        /// Its reason.
        reason: String,
    },
    /// What failed is one of several ways, or of items of which some may fail: the run goes on without it,
    /// and what it may have left is undone first (rule E7).
    Absorbed,
    /// An operator said so.
    Operator {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

fn none<S>() -> Option<S> {
    None
}

/// One decision: what is done now, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision<S = StepIx> {
    /// What made it necessary.
    pub cause: Cause,
    /// The step inside which it was made, where it is not about the whole saga.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub scope: Option<S>,
    /// What is done. For a [`Cause::Stop`] that keeps what is done, `retry_failed` stands for keeping: see `stop`.
    pub strategy: RecoveryStrategy,
    /// Whether the run ends `Stopped` once doubts are settled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
    /// The steps that failed, in the order in which they did.
    pub failed: Vec<S>,
    /// One explanation per failure, in the same order (one more for the deadline).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Explanation>,
    /// Which recovery this is, from 1; 0 where it is none.
    pub recovery: u32,
    /// When the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_at: Option<Timestamp>,
}

/// What a cancel was answered (rule C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelTold {
    /// Nothing new starts; what is done will be undone.
    Accepted,
    /// The pivot is in flight or in doubt: what becomes of it decides.
    Pending,
    /// The run is past the pivot and goes forward.
    TooLate,
}

/// Why a run waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// The policy, or an operator, said `manual`.
    Manual,
    /// An undo failed for good.
    CompensationFailed,
    /// One step was interrupted three times in a row without progress.
    Interrupted,
    /// A step that must not be repeated is in doubt.
    AtMostOnceInDoubt,
    /// An effect in doubt could not be settled.
    Unsettled,
    /// All steps are done, and the saga's output can't be made of theirs.
    OutputFailed,
    /// The definition has changed under the same version.
    DefinitionChanged,
    /// A participant refuses the run's fence again and again, though no other coordinator has the run.
    StaleFence,
    /// The journal can't be read; this is never written, only reported.
    Unreadable,
}

impl ParkReason {
    /// The word for it in journals.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            ParkReason::Manual => "manual",
            ParkReason::CompensationFailed => "compensation_failed",
            ParkReason::Interrupted => "interrupted",
            ParkReason::AtMostOnceInDoubt => "at_most_once_in_doubt",
            ParkReason::Unsettled => "unsettled",
            ParkReason::OutputFailed => "output_failed",
            ParkReason::DefinitionChanged => "definition_changed",
            ParkReason::StaleFence => "stale_fence",
            ParkReason::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a run was parked, and what it leaves standing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parking {
    /// The reason.
    pub reason: ParkReason,
    /// What happened, for people.
    pub message: String,
}

impl Parking {
    pub(crate) fn new(reason: ParkReason, message: impl Into<String>) -> Self {
        Parking {
            reason,
            message: message.into(),
        }
    }
}

/// The one end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All steps are done; this is the saga's output.
    Completed {
        /// What `returns` made.
        output: Value,
    },
    /// Nothing stands.
    Compensated,
    /// A step asked to end early; what is done is kept.
    Stopped {
        /// The step's reason.
        reason: String,
    },
    /// An operator gave up; what stands is in the partial result.
    Abandoned {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

impl<S> Event<S> {
    /// The first version of the written form that has this event.
    pub(super) fn form(&self) -> u32 {
        match self {
            Event::StepStarted { items: Some(_), .. }
            | Event::StepDone {
                partial: Some(_), ..
            }
            | Event::PassedOver { .. }
            | Event::Progress { .. }
            | Event::WaitBegan { .. }
            | Event::WaitOver { .. }
            | Event::Signalled(_)
            | Event::Migrated(_) => 3,
            Event::Parked(parking) if parking.reason == ParkReason::StaleFence => 3,
            Event::Decided(decision) => {
                let mut why = decision.why.iter();
                let in_part = why.any(|why| why.saw.effect == FailedEffect::Done);
                let inside = decision.scope.is_some() || decision.cause == Cause::Absorbed;
                if in_part || inside { 3 } else { 1 }
            }
            Event::RunStarted(_)
            | Event::Claimed { .. }
            | Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::StepStopped { .. }
            | Event::StepInterrupted { .. }
            | Event::StepNotStarted { .. }
            | Event::Probed { .. }
            | Event::UndoStarted { .. }
            | Event::Undone { .. }
            | Event::UndoFailed { .. }
            | Event::UndoNotStarted { .. }
            | Event::CancelRequested { .. }
            | Event::CancelTooLate
            | Event::DeadlinePassed { .. }
            | Event::Resolved { .. }
            | Event::Parked(_)
            | Event::Ended(_) => 1,
            Event::Commanded { .. }
            | Event::InputEdited { .. }
            | Event::Skipped { .. }
            | Event::MarkedCompensated { .. }
            | Event::UndosRetried { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::AbandonRequested { .. } => 2,
        }
    }

    /// The step that the event is about, where it is about one.
    pub fn step(&self) -> Option<S>
    where
        S: Copy,
    {
        match self {
            Event::StepStarted { step, .. }
            | Event::StepDone { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepStopped { step, .. }
            | Event::StepInterrupted { step, .. }
            | Event::StepNotStarted { step }
            | Event::Progress { step, .. }
            | Event::PassedOver { step }
            | Event::WaitBegan { step, .. }
            | Event::WaitOver { step, .. }
            | Event::Probed { step, .. }
            | Event::UndoStarted { step, .. }
            | Event::Undone { step, .. }
            | Event::UndoFailed { step, .. }
            | Event::UndoNotStarted { step }
            | Event::Resolved { step, .. }
            | Event::InputEdited { step, .. }
            | Event::Skipped { step, .. }
            | Event::MarkedCompensated { step, .. } => Some(*step),
            Event::RunStarted(_)
            | Event::Claimed { .. }
            | Event::Decided(_)
            | Event::CancelRequested { .. }
            | Event::CancelTooLate
            | Event::DeadlinePassed { .. }
            | Event::Commanded { .. }
            | Event::Signalled(_)
            | Event::UndosRetried { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::AbandonRequested { .. }
            | Event::Parked(_)
            | Event::Migrated(_)
            | Event::Ended(_) => None,
        }
    }

    /// The same event with its steps named otherwise.
    pub fn map_step<T>(self, mut name: impl FnMut(S) -> T) -> Event<T>
    where
        S: Clone,
    {
        match self {
            Event::RunStarted(started) => Event::RunStarted(started),
            Event::Claimed { fence, worker } => Event::Claimed { fence, worker },
            Event::StepStarted {
                step,
                round,
                attempt,
                key,
                fed_by,
                mapped,
                items,
            } => Event::StepStarted {
                step: name(step),
                round,
                attempt,
                key,
                fed_by,
                mapped,
                items,
            },
            Event::StepDone {
                step,
                output,
                partial,
                asks,
                took_us,
            } => Event::StepDone {
                step: name(step),
                output,
                partial,
                asks,
                took_us,
            },
            Event::StepFailed {
                step,
                failure,
                retry_at,
                gave_up,
                took_us,
            } => Event::StepFailed {
                step: name(step),
                failure,
                retry_at,
                gave_up,
                took_us,
            },
            Event::StepStopped {
                step,
                reason,
                took_us,
            } => Event::StepStopped {
                step: name(step),
                reason,
                took_us,
            },
            Event::StepInterrupted { step, took_us } => Event::StepInterrupted {
                step: name(step),
                took_us,
            },
            Event::StepNotStarted { step } => Event::StepNotStarted { step: name(step) },
            Event::PassedOver { step } => Event::PassedOver { step: name(step) },
            Event::WaitBegan { step, round, until } => Event::WaitBegan {
                step: name(step),
                round,
                until,
            },
            Event::WaitOver {
                step,
                expired,
                output,
                failure,
            } => Event::WaitOver {
                step: name(step),
                expired,
                output,
                failure,
            },
            Event::Signalled(signalled) => Event::Signalled(signalled),
            Event::Probed {
                step,
                answer,
                error,
            } => Event::Probed {
                step: name(step),
                answer,
                error,
            },
            Event::Decided(decision) => {
                let Decision {
                    cause,
                    scope,
                    strategy,
                    stop,
                    failed,
                    why,
                    recovery,
                    resume_at,
                } = Arc::unwrap_or_clone(decision);
                let scope = scope.map(&mut name);
                let failed = failed.into_iter().map(name).collect();
                Event::Decided(Arc::new(Decision {
                    cause,
                    scope,
                    strategy,
                    stop,
                    failed,
                    why,
                    recovery,
                    resume_at,
                }))
            }
            Event::UndoStarted {
                step,
                round,
                attempt,
                key,
            } => Event::UndoStarted {
                step: name(step),
                round,
                attempt,
                key,
            },
            Event::Undone { step, took_us } => Event::Undone {
                step: name(step),
                took_us,
            },
            Event::UndoFailed {
                step,
                failure,
                retry_at,
                gave_up,
                took_us,
            } => Event::UndoFailed {
                step: name(step),
                failure,
                retry_at,
                gave_up,
                took_us,
            },
            Event::UndoNotStarted { step } => Event::UndoNotStarted { step: name(step) },
            Event::CancelRequested { by, reason, told } => {
                Event::CancelRequested { by, reason, told }
            }
            Event::CancelTooLate => Event::CancelTooLate,
            Event::DeadlinePassed { past_pivot } => Event::DeadlinePassed { past_pivot },
            Event::Resolved {
                step,
                answer,
                by,
                reason,
            } => Event::Resolved {
                step: name(step),
                answer,
                by,
                reason,
            },
            Event::Commanded { token } => Event::Commanded { token },
            Event::InputEdited {
                step,
                round,
                input,
                by,
                reason,
            } => Event::InputEdited {
                step: name(step),
                round,
                input,
                by,
                reason,
            },
            Event::Skipped {
                step,
                effect,
                output,
                by,
                reason,
            } => Event::Skipped {
                step: name(step),
                effect,
                output,
                by,
                reason,
            },
            Event::MarkedCompensated {
                step,
                round,
                by,
                reason,
            } => Event::MarkedCompensated {
                step: name(step),
                round,
                by,
                reason,
            },
            Event::UndosRetried { by, reason } => Event::UndosRetried { by, reason },
            Event::Paused { by, reason } => Event::Paused { by, reason },
            Event::Resumed { by, reason } => Event::Resumed { by, reason },
            Event::AbandonRequested { by, reason } => Event::AbandonRequested { by, reason },
            Event::Progress { step, value } => Event::Progress {
                step: name(step),
                value,
            },
            Event::Migrated(migrated) => Event::Migrated(migrated),
            Event::Parked(parking) => Event::Parked(parking),
            Event::Ended(end) => Event::Ended(end),
        }
    }
}
