//! One decision over all failures, and what it does to the state.

use std::time::Duration;

use crate::failure::{FailedEffect, FailureMode};
use crate::ids::Timestamp;
use crate::journal::{Cause, Decision, ParkReason, Parking, what_happened};
use crate::machine::part::simply_goes_on;
use crate::machine::state::{Direction, EffectNow, Phase, State, Status, UndoStatus};
use crate::policy::{Explanation, RecoveryStrategy, Situation};
use crate::saga::{Graph, StepKind, UndoRule};
use crate::step::StepIx;

/// Who wants a strategy: an operator may do more than a policy (rule K5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedBy {
    Policy,
    Operator,
}

impl State {
    /// Puts every failure to the policy and takes the strictest answer that is available (rule D1).
    pub(super) fn ask_policy(&self, graph: &Graph, now: Timestamp) -> Decision<StepIx> {
        let policy = &graph.policy;
        let mut why: Vec<Explanation> = self
            .failures
            .iter()
            .map(|&step| policy.decide(&self.situation_of(graph, step, now)))
            .collect();
        if self.time_is_up {
            let mut saw = self.situation(graph, String::new(), FailureMode::SystemTimeout, now);
            saw.effect = FailedEffect::NotDone;
            why.push(policy.decide(&saw));
        }
        let strictest = why
            .iter()
            .map(|why| why.says)
            .max()
            .unwrap_or(RecoveryStrategy::Manual);
        let goes_on = simply_goes_on(&why, strictest);
        let unavailable = self
            .unavailable(graph, strictest, AskedBy::Policy)
            .or_else(|| self.used_up(graph, strictest))
            .filter(|_| !goes_on);
        let strategy = match unavailable {
            None => strictest,
            Some(because) => {
                for why in why.iter_mut().filter(|why| why.says == strictest) {
                    why.overruled = Some(because.clone());
                }
                RecoveryStrategy::Manual
            }
        };
        let retries = !goes_on
            && matches!(
                strategy,
                RecoveryStrategy::RetryFailed
                    | RecoveryStrategy::RetryFromCheckpoint
                    | RecoveryStrategy::RetryAll
            );
        let recovery = if retries { self.recoveries + 1 } else { 0 };
        let resume_at = retries.then(|| {
            let step = self.failures.first().copied().unwrap_or(StepIx(0));
            let seed = if graph.steps.is_empty() {
                0
            } else {
                self.seed(graph, step)
            };
            now.after(policy.delay(recovery, seed))
        });
        let failed = self.failures.clone();
        Decision {
            cause: Cause::Failures,
            strategy,
            stop: false,
            failed,
            why,
            recovery,
            resume_at,
        }
    }

    fn situation_of(&self, graph: &Graph, step: StepIx, now: Timestamp) -> Situation {
        let node = self.seen(step);
        let name = graph.step(step).name.to_string();
        if let Some(part) = node.in_part() {
            return self.situation_in_part(graph, step, part, now);
        }
        let Some(failure) = &node.failure else {
            return self.situation(graph, name, FailureMode::StepLogic, now);
        };
        let mut saw = self.situation(graph, name, failure.mode.clone(), now);
        saw.retryable = failure.retryable;
        saw.effect = match node.effect {
            EffectNow::NotDone => FailedEffect::NotDone,
            EffectNow::InDoubt | EffectNow::Done => FailedEffect::InDoubt,
        };
        saw
    }

    pub(super) fn situation(
        &self,
        graph: &Graph,
        step: String,
        mode: FailureMode,
        now: Timestamp,
    ) -> Situation {
        let total = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let mut saw = Situation::new(step, mode, self.done, total);
        saw.past_pivot = self.is_past_pivot(graph);
        saw.recoveries = self.recoveries;
        saw.max_recoveries = graph.policy.recoveries();
        saw.time_used_up = self.time_is_up;
        saw.elapsed = self.elapsed(now);
        saw
    }

    /// How long the run has been under way, in whole milliseconds; while it is parked or paused its time
    /// stands still (rule I4).
    fn elapsed(&self, now: Timestamp) -> Duration {
        let paused = self.paused.as_ref();
        let stands = paused.map_or(Duration::ZERO, |paused| now.since(paused.at));
        let elapsed = now
            .since(self.started_at)
            .saturating_sub(self.stood + stands);
        Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Why no policy may choose this any more: recoveries are bounded whatever its rules say (rule D6),
    /// else one without a rule for it would retry for ever. An operator may.
    fn used_up(&self, graph: &Graph, strategy: RecoveryStrategy) -> Option<String> {
        match strategy {
            RecoveryStrategy::RetryFailed
            | RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll => {}
            RecoveryStrategy::Compensate | RecoveryStrategy::Manual => return None,
        }
        let most = graph.policy.recoveries();
        if self.time_is_up {
            return Some(format!(
                "{strategy} is not available: the run's time is used up"
            ));
        }
        (self.recoveries >= most)
            .then(|| format!("{strategy} is not available: all {most} recoveries are used up"))
    }

    /// Why a strategy can't be taken now, if it can't (rules D2, D4, K5, S3).
    pub(super) fn unavailable(
        &self,
        graph: &Graph,
        strategy: RecoveryStrategy,
        asked_by: AskedBy,
    ) -> Option<String> {
        if strategy.goes_back() && self.is_past_pivot(graph) {
            return Some(format!(
                "{strategy} is not available past the pivot: nothing goes back there"
            ));
        }
        let again = match strategy {
            RecoveryStrategy::RetryFailed
            | RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll => true,
            RecoveryStrategy::Compensate | RecoveryStrategy::Manual => false,
        };
        for (index, (step, node)) in graph.steps.iter().zip(&self.nodes).enumerate() {
            if strategy.goes_back()
                && step.kind == StepKind::Irreversible
                && node.effect != EffectNow::NotDone
            {
                return Some(format!(
                    "{strategy} is not available: `{}` can't be undone",
                    step.name
                ));
            }
            // An operator may have it undone first, and then executed in a new round.
            let undone_first = asked_by == AskedBy::Operator
                && strategy.goes_back()
                && self.wants_undo(graph, StepIx::new(index));
            let in_doubt = node.effect == EffectNow::InDoubt;
            if again && step.at_most_once && in_doubt && !undone_first {
                return Some(format!(
                    "{strategy} is not available: `{}` runs at most once and is in doubt",
                    step.name
                ));
            }
        }
        None
    }

    /// Folds a decision.
    pub(super) fn decided(&mut self, graph: &Graph, decision: &Decision<StepIx>, at: Timestamp) {
        self.leave_parking(at);
        if let Cause::Operator { .. } = decision.cause {
            // An operator's word resets the count of recoveries (rule D6).
            self.recoveries = 0;
            if decision.strategy.retries() && !decision.stop {
                // The later word wins, over a cancel and over a step that asked to end the run. Where the
                // pivot is done the cancel came too late, and is told so.
                let too_late = self.is_pivot_done(graph);
                if let Some(cancel) = self.cancel.as_mut().filter(|_| !too_late) {
                    cancel.pending = false;
                }
                self.stop = None;
            }
        }
        if decision.cause == Cause::Cancel
            && let Some(cancel) = &mut self.cancel
        {
            cancel.pending = false;
        }
        if decision.recovery > 0 {
            self.recoveries = decision.recovery;
            self.recoveries_total += 1;
        }
        self.last_decision = Some(Box::new(decision.clone()));
        if decision.strategy == RecoveryStrategy::Manual {
            let message = manual_message(graph, decision);
            self.park_wanted = Some(Parking::new(ParkReason::Manual, message));
            // The failures stay: an operator's retry is about them.
            return;
        }
        self.park_wanted = None;
        self.time_is_up = false;
        self.failures.clear();
        let hold = decision.resume_at;
        if self.phase == Phase::Unwinding && decision.strategy == RecoveryStrategy::RetryAll {
            // An operator turns the undoing of all into a new beginning (rule O2).
            self.retry_undos(graph);
            self.grant_anew();
            self.unwind.then = Direction::Forward { hold };
            // The command may have come together with the end of the last undo.
            self.go_on_if_unwound(graph);
            return;
        }
        self.grant_anew();
        if decision.stop {
            self.unwind_doubts(graph);
            return;
        }
        match decision.strategy {
            RecoveryStrategy::RetryFailed => {
                let region = |state: &State, step: StepIx| {
                    let always = graph.step(step).undo_rule == UndoRule::Always;
                    let failed = matches!(
                        state.seen(step).status,
                        Status::Failed | Status::Dropped | Status::Stopped
                    );
                    always && failed && state.wants_undo(graph, step)
                };
                self.unwind_region(graph, region, Direction::Forward { hold });
            }
            RecoveryStrategy::RetryFromCheckpoint => {
                let kept = self.kept(graph);
                self.unwind_region(
                    graph,
                    |_, step| !kept[step.at()],
                    Direction::Forward { hold },
                );
            }
            RecoveryStrategy::RetryAll => {
                self.unwind_region(graph, |_, _| true, Direction::Forward { hold });
            }
            RecoveryStrategy::Compensate => {
                self.unwind_region(graph, |_, _| true, Direction::Compensated);
            }
            RecoveryStrategy::Manual => {}
        }
    }

    /// What `retry_from_checkpoint` keeps: done checkpoints with all their ancestors; in a saga without
    /// checkpoints, all that is done (rule S2).
    fn kept(&self, graph: &Graph) -> Vec<bool> {
        let mut kept: Vec<bool> = graph
            .steps
            .iter()
            .zip(&self.nodes)
            .map(|(step, node)| {
                node.status == Status::Done && (step.checkpoint || !graph.has_checkpoints)
            })
            .collect();
        let mut open: Vec<StepIx> = (0..kept.len())
            .filter(|&index| kept[index])
            .map(StepIx::new)
            .collect();
        while let Some(step) = open.pop() {
            for &before in &graph.step(step).dependencies {
                if !std::mem::replace(&mut kept[before.at()], true) {
                    open.push(before);
                }
            }
        }
        kept
    }

    /// Each recovery grants attempts anew; totals are kept (rule D6).
    fn grant_anew(&mut self) {
        for node in &mut self.nodes {
            node.charged = 0;
            node.charged_since = None;
            node.last_delay = None;
            node.interruptions = 0;
            node.undo_charged = 0;
            node.undo_since = None;
            node.undo_delay = None;
            if node.undo == UndoStatus::Failed {
                node.undo = UndoStatus::Idle;
            }
        }
    }
}

fn manual_message(graph: &Graph, decision: &Decision<StepIx>) -> String {
    let failed: Vec<String> = decision
        .failed
        .iter()
        .map(|&step| format!("`{}`", graph.step(step).name))
        .collect();
    let failed = if failed.is_empty() {
        "the run's time is up".to_owned()
    } else {
        what_happened(&failed, &decision.why, ", ")
    };
    match decision
        .why
        .iter()
        .find(|why| why.says == RecoveryStrategy::Manual || why.overruled.is_some())
    {
        Some(why) => match &why.overruled {
            Some(overruled) => format!("{failed}; {overruled}"),
            None => format!(
                "{failed}; rule `{}` of policy `{}` says manual",
                why.rule, why.policy
            ),
        },
        None => failed,
    }
}
