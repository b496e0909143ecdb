//! The reference: rules of a run as slow and plain questions about the whole graph.
//!
//! The model is told the journal, event by event, and says of each whether it was legal. After each
//! record it says what should have been in it as well. It keeps what was last heard of each step and
//! nothing that could be computed from that.

use std::collections::BTreeSet;

use amends::failure::{FailedEffect, Failure};
use amends::journal::{CancelTold, Cause, Decision, End, Event, ParkReason, Record, Timestamp};
use amends::policy::{Explanation, Situation};
use amends::saga::StepKind;
use amends::step::{StepIx, Value};
use amends::{
    EffectReport, FailureMode, OnStop, PartialResult, Probed, RecoveryStrategy, Siblings,
    StepStatus, UndoOrder, UndoRule,
};

use crate::plan::{Act, Answers, Plan, UNDO_DELAY, UndoAct};

type Checked<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($held:expr, $($said:tt)*) => {
        if !$held {
            return Err(format!($($said)*));
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Execute {
    /// Never called in this round, or to be called again.
    Idle,
    Running,
    Sleeping {
        until: i64,
    },
    Done,
    Failed,
    Stopped,
    /// Its retry was dropped, or its call interrupted.
    Dropped,
    Undone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    Idle,
    Running,
    Sleeping { until: i64 },
    Failed,
}

#[derive(Clone, Debug)]
struct Node {
    execute: Execute,
    undo: Undo,
    effect: EffectReport,
    round: u32,
    key: Option<String>,
    undo_key: Option<String>,
    /// Whether this round was called.
    called: bool,
    /// Calls over the life of the run, and since attempts were granted last.
    calls: u32,
    charged: u32,
    undo_calls: u32,
    undo_charged: u32,
    /// The place in the journal of the last end of a call.
    ended: usize,
    /// Whether a probe has answered since the last call.
    probed: bool,
    output: Option<u64>,
    failure: Option<Failure>,
    /// Whether it was told to stop while it ran.
    told: bool,
}

impl Node {
    /// Rule K2.
    fn new_round(&mut self) {
        self.round += 1;
        self.called = false;
        self.key = None;
        self.output = None;
    }
}

/// What is being done about a decision.
#[derive(Clone, Debug)]
struct Course {
    strategy: RecoveryStrategy,
    stop: bool,
    resume_at: i64,
    /// The steps that have to be undone for it and aren't yet.
    undo: BTreeSet<usize>,
    /// Whether the direction is back: then a probe's `Done` starts nothing.
    back: bool,
    kept: BTreeSet<usize>,
}

pub(crate) struct Model<'a> {
    plan: &'a Plan,
    uid: String,
    nodes: Vec<Node>,
    now: i64,
    place: usize,
    /// Steps that failed for good, in order, and that no decision was made about.
    failed: Vec<usize>,
    stop: Option<String>,
    cancel: Option<CancelTold>,
    cancel_handled: bool,
    deadline: Option<i64>,
    deadline_passed: bool,
    /// The deadline passed before the pivot, and no decision was made about it.
    deadline_open: bool,
    course: Option<Course>,
    last: Option<Decision<StepIx>>,
    recoveries: u32,
    recoveries_total: u32,
    compensations: Vec<(usize, u32, EffectReport, bool)>,
    assumed: BTreeSet<usize>,
    parked: Option<ParkReason>,
    end: Option<End>,
    pub(crate) events: usize,
}

impl<'a> Model<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let node = Node {
            execute: Execute::Idle,
            undo: Undo::Idle,
            effect: EffectReport::NotDone,
            round: 1,
            key: None,
            undo_key: None,
            called: false,
            calls: 0,
            charged: 0,
            undo_calls: 0,
            undo_charged: 0,
            ended: 0,
            probed: false,
            output: None,
            failure: None,
            told: false,
        };
        Model {
            plan,
            uid: String::new(),
            nodes: vec![node; plan.steps.len()],
            now: 0,
            place: 0,
            failed: Vec::new(),
            stop: None,
            cancel: None,
            cancel_handled: false,
            deadline: None,
            deadline_passed: false,
            deadline_open: false,
            course: None,
            last: None,
            recoveries: 0,
            recoveries_total: 0,
            compensations: Vec::new(),
            assumed: BTreeSet::new(),
            parked: None,
            end: None,
            events: 0,
        }
    }

    // Questions about the graph.

    fn all(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    fn depends_on(&self, later: usize, before: usize) -> bool {
        let mut reached = BTreeSet::from([before]);
        for step in before + 1..=later {
            if self.plan.steps[step]
                .dependencies()
                .any(|one| reached.contains(&one))
            {
                reached.insert(step);
            }
        }
        later != before && reached.contains(&later)
    }

    fn kind(&self, step: usize) -> StepKind {
        self.plan.steps[step].kind
    }

    fn executing(&self) -> bool {
        self.nodes
            .iter()
            .any(|node| node.execute == Execute::Running)
    }

    fn undoing(&self) -> bool {
        self.nodes.iter().any(|node| node.undo == Undo::Running)
    }

    fn past_pivot(&self) -> bool {
        self.plan
            .pivot
            .is_some_and(|pivot| self.nodes[pivot].effect != EffectReport::NotDone)
    }

    fn in_doubt(&self, step: usize) -> bool {
        self.nodes[step].effect == EffectReport::InDoubt
    }

    fn wants_probe(&self, step: usize) -> bool {
        self.plan.steps[step].probed && self.in_doubt(step) && !self.nodes[step].probed
    }

    /// Something has happened that ends the forward part until a decision is made (D1, F5, C1, I4).
    fn halted(&self) -> bool {
        !self.failed.is_empty() || self.stop.is_some() || self.deadline_open || self.cancelling()
    }

    fn cancelling(&self) -> bool {
        !self.cancel_handled
            && matches!(
                self.cancel,
                Some(CancelTold::Accepted | CancelTold::Pending)
            )
    }

    fn back(&self) -> bool {
        self.course.as_ref().is_some_and(|course| course.back)
    }

    fn rewinding(&self) -> bool {
        self.course
            .as_ref()
            .is_some_and(|course| !course.undo.is_empty())
    }

    /// Whether the run may start anything at all now.
    fn forward(&self) -> bool {
        let course = self.course.as_ref().is_none_or(|course| {
            course.undo.is_empty()
                && course.resume_at <= self.now
                && !course.stop
                && course.strategy != RecoveryStrategy::Compensate
        });
        course && !self.halted() && self.parked.is_none() && self.end.is_none()
    }

    fn ready(&self, step: usize) -> bool {
        let fed = self.plan.steps[step]
            .dependencies()
            .all(|before| self.nodes[before].execute == Execute::Done);
        let turn = match self.nodes[step].execute {
            Execute::Idle | Execute::Undone => true,
            Execute::Sleeping { until } => until <= self.now,
            Execute::Running
            | Execute::Done
            | Execute::Failed
            | Execute::Stopped
            | Execute::Dropped => false,
        };
        fed && turn
    }

    /// D2, K5: what is in doubt and must not be repeated.
    fn stuck(&self, step: usize) -> bool {
        self.plan.steps[step].at_most_once && self.in_doubt(step)
    }

    fn to_start(&self) -> Vec<usize> {
        if !self.forward() {
            return Vec::new();
        }
        self.all()
            .filter(|&step| self.ready(step) && !self.wants_probe(step) && !self.stuck(step))
            .collect()
    }

    /// U1: the undos that may be called now.
    fn to_undo(&self) -> Vec<usize> {
        let Some(course) = &self.course else {
            return Vec::new();
        };
        let open: Vec<usize> = course
            .undo
            .iter()
            .copied()
            .filter(|&step| self.nodes[step].undo != Undo::Failed)
            .filter(|&step| {
                !course
                    .undo
                    .iter()
                    .any(|&later| self.depends_on(later, step))
            })
            .collect();
        let open = match self.plan.undo_order {
            UndoOrder::Parallel => open,
            UndoOrder::Sequential => {
                let busy = open.iter().copied().find(|&step| {
                    matches!(self.nodes[step].undo, Undo::Running | Undo::Sleeping { .. })
                });
                let last = open
                    .into_iter()
                    .max_by_key(|&step| (self.nodes[step].ended, step));
                busy.or(last).into_iter().collect()
            }
        };
        open.into_iter()
            .filter(|&step| match self.nodes[step].undo {
                Undo::Idle => true,
                Undo::Sleeping { until } => until <= self.now,
                Undo::Running | Undo::Failed => false,
            })
            .collect()
    }

    /// What has to be undone where only `kept` stays.
    fn to_unwind(&self, kept: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.all()
            .filter(|step| !kept.contains(step))
            .filter(|&step| self.kind(step) == StepKind::Compensatable)
            .filter(|&step| {
                let rule = self.plan.steps[step].undo_rule;
                match self.nodes[step].effect {
                    EffectReport::Done => true,
                    EffectReport::InDoubt => rule != UndoRule::Never,
                    EffectReport::NotDone => rule == UndoRule::Always && self.nodes[step].called,
                }
            })
            .collect()
    }

    fn done(&self) -> BTreeSet<usize> {
        self.all()
            .filter(|&step| self.nodes[step].execute == Execute::Done)
            .collect()
    }

    /// S1 to S4: what each strategy keeps.
    fn kept(&self, strategy: RecoveryStrategy) -> BTreeSet<usize> {
        match strategy {
            RecoveryStrategy::RetryFailed => self.done(),
            RecoveryStrategy::RetryFromCheckpoint => {
                if !self.plan.steps.iter().any(|step| step.checkpoint) {
                    return self.done();
                }
                let points: Vec<usize> = self
                    .done()
                    .into_iter()
                    .filter(|&step| self.plan.steps[step].checkpoint)
                    .collect();
                self.all()
                    .filter(|&step| {
                        points
                            .iter()
                            .any(|&point| point == step || self.depends_on(point, step))
                    })
                    .collect()
            }
            RecoveryStrategy::RetryAll
            | RecoveryStrategy::Compensate
            | RecoveryStrategy::Manual => BTreeSet::new(),
        }
    }

    /// What has to happen in this very record and did not.
    fn due(&self) -> Option<String> {
        if self.parked.is_some() || self.end.is_some() {
            return None;
        }
        if let Some(&step) = self.to_start().first() {
            return Some(format!("s{step} can start"));
        }
        if let Some(step) = self
            .to_undo()
            .into_iter()
            .find(|&step| !self.wants_probe(step))
        {
            return Some(format!("s{step} can be undone"));
        }
        if self.executing() || self.undoing() {
            return None;
        }
        let probing = self.all().any(|step| self.wants_probe(step));
        if probing {
            return None;
        }
        let undo_asleep = self
            .nodes
            .iter()
            .any(|node| matches!(node.undo, Undo::Sleeping { .. }));
        if self.halted() && !undo_asleep {
            return Some("a decision".to_owned());
        }
        let resume_at = self.course.as_ref().map_or(0, |course| course.resume_at);
        let asleep = self.nodes.iter().any(|node| {
            matches!(node.execute, Execute::Sleeping { .. })
                || matches!(node.undo, Undo::Sleeping { .. })
        });
        if resume_at > self.now || asleep {
            return None;
        }
        Some("an end, or parking".to_owned())
    }

    // The journal.

    pub(crate) fn record(&mut self, record: &Record) -> Checked {
        ensure!(
            record.at.as_micros() >= self.now,
            "the journal's time goes back"
        );
        self.now = record.at.as_micros();
        for event in &record.events {
            self.events += 1;
            self.place += 1;
            self.event(event)
                .map_err(|why| format!("record {}, {event:?}: {why}", record.seq))?;
            self.tell();
        }
        match self.due() {
            Some(due) => Err(format!("record {}: left out: {due}", record.seq)),
            None => Ok(()),
        }
    }

    fn event(&mut self, event: &Event<StepIx>) -> Checked {
        ensure!(self.end.is_none(), "after the end");
        ensure!(self.parked.is_none(), "nobody has helped the parked run");
        match event {
            Event::RunStarted(started) => {
                ensure!(self.place == 1, "not the first event");
                self.uid = started.uid.to_string();
                self.deadline = started.deadline.map(Timestamp::as_micros);
                Ok(())
            }
            Event::StepStarted {
                step,
                round,
                attempt,
                key,
                fed_by,
                ..
            } => self.started(step.0 as usize, *round, *attempt, key, fed_by),
            Event::StepDone { step, output, .. } => {
                let step = step.0 as usize;
                self.ends(step, |act| act == Act::Succeed)?;
                let output = *output.get::<u64>().map_err(|error| error.to_string())?;
                let node = &mut self.nodes[step];
                node.execute = Execute::Done;
                node.effect = EffectReport::Done;
                node.output = Some(output);
                self.assumed.remove(&step);
                Ok(())
            }
            Event::StepFailed {
                step,
                failure,
                retry_at,
                gave_up,
                ..
            } => {
                let retry_at = retry_at.map(Timestamp::as_micros);
                ensure!(
                    retry_at.is_some() != gave_up.is_some(),
                    "both a retry and its end"
                );
                self.failed(step.0 as usize, failure, retry_at)
            }
            Event::StepStopped { step, reason, .. } => {
                let step = step.0 as usize;
                self.ends(step, |act| act == Act::Stop)?;
                self.nodes[step].execute = Execute::Stopped;
                self.stop.get_or_insert_with(|| reason.clone());
                Ok(())
            }
            Event::StepInterrupted { step, .. } => {
                let step = step.0 as usize;
                ensure!(
                    matches!(self.plan.siblings, Siblings::Stop { .. }) && self.nodes[step].told,
                    "nobody told it to stop"
                );
                self.ends(step, |_| true)?;
                // F3: an interruption is not charged.
                self.nodes[step].charged -= 1;
                self.nodes[step].execute = Execute::Dropped;
                self.doubt(step);
                Ok(())
            }
            Event::Probed { step, answer, .. } => self.probed(step.0 as usize, answer),
            Event::Decided(decision) => self.decided(decision),
            Event::UndoStarted {
                step,
                round,
                attempt,
                key,
            } => self.undo_started(step.0 as usize, *round, *attempt, key),
            Event::Undone { step, .. } => self.undone(step.0 as usize),
            Event::UndoFailed { step, retry_at, .. } => {
                self.undo_failed(step.0 as usize, retry_at.map(Timestamp::as_micros))
            }
            Event::CancelRequested { told, .. } => self.cancelled(*told),
            Event::CancelTooLate => {
                let pivot = self.plan.pivot.ok_or("there is no pivot")?;
                ensure!(
                    self.cancel == Some(CancelTold::Pending),
                    "no cancel waits for the pivot"
                );
                ensure!(
                    self.nodes[pivot].effect == EffectReport::Done,
                    "the pivot is not done"
                );
                self.cancel = Some(CancelTold::TooLate);
                self.resume();
                Ok(())
            }
            Event::DeadlinePassed { past_pivot } => {
                ensure!(
                    self.deadline.is_some_and(|deadline| deadline <= self.now),
                    "the deadline has not passed"
                );
                // I4: where the pivot was in flight and is done now, it is only reported after all.
                let turned = self.deadline_open && *past_pivot && !self.executing();
                ensure!(!self.deadline_passed || turned, "it passed before");
                ensure!(*past_pivot == self.past_pivot(), "past the pivot: not true");
                self.deadline_passed = true;
                self.deadline_open = !past_pivot;
                self.resume();
                Ok(())
            }
            Event::Parked(parking) => self.parks(&parking.reason),
            Event::Ended(end) => self.ends_with(end),
            other => Err(format!("nothing that can happen here: {other:?}")),
        }
    }

    fn doubt(&mut self, step: usize) {
        let node = &mut self.nodes[step];
        if self.plan.steps[step].kind != StepKind::ReadOnly && node.effect == EffectReport::NotDone
        {
            node.effect = EffectReport::InDoubt;
        }
    }

    fn started(
        &mut self,
        step: usize,
        round: u32,
        attempt: u32,
        key: &str,
        fed_by: &[u32],
    ) -> Checked {
        ensure!(self.to_start().contains(&step), "it may not start");
        let fed: Vec<u32> = self.plan.steps[step]
            .dependencies()
            .map(|before| self.nodes[before].round)
            .collect();
        let fed = if fed.iter().all(|&round| round == 1) {
            Vec::new()
        } else {
            fed
        };
        ensure!(fed == fed_by, "it is fed by the rounds {fed:?} (K3)");
        let (uid, node) = (&self.uid, &mut self.nodes[step]);
        ensure!(round == node.round, "its round is {} (K2)", node.round);
        ensure!(attempt == node.calls + 1, "its call {}", node.calls + 1);
        let expected = format!("{uid}/s{step}/{round}");
        ensure!(key == expected, "its key is {expected} (K1)");
        node.key = Some(expected);
        node.calls += 1;
        node.charged += 1;
        node.called = true;
        node.execute = Execute::Running;
        node.told = false;
        Ok(())
    }

    /// A call of an execute ends, and the plan says how.
    fn ends(&mut self, step: usize, planned: impl Fn(Act) -> bool) -> Checked {
        let node = &mut self.nodes[step];
        ensure!(node.execute == Execute::Running, "it does not run");
        let (_, act) = self.plan.execute(step, node.calls);
        ensure!(planned(act), "the plan says {act:?}");
        node.ended = self.place;
        node.probed = false;
        Ok(())
    }

    fn failed(&mut self, step: usize, failure: &Failure, retry_at: Option<i64>) -> Checked {
        let listens = self.plan.steps[step].listens && self.nodes[step].told;
        let plan = &self.plan.steps[step];
        let (effect, mode, retryable) = match self.plan.execute(step, self.nodes[step].calls).1 {
            _ if listens && failure.mode == FailureMode::SystemTimeout => {
                (FailedEffect::NotDone, FailureMode::SystemTimeout, true)
            }
            Act::Reject => (FailedEffect::NotDone, FailureMode::StepValidation, false),
            Act::Miss => (FailedEffect::NotDone, FailureMode::SystemNetwork, true),
            // Rule E2: a classifier's word counts for atomic steps only.
            Act::Refused if plan.atomic => (
                FailedEffect::NotDone,
                failure.mode.clone(),
                failure.retryable,
            ),
            Act::Refused => (
                FailedEffect::InDoubt,
                failure.mode.clone(),
                failure.retryable,
            ),
            Act::Forbidden => (FailedEffect::NotDone, FailureMode::SecurityViolation, false),
            Act::Lose { retryable, .. } => {
                (FailedEffect::InDoubt, FailureMode::SystemNetwork, retryable)
            }
            Act::Panic { .. } => (FailedEffect::InDoubt, FailureMode::StepLogic, false),
            Act::Hang { .. } => (FailedEffect::InDoubt, FailureMode::StepTimeout, true),
            act @ (Act::Succeed | Act::Stop) => return Err(format!("the plan says {act:?}")),
        };
        self.ends(step, |_| true)?;
        if self.kind(step) != StepKind::ReadOnly {
            ensure!(failure.effect == effect, "the effect is {effect:?}");
            if effect == FailedEffect::InDoubt {
                self.doubt(step);
            }
        }
        ensure!(failure.mode == mode, "the mode is {mode:?}");
        ensure!(failure.retryable == retryable, "retryable is {retryable}");
        let plan = &self.plan.steps[step];
        let again = retryable && self.nodes[step].charged < plan.max_attempts && !self.stuck(step);
        let expected = again.then(|| {
            let doubled = if plan.doubling {
                1 << (self.nodes[step].charged - 1)
            } else {
                1
            };
            self.now + i64::try_from(plan.delay * doubled * 1_000).unwrap_or(i64::MAX)
        });
        ensure!(retry_at == expected, "the retry is at {expected:?}");
        self.nodes[step].failure = Some(failure.clone());
        if let Some(until) = expected {
            self.nodes[step].execute = Execute::Sleeping { until };
        } else {
            self.nodes[step].execute = Execute::Failed;
            self.failed.push(step);
        }
        Ok(())
    }

    fn probed(&mut self, step: usize, answer: &Probed<Value>) -> Checked {
        ensure!(self.wants_probe(step), "there is nothing to probe");
        ensure!(
            self.nodes[step].execute != Execute::Running && self.nodes[step].undo == Undo::Idle,
            "it is under way"
        );
        let back = self.back();
        self.nodes[step].probed = true;
        match answer {
            Probed::Unknown => {}
            Probed::Never => {
                self.nodes[step].effect = EffectReport::NotDone;
                let always = self.plan.steps[step].undo_rule == UndoRule::Always;
                if let Some(course) = &mut self.course
                    && !always
                    && course.undo.remove(&step)
                {
                    self.rewound();
                }
            }
            Probed::Done(output) => {
                let output = *output.get::<u64>().map_err(|error| error.to_string())?;
                self.nodes[step].effect = EffectReport::Done;
                self.nodes[step].output = Some(output);
                if !back {
                    self.nodes[step].execute = Execute::Done;
                    self.assumed.remove(&step);
                    self.failed.retain(|&failed| failed != step);
                    self.nodes[step].ended = self.place;
                    self.resume();
                }
            }
        }
        Ok(())
    }

    /// Where nothing failed after all, what was interrupted goes on.
    fn resume(&mut self) {
        if self.halted() {
            return;
        }
        for node in &mut self.nodes {
            if node.execute == Execute::Dropped {
                node.execute = Execute::Idle;
            }
        }
    }

    /// D5 and the policies that always say the same, and then D4.
    fn answer(&self, saw: &Situation) -> RecoveryStrategy {
        use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};
        let used_up = saw.recoveries >= self.plan.max_recoveries || saw.time_used_up;
        let terminal = saw.mode.is_terminal();
        match self.plan.policy {
            Answers::Always(strategy) => strategy,
            Answers::Saga if terminal => Manual,
            Answers::Saga if saw.past_pivot => {
                if saw.retryable && !used_up {
                    RetryFailed
                } else {
                    Manual
                }
            }
            Answers::Saga if !saw.retryable || used_up => Compensate,
            Answers::Saga => RetryFailed,
            Answers::ByProgress if terminal || !saw.retryable || used_up => Manual,
            Answers::ByProgress if saw.completed * 4 >= saw.total * 3 => RetryFailed,
            Answers::ByProgress if saw.completed * 4 >= saw.total => RetryFromCheckpoint,
            Answers::ByProgress => RetryAll,
        }
    }

    /// D4, K5, D6: whether nobody but an operator may choose this now.
    fn unavailable(&self, strategy: RecoveryStrategy) -> bool {
        let retries = !matches!(
            strategy,
            RecoveryStrategy::Compensate | RecoveryStrategy::Manual
        );
        let used_up = self.recoveries >= self.plan.max_recoveries || self.deadline_open;
        (self.past_pivot() && strategy.goes_back())
            || (retries && used_up)
            || (retries && self.all().any(|step| self.stuck(step)))
    }

    fn situation(&self, step: Option<usize>) -> Checked<Situation> {
        let total = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let completed = u32::try_from(self.done().len()).unwrap_or(u32::MAX);
        let mut saw = match step {
            Some(step) => {
                let failure = self.nodes[step].failure.as_ref().ok_or("no failure")?;
                let mut saw =
                    Situation::new(format!("s{step}"), failure.mode.clone(), completed, total);
                saw.retryable = failure.retryable;
                saw.effect = if self.in_doubt(step) {
                    FailedEffect::InDoubt
                } else {
                    FailedEffect::NotDone
                };
                saw
            }
            None => Situation::new("", FailureMode::SystemTimeout, completed, total),
        };
        saw.past_pivot = self.past_pivot();
        saw.recoveries = self.recoveries;
        saw.max_recoveries = self.plan.max_recoveries;
        saw.time_used_up = self.deadline_open;
        Ok(saw)
    }

    fn decided(&mut self, decision: &Decision<StepIx>) -> Checked {
        ensure!(self.halted(), "nothing has happened that asks for it");
        ensure!(!self.executing(), "attempts are in flight (D1)");
        if !self.back() {
            let open = self.all().find(|&step| self.wants_probe(step));
            ensure!(open.is_none(), "s{open:?} has to be probed before (E4)");
        }
        let failed: Vec<usize> = decision.failed.iter().map(|step| step.0 as usize).collect();
        ensure!(failed == self.failed, "what failed is {:?}", self.failed);
        let strategy = match &decision.cause {
            Cause::Absorbed => return Err("a saga of plain steps goes on without none".to_owned()),
            Cause::Cancel => {
                ensure!(self.cancelling(), "nobody cancelled");
                ensure!(!self.past_pivot(), "past the pivot (D4)");
                self.cancel_handled = true;
                RecoveryStrategy::Compensate
            }
            Cause::Stop { reason } => {
                ensure!(!self.cancelling(), "a cancel goes first");
                ensure!(self.stop.as_ref() == Some(reason), "no such stop");
                let open = self.plan.pivot.is_some_and(|pivot| self.in_doubt(pivot));
                ensure!(!open, "the pivot is in doubt (P2)");
                match self.plan.on_stop {
                    OnStop::Compensate if !self.past_pivot() => RecoveryStrategy::Compensate,
                    OnStop::Compensate | OnStop::Keep => RecoveryStrategy::RetryFailed,
                }
            }
            Cause::Failures => {
                ensure!(!self.cancelling(), "a cancel goes first");
                ensure!(self.stop.is_none(), "a stop goes first");
                self.asked(&decision.why)?
            }
            Cause::Operator { .. } => return Err("there is no operator".to_owned()),
        };
        ensure!(decision.strategy == strategy, "the answer is {strategy}");
        let kept = self.kept(strategy);
        let stops = matches!(decision.cause, Cause::Stop { .. })
            && strategy == RecoveryStrategy::RetryFailed;
        ensure!(decision.stop == stops, "stop is {stops}");
        let retries = matches!(
            strategy,
            RecoveryStrategy::RetryFailed
                | RecoveryStrategy::RetryFromCheckpoint
                | RecoveryStrategy::RetryAll
        ) && !stops;
        if retries {
            self.recoveries += 1;
            self.recoveries_total += 1;
            ensure!(
                self.recoveries <= self.plan.max_recoveries,
                "more recoveries than there may be"
            );
        }
        let number = if retries { self.recoveries } else { 0 };
        ensure!(
            decision.recovery == number,
            "the recovery's number is {number}"
        );
        let wait = i64::try_from(self.plan.backoff * 1_000).unwrap_or(i64::MAX);
        let resume_at = retries.then(|| self.now + wait);
        ensure!(
            decision.resume_at.map(Timestamp::as_micros) == resume_at,
            "it goes on at {resume_at:?}"
        );
        self.take(strategy, stops, resume_at.unwrap_or_default(), &kept);
        self.last = Some(decision.clone());
        Ok(())
    }

    /// D1: each failure is put to the policy, and the strictest answer wins.
    fn asked(&self, why: &[Explanation]) -> Checked<RecoveryStrategy> {
        let mut asked: Vec<Option<usize>> = self.failed.iter().copied().map(Some).collect();
        if self.deadline_open {
            asked.push(None);
        }
        ensure!(!asked.is_empty(), "nothing failed");
        ensure!(why.len() == asked.len(), "{} answers are due", asked.len());
        let mut strictest = RecoveryStrategy::RetryFailed;
        for (&step, why) in asked.iter().zip(why) {
            let saw = self.situation(step)?;
            // What a deadline leaves in doubt is nothing of its own.
            let mut told = why.saw.clone();
            // No policy of these plans goes by the time, which tests of its own look at.
            told.elapsed = saw.elapsed;
            if step.is_none() {
                told.effect = saw.effect;
            }
            ensure!(told == saw, "the policy has to see {saw:?}");
            let says = self.answer(&saw);
            ensure!(why.says == says, "the policy says {says}");
            strictest = strictest.max(says);
        }
        let unavailable = self.unavailable(strictest);
        for why in why {
            let overruled = unavailable && why.says == strictest;
            ensure!(
                why.overruled.is_some() == overruled,
                "overruled is {overruled}"
            );
        }
        Ok(if unavailable {
            RecoveryStrategy::Manual
        } else {
            strictest
        })
    }

    fn take(
        &mut self,
        strategy: RecoveryStrategy,
        stop: bool,
        resume_at: i64,
        kept: &BTreeSet<usize>,
    ) {
        let undo = match strategy {
            RecoveryStrategy::Manual => BTreeSet::new(),
            // D2: going forward only `always` is undone first. A stop settles every doubt (F5, E7).
            RecoveryStrategy::RetryFailed => self
                .to_unwind(kept)
                .into_iter()
                .filter(|&step| {
                    if stop {
                        self.in_doubt(step)
                    } else {
                        self.plan.steps[step].undo_rule == UndoRule::Always
                    }
                })
                .collect(),
            _ => self.to_unwind(kept),
        };
        let back = strategy != RecoveryStrategy::RetryFailed || stop;
        for step in self.all() {
            if kept.contains(&step) {
                continue;
            }
            if back
                && strategy != RecoveryStrategy::Manual
                && self.in_doubt(step)
                && self.plan.steps[step].undo_rule == UndoRule::Never
            {
                self.assumed.insert(step);
                self.nodes[step].effect = EffectReport::NotDone;
            }
        }
        if strategy != RecoveryStrategy::Manual {
            // Rule D6.
            for node in &mut self.nodes {
                node.charged = 0;
                node.undo_charged = 0;
            }
        }
        self.failed.clear();
        self.stop = None;
        self.deadline_open = false;
        self.course = Some(Course {
            strategy,
            stop,
            resume_at,
            undo,
            back,
            kept: kept.clone(),
        });
        self.rewound();
    }

    /// Where all is undone that had to be, what is not kept can begin again.
    fn rewound(&mut self) {
        // A cancel that came meanwhile is decided about first.
        let cancelling = self.cancelling();
        let Some(course) = &mut self.course else {
            return;
        };
        let again = !course.stop
            && !matches!(
                course.strategy,
                RecoveryStrategy::Compensate | RecoveryStrategy::Manual
            );
        if course.undo.is_empty() && again && !cancelling {
            course.back = false;
            for (step, node) in self.nodes.iter_mut().enumerate() {
                if !course.kept.contains(&step) {
                    let read_only = self.plan.steps[step].kind == StepKind::ReadOnly;
                    if read_only && node.execute == Execute::Done {
                        node.new_round();
                        node.effect = EffectReport::NotDone;
                    }
                    node.execute = Execute::Idle;
                }
            }
        }
    }

    /// Attempts that run are told to stop once one has failed, where the saga says so.
    fn tell(&mut self) {
        if self.halted() {
            for node in &mut self.nodes {
                node.told |= node.execute == Execute::Running;
                // D1: sleeping retries are dropped.
                if matches!(node.execute, Execute::Sleeping { .. }) {
                    node.execute = Execute::Dropped;
                }
            }
        }
    }

    fn undo_started(&mut self, step: usize, round: u32, attempt: u32, key: &str) -> Checked {
        ensure!(self.to_undo().contains(&step), "it may not be undone");
        ensure!(!self.executing(), "attempts are in flight");
        ensure!(!self.wants_probe(step), "it has to be probed before (E4)");
        let node = &mut self.nodes[step];
        ensure!(round == node.round, "its round is {}", node.round);
        node.undo_calls += 1;
        node.undo_charged += 1;
        ensure!(attempt == node.undo_calls, "its undo {}", node.undo_calls);
        let execute = node.key.clone().ok_or("it has no key")?;
        let expected = format!("{execute}/undo");
        ensure!(key == expected, "its key is {expected} (K1)");
        node.undo_key = Some(expected);
        node.undo = Undo::Running;
        Ok(())
    }

    fn undone(&mut self, step: usize) -> Checked {
        let node = &mut self.nodes[step];
        ensure!(node.undo == Undo::Running, "its undo does not run");
        let (_, act) = self.plan.undo(step, node.undo_calls);
        ensure!(act == UndoAct::Succeed, "the plan says {act:?}");
        let effect = node.effect;
        node.undo = Undo::Idle;
        node.effect = EffectReport::NotDone;
        node.execute = Execute::Undone;
        node.probed = false;
        node.undo_charged = 0;
        self.compensations.push((step, node.round, effect, true));
        node.new_round();
        let course = self.course.as_mut().ok_or("nothing was decided (U2)")?;
        course.undo.remove(&step);
        self.rewound();
        Ok(())
    }

    fn undo_failed(&mut self, step: usize, retry_at: Option<i64>) -> Checked {
        let node = &mut self.nodes[step];
        ensure!(node.undo == Undo::Running, "its undo does not run");
        let (_, act) = self.plan.undo(step, node.undo_calls);
        let retryable = match act {
            UndoAct::Miss { .. } | UndoAct::Hang => true,
            UndoAct::Reject => false,
            UndoAct::Succeed => return Err("the plan says that it succeeds".to_owned()),
        };
        let again = retryable && node.undo_charged < self.plan.steps[step].undo_attempts;
        let delay = i64::try_from(UNDO_DELAY * 1_000).unwrap_or(i64::MAX);
        let expected = again.then(|| self.now + delay);
        ensure!(retry_at == expected, "the next undo is at {expected:?}");
        node.undo = match expected {
            Some(until) => Undo::Sleeping { until },
            None => Undo::Failed,
        };
        if expected.is_none() {
            self.compensations
                .push((step, node.round, node.effect, false));
        }
        Ok(())
    }

    /// Rule C1.
    fn cancelled(&mut self, told: CancelTold) -> Checked {
        let pivot = self.plan.pivot.map(|pivot| &self.nodes[pivot]);
        let expected = match pivot {
            Some(node) if node.effect == EffectReport::Done => CancelTold::TooLate,
            Some(node)
                if node.effect == EffectReport::InDoubt || node.execute == Execute::Running =>
            {
                CancelTold::Pending
            }
            _ => CancelTold::Accepted,
        };
        ensure!(told == expected, "they have to be told {expected:?}");
        self.cancel = Some(told);
        // Whoever cancels a graceful stop wants what it would have kept undone too.
        self.cancel_handled = self
            .course
            .as_ref()
            .is_some_and(|course| course.strategy == RecoveryStrategy::Compensate);
        Ok(())
    }

    fn resting(&self) -> Checked {
        ensure!(!self.executing(), "attempts are in flight");
        ensure!(!self.undoing(), "undos are in flight");
        ensure!(self.to_undo().is_empty(), "undos are left");
        Ok(())
    }

    fn parks(&mut self, reason: &ParkReason) -> Checked {
        self.resting()?;
        let held = match reason {
            ParkReason::Manual => self
                .course
                .as_ref()
                .is_some_and(|course| course.strategy == RecoveryStrategy::Manual),
            ParkReason::CompensationFailed => {
                self.nodes.iter().any(|node| node.undo == Undo::Failed)
            }
            ParkReason::AtMostOnceInDoubt => self.all().any(|step| self.stuck(step)),
            ParkReason::Unsettled => {
                // P2: with its pivot in doubt a run can neither stop nor be undone.
                let stopping =
                    self.stop.is_some() || self.course.as_ref().is_some_and(|course| course.stop);
                let cancel = self.cancel == Some(CancelTold::Pending);
                (stopping || cancel) && self.all().any(|step| self.in_doubt(step))
            }
            _ => false,
        };
        ensure!(held, "there is no reason for it");
        self.parked = Some(reason.clone());
        Ok(())
    }

    fn ends_with(&mut self, end: &End) -> Checked {
        self.resting()?;
        ensure!(!self.rewinding(), "undos are left");
        ensure!(!self.halted(), "a decision is due");
        let stands = self.outstanding();
        match end {
            End::Completed { .. } => {
                ensure!(self.done().len() == self.nodes.len(), "not all is done");
            }
            End::Compensated => {
                let back = self
                    .course
                    .as_ref()
                    .is_some_and(|course| course.strategy == RecoveryStrategy::Compensate);
                ensure!(back, "nobody decided to compensate");
                ensure!(stands.is_empty(), "{stands:?} stand (S4)");
            }
            End::Stopped { .. } => {
                let stops = self.course.as_ref().is_some_and(|course| course.stop);
                ensure!(stops, "nobody stopped");
                let open = stands
                    .iter()
                    .find(|&&step| self.nodes[step].effect == EffectReport::InDoubt);
                ensure!(open.is_none(), "s{open:?} is in doubt (E7)");
            }
            End::Abandoned { .. } => return Err("there is no operator".to_owned()),
        }
        self.end = Some(end.clone());
        Ok(())
    }

    /// Effects that stand or may stand, in the definition's order.
    fn outstanding(&self) -> Vec<usize> {
        if matches!(self.end, Some(End::Completed { .. })) {
            return Vec::new();
        }
        self.all()
            .filter(|&step| self.kind(step) != StepKind::ReadOnly)
            .filter(|&step| self.nodes[step].effect != EffectReport::NotDone)
            .collect()
    }

    // The end.

    pub(crate) fn word(&self) -> &'static str {
        match (&self.end, &self.parked) {
            (Some(End::Completed { .. }), _) => "completed",
            (Some(End::Compensated), _) => "compensated",
            (Some(End::Stopped { .. }), _) => "stopped",
            (Some(End::Abandoned { .. }), _) => "abandoned",
            (None, Some(_)) => "parked",
            (None, None) => "unfinished",
        }
    }

    fn status(&self, step: usize) -> StepStatus {
        let node = &self.nodes[step];
        match (node.undo, node.execute) {
            (Undo::Failed, _) => StepStatus::UndoFailed,
            (Undo::Running | Undo::Sleeping { .. }, _) => StepStatus::Undoing,
            (Undo::Idle, Execute::Idle) => StepStatus::Pending,
            (Undo::Idle, Execute::Running) => StepStatus::Running,
            (Undo::Idle, Execute::Sleeping { .. }) => StepStatus::Retrying,
            (Undo::Idle, Execute::Done) => StepStatus::Done,
            (Undo::Idle, Execute::Failed) => StepStatus::Failed,
            (Undo::Idle, Execute::Stopped) => StepStatus::Stopped,
            (Undo::Idle, Execute::Dropped) => StepStatus::Interrupted,
            (Undo::Idle, Execute::Undone) => StepStatus::Undone,
        }
    }

    /// The outcome has to say what the model came to.
    pub(crate) fn agrees(&self, word: &str, told: &PartialResult) -> Checked {
        ensure!(word == self.word(), "it is {}, not {word}", self.word());
        ensure!(told.standing.as_str() == word, "its standing is another");
        for (step, report) in told.steps.iter().enumerate() {
            let node = &self.nodes[step];
            let status = self.status(step);
            // What was interrupted, and is to go on once the run is helped, may be called either.
            let waits = [StepStatus::Pending, StepStatus::Interrupted];
            let alike = self.parked == Some(ParkReason::AtMostOnceInDoubt)
                && waits.contains(&status)
                && waits.contains(&report.status);
            ensure!(
                alike || report.status == status,
                "s{step} is {status:?}: {report:?}"
            );
            ensure!(report.effect == node.effect, "s{step}: {:?}", node.effect);
            ensure!(report.round == node.round, "s{step}: round {}", node.round);
            ensure!(
                report.attempts == node.calls,
                "s{step}: {} calls",
                node.calls
            );
            let output = report.output.as_ref().map(Value::get::<u64>);
            let output = output.transpose().map_err(|error| error.to_string())?;
            ensure!(
                output.as_deref() == node.output.as_ref(),
                "s{step} gave {:?}, not {output:?}",
                node.output
            );
        }
        let count = self
            .all()
            .filter(|&step| self.status(step) == StepStatus::Done)
            .count();
        ensure!(told.completed as usize == count, "{count} are done");
        ensure!(told.recoveries == self.recoveries_total, "recoveries");
        let outstanding: Vec<String> = self
            .outstanding()
            .into_iter()
            .map(|step| {
                format!(
                    "s{step} {:?} {:?}",
                    self.nodes[step].effect, self.nodes[step].key
                )
            })
            .collect();
        let theirs: Vec<String> = told
            .outstanding
            .iter()
            .map(|one| format!("{} {:?} {:?}", one.step, one.effect, one.key))
            .collect();
        ensure!(
            outstanding == theirs,
            "{outstanding:?} stand, not {theirs:?}"
        );
        let assumed: Vec<String> = self.assumed.iter().map(|step| format!("s{step}")).collect();
        ensure!(
            assumed == told.assumed_absent,
            "assumed absent: {assumed:?}, not {:?}",
            told.assumed_absent
        );
        let undone: Vec<(usize, u32, EffectReport, bool)> = told
            .compensations
            .iter()
            .map(|one| {
                let step = one.step[1..].parse().unwrap_or(usize::MAX);
                (step, one.round, one.effect, one.failure.is_none())
            })
            .collect();
        ensure!(undone == self.compensations, "{:?}", self.compensations);
        let parked = told.parked.as_ref().map(|parked| &parked.reason);
        ensure!(parked == self.parked.as_ref(), "parked: {:?}", self.parked);
        let cancel = told.cancel.as_ref().map(|cancel| cancel.told);
        ensure!(cancel == self.cancel, "cancel: {:?}", self.cancel);
        ensure!(told.deadline_passed == self.deadline_passed, "deadline");
        let strategy = self.last.as_ref().map(|last| last.strategy);
        ensure!(told.strategy == strategy, "strategy: {strategy:?}");
        Ok(())
    }

    /// What the participants have must be what the outcome says.
    pub(crate) fn true_of(&self, standing: &BTreeSet<usize>) -> Checked {
        let must: BTreeSet<usize> = self
            .all()
            .filter(|&step| self.kind(step) != StepKind::ReadOnly)
            .filter(|&step| self.nodes[step].effect == EffectReport::Done)
            .collect();
        let may: BTreeSet<usize> = self
            .all()
            .filter(|step| {
                self.nodes[*step].effect != EffectReport::NotDone || self.assumed.contains(step)
            })
            .collect();
        // An undo that failed for good may have taken the effect away all the same.
        let lost = must
            .difference(standing)
            .find(|&&step| self.nodes[step].undo != Undo::Failed);
        ensure!(lost.is_none(), "s{lost:?} is said to be done and is not");
        let hidden = standing.difference(&may).next();
        ensure!(hidden.is_none(), "s{hidden:?} stands and is not told of");
        Ok(())
    }
}
