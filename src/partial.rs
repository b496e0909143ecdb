//! What a state says to people: [`PartialResult`], which every [`Outcome`] carries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureMode, PartialSuccess};
use crate::ids::{RunId, Timestamp};
use crate::journal::{CancelTold, Cause, End, Parking, Standing, VerbName};
use crate::machine::{
    Call, CallEnded, EffectNow, Moment, NodeState, ScopeIx, State, Status, UndoStatus,
};
use crate::policy::{Explanation, RecoveryStrategy};
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UNDO};
use crate::step::{Payload, PayloadError, StepIx, Value};

/// How a run ended, or that it waits for somebody.
///
/// Exactly one of these is true of a run that isn't under way. `Parked` is not an end: whoever waits for
/// the run learns of it, and can [wait on](crate::RunHandle::ended).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome<O> {
    /// All steps are done.
    Completed(Completed<O>),
    /// All that was done is undone; nothing stands.
    Compensated(PartialResult),
    /// A step asked to end early; what is done is kept. [`PartialResult::stopped`] has the reason.
    Stopped(PartialResult),
    /// The run waits for an operator. [`PartialResult::parked`] has the reason.
    Parked(PartialResult),
    /// An operator gave up; [`PartialResult::outstanding`] lists what stands.
    Abandoned(PartialResult),
}

/// A completed run's output, and what else there is to know of it.
#[derive(Clone, Debug)]
pub struct Completed<O> {
    /// What the saga returns.
    pub output: O,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// A state with the graph that gives it meaning.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) run: RunId,
    pub(crate) state: Box<State>,
    pub(crate) graph: Arc<Graph>,
}

impl Snapshot {
    pub(crate) fn partial(&self) -> PartialResult {
        PartialResult::of(&self.run, &self.state, &self.graph)
    }
}

impl<O> Completed<O> {
    /// The details: made when asked for, since most callers want the output only.
    #[must_use]
    pub fn partial(&self) -> PartialResult {
        self.snapshot.partial()
    }
}

impl<O> Outcome<O> {
    /// The details, whatever the outcome is.
    #[must_use]
    pub fn partial(&self) -> PartialResult {
        match self {
            Outcome::Completed(completed) => completed.partial(),
            Outcome::Compensated(partial)
            | Outcome::Stopped(partial)
            | Outcome::Parked(partial)
            | Outcome::Abandoned(partial) => partial.clone(),
        }
    }

    /// The output of a completed run.
    pub fn completed(self) -> Option<O> {
        match self {
            Outcome::Completed(completed) => Some(completed.output),
            Outcome::Compensated(_)
            | Outcome::Stopped(_)
            | Outcome::Parked(_)
            | Outcome::Abandoned(_) => None,
        }
    }

    /// The word for it: `completed`, `compensated`, `stopped`, `parked` or `abandoned`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Completed(_) => "completed",
            Outcome::Compensated(_) => "compensated",
            Outcome::Stopped(_) => "stopped",
            Outcome::Parked(_) => "parked",
            Outcome::Abandoned(_) => "abandoned",
        }
    }
}

/// Everything that a run has achieved so far. Always there, whatever happened.
///
/// It is derived from the journal and nothing else, so it is the same before and after a crash. As JSON
/// it carries its schema version, and reads back to an equal value.
///
/// ```no_run
/// # use amends::PartialResult;
/// # fn show(partial: &PartialResult) {
/// println!("{} of {} steps done ({} %)", partial.completed, partial.total, partial.percent());
/// println!("{}", partial.hint());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartialResult {
    /// The version of this form: 1.
    pub schema: u32,
    /// The run.
    pub run: RunId,
    /// Its saga.
    pub saga: String,
    /// The saga's version.
    pub version: u32,
    /// The trace, kept over crash and recovery.
    pub trace_id: String,
    /// How the run stands.
    pub standing: Standing,
    /// The steps, in the order in which the definition has them; those inside a step right after it.
    pub steps: Vec<StepReport>,
    /// How many are done, of the saga's own steps: what is inside a step is that step's affair.
    pub completed: u32,
    /// How many there are of them, without those that are passed over.
    pub total: u32,
    /// How many are neither done, nor failed, nor undone.
    pub remaining: u32,
    /// The first step that failed, of those that the last decision was about.
    pub failing_step: Option<String>,
    /// Its failure's class.
    pub failure_mode: Option<FailureMode>,
    /// What was decided last.
    pub strategy: Option<RecoveryStrategy>,
    /// What made that decision necessary.
    pub cause: Option<Cause>,
    /// Why it was decided so: one explanation per failure.
    pub why: Vec<Explanation>,
    /// Recoveries over the run's life.
    pub recoveries: u32,
    /// Undos that came to an end, in their order.
    pub compensations: Vec<CompensationReport>,
    /// Steps whose effect stands, or may stand, where the run did not complete. For a compensated run: none.
    pub outstanding: Vec<Outstanding>,
    /// Steps in doubt that [`UndoRule::Never`](crate::UndoRule::Never) asserts to have left nothing.
    pub assumed_absent: Vec<String>,
    /// Why the run is parked, if it is.
    pub parked: Option<Parking>,
    /// Who paused the run, if it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseReport>,
    /// What the run takes now.
    #[serde(default)]
    pub legal: Vec<VerbName>,
    /// The reason of the step that asked to end, if one did.
    pub stopped: Option<String>,
    /// What a cancel was told, if there was one. `too_late` with `completed` is completed despite cancel.
    pub cancel: Option<CancelReport>,
    /// Whether the run's deadline passed.
    pub deadline_passed: bool,
    /// When the run was started.
    pub started_at: Timestamp,
    /// When it ended, if it did.
    pub ended_at: Option<Timestamp>,
    /// What the run can be found by.
    pub labels: BTreeMap<String, String>,
    /// What happened to the run as a whole, in order: claims, decisions, a cancel, the deadline, what
    /// was said about doubts, parkings. The latest 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
}

/// How a step stands: one word, so that counts can't disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepStatus {
    /// It waits for its turn.
    Pending,
    /// Its `execute` is in flight.
    Running,
    /// Its next attempt waits.
    Retrying,
    /// It waits for a signal, or for a time.
    Waiting,
    /// Its attempt was interrupted, or its retry dropped.
    Interrupted,
    /// It is done.
    Done,
    /// It failed for good.
    Failed,
    /// It asked to end the run.
    Stopped,
    /// Its undo is under way.
    Undoing,
    /// Its effect was undone.
    Undone,
    /// Its undo failed for good.
    UndoFailed,
    /// An operator took it as done, without its being called.
    Skipped,
    /// It isn't needed, since its condition didn't hold or another way succeeded: it counts as neither done
    /// nor remaining.
    PassedOver,
}

/// What a step's round has left in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectReport {
    /// Nothing.
    NotDone,
    /// Nobody knows.
    InDoubt,
    /// Its effect.
    Done,
}

/// One step of a [`PartialResult`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Its path: its name, or for one inside a step `fulfil/pack`, and `reserve[3]` for an item of a fan-out.
    pub name: String,
    /// How it stands.
    pub status: StepStatus,
    /// What it has left.
    pub effect: EffectReport,
    /// Its round.
    pub round: u32,
    /// Calls of its `execute`, over the run's life.
    pub attempts: u32,
    /// Its output, if it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// How far its `execute` came in this round, by the last report that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
    /// What it says of itself, if it did a part of its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialSuccess>,
    /// When its last attempt was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the end of its last attempt was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How long its last attempt took, in microseconds, as measured around the call.
    pub took_us: u64,
    /// Its last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Calls of `execute` that did not succeed, of those in `calls`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptReport>,
    /// Each call of `execute` and of `compensate`, in order, however it ended. The latest 1,000;
    /// `attempts` counts them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallReport>,
}

impl StepReport {
    /// The path of the step that it is inside of; nothing for a step of the saga itself. Steps that undo a
    /// step as a whole are inside of it, too.
    #[must_use]
    pub fn around(&self) -> Option<&str> {
        let end = self.name.rfind(['/', '['])?;
        let around = &self.name[..end];
        Some(around.strip_suffix(UNDO).unwrap_or(around))
    }

    /// The last part of its path: its name, or for an item of a fan-out its place in the list, as `[3]`, and
    /// `[undo]/refund` for one that undoes the step that it is inside of.
    #[must_use]
    pub fn own_name(&self) -> &str {
        let own = &self.name[self.around().map_or(0, str::len)..];
        own.strip_prefix('/').unwrap_or(own)
    }

    /// Whether it is an item of a fan-out.
    pub(crate) fn is_item(&self) -> bool {
        let mut own = self.own_name().chars();
        own.next() == Some('[') && own.next().is_some_and(|c| c.is_ascii_digit())
    }

    /// How long the last attempt took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.took_us)
    }
}

/// A call of `execute` that did not succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptReport {
    /// Its number.
    pub attempt: u32,
    /// When it was announced.
    pub started_at: Timestamp,
    /// When its end was recorded.
    pub ended_at: Timestamp,
    /// How it failed; nothing where it was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// One call of a step's `execute` or `compensate`.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{CallEnd, CallKind, Coordinator, Saga, StepContext, StepError, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("sale");
/// let n = saga.input();
/// let hold = saga.add(
///     step_fn("hold", async |_: &StepContext, n: &u64| Ok(*n), async |_, _, _| Ok(())),
///     n,
/// );
/// let pay = async |_: &StepContext, _: &u64| Err::<u64, _>(StepError::rejected("no credit"));
/// saga.add(step_fn("pay", pay, async |_, _, _| Ok(())), hold);
/// let saga: Saga<u64, ()> = saga.returns(())?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let outcome = coordinator.start(&saga, "sale-1", 5).await?.outcome().await?;
///
/// let partial = outcome.partial();
/// let calls = &partial.step("hold").expect("it is there").calls;
/// assert_eq!(calls.len(), 2);
/// assert_eq!((calls[0].call, calls[0].end), (CallKind::Execute, CallEnd::Done));
/// assert_eq!((calls[1].call, calls[1].end), (CallKind::Compensate, CallEnd::Done));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallReport {
    /// Which of the two.
    pub call: CallKind,
    /// The round that was made or undone.
    pub round: u32,
    /// Its number among the step's calls of this kind, from 1, over the run's life.
    pub attempt: u32,
    /// When it was announced.
    pub started_at: Timestamp,
    /// When its end was recorded; nothing while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How long it took, in microseconds, as measured around the call; 0 where nobody could measure.
    pub took_us: u64,
    /// How it ended.
    pub end: CallEnd,
    /// How it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it was to be tried again. Something else may have come before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl CallReport {
    fn of(call: &Call) -> Self {
        let (end, failure, retry_at) = match &call.end {
            CallEnded::Open => (CallEnd::UnderWay, None, None),
            CallEnded::Done => (CallEnd::Done, None, None),
            CallEnded::Failed { failure, retry_at } => {
                (CallEnd::Failed, Some((**failure).clone()), *retry_at)
            }
            CallEnded::Stopped => (CallEnd::Stopped, None, None),
            CallEnded::Interrupted => (CallEnd::Interrupted, None, None),
            CallEnded::Lost => (CallEnd::Lost, None, None),
        };
        CallReport {
            call: if call.undo {
                CallKind::Compensate
            } else {
                CallKind::Execute
            },
            round: call.round,
            attempt: call.attempt,
            started_at: call.started_at,
            ended_at: (end != CallEnd::UnderWay).then_some(call.ended_at),
            took_us: call.took_us,
            end,
            failure,
            retry_at,
        }
    }
}

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// The step's `execute`.
    Execute,
    /// The step's `compensate`.
    Compensate,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallEnd {
    /// It hasn't.
    UnderWay,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// It asked to end the run.
    Stopped,
    /// It was told to stop and dropped: nobody knows what it did.
    Interrupted,
    /// The process that made it was gone when the run was taken over: nobody knows what it did, nor when
    /// it ended. Its `ended_at` is that of the takeover.
    Lost,
}

/// One undo that came to an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompensationReport {
    /// The step.
    pub step: String,
    /// The round that was undone.
    pub round: u32,
    /// What was undone.
    pub effect: EffectReport,
    /// Calls of its `compensate`, over the run's life.
    pub attempts: u32,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long its last call took, in microseconds.
    pub took_us: u64,
    /// Who undid it by hand, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<String>,
    /// How it failed; nothing where it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// An effect that stands, or may stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outstanding {
    /// The step.
    pub step: String,
    /// Whether it stands for certain.
    pub effect: EffectReport,
    /// The key under which it was made, to look for at the participant.
    pub key: Option<String>,
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PauseReport {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// A cancel, and what it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CancelReport {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The answer, as far as it is known by now.
    pub told: CancelTold,
}

/// So many steps are named in a sentence.
const NAMED: usize = 10;

impl PartialResult {
    /// The version of the form.
    pub const SCHEMA: u32 = 1;

    /// What a state says.
    #[must_use]
    pub(crate) fn of(run: &RunId, state: &State, graph: &Graph) -> Self {
        let name = |step: StepIx| state.table.name(step).to_string();
        let mut told = Told::default();
        told.scope(state, graph, ScopeIx::ROOT, false);
        let Told {
            steps,
            outstanding,
            assumed_absent,
        } = told;
        // What a saga counts are its own steps; what is inside one is that step's affair (rule D3).
        let own = state.root().nodes.iter().map(status);
        let own: Vec<StepStatus> = own.collect();
        let count = |wanted: fn(&StepStatus) -> bool| {
            u32::try_from(own.iter().filter(|status| wanted(status)).count()).unwrap_or(u32::MAX)
        };
        let completed = count(|status| matches!(status, StepStatus::Done | StepStatus::Skipped));
        let remaining = count(|status| {
            matches!(
                status,
                StepStatus::Pending
                    | StepStatus::Running
                    | StepStatus::Retrying
                    | StepStatus::Waiting
                    | StepStatus::Interrupted
            )
        });
        let total = count(|status| *status != StepStatus::PassedOver);
        let decision = state.last_decision();
        let failing = decision.and_then(|decision| decision.failed.first().copied());
        let failing = failing.or_else(|| first_failed(state));
        let failure = failing.and_then(|step| state.node(step).failure.as_deref());
        let failure_mode = failing
            .and_then(|step| state.node(step).went_wrong())
            .cloned()
            .or_else(|| {
                decision
                    .and_then(|decision| decision.why.first())
                    .map(|why| why.saw.mode.clone())
            });
        // A step may have failed because of one inside it.
        let failing_step = failing.map(|step| match failure {
            Some(failure) if !failure.step.is_empty() => failure.step.clone(),
            _ => name(step),
        });
        let outstanding = match state.end {
            Some(End::Completed { .. }) => Vec::new(),
            _ => outstanding,
        };
        PartialResult {
            schema: PartialResult::SCHEMA,
            run: run.clone(),
            saga: graph.saga().to_owned(),
            version: graph.version(),
            trace_id: state.header.trace_id.to_string(),
            standing: state.standing(state.rests_until(graph)),
            total,
            completed,
            remaining,
            failing_step,
            failure_mode,
            strategy: decision.map(|decision| decision.strategy),
            cause: decision.map(|decision| decision.cause.clone()),
            why: decision
                .map(|decision| decision.why.clone())
                .unwrap_or_default(),
            recoveries: state.recoveries_total,
            compensations: state
                .compensations
                .iter()
                .map(|done| CompensationReport {
                    step: name(done.step),
                    round: done.round,
                    effect: done.effect.into(),
                    attempts: done.attempts,
                    ended_at: done.ended_at,
                    took_us: u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX),
                    by_hand: done.by_hand.clone(),
                    failure: done.failure.as_deref().cloned(),
                })
                .collect(),
            outstanding,
            assumed_absent,
            parked: state.parked.clone(),
            paused: state.paused.as_ref().map(|paused| PauseReport {
                by: paused.by.clone(),
                reason: paused.reason.clone(),
                at: paused.at,
            }),
            legal: state.legal(graph),
            stopped: match &state.end {
                Some(End::Stopped { reason }) => Some(reason.clone()),
                _ => state.stop.clone(),
            },
            cancel: state.cancel.as_ref().map(|cancel| CancelReport {
                by: cancel.by.clone(),
                reason: cancel.reason.clone(),
                told: cancel.told,
            }),
            deadline_passed: state.deadline_reported,
            started_at: state.started_at,
            ended_at: state.ended_at,
            labels: state.header.labels.clone(),
            moments: state.moments.iter().cloned().collect(),
            steps,
        }
    }

    /// The step with this name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The output of a step that is done.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Decode`] where it isn't a `T`.
    pub fn output<T: Payload>(&self, step: &str) -> Result<Option<Arc<T>>, PayloadError> {
        self.step(step)
            .and_then(|step| step.output.as_ref())
            .map(Value::get)
            .transpose()
    }

    /// How much is done, in whole percent, rounded down; 100 for a saga without steps.
    #[must_use]
    pub fn percent(&self) -> u32 {
        if self.total == 0 {
            100
        } else {
            u32::try_from(u64::from(self.completed) * 100 / u64::from(self.total)).unwrap_or(100)
        }
    }

    /// What happens next and what the reader can do, in one sentence, derived from what was decided.
    #[must_use]
    pub fn hint(&self) -> String {
        let standing: Vec<&str> = self
            .outstanding
            .iter()
            .map(|standing| standing.step.as_str())
            .collect();
        let standing = match standing.as_slice() {
            [] => "nothing".to_owned(),
            // A fan-out may leave ten thousand effects; they are in `outstanding`.
            [named @ .., _, _] if named.len() >= NAMED => format!(
                "{} and {} more",
                standing[..NAMED].join(", "),
                standing.len() - NAMED
            ),
            all => all.join(", "),
        };
        match (self.standing, self.strategy) {
            (Standing::Completed, _) => "all steps are done".to_owned(),
            (Standing::Compensated, _) => "all that was done is undone".to_owned(),
            (Standing::Stopped, _) => {
                format!(
                    "ended early ({}); kept: {standing}",
                    self.stopped.as_deref().unwrap_or_default()
                )
            }
            (Standing::Abandoned, _) => format!("given up; still standing: {standing}"),
            (Standing::Parked, _) => {
                let why = self
                    .parked
                    .as_ref()
                    .map_or("", |parked| parked.message.as_str());
                let legal: Vec<&str> = self.legal.iter().map(|verb| verb.as_str()).collect();
                format!(
                    "parked: {why}; standing: {standing}. It takes: {}",
                    legal.join(", ")
                )
            }
            (Standing::Paused, _) => {
                let by = self.paused.as_ref().map_or("", |paused| &paused.by);
                format!("paused by {by}: `resume` lets it go on")
            }
            (_, Some(RecoveryStrategy::RetryFailed)) => {
                format!(
                    "keeps {} of {} steps and runs the others",
                    self.completed, self.total
                )
            }
            (_, Some(RecoveryStrategy::RetryFromCheckpoint)) => {
                "goes back to its checkpoints and on from there".to_owned()
            }
            (_, Some(RecoveryStrategy::RetryAll)) => "undoes all and begins again".to_owned(),
            (_, Some(RecoveryStrategy::Compensate)) => {
                format!("is being undone; still standing: {standing}")
            }
            (_, Some(RecoveryStrategy::Manual)) => "is about to be parked".to_owned(),
            (_, None) => format!("under way: {} of {} steps done", self.completed, self.total),
        }
    }
}

/// What is told of all steps of a run, those inside steps right after them.
#[derive(Default)]
struct Told {
    steps: Vec<StepReport>,
    outstanding: Vec<Outstanding>,
    assumed_absent: Vec<String>,
}

impl Told {
    /// `chosen` says whether it is a choice that has been made.
    fn scope(&mut self, state: &State, root: &Graph, ix: ScopeIx, chosen: bool) {
        let (graph, scope) = (state.graph_of(root, ix), state.scope(ix));
        // What undid something is meant to stand.
        let has_undone = state.is_inside_of_what_has_undone(ix);
        for step in scope.steps() {
            let (name, node) = (state.table.name(scope.number(step)), scope.seen(step));
            let definition = graph.step(step);
            let mut report = step_report(&name, node);
            if chosen && report.status == StepStatus::Pending {
                report.status = StepStatus::PassedOver;
            }
            let status = report.status;
            self.steps.push(report);
            if let Some(inside) = definition.inside() {
                let choice = matches!(inside.gathers, Gathering::Fallback | Gathering::Race);
                match node.child {
                    Some(child) => {
                        let chosen = choice && status == StepStatus::Done;
                        self.scope(state, root, child, chosen);
                    }
                    None => self.not_begun(inside, &name, status),
                }
                if let Some(undoer) = node.undoer {
                    self.scope(state, root, undoer, false);
                }
                continue;
            }
            let stands = node.effect != EffectNow::NotDone && !has_undone;
            if stands && definition.kind() != StepKind::ReadOnly {
                self.outstanding.push(Outstanding {
                    step: name.to_string(),
                    effect: node.effect.into(),
                    key: node.key.as_ref().map(ToString::to_string),
                });
            }
            if node.assumed_absent {
                self.assumed_absent.push(name.to_string());
            }
        }
    }

    /// Steps inside one that hasn't begun. The items of a list aren't known yet.
    fn not_begun(&mut self, graph: &Graph, around: &str, stands: StepStatus) {
        if let Gathering::Each { .. } = graph.gathers {
            return;
        }
        for (index, step) in graph.steps().iter().enumerate() {
            let name = graph.path(around, NodeIx::new(index));
            let mut report = step_report(&name, &NodeState::new(0));
            if stands == StepStatus::PassedOver {
                report.status = stands;
            }
            self.steps.push(report);
            if let Some(inside) = step.inside() {
                self.not_begun(inside, &name, stands);
            }
        }
    }
}

/// The failure that was recorded first, where no decision was made about it.
fn first_failed(state: &State) -> Option<StepIx> {
    let root = state.root();
    let failed = root
        .steps()
        .filter(|&step| root.seen(step).status == Status::Failed);
    failed
        .min_by_key(|&step| root.seen(step).ended_at)
        .map(|step| root.number(step))
}

fn status(node: &NodeState) -> StepStatus {
    match (node.undo, node.status) {
        (UndoStatus::Failed, _) => StepStatus::UndoFailed,
        (UndoStatus::Ready | UndoStatus::Running | UndoStatus::Sleeping { .. }, _) => {
            StepStatus::Undoing
        }
        (UndoStatus::Idle, status) => match status {
            Status::Waiting | Status::Ready => StepStatus::Pending,
            Status::Running => StepStatus::Running,
            Status::Sleeping { .. } => StepStatus::Retrying,
            Status::Awaiting { .. } => StepStatus::Waiting,
            Status::Dropped => StepStatus::Interrupted,
            Status::Done if node.skipped => StepStatus::Skipped,
            Status::Done if node.passed_over => StepStatus::PassedOver,
            Status::Done => StepStatus::Done,
            // Whoever lost a race has not failed.
            Status::Absorbed if node.failure.is_none() => StepStatus::Undone,
            Status::Failed | Status::Absorbed => StepStatus::Failed,
            Status::Stopped => StepStatus::Stopped,
            Status::Undone => StepStatus::Undone,
        },
    }
}

fn step_report(name: &str, node: &NodeState) -> StepReport {
    StepReport {
        name: name.to_owned(),
        status: status(node),
        effect: node.effect.into(),
        round: node.round,
        attempts: node.attempts,
        output: node.output.clone().filter(|_| !node.passed_over),
        progress: node.progress.clone(),
        partial: node.in_part().cloned(),
        started_at: node.started_at,
        ended_at: node.ended_at,
        took_us: u64::try_from(node.took.as_micros()).unwrap_or(u64::MAX),
        failure: node
            .undo_failure
            .as_deref()
            .or(node.failure.as_deref())
            .cloned(),
        history: node.calls.iter().filter_map(not_done).collect(),
        calls: node.calls.iter().map(CallReport::of).collect(),
    }
}

/// The call as an attempt of `execute` that did not succeed, if it was one.
fn not_done(call: &Call) -> Option<AttemptReport> {
    let failure = match &call.end {
        CallEnded::Failed { failure, .. } => Some((**failure).clone()),
        CallEnded::Interrupted | CallEnded::Lost => None,
        CallEnded::Open | CallEnded::Done | CallEnded::Stopped => return None,
    };
    (!call.undo).then_some(AttemptReport {
        attempt: call.attempt,
        started_at: call.started_at,
        ended_at: call.ended_at,
        failure,
    })
}

impl From<EffectNow> for EffectReport {
    fn from(effect: EffectNow) -> Self {
        match effect {
            EffectNow::NotDone => EffectReport::NotDone,
            EffectNow::InDoubt => EffectReport::InDoubt,
            EffectNow::Done => EffectReport::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_a_step_is_inside_of() {
        let told = |path: &str| {
            let step = step_report(path, &NodeState::new(0));
            let around = step.around().map(str::to_owned);
            (around, step.own_name().to_owned(), step.is_item())
        };
        let inside =
            |around: &str, own: &str, item| (Some(around.to_owned()), own.to_owned(), item);
        assert_eq!(told("pay"), (None, "pay".to_owned(), false));
        assert_eq!(told("ship/pack"), inside("ship", "pack", false));
        assert_eq!(told("ship[12]"), inside("ship", "[12]", true));
        assert_eq!(told("ship[1]/label"), inside("ship[1]", "label", false));
        assert_eq!(
            told("ship[1]/items[0]"),
            inside("ship[1]/items", "[0]", true)
        );
        assert_eq!(
            told("ship[1][undo]/refund"),
            inside("ship[1]", "[undo]/refund", false)
        );
    }
}
