//! A definition as the machine sees it: steps, edges and rules, without any code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{PolicySet, RecoveryPolicy, Retry};
use crate::step::{StepIx, StepTable};

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

/// One step of a [`Graph`].
#[derive(Clone, Debug)]
pub struct GraphStep {
    pub(crate) name: Arc<str>,
    /// The name as it stands in keys: printable ASCII, without `/`.
    pub(crate) escaped: String,
    pub(crate) kind: StepKind,
    /// Steps that have to be done before, each once, by data or by `after`.
    pub(crate) dependencies: Vec<StepIx>,
    pub(crate) dependents: Vec<StepIx>,
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
    pub(crate) by_name: HashMap<Arc<str>, StepIx>,
    pub(crate) pivot: Option<StepIx>,
    pub(crate) has_checkpoints: bool,
    pub(crate) siblings: Siblings,
    pub(crate) undo_order: UndoOrder,
    pub(crate) on_stop: OnStop,
    pub(crate) policy: RecoveryPolicy,
}

impl Graph {
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
    pub fn step_named(&self, name: &str) -> Option<StepIx> {
        self.by_name.get(name).copied()
    }

    /// The step with this number; the machine only has numbers of this graph.
    pub(crate) fn step(&self, step: StepIx) -> &GraphStep {
        &self.steps[step.at()]
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
        for step in &mut graph.steps {
            if let Some(retry) = policies.retry_of(&step.name) {
                step.retry = retry.clone();
            }
            if let Some(retry) = policies.compensation_retry_of(&step.name) {
                step.undo_retry = retry.clone();
            }
        }
        graph
    }

    /// The steps that have to be done before this one.
    pub fn dependencies(&self, step: &GraphStep) -> impl Iterator<Item = &GraphStep> {
        step.dependencies
            .iter()
            .map(|&dependency| self.step(dependency))
    }
}
