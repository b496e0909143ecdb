//! Why a policy decided as it did: journalled with each decision, read by people.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{FailedEffect, FailureMode};
use crate::policy::{RecoveryStrategy, duration};

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
    /// What the failed step left behind; [`FailedEffect::Done`] where it did a part of its work, which is
    /// no failure.
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
    /// The time since the run was started, without the time for which it was parked or paused, in
    /// whole milliseconds, rounded down. Zero in journals from before it was recorded.
    #[serde(
        rename = "elapsed_ms",
        with = "whole_millis",
        default,
        skip_serializing_if = "Duration::is_zero"
    )]
    pub elapsed: Duration,
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
            elapsed: Duration::ZERO,
        }
    }

    /// Whether recoveries or time are used up.
    #[must_use]
    pub fn used_up(&self) -> bool {
        self.time_used_up || self.recoveries >= self.max_recoveries
    }

    fn what_happened(&self) -> &'static str {
        match self.effect {
            FailedEffect::Done => "is done in part, with",
            FailedEffect::NotDone | FailedEffect::InDoubt => "failed with",
        }
    }

    fn beside_the_pivot(&self) -> &'static str {
        if self.past_pivot { "past" } else { "before" }
    }
}

/// Rounded down: what was not yet reached must not look as if it were.
mod whole_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis())
            .unwrap_or(u64::MAX)
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
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
    /// Which version of the policy it was: its [digest](crate::RecoveryPolicy::digest). Empty in
    /// journals from before it was recorded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
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

impl Explanation {
    /// The explanation for people: what failed, what was seen, which rule fired, why each rule before
    /// it did not, and why something else was done, if it was. Several lines, the last one ended too.
    ///
    /// [`Display`](fmt::Display) gives the same on one line.
    ///
    /// ```
    /// use amends::policy::{RecoveryPolicy, Situation};
    /// use amends::FailureMode;
    ///
    /// let mut saw = Situation::new("charge-card", FailureMode::StepValidation, 1, 4);
    /// saw.recoveries = 1;
    /// let policy = RecoveryPolicy::saga();
    /// assert_eq!(
    ///     policy.decide(&saw).to_text(),
    ///     format!("\
    /// Step `charge-card` failed with agent_validation (category agent, severity low): not retryable, effect not done.
    ///   Seen:         1 of 4 steps done, before the pivot, 1 of 3 recoveries used, 0ms after the start
    ///   Says:         compensate, by the rule `not retryable` of the policy `saga` ({})
    ///   Passed over:  `terminal`: agent_validation is not terminal
    ///                 `used up past the pivot`: the run is before the pivot
    ///                 `retryable past the pivot`: the run is before the pivot
    ///                 `past the pivot`: the run is before the pivot
    /// ", policy.digest()),
    /// );
    /// ```
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        let saw = &self.saw;
        if saw.step.is_empty() {
            out.push_str("The run");
        } else {
            write!(out, "Step `{}`", saw.step)?;
        }
        writeln!(
            out,
            " {} {} (category {}, severity {}): {}, effect {}.",
            saw.what_happened(),
            saw.mode,
            saw.mode.category(),
            saw.mode.severity(),
            match (saw.mode.is_terminal(), saw.retryable) {
                (true, _) => "terminal",
                (false, true) => "retryable",
                (false, false) => "not retryable",
            },
            saw.effect,
        )?;
        writeln!(
            out,
            "  Seen:         {} of {} steps done, {} the pivot, {} of {} recoveries used, {} after the start{}",
            saw.completed,
            saw.total,
            saw.beside_the_pivot(),
            saw.recoveries,
            saw.max_recoveries,
            duration::text(saw.elapsed),
            if saw.time_used_up {
                ", the run's time is used up"
            } else {
                ""
            },
        )?;
        write!(
            out,
            "  Says:         {}, by the rule `{}` of the policy `{}`",
            self.says, self.rule, self.policy
        )?;
        if !self.digest.is_empty() {
            write!(out, " ({})", self.digest)?;
        }
        out.push('\n');
        for (index, passed) in self.passed_over.iter().enumerate() {
            let label = if index == 0 { "Passed over:" } else { "" };
            writeln!(out, "  {label:<13} `{}`: {}", passed.rule, passed.because)?;
        }
        if let Some(overruled) = &self.overruled {
            writeln!(out, "  Overruled:    {overruled}")?;
        }
        Ok(())
    }
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
            "{what} {} {}: rule `{}` of policy `{}` says {} ({} of {} steps done, {} the pivot, {} of {} recoveries used)",
            saw.what_happened(),
            saw.mode,
            self.rule,
            self.policy,
            self.says,
            saw.completed,
            saw.total,
            saw.beside_the_pivot(),
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
