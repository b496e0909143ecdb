//! One decision over all failures, and what it does to the state.

use std::sync::Arc;
use std::time::Duration;

use crate::failure::{FailedEffect, FailureMode};
use crate::ids::Timestamp;
use crate::journal::{Cause, Decision, ParkReason, Parking, what_happened};
use crate::machine::part::simply_goes_on;
use crate::machine::scope::{Direction, EffectNow, Phase, Scope, ScopeIx, Status, UndoStatus};
use crate::machine::state::State;
use crate::policy::{Explanation, RecoveryStrategy, Situation};
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UndoRule};
use crate::step::StepIx;

/// Who wants a strategy: an operator may do more than a policy (rule K5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedBy {
    Policy,
    Operator,
}

impl State {
    /// Puts every failure of a scope to its policy and takes the strictest answer that is available (rule D1).
    pub(super) fn ask_policy(&self, root: &Graph, ix: ScopeIx, now: Timestamp) -> Decision<StepIx> {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        let policy = &graph.policy;
        let mut why: Vec<Explanation> = scope
            .failures
            .iter()
            .map(|&step| policy.decide(&self.situation_of(graph, ix, step, now)))
            .collect();
        let of_the_run = self.time_is_up && ix == ScopeIx::ROOT;
        let time_is_up = of_the_run || self.is_late(graph, ix, now);
        if time_is_up {
            let mode = FailureMode::SystemTimeout;
            let mut saw = self.situation(graph, ix, String::new(), mode, now);
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
            .unavailable(root, ix, strictest, AskedBy::Policy)
            .or_else(|| self.used_up(graph, ix, strictest, now))
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
        let retries = !goes_on && strategy.retries();
        let recovery = if retries { self.recoveries + 1 } else { 0 };
        let failed = self.failed_in(ix);
        let resume_at = retries.then(|| {
            let seed = failed.first().map_or(0, |&step| self.seed(step));
            now.after(policy.delay(recovery, seed))
        });
        Decision {
            cause: Cause::Failures,
            scope: self.inside_of(ix),
            strategy,
            stop: false,
            failed,
            why,
            recovery,
            resume_at,
        }
    }

    /// The steps of a scope that failed for good since the last decision.
    pub(super) fn failed_in(&self, ix: ScopeIx) -> Vec<StepIx> {
        let scope = self.scope(ix);
        let failed = scope.failures.iter().map(|&step| scope.number(step));
        failed.collect()
    }

    /// The scope that a decision is about: what undoes a step, while that is under way, else what is inside it.
    pub(super) fn scope_of(&self, decision: &Decision<StepIx>) -> ScopeIx {
        let Some(step) = decision.scope else {
            return ScopeIx::ROOT;
        };
        let node = self.node(step);
        let is_active = |ix: &ScopeIx| self.scope(*ix).phase != Phase::Ended;
        let undoer = node.undoer.filter(is_active);
        undoer.or(node.child).unwrap_or(ScopeIx::ROOT)
    }

    /// The step that a scope is the inside of; nothing for the saga itself.
    pub(super) fn inside_of(&self, ix: ScopeIx) -> Option<StepIx> {
        let (around, step) = self.scope(ix).inside?;
        Some(self.scope(around).number(step))
    }

    fn situation_of(&self, graph: &Graph, ix: ScopeIx, step: NodeIx, now: Timestamp) -> Situation {
        let scope = self.scope(ix);
        let node = scope.seen(step);
        // A policy is written for its saga, whatever that is put inside of (rule N1).
        let name = graph.step(step).name.to_string();
        if let Some(part) = node.in_part() {
            return self.situation_in_part(graph, ix, step, part, now);
        }
        let Some(failure) = &node.failure else {
            return self.situation(graph, ix, name, FailureMode::StepLogic, now);
        };
        let mut saw = self.situation(graph, ix, name, failure.mode.clone(), now);
        saw.retryable = failure.retryable;
        saw.effect = match node.effect {
            EffectNow::NotDone => FailedEffect::NotDone,
            EffectNow::InDoubt | EffectNow::Done => FailedEffect::InDoubt,
        };
        saw
    }

    /// What a policy sees: of the steps only its own, and none that were spared (rule D3).
    pub(super) fn situation(
        &self,
        graph: &Graph,
        ix: ScopeIx,
        step: String,
        mode: FailureMode,
        now: Timestamp,
    ) -> Situation {
        let scope = self.scope(ix);
        let total = u32::try_from(scope.nodes.len()).unwrap_or(u32::MAX);
        let (done, total) = (scope.done - scope.passed_over, total - scope.passed_over);
        let mut saw = Situation::new(step, mode, done, total);
        saw.past_pivot = scope.is_past_pivot(graph);
        saw.recoveries = self.recoveries;
        saw.max_recoveries = graph.policy.recoveries();
        saw.time_used_up = self.time_is_up || self.is_late(graph, ix, now);
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
    fn used_up(
        &self,
        graph: &Graph,
        ix: ScopeIx,
        strategy: RecoveryStrategy,
        now: Timestamp,
    ) -> Option<String> {
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
        if self.is_late(graph, ix, now) {
            let saga = &graph.saga;
            return Some(format!(
                "{strategy} is not available: the time of `{saga}` is used up"
            ));
        }
        (self.recoveries >= most)
            .then(|| format!("{strategy} is not available: all {most} recoveries are used up"))
    }

    /// Why a strategy can't be taken now, if it can't (rules D2, D4, K5, S3).
    pub(super) fn unavailable(
        &self,
        root: &Graph,
        ix: ScopeIx,
        strategy: RecoveryStrategy,
        asked_by: AskedBy,
    ) -> Option<String> {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        if strategy.goes_back() && scope.is_past_pivot(graph) {
            return Some(format!(
                "{strategy} is not available past the pivot: nothing goes back there"
            ));
        }
        let again = strategy.retries();
        for ix in scope.steps() {
            let (step, node) = (graph.step(ix), scope.seen(ix));
            if strategy.goes_back()
                && step.kind == StepKind::Irreversible
                && node.irrevocable() != EffectNow::NotDone
            {
                return Some(format!(
                    "{strategy} is not available: `{}` can't be undone",
                    scope.name(graph, ix)
                ));
            }
            if let (Some(_), Some(child)) = (step.inside(), node.child)
                && node.effect != EffectNow::NotDone
                && let Some(why) = self.unavailable_inside(root, child, strategy, asked_by)
            {
                return Some(why);
            }
            // An operator may have it undone first, and then executed in a new round.
            let undone_first = asked_by == AskedBy::Operator
                && strategy.goes_back()
                && scope.wants_undo(graph, ix);
            let in_doubt = node.effect == EffectNow::InDoubt;
            if again && step.at_most_once && in_doubt && !undone_first {
                return Some(format!(
                    "{strategy} is not available: `{}` runs at most once and is in doubt",
                    scope.name(graph, ix)
                ));
            }
        }
        None
    }

    /// The same of what is inside a step that a strategy goes on with. What has gone past a pivot of its own
    /// and is done stays as it is, unless all is to go back, which its step has answered for.
    fn unavailable_inside(
        &self,
        root: &Graph,
        child: ScopeIx,
        strategy: RecoveryStrategy,
        asked_by: AskedBy,
    ) -> Option<String> {
        match strategy {
            RecoveryStrategy::RetryFailed => self.unavailable(root, child, strategy, asked_by),
            RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll
            | RecoveryStrategy::Compensate
            | RecoveryStrategy::Manual => None,
        }
    }

    /// Folds a decision; says about which scope it was.
    pub(super) fn decided(
        &mut self,
        root: &Graph,
        decision: &Arc<Decision<StepIx>>,
        at: Timestamp,
    ) -> ScopeIx {
        self.leave_parking(at);
        let ix = self.scope_of(decision);
        let graph = self.graph_of(root, ix);
        if let Cause::Operator { .. } = decision.cause {
            // An operator's word resets the count of recoveries (rule D6).
            self.recoveries = 0;
            if decision.strategy.retries() && !decision.stop {
                // The later word wins, over a cancel and over a step that asked to end the run. Where the
                // pivot is done the cancel came too late, and is told so.
                let too_late = self.root().is_pivot_done(root);
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
        if decision.cause == Cause::Absorbed {
            self.scopes[ix.at()].go_without(graph);
            return ix;
        }
        self.decided_last = ix;
        let about_time = decision.why.iter().any(|why| why.saw.step.is_empty());
        if about_time {
            // It was said once; an operator may let it go on.
            self.scopes[ix.at()].deadline = None;
        }
        self.scopes[ix.at()].last_decision = Some(Arc::clone(decision));
        if decision.strategy == RecoveryStrategy::Manual {
            let message = self.manual_message(root, ix, decision);
            self.root_mut().park_wanted = Some(Parking::new(ParkReason::Manual, message));
            if ix != ScopeIx::ROOT {
                self.root_mut().drain(root);
            }
            // The failures stay: an operator's retry is about them.
            return ix;
        }
        if ix == ScopeIx::ROOT {
            self.time_is_up = false;
        }
        let goes_on_inside = decision.stop || decision.strategy == RecoveryStrategy::RetryFailed;
        self.scopes[ix.at()].follow(graph, decision);
        if goes_on_inside {
            self.follow_inside(root, ix, decision);
        }
        self.stir_inside(ix);
        ix
    }

    /// A decision to go on, or to stop, reaches all that is under way inside the steps of its scope.
    fn follow_inside(&mut self, root: &Graph, from: ScopeIx, decision: &Decision<StepIx>) {
        for index in 1..self.scopes.len() {
            let ix = ScopeIx(u32::try_from(index).unwrap_or(u32::MAX));
            if !self.around(ix).any(|(around, _)| around == from) {
                continue;
            }
            let graph = self.graph_of(root, ix);
            let told = self.has_told_its_failure(ix);
            let scope = &mut self.scopes[index];
            match (scope.phase, scope.unwind.then) {
                (Phase::Forward { .. } | Phase::Draining, _) if decision.stop => {
                    scope.unwind_doubts(graph);
                }
                // It goes on with the step that it is the inside of.
                (Phase::Draining, _) if told => {}
                (Phase::Draining, _) => scope.retry_failed(graph, None),
                (Phase::Unwinding, Direction::Stopped) if !decision.stop => {
                    scope.unwind.then = Direction::Forward { hold: None };
                    scope.retry_undos(graph);
                }
                (Phase::Unwinding, _) if matches!(decision.cause, Cause::Operator { .. }) => {
                    scope.retry_undos(graph);
                }
                // Attempts are granted anew wherever the run goes on (rule D6).
                (Phase::Forward { .. }, _) => scope.grant_anew(),
                (Phase::Unwinding | Phase::Ended | Phase::Parked, _) => {}
            }
            self.after(root, ix);
        }
    }

    fn manual_message(&self, root: &Graph, ix: ScopeIx, decision: &Decision<StepIx>) -> String {
        let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
        let failed: Vec<String> = scope
            .failures
            .iter()
            .map(|&step| format!("`{}`", scope.name(graph, step)))
            .collect();
        let failed = if failed.is_empty() && ix != ScopeIx::ROOT {
            format!("the time of `{}` is up", scope.path)
        } else if failed.is_empty() {
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
}

impl Scope {
    /// Does what was decided.
    fn follow(&mut self, graph: &Graph, decision: &Decision<StepIx>) {
        self.park_wanted = None;
        self.failures.clear();
        let hold = decision.resume_at;
        if self.phase == Phase::Unwinding && decision.strategy == RecoveryStrategy::RetryAll {
            // An operator turns the undoing of all into a new beginning (rule O2).
            self.retry_undos(graph);
            self.grant_anew();
            self.unwind.then = Direction::Forward { hold };
            return;
        }
        if decision.stop {
            self.grant_anew();
            self.unwind_doubts(graph);
            return;
        }
        match decision.strategy {
            RecoveryStrategy::RetryFailed => self.retry_failed(graph, hold),
            RecoveryStrategy::RetryFromCheckpoint => {
                self.grant_anew();
                let kept = self.kept(graph);
                self.unwind_region(
                    graph,
                    |_, step| !kept[step.at()],
                    Direction::Forward { hold },
                );
            }
            RecoveryStrategy::RetryAll => {
                self.grant_anew();
                self.unwind_region(graph, |_, _| true, Direction::Forward { hold });
            }
            RecoveryStrategy::Compensate => {
                self.grant_anew();
                self.unwind_region(graph, |_, _| true, Direction::Compensated);
            }
            RecoveryStrategy::Manual => {}
        }
    }

    /// Goes on with all that is done, and runs again what failed.
    pub(super) fn retry_failed(&mut self, graph: &Graph, hold: Option<Timestamp>) {
        self.failures.clear();
        self.grant_anew();
        // Items that were to be done without, and those who lost a race that nobody won, are tried again, too:
        // they failed together with the others.
        if let Gathering::Each { .. } | Gathering::Race = graph.gathers {
            for step in self.steps() {
                if self.seen(step).status == Status::Absorbed {
                    self.absorbed -= 1;
                    self.set_idle(step, Status::Failed);
                }
            }
            self.idle.sort_unstable();
        }
        let region = |scope: &Scope, step: NodeIx| {
            let always = graph.step(step).undo_rule == UndoRule::Always;
            let failed = matches!(
                scope.seen(step).status,
                Status::Failed | Status::Dropped | Status::Stopped
            );
            always && failed && scope.wants_undo(graph, step)
        };
        self.unwind_region(graph, region, Direction::Forward { hold });
    }

    /// Goes on without the steps that failed: what they may have left is undone first (rule E7).
    fn go_without(&mut self, graph: &Graph) {
        for step in std::mem::take(&mut self.failures) {
            self.node(step).status = Status::Absorbed;
            self.absorbed += 1;
        }
        let winner = self.chosen().filter(|_| graph.gathers == Gathering::Race);
        let without = |scope: &Scope, step: NodeIx| match winner {
            Some(winner) => step != winner,
            None => scope.seen(step).status == Status::Absorbed,
        };
        self.idle.clear();
        self.unwind_region(graph, without, Direction::Without);
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
        let mut open: Vec<NodeIx> = (0..kept.len())
            .filter(|&index| kept[index])
            .map(NodeIx::new)
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
    pub(super) fn grant_anew(&mut self) {
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
