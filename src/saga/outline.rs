//! A definition as a store keeps it, so that a run can be read where its saga isn't registered, and so
//! that a changed definition can be told apart in words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{RecoveryPolicy, Retry};
use crate::saga::graph::GraphParts;
use crate::saga::{
    Form, Gathering, Graph, GraphStep, NodeIx, OnStop, Siblings, StepKind, UndoOrder, UndoRule,
};

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
    /// What its steps are to each other; of a saga, nothing special.
    #[serde(default, skip_serializing_if = "OutlineForm::is_saga")]
    pub gathers: OutlineForm,
}

/// What the steps inside a step are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutlineForm {
    /// A saga.
    #[default]
    Saga,
    /// Items of a list, all of the one step that there is.
    Each,
    /// Ways of which the first that succeeds counts, tried one after another.
    Fallback,
    /// The same, tried side by side.
    FirstOf,
}

impl OutlineForm {
    fn of(gathers: Gathering) -> Self {
        match gathers {
            Gathering::Saga => OutlineForm::Saga,
            Gathering::Each { .. } => OutlineForm::Each,
            Gathering::Fallback => OutlineForm::Fallback,
            Gathering::Race => OutlineForm::FirstOf,
        }
    }

    fn to_gathering(self) -> Gathering {
        match self {
            OutlineForm::Saga => Gathering::Saga,
            OutlineForm::Each => Gathering::Each {
                parallel: None,
                tolerate: None,
            },
            OutlineForm::Fallback => Gathering::Fallback,
            OutlineForm::FirstOf => Gathering::Race,
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde asks with a reference"
    )]
    fn is_saga(&self) -> bool {
        *self == OutlineForm::Saga
    }

    /// What a step with such steps inside is called.
    fn words(self) -> &'static str {
        match self {
            OutlineForm::Saga => "a sub-saga",
            OutlineForm::Each => "a fan-out",
            OutlineForm::Fallback => "a step with a fallback",
            OutlineForm::FirstOf => "a race",
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OutlineForm::Saga => "saga",
            OutlineForm::Each => "for_each",
            OutlineForm::Fallback => "fallback",
            OutlineForm::FirstOf => "first_of",
        }
    }
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
    /// Whether it starts only if a condition holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
    /// The steps inside it, where it is a sub-saga, a fan-out or a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Box<Outline>>,
    /// What it waits for, where it calls nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<OutlineWait>,
    /// What undoes it as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_by: Option<Box<Outline>>,
}

/// What a step waits for that calls nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutlineWait {
    /// A signal with the name of the step's path.
    Signal,
    /// A time.
    Time,
}

impl OutlineWait {
    fn of(form: &Form) -> Option<Self> {
        match form {
            Form::Wait { signal: true, .. } => Some(OutlineWait::Signal),
            Form::Wait { signal: false, .. } => Some(OutlineWait::Time),
            Form::Call | Form::Inside(_) => None,
        }
    }
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
            conditional: step.conditional,
            inside: step.inside().map(|inside| Box::new(Outline::of(inside))),
            waits: OutlineWait::of(&step.form),
            undone_by: step.undone_by().map(|undo| Box::new(Outline::of(undo))),
        });
        Outline {
            gathers: OutlineForm::of(graph.gathers),
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
        let by_name: HashMap<&str, NodeIx> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (&**name, NodeIx::new(index)))
            .collect();
        let steps: Vec<GraphStep> = self
            .steps
            .iter()
            .map(|step| GraphStep {
                name: step.name.as_str().into(),
                form: match &step.inside {
                    Some(inside) => Form::Inside(Arc::new(inside.to_graph())),
                    None => match step.waits {
                        Some(waits) => Form::Wait {
                            signal: waits == OutlineWait::Signal,
                            limit: None,
                        },
                        None => Form::Call,
                    },
                },
                conditional: step.conditional,
                undone_by: step
                    .undone_by
                    .as_ref()
                    .map(|undo| Arc::new(undo.to_graph())),
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
                max_in_flight_in_fleet: None,
            })
            .collect();
        let parts = GraphParts {
            saga: self.saga.as_str().into(),
            version: self.version,
            fingerprint: self.fingerprint.as_str().into(),
            siblings: Siblings::default(),
            undo_order: UndoOrder::default(),
            on_stop: OnStop::default(),
            policy: RecoveryPolicy::default(),
            deadline: None,
            gathers: self.gathers.to_gathering(),
        };
        Graph::of(parts, steps)
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
            match (&step.undone_by, &new.undone_by) {
                (Some(was), Some(is)) => {
                    let inside = was.differences(is).into_iter();
                    lines.extend(inside.map(|line| format!("in what undoes `{name}`: {line}")));
                }
                (None, None) => {}
                (Some(_), None) => lines.push(format!("`{name}` was undone by a saga and is not")),
                (None, Some(_)) => lines.push(format!("`{name}` was not undone by a saga and is")),
            }
            if step.waits != new.waits {
                let word = |waits: Option<OutlineWait>| match waits {
                    Some(OutlineWait::Signal) => "a wait for a signal",
                    Some(OutlineWait::Time) => "a delay",
                    None => "no wait",
                };
                lines.push(format!(
                    "`{name}` was {} and is {}",
                    word(step.waits),
                    word(new.waits)
                ));
            }
            match (&step.inside, &new.inside) {
                (Some(was), Some(is)) if was.gathers == is.gathers => {
                    let place = format!("in `{name}`: ");
                    for line in was.differences(is) {
                        // All items of a fan-out are called as it is.
                        let line = line.strip_prefix(&place).unwrap_or(&line);
                        lines.push(format!("{place}{line}"));
                    }
                }
                (None, None) => {}
                _ if step.waits.is_some() || new.waits.is_some() => {}
                (was, is) => {
                    let word = |inside: &Option<Box<Outline>>| {
                        inside
                            .as_ref()
                            .map_or("a plain step", |inside| inside.gathers.words())
                    };
                    lines.push(format!("`{name}` was {} and is {}", word(was), word(is)));
                }
            }
            for (what, was, is) in [
                ("the pivot", step.pivot, new.pivot),
                ("a checkpoint", step.checkpoint, new.checkpoint),
                ("on a condition", step.conditional, new.conditional),
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
