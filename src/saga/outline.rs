//! A definition as a store keeps it, so that a run can be read where its saga isn't registered, and so
//! that a changed definition can be told apart in words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{RecoveryPolicy, Retry};
use crate::saga::{Graph, GraphStep, OnStop, Siblings, StepKind, UndoOrder, UndoRule};
use crate::step::{StepIx, StepTable};

/// The structure of a definition, without code and without policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The saga's name.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// Its structural fingerprint.
    pub fingerprint: String,
    /// Its steps, in the order in which they were added.
    pub steps: Vec<OutlineStep>,
}

/// One step of an [`Outline`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlineStep {
    /// The step's name.
    pub name: String,
    /// Whether it can be taken back.
    pub kind: StepKind,
    /// How its input is wired.
    pub wired: Vec<String>,
    /// The steps before it, by data or by `after`.
    pub dependencies: Vec<String>,
    /// Whether it is the pivot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
    /// Whether it is a checkpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
}

impl Outline {
    /// The outline of a definition.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let steps = graph.steps.iter().map(|step| OutlineStep {
            name: step.name.to_string(),
            kind: step.kind,
            wired: step.wired.clone(),
            dependencies: graph
                .dependencies(step)
                .map(|dependency| dependency.name.to_string())
                .collect(),
            pivot: step.pivot,
            checkpoint: step.checkpoint,
        });
        Outline {
            saga: graph.saga.to_string(),
            version: graph.version,
            fingerprint: graph.fingerprint.to_string(),
            steps: steps.collect(),
        }
    }

    /// A graph with this structure and default policies: enough to read a journal, not to run one.
    pub(crate) fn to_graph(&self) -> Graph {
        let names: Vec<Arc<str>> = self
            .steps
            .iter()
            .map(|step| step.name.as_str().into())
            .collect();
        let by_name: HashMap<Arc<str>, StepIx> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (Arc::clone(name), StepIx::new(index)))
            .collect();
        let mut steps: Vec<GraphStep> = self
            .steps
            .iter()
            .map(|step| GraphStep {
                name: step.name.as_str().into(),
                escaped: step.name.clone(),
                kind: step.kind,
                dependencies: step
                    .dependencies
                    .iter()
                    .filter_map(|name| by_name.get(name.as_str()).copied())
                    .collect(),
                dependents: Vec::new(),
                wired: step.wired.clone(),
                pivot: step.pivot,
                checkpoint: step.checkpoint,
                atomic: false,
                at_most_once: false,
                undo_rule: UndoRule::default(),
                probed: false,
                retry: Retry::none(),
                undo_retry: Retry::none(),
                timeout: Duration::ZERO,
                undo_timeout: Duration::ZERO,
                heartbeat: None,
                undo_heartbeat: None,
                max_in_flight: None,
            })
            .collect();
        for index in 0..steps.len() {
            for dependency in steps[index].dependencies.clone() {
                steps[dependency.at()].dependents.push(StepIx::new(index));
            }
        }
        Graph {
            saga: self.saga.as_str().into(),
            version: self.version,
            fingerprint: self.fingerprint.as_str().into(),
            pivot: steps.iter().position(|step| step.pivot).map(StepIx::new),
            has_checkpoints: steps.iter().any(|step| step.checkpoint),
            steps,
            table: StepTable::new(names),
            by_name,
            siblings: Siblings::default(),
            undo_order: UndoOrder::default(),
            on_stop: OnStop::default(),
            policy: RecoveryPolicy::default(),
        }
    }

    /// What is different in `other`, one line per difference, in words.
    #[must_use]
    pub fn differences(&self, other: &Outline) -> Vec<String> {
        let index = |outline: &Outline| -> BTreeMap<String, OutlineStep> {
            outline
                .steps
                .iter()
                .map(|step| (step.name.clone(), step.clone()))
                .collect()
        };
        let (before, now) = (index(self), index(other));
        let mut lines = Vec::new();
        if self.saga != other.saga {
            lines.push(format!(
                "the saga was `{}` and is `{}`",
                self.saga, other.saga
            ));
        }
        for (name, step) in &before {
            let Some(new) = now.get(name) else {
                lines.push(format!("step `{name}` is gone"));
                continue;
            };
            if step.kind != new.kind {
                lines.push(format!(
                    "step `{name}` was {} and is {}",
                    step.kind, new.kind
                ));
            }
            if step.wired != new.wired {
                lines.push(format!(
                    "the input of `{name}` was ({}) and is ({})",
                    step.wired.join(", "),
                    new.wired.join(", ")
                ));
            }
            let sorted = |step: &OutlineStep| {
                let mut names = step.dependencies.clone();
                names.sort();
                names
            };
            if sorted(step) != sorted(new) {
                lines.push(format!(
                    "`{name}` came after [{}] and comes after [{}]",
                    sorted(step).join(", "),
                    sorted(new).join(", ")
                ));
            }
            for (what, was, is) in [
                ("the pivot", step.pivot, new.pivot),
                ("a checkpoint", step.checkpoint, new.checkpoint),
            ] {
                match (was, is) {
                    (true, false) => lines.push(format!("step `{name}` was {what} and is not")),
                    (false, true) => lines.push(format!("step `{name}` was not {what} and is")),
                    _ => {}
                }
            }
        }
        lines.extend(
            now.keys()
                .filter(|name| !before.contains_key(*name))
                .map(|name| format!("step `{name}` is new")),
        );
        if lines.is_empty() && self.fingerprint != other.fingerprint {
            lines.push("what `returns` gives is wired otherwise".to_owned());
        }
        lines
    }
}
