//! What a state remembers for people only: every call, and what happened to the run as a whole.
//!
//! Nothing here is decided by. Each event adds at most one entry, and both lists keep the latest entries
//! only, so that a run that retries for a year doesn't grow for a year.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Cause, Decision, Event};
use crate::machine::scope::NodeState;
use crate::machine::state::State;
use crate::policy::RecoveryStrategy;
use crate::step::{Probed, StepIx, Value};

/// So many calls are kept of each step, and so many moments of the run: the latest.
pub(crate) const MOST_KEPT: usize = 1_000;

/// One call of a step's `execute` or `compensate`.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) undo: bool,
    pub(crate) round: u32,
    pub(crate) attempt: u32,
    pub(crate) started_at: Timestamp,
    /// When its end was recorded; means nothing while it is open.
    pub(crate) ended_at: Timestamp,
    pub(crate) took_us: u64,
    pub(crate) end: CallEnded,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum CallEnded {
    /// It hasn't.
    Open,
    Done,
    Failed {
        failure: Box<Failure>,
        retry_at: Option<Timestamp>,
    },
    /// It asked to end the run.
    Stopped,
    /// Its future was told to stop and dropped.
    Interrupted,
    /// The process that made it is gone.
    Lost,
}

/// Something that happened to the run as a whole.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Happened, RecoveryStrategy, Saga, StepContext, StepError, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("sale");
/// let n = saga.input();
/// let pay = async |_: &StepContext, _: &u64| Err::<u64, _>(StepError::rejected("no credit"));
/// saga.add(step_fn("pay", pay, async |_, _, _| Ok(())), n);
/// let saga: Saga<u64, ()> = saga.returns(())?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let partial = coordinator.start(&saga, "sale-1", 5).await?.outcome().await?.partial();
///
/// assert_eq!(partial.moments.len(), 1);
/// let Happened::Decided { strategy, failed, .. } = &partial.moments[0].what else {
///     panic!("not decided")
/// };
/// assert_eq!(*strategy, RecoveryStrategy::Compensate);
/// assert_eq!(failed, &["pay"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What can happen to a run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happened {
    /// A coordinator took the run over, since the one before was gone.
    Claimed {
        /// The run's new fence.
        fence: u64,
    },
    /// It was decided how to go on.
    Decided {
        /// What made it necessary.
        cause: Cause,
        /// The step inside which it was decided, where it was not about the whole saga.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// What is done.
        strategy: RecoveryStrategy,
        /// Whether the run ends `Stopped` once doubts are settled.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stop: bool,
        /// The steps that failed, in the order in which they did.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed: Vec<String>,
        /// Which recovery this is, from 1; 0 where it is none.
        recovery: u32,
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
    /// The run's deadline passed.
    DeadlinePassed {
        /// Whether the run was past the pivot.
        past_pivot: bool,
    },
    /// A probe was asked about a step in doubt.
    Probed {
        /// The step.
        step: String,
        /// The answer: `done`, `never` or `unknown`.
        answer: String,
    },
    /// An operator said what became of an effect in doubt.
    Resolved {
        /// The step.
        step: String,
        /// What they said: `done`, `never` or `unknown`.
        answer: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator replaced the input of a step; never the input itself.
    InputEdited {
        /// The step.
        step: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator took a step as done without its being called.
    Skipped {
        /// The step.
        step: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator said that a step was undone by hand.
    MarkedCompensated {
        /// The step.
        step: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator had the undos tried again that failed or waited.
    UndosRetried {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator paused the run.
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator ended the pause.
    Resumed {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator gave the run up while something was in flight.
    AbandonRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Somebody sent a signal; never what it carried.
    Signalled {
        /// Its name.
        name: String,
        /// Whether the wait was over when it came.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        late: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run goes on with another version of its definition.
    Migrated {
        /// The version that it had.
        from: u32,
        /// The version that it has.
        to: u32,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run began to wait for an operator.
    Parked {
        /// The reason's word.
        reason: String,
        /// What happened, for people.
        message: String,
    },
}

fn keep<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.is_empty() {
        // Most steps are called once, and a million of them may be in memory.
        kept.reserve_exact(1);
    }
    if kept.len() == MOST_KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}

impl NodeState {
    /// A call was announced; the counts have been raised already.
    pub(super) fn call_begins(&mut self, undo: bool, at: Timestamp) {
        let call = Call {
            undo,
            round: self.round,
            attempt: if undo {
                self.undo_attempts
            } else {
                self.attempts
            },
            started_at: at,
            ended_at: at,
            took_us: 0,
            end: CallEnded::Open,
        };
        keep(&mut self.calls, call);
    }

    /// The call that was announced last has ended.
    pub(super) fn call_ends(&mut self, end: CallEnded, took_us: u64, at: Timestamp) {
        if let Some(call) = self.open_call() {
            call.ended_at = at;
            call.took_us = took_us;
            call.end = end;
        }
    }

    /// The call that was announced last was never made.
    pub(super) fn call_forgotten(&mut self) {
        if self.open_call().is_some() {
            self.calls.pop_back();
        }
    }

    /// A step's calls follow one another, so only the last one can be open.
    fn open_call(&mut self) -> Option<&mut Call> {
        self.calls
            .back_mut()
            .filter(|call| matches!(call.end, CallEnded::Open))
    }
}

impl State {
    /// Keeps an event that concerns the run as a whole.
    pub(super) fn keep_moment(&mut self, event: &Event<StepIx>, at: Timestamp) {
        let name = |step: StepIx| self.table.name(step).to_string();
        let what = match event {
            Event::Claimed { fence, .. } => Happened::Claimed { fence: *fence },
            Event::Decided(decision) => decided(decision, name),
            Event::CancelRequested { by, reason, told } => Happened::CancelRequested {
                by: by.clone(),
                reason: reason.clone(),
                told: *told,
            },
            Event::CancelTooLate => Happened::CancelTooLate,
            Event::DeadlinePassed { past_pivot } => Happened::DeadlinePassed {
                past_pivot: *past_pivot,
            },
            Event::Probed { step, answer, .. } => Happened::Probed {
                step: name(*step),
                answer: word(answer),
            },
            Event::Resolved {
                step,
                answer,
                by,
                reason,
            } => Happened::Resolved {
                step: name(*step),
                answer: word(answer),
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::InputEdited {
                step, by, reason, ..
            } => Happened::InputEdited {
                step: name(*step),
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::Skipped {
                step, by, reason, ..
            } => Happened::Skipped {
                step: name(*step),
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::MarkedCompensated {
                step, by, reason, ..
            } => Happened::MarkedCompensated {
                step: name(*step),
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::UndosRetried { by, reason } => Happened::UndosRetried {
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::Paused { by, reason } => Happened::Paused {
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::Resumed { by, reason } => Happened::Resumed {
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::AbandonRequested { by, reason } => Happened::AbandonRequested {
                by: by.clone(),
                reason: reason.clone(),
            },
            Event::Signalled(signalled) => Happened::Signalled {
                name: signalled.name.to_string(),
                late: signalled.late,
                by: signalled.by.clone(),
                reason: signalled.reason.clone(),
            },
            Event::Migrated(migrated) => Happened::Migrated {
                from: migrated.from.version,
                to: migrated.version,
                by: migrated.by.clone(),
                reason: migrated.reason.clone(),
            },
            Event::Parked(parking) => Happened::Parked {
                reason: parking.reason.to_string(),
                message: parking.message.clone(),
            },
            Event::RunStarted(_)
            | Event::Commanded { .. }
            | Event::StepStarted { .. }
            | Event::StepDone { .. }
            | Event::StepFailed { .. }
            | Event::StepStopped { .. }
            | Event::StepInterrupted { .. }
            | Event::StepNotStarted { .. }
            | Event::Progress { .. }
            | Event::PassedOver { .. }
            | Event::WaitBegan { .. }
            | Event::WaitOver { .. }
            | Event::UndoStarted { .. }
            | Event::Undone { .. }
            | Event::UndoFailed { .. }
            | Event::UndoNotStarted { .. }
            | Event::Ended(_) => return,
        };
        keep(&mut self.moments, Moment { at, what });
    }
}

fn decided(decision: &Decision<StepIx>, name: impl Fn(StepIx) -> String) -> Happened {
    Happened::Decided {
        cause: decision.cause.clone(),
        scope: decision.scope.map(&name),
        strategy: decision.strategy,
        stop: decision.stop,
        failed: decision.failed.iter().map(|&step| name(step)).collect(),
        recovery: decision.recovery,
    }
}

/// Never the output that an answer may carry.
fn word(answer: &Probed<Value>) -> String {
    match answer {
        Probed::Done(_) => "done",
        Probed::Never => "never",
        Probed::Unknown => "unknown",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::FailureMode;
    use crate::partial::PartialResult;
    use crate::saga::{Graph, Outline, OutlineStep, StepKind};

    const A: StepIx = StepIx(0);

    fn one_step() -> (Graph, State) {
        let outline = Outline {
            gathers: crate::OutlineForm::default(),
            saga: "s".to_owned(),
            version: 1,
            fingerprint: String::new(),
            steps: vec![OutlineStep {
                name: "a".to_owned(),
                kind: StepKind::Compensatable,
                wired: Vec::new(),
                dependencies: Vec::new(),
                pivot: false,
                checkpoint: false,
                conditional: false,
                inside: None,
                waits: None,
                undone_by: None,
            }],
        };
        let started = serde_json::json!({
            "saga": "s", "version": 1, "fingerprint": "", "uid": "", "trace_id": "",
            "input": null, "worker": "w",
        });
        let started = serde_json::from_value(started).unwrap();
        let graph = outline.to_graph();
        let state = State::begin(&graph, &started, Timestamp::from_micros(0));
        (graph, state)
    }

    fn started(attempt: u32) -> Event<StepIx> {
        Event::StepStarted {
            step: A,
            round: 1,
            attempt,
            key: Arc::from("k"),
            fed_by: Vec::new(),
            mapped: Vec::new(),
            items: None,
        }
    }

    #[test]
    fn a_call_that_was_announced_and_not_made_is_no_call() {
        let (graph, mut state) = one_step();
        let at = Timestamp::from_micros;
        state.apply(&graph, &started(1), at(10));
        assert_eq!(state.node(A).calls.len(), 1);
        state.apply(&graph, &Event::StepNotStarted { step: A }, at(20));
        assert_eq!(state.node(A).calls.len(), 0);
        let undo = Event::UndoStarted {
            step: A,
            round: 1,
            attempt: 1,
            key: Arc::from("k"),
        };
        state.apply(&graph, &undo, at(30));
        assert!(state.node(A).calls[0].undo);
        state.apply(&graph, &Event::UndoNotStarted { step: A }, at(40));
        assert_eq!(state.node(A).calls.len(), 0);
    }

    #[test]
    fn the_latest_thousand_are_kept_of_calls_and_of_moments() {
        let (graph, mut state) = one_step();
        let failure = Failure::new(FailureMode::SystemNetwork, "busy");
        for attempt in 1..=1_003 {
            let at = Timestamp::from_micros(i64::from(attempt) * 10);
            state.apply(&graph, &started(attempt), at);
            let failed = Event::StepFailed {
                step: A,
                failure: Box::new(failure.clone()),
                retry_at: Some(at),
                gave_up: None,
                took_us: 1,
            };
            state.apply(&graph, &failed, at);
            let claimed = Event::Claimed {
                fence: u64::from(attempt) + 1,
                worker: String::new(),
            };
            state.apply(&graph, &claimed, at);
        }
        let partial = PartialResult::of(&"r".into(), &state, &graph);
        let step = &partial.steps[0];
        assert_eq!(step.attempts, 1_003);
        let attempts: Vec<u32> = step.calls.iter().map(|call| call.attempt).collect();
        assert_eq!(attempts, (4..=1_003).collect::<Vec<_>>());
        assert_eq!(step.history.len(), 1_000);
        let fences: Vec<&Happened> = partial.moments.iter().map(|moment| &moment.what).collect();
        assert_eq!(fences.len(), 1_000);
        assert_eq!(fences[0], &Happened::Claimed { fence: 5 });
        assert_eq!(fences[999], &Happened::Claimed { fence: 1_004 });
    }
}
