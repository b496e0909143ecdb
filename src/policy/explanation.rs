//! Why a policy decided as it did: journalled with each decision, read by people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::{FailedEffect, FailureMode};
use crate::policy::RecoveryStrategy;

/// What a policy sees when it is asked about one failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Situation {
    /// The step that failed; empty where the run itself did (its deadline passed).
    pub step: String,
    /// The class of the failure.
    pub mode: FailureMode,
    /// Whether another attempt could help.
    pub retryable: bool,
    /// What the failed step left behind.
    pub effect: FailedEffect,
    /// Steps of the run that are done.
    pub completed: u32,
    /// Steps of the run.
    pub total: u32,
    /// Whether the pivot is done or in doubt.
    pub past_pivot: bool,
    /// Recoveries that the run has had so far.
    pub recoveries: u32,
    /// How many it may have.
    pub max_recoveries: u32,
    /// Whether the run's deadline has passed.
    pub time_used_up: bool,
}

impl Situation {
    /// A situation before the pivot, with nothing used up.
    #[must_use]
    pub fn new(step: impl Into<String>, mode: FailureMode, completed: u32, total: u32) -> Self {
        Situation {
            step: step.into(),
            retryable: mode.is_retryable(),
            mode,
            effect: FailedEffect::NotDone,
            completed,
            total,
            past_pivot: false,
            recoveries: 0,
            max_recoveries: 3,
            time_used_up: false,
        }
    }

    /// Whether recoveries or time are used up.
    #[must_use]
    pub fn used_up(&self) -> bool {
        self.time_used_up || self.recoveries >= self.max_recoveries
    }
}

/// A rule that did not match, and the first of its conditions that didn't hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The rule's name.
    pub rule: String,
    /// What did not hold.
    pub because: String,
}

/// The rule that fired, the values it saw, and the rules before it that didn't match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The policy's name.
    pub policy: String,
    /// The rule that fired.
    pub rule: String,
    /// What it says to do.
    pub says: RecoveryStrategy,
    /// What it saw.
    pub saw: Situation,
    /// The rules before it.
    pub passed_over: Vec<PassedOver>,
    /// Why something else was done than the rule says: what it asked for was not available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let saw = &self.saw;
        let what = if saw.step.is_empty() {
            "the run".to_owned()
        } else {
            format!("step `{}`", saw.step)
        };
        write!(
            f,
            "{what} failed with {}: rule `{}` of policy `{}` says {} ({} of {} steps done, {} the pivot, {} of {} recoveries used)",
            saw.mode,
            self.rule,
            self.policy,
            self.says,
            saw.completed,
            saw.total,
            if saw.past_pivot { "past" } else { "before" },
            saw.recoveries,
            saw.max_recoveries,
        )?;
        for passed in &self.passed_over {
            write!(f, "; not `{}`: {}", passed.rule, passed.because)?;
        }
        if let Some(overruled) = &self.overruled {
            write!(f, "; overruled: {overruled}")?;
        }
        Ok(())
    }
}
