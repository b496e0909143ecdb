//! A definition as the machine sees it: steps, edges and rules, without any code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{PolicySet, RecoveryPolicy, Retry};
use crate::step::StepTable;

/// The number of a step inside one definition, from 0 in the order in which they were added.
///
/// Not to be mixed up with [`StepIx`](crate::step::StepIx), which numbers the steps of a run: those inside
/// sub-sagas and the items of a fan-out, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

impl NodeIx {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }

    /// The number of the `index`-th step. Definitions are refused long before `u32` is exhausted.
    pub(crate) fn new(index: usize) -> Self {
        NodeIx(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// Whether and how a step can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A pair of `execute` and `compensate`.
    Compensatable,
    /// Changes nothing: never in doubt, never undone (rule E6).
    ReadOnly,
    /// Can't be undone: the pivot, or after it (rule P1).
    Irreversible,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepKind::Compensatable => "compensatable",
            StepKind::ReadOnly => "read-only",
            StepKind::Irreversible => "irreversible",
        })
    }
}

/// When a step that did not succeed is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoRule {
    /// When its effect is in doubt.
    #[default]
    InDoubt,
    /// Whenever it was called, even if it says that it did nothing.
    Always,
    /// Never: its failed attempts leave nothing. Doubts that this hides are listed as assumed absent.
    Never,
}

/// What becomes of attempts in flight when a sibling has failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Siblings {
    /// They are waited for.
    #[default]
    Await,
    /// They are told to stop, and dropped after this grace period: their effects are then in doubt.
    Stop {
        /// How long they have.
        grace: Duration,
    },
}

/// The order among undos that don't depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoOrder {
    /// Side by side.
    #[default]
    Parallel,
    /// One by one, the last completed first.
    Sequential,
}

/// What a step's [`StepError::stop`](crate::StepError::stop) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// What is done is kept; the run ends `Stopped`.
    #[default]
    Keep,
    /// What is done is undone; the run ends `Compensated`.
    Compensate,
}

/// What the steps of a graph are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathering {
    /// A saga: all of them, in the order of its edges, under its own policy.
    Saga,
    /// Items of a list that is known when they begin, all of one step.
    Each {
        /// How many may be under way at once; nothing where there is no limit.
        parallel: Option<u32>,
        /// How many may fail; nothing where none may.
        tolerate: Option<Tolerance>,
    },
    /// The first that succeeds, tried one after another.
    Fallback,
    /// The first that succeeds, tried side by side.
    Race,
}

/// How many items of a fan-out may fail without its failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// So many.
    Items(u32),
    /// So many of a thousand, rounded down.
    PerMille(u32),
}

impl Tolerance {
    /// How many of so many.
    pub(crate) fn of(self, items: usize) -> usize {
        match self {
            Tolerance::Items(most) => most as usize,
            Tolerance::PerMille(share) => items * share as usize / 1_000,
        }
    }
}

/// What a step is made of.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Calls of its own.
    Call,
    /// Steps of its own.
    Inside(Arc<Graph>),
    /// Nothing: it waits.
    Wait {
        /// Whether for a signal; for a time otherwise.
        signal: bool,
        /// How long at most.
        limit: Option<Duration>,
    },
}

/// What comes after a step's path in the path of what undoes it as a whole. No step has such a name.
pub(crate) const UNDO: &str = "[undo]";

/// The path of what undoes a step as a whole.
pub(crate) fn undo_path(path: &str) -> String {
    format!("{path}{UNDO}")
}

/// What a graph is made of besides its steps.
pub(super) struct GraphParts {
    pub(super) saga: Arc<str>,
    pub(super) version: u32,
    pub(super) fingerprint: Arc<str>,
    pub(super) siblings: Siblings,
    pub(super) undo_order: UndoOrder,
    pub(super) on_stop: OnStop,
    pub(super) policy: RecoveryPolicy,
    pub(super) deadline: Option<Duration>,
    pub(super) gathers: Gathering,
}

/// One step of a [`Graph`].
#[derive(Clone, Debug)]
pub struct GraphStep {
    pub(crate) name: Arc<str>,
    pub(crate) form: Form,
    /// What undoes it as a whole, once it is done, instead of the undos of the steps inside it.
    pub(crate) undone_by: Option<Arc<Graph>>,
    /// Whether it starts only if a condition holds.
    pub(crate) conditional: bool,
    /// The name as it stands in keys: printable ASCII, without `/`.
    pub(crate) escaped: String,
    pub(crate) kind: StepKind,
    /// Steps that have to be done before, each once, by data or by `after`.
    pub(crate) dependencies: Vec<NodeIx>,
    pub(crate) dependents: Vec<NodeIx>,
    /// How its input is wired, for the fingerprint and for pictures.
    pub(crate) wired: Vec<String>,
    pub(crate) pivot: bool,
    pub(crate) checkpoint: bool,
    pub(crate) atomic: bool,
    pub(crate) at_most_once: bool,
    pub(crate) undo_rule: UndoRule,
    pub(crate) probed: bool,
    pub(crate) retry: Retry,
    pub(crate) undo_retry: Retry,
    pub(crate) timeout: Duration,
    pub(crate) undo_timeout: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) undo_heartbeat: Option<Duration>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) max_in_flight_in_fleet: Option<u32>,
}

impl GraphStep {
    /// The step's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether and how it can be taken back.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        self.kind
    }

    /// Whether it is the point of no return.
    #[must_use]
    pub fn is_pivot(&self) -> bool {
        self.pivot
    }

    /// Whether `retry_from_checkpoint` keeps it.
    #[must_use]
    pub fn is_checkpoint(&self) -> bool {
        self.checkpoint
    }

    /// The steps inside it, where it is a sub-saga, a fan-out or a choice.
    #[must_use]
    pub fn inside(&self) -> Option<&Graph> {
        match &self.form {
            Form::Inside(graph) => Some(graph),
            Form::Call | Form::Wait { .. } => None,
        }
    }

    /// Whether it is one that code is called for.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_called(&self) -> bool {
        matches!(self.form, Form::Call)
    }

    /// How many steps it is, with those inside it and those that undo it.
    fn size(&self) -> u32 {
        let undo = self.undone_by.as_deref().map_or(0, Graph::size);
        1 + self.inside().map_or(0, Graph::size) + undo
    }

    /// The saga that undoes it as a whole, where there is one.
    #[must_use]
    pub fn undone_by(&self) -> Option<&Graph> {
        self.undone_by.as_deref()
    }

    /// Whether it calls nothing, and waits for a signal or a time.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.form, Form::Wait { .. })
    }

    /// Whether it waits for a signal.
    #[must_use]
    pub fn waits_for_signal(&self) -> bool {
        matches!(self.form, Form::Wait { signal: true, .. })
    }

    /// How long it waits at most.
    pub(crate) fn limit(&self) -> Option<Duration> {
        match self.form {
            Form::Wait { limit, .. } => limit,
            Form::Call | Form::Inside(_) => None,
        }
    }

    /// Whether it has an undo.
    #[must_use]
    pub fn can_be_undone(&self) -> bool {
        self.kind == StepKind::Compensatable
    }
}

/// The steps and edges of a definition, and the rules that the machine follows.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) saga: Arc<str>,
    pub(crate) version: u32,
    pub(crate) fingerprint: Arc<str>,
    pub(crate) steps: Vec<GraphStep>,
    pub(crate) table: StepTable,
    pub(crate) by_name: HashMap<Arc<str>, NodeIx>,
    pub(crate) pivot: Option<NodeIx>,
    pub(crate) has_checkpoints: bool,
    pub(crate) siblings: Siblings,
    pub(crate) undo_order: UndoOrder,
    pub(crate) on_stop: OnStop,
    pub(crate) policy: RecoveryPolicy,
    /// How long its forward part may take where it is a step of another saga; the run has a deadline of its own.
    pub(crate) deadline: Option<Duration>,
    pub(crate) gathers: Gathering,
    /// The place of each step among all steps of this definition, those inside steps among them.
    pub(crate) places: Vec<u32>,
}

impl Graph {
    /// Puts a graph together from its steps, whose dependents are not known yet.
    pub(super) fn of(parts: GraphParts, mut steps: Vec<GraphStep>) -> Graph {
        for index in 0..steps.len() {
            for dependency in steps[index].dependencies.clone() {
                steps[dependency.at()].dependents.push(NodeIx::new(index));
            }
        }
        let names: Vec<Arc<str>> = steps.iter().map(|step| Arc::clone(&step.name)).collect();
        let by_name: HashMap<Arc<str>, NodeIx> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (Arc::clone(name), NodeIx::new(index)))
            .collect();
        let mut next = 0;
        let places = steps.iter().map(|step| {
            let place = next;
            next += step.size();
            place
        });
        Graph {
            places: places.collect(),
            saga: parts.saga,
            version: parts.version,
            fingerprint: parts.fingerprint,
            pivot: steps.iter().position(|step| step.pivot).map(NodeIx::new),
            has_checkpoints: steps.iter().any(|step| step.checkpoint),
            steps,
            table: StepTable::new(names),
            by_name,
            siblings: parts.siblings,
            undo_order: parts.undo_order,
            on_stop: parts.on_stop,
            policy: parts.policy,
            deadline: parts.deadline,
            gathers: parts.gathers,
        }
    }

    /// Whether a step with this path, in which items have their places, waits for a signal.
    pub(crate) fn waits_for(&self, path: &str) -> bool {
        let mut graph = self;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let (name, item) = match part.split_once('[') {
                Some((name, item)) => (name, item.strip_suffix(']')),
                None => (part, None),
            };
            let Some(mut step) = graph.step_named(name).map(|step| graph.step(step)) else {
                return false;
            };
            if let Some(item) = item {
                let items = step.inside().filter(|_| item.parse::<u32>().is_ok());
                let Some(items) =
                    items.filter(|items| matches!(items.gathers, Gathering::Each { .. }))
                else {
                    return false;
                };
                step = &items.steps[0];
            }
            if parts.peek().is_none() {
                return step.waits_for_signal();
            }
            match step.inside() {
                Some(inside) => graph = inside,
                None => return false,
            }
        }
        false
    }

    /// The signals that its runs wait for: the paths of the steps that do, in which all items are one.
    #[must_use]
    pub fn signals(&self) -> Vec<String> {
        let all = self.all_steps().into_iter();
        let waiting = all.filter(|(_, step)| step.waits_for_signal());
        waiting.map(|(path, _)| path).collect()
    }

    /// How many steps there are, those inside steps among them.
    pub(crate) fn size(&self) -> u32 {
        let last = self.steps.last().zip(self.places.last());
        last.map_or(0, |(step, place)| place + step.size())
    }

    /// All steps, those inside steps right after them, in the order of their places: with their paths, in
    /// which all items of a fan-out are one.
    pub(crate) fn all_steps(&self) -> Vec<(String, &GraphStep)> {
        let mut all = Vec::new();
        self.add_steps("", &mut all);
        all
    }

    fn add_steps<'a>(&'a self, around: &str, all: &mut Vec<(String, &'a GraphStep)>) {
        for step in &self.steps {
            let path = match self.gathers {
                Gathering::Each { .. } => format!("{around}[]"),
                _ if around.is_empty() => step.name.to_string(),
                _ => format!("{around}/{}", step.name),
            };
            let inside = step.inside();
            all.push((path.clone(), step));
            if let Some(inside) = inside {
                inside.add_steps(&path, all);
            }
            if let Some(undo) = &step.undone_by {
                undo.add_steps(&undo_path(&path), all);
            }
        }
    }

    /// The saga's name.
    #[must_use]
    pub fn saga(&self) -> &str {
        &self.saga
    }

    /// The saga's version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The structural fingerprint: names, kinds, edges, checkpoints and forms (rule I2).
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The steps, in the order in which they were added.
    #[must_use]
    pub fn steps(&self) -> &[GraphStep] {
        &self.steps
    }

    /// The number of the step with this name.
    #[must_use]
    pub fn step_named(&self, name: &str) -> Option<NodeIx> {
        self.by_name.get(name).copied()
    }

    /// The step with this number; the machine only has numbers of this graph.
    pub(crate) fn step(&self, step: NodeIx) -> &GraphStep {
        match self.gathers {
            Gathering::Each { .. } => &self.steps[0],
            Gathering::Saga | Gathering::Fallback | Gathering::Race => &self.steps[step.at()],
        }
    }

    /// How many of its steps may be under way at once, where that is bounded.
    pub(crate) fn most_at_once(&self) -> Option<u32> {
        match self.gathers {
            Gathering::Each { parallel, .. } => parallel,
            Gathering::Saga | Gathering::Fallback | Gathering::Race => None,
        }
    }

    /// Whether it is a saga with a policy of its own.
    pub(crate) fn is_saga(&self) -> bool {
        self.gathers == Gathering::Saga
    }

    /// The last part of a step's path: its name, or for an item its place in the list.
    pub(crate) fn path(&self, around: &str, step: NodeIx) -> String {
        match self.gathers {
            Gathering::Each { .. } => format!("{around}[{}]", step.0),
            _ if around.is_empty() => self.step(step).name.to_string(),
            _ => format!("{around}/{}", self.step(step).name),
        }
    }

    /// The recovery policy.
    #[must_use]
    pub fn policy(&self) -> &RecoveryPolicy {
        &self.policy
    }

    /// The same graph under these policies. They are no part of its fingerprint (rule I2).
    #[must_use]
    pub fn under(&self, policies: &PolicySet) -> Graph {
        let mut graph = self.clone();
        if let Some(policy) = policies.recovery_policy() {
            graph.policy = policy.clone();
        }
        graph.retry_under(policies, "");
        graph
    }

    /// What a fan-out is called, its items are called, too: `reserve`, and `ship/pack` inside each item.
    fn retry_under(&mut self, policies: &PolicySet, around: &str) {
        let each = !matches!(
            self.gathers,
            Gathering::Saga | Gathering::Fallback | Gathering::Race
        );
        for step in &mut self.steps {
            let path = match around {
                "" => step.name.to_string(),
                around if each => around.to_owned(),
                around => format!("{around}/{}", step.name),
            };
            if let Some(retry) = policies.retry_of(&path) {
                step.retry = retry.clone();
            }
            if let Some(retry) = policies.compensation_retry_of(&path) {
                step.undo_retry = retry.clone();
            }
            if let Form::Inside(inside) = &mut step.form {
                Arc::make_mut(inside).retry_under(policies, &path);
            }
            if let Some(undo) = &mut step.undone_by {
                Arc::make_mut(undo).retry_under(policies, &undo_path(&path));
            }
        }
    }

    /// The steps that have to be done before this one.
    pub fn dependencies(&self, step: &GraphStep) -> impl Iterator<Item = &GraphStep> {
        step.dependencies
            .iter()
            .map(|&dependency| self.step(dependency))
    }
}
