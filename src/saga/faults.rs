//! What can be wrong with a definition: all of it is reported at once.

use std::fmt;

/// One fault of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The saga has no name.
    #[error("the saga's name is empty")]
    SagaWithoutName,
    /// Versions start at 1.
    #[error("version 0: versions start at 1")]
    VersionZero,
    /// A step has no name.
    #[error("step {position}: the name is empty")]
    StepWithoutName {
        /// Its position, from 1.
        position: usize,
    },
    /// Two steps have one name.
    #[error("`{step}`: {times} steps have this name")]
    DuplicateName {
        /// The name.
        step: String,
        /// How many have it.
        times: usize,
    },
    /// A name with a control character or, for a step, with one that spells paths: `/`, `[`, `]`.
    #[error("{step:?}: a name may not contain {character:?}")]
    BadName {
        /// The name; the saga's name for the saga itself.
        step: String,
        /// The first character that isn't allowed.
        character: char,
    },
    /// A name that would swell every record and key.
    #[error("`{}..`: the name has {bytes} bytes, and 255 is the most", beginning(.step))]
    LongName {
        /// The name; the saga's name for the saga itself.
        step: String,
        /// Its length.
        bytes: usize,
    },
    /// More steps than a run can be expected to carry.
    #[error("{steps} steps: {most} is the most")]
    TooManySteps {
        /// How many there are.
        steps: usize,
        /// How many are allowed.
        most: usize,
    },
    /// A node that another builder made.
    #[error("`{step}`: {role} is a node of another builder")]
    ForeignNode {
        /// The step, or `returns`.
        step: String,
        /// Where the node is used.
        role: &'static str,
    },
    /// Two pivots.
    #[error("{} steps are marked as the pivot ({}): a saga has one point of no return at most", .steps.len(), quoted(.steps))]
    ManyPivots {
        /// The steps that are marked.
        steps: Vec<String>,
    },
    /// A read-only step can't be the pivot.
    #[error("`{step}` is read-only and can't be the pivot: it changes nothing")]
    ReadOnlyPivot {
        /// The step.
        step: String,
    },
    /// Something that can't be undone would run before the point of no return.
    #[error(
        "`{step}` is irreversible, and {why}: mark it `.pivot()`, or let it come `.after(..)` the pivot"
    )]
    IrreversibleBeforePivot {
        /// The step.
        step: String,
        /// Which of the cases it is.
        why: String,
    },
    /// A step beside the pivot could still have to be undone when nothing goes back any more.
    #[error(
        "`{step}` neither comes before the pivot `{pivot}` nor after it: order them by data or with `.after(..)`"
    )]
    BesidePivot {
        /// The step.
        step: String,
        /// The pivot.
        pivot: String,
    },
    /// A setting that makes no sense for this kind of step.
    #[error("`{step}`: `{setting}` makes no sense here: {why}")]
    MeaninglessSetting {
        /// The step.
        step: String,
        /// The setting.
        setting: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A retry policy or another setting that can't work.
    #[error("`{step}`: {setting}: {why}")]
    BadSetting {
        /// The step; the saga's name for its own policy and deadline.
        step: String,
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Fault {
    /// The same fault of a step that turned out to be inside another.
    pub(super) fn put_inside(&mut self, around: &str) {
        match self {
            Fault::DuplicateName { step, .. }
            | Fault::BadName { step, .. }
            | Fault::LongName { step, .. }
            | Fault::ReadOnlyPivot { step }
            | Fault::MeaninglessSetting { step, .. }
            | Fault::BadSetting { step, .. }
                if step != around =>
            {
                *step = format!("{around}/{step}");
            }
            _ => {}
        }
    }
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn beginning(name: &str) -> String {
    name.chars().take(32).collect()
}

/// A definition with faults: all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaError {
    pub(crate) saga: String,
    pub(crate) faults: Vec<Fault>,
}

impl SagaError {
    /// The saga's name.
    #[must_use]
    pub fn saga(&self) -> &str {
        &self.saga
    }

    /// The faults: names first, then nodes, settings and the pivot, each in a fixed order.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for SagaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = if self.faults.len() == 1 {
            "fault"
        } else {
            "faults"
        };
        write!(
            f,
            "the definition of saga `{}` has {} {faults}:",
            self.saga,
            self.faults.len()
        )?;
        for fault in &self.faults {
            write!(f, "\n- {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SagaError {}
