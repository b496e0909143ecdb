//! The whole story of one failed attempt.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;
use super::mode::FailureMode;

/// What an attempt left behind that something went wrong with.
///
/// The order is that of certainty: the effect of several attempts is at least the
/// [`max`](Ord::max) of theirs, since a later refusal never clears an earlier doubt.
///
/// ```
/// use amends::failure::FailedEffect::{InDoubt, NotDone};
///
/// assert_eq!(NotDone.max(InDoubt), InDoubt);
/// assert_eq!(InDoubt.to_string(), "in doubt");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedEffect {
    /// Nothing: the effect is not in the world and will not appear.
    NotDone,
    /// Nobody knows. It may be there, or may still arrive.
    InDoubt,
    /// Its effect: the step is done, and says that it did a part only ([`PartialSuccess`](super::PartialSuccess)).
    /// No failure has it.
    Done,
}

impl fmt::Display for FailedEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotDone => "not done",
            Self::InDoubt => "in doubt",
            Self::Done => "done",
        })
    }
}

/// What went wrong with one attempt, as the journal keeps it and as outcomes show it.
///
/// It prints as one line for people. It is an error without a `source`: the chain of causes comes
/// from a journal, so it is text, in [`causes`](Failure::causes).
///
/// ```
/// use amends::failure::{Failure, FailureMode};
///
/// let failure = Failure::new(FailureMode::SystemNetwork, "connection reset").at("charge-card", 1, 2);
/// assert_eq!(
///     failure.to_string(),
///     "step `charge-card`, attempt 2 of round 1: connection reset (system_network, in doubt)",
/// );
/// assert!(failure.retryable);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class of what went wrong.
    pub mode: FailureMode,
    /// The outermost error's own words.
    pub message: String,
    /// The words of the errors behind it, outermost first, without `message` itself.
    pub causes: Vec<String>,
    /// The path of the step; empty when the run itself failed, by its deadline for instance.
    pub step: String,
    /// The step's round, from 1; 0 when the run itself failed.
    pub round: u32,
    /// The attempt, from 1, counted over the whole life of the run; 0 when the run itself failed.
    pub attempt: u32,
    /// What the attempt left behind.
    pub effect: FailedEffect,
    /// Whether another attempt may help. Usually that of the mode, unless the error or the step said
    /// otherwise; never true of a terminal mode that was set by the methods here.
    pub retryable: bool,
    /// How long to wait before the next attempt, where the error said so. Written as whole
    /// milliseconds under `retry_after_ms`, and not at all when there is none.
    #[serde(
        rename = "retry_after_ms",
        with = "millis::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of the run itself: in doubt, retryable as the mode is, no causes, no wait.
    #[must_use]
    pub fn new(mode: FailureMode, message: impl Into<String>) -> Self {
        Self {
            retryable: mode.is_retryable(),
            mode,
            message: message.into(),
            causes: Vec::new(),
            step: String::new(),
            round: 0,
            attempt: 0,
            effect: FailedEffect::InDoubt,
            retry_after: None,
        }
    }

    /// The words of the errors behind the message, outermost first. Default: none.
    #[must_use]
    pub fn causes<C: Into<String>>(mut self, causes: impl IntoIterator<Item = C>) -> Self {
        self.causes = causes.into_iter().map(Into::into).collect();
        self
    }

    /// Which attempt it was: the path of the step, its round from 1, and its attempt from 1.
    #[must_use]
    pub fn at(mut self, step: impl Into<String>, round: u32, attempt: u32) -> Self {
        self.step = step.into();
        self.round = round;
        self.attempt = attempt;
        self
    }

    /// What the attempt left behind. Default: [`FailedEffect::InDoubt`].
    #[must_use]
    pub fn effect(mut self, effect: FailedEffect) -> Self {
        self.effect = effect;
        self
    }

    /// Whether another attempt may help. Default: as the mode has it. A terminal mode stays
    /// not retryable, whatever is said here.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable && !self.mode.is_terminal();
        self
    }

    /// How long to wait before the next attempt, rounded up to whole milliseconds. Default: not said.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait.map(millis::rounded);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.step.is_empty() {
            f.write_str("run: ")?;
        } else {
            let (step, attempt, round) = (&self.step, self.attempt, self.round);
            write!(f, "step `{step}`, attempt {attempt} of round {round}: ")?;
        }
        write_on_one_line(f, &self.message)?;
        write!(f, " ({}, {})", self.mode, self.effect)
    }
}

/// Foreign text: a line break in it would forge a line of a log, an escape a colour of a terminal.
fn write_on_one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut parts = text.split(char::is_control).filter(|part| !part.is_empty());
    if let Some(first) = parts.next() {
        f.write_str(first)?;
    }
    for part in parts {
        write!(f, " {part}")?;
    }
    Ok(())
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_one_line() {
        let failure = Failure::new(FailureMode::SystemDisk, "no\r\nspace\u{1b}[31m")
            .at("write", 3, 9)
            .effect(FailedEffect::NotDone);
        assert_eq!(
            failure.to_string(),
            "step `write`, attempt 9 of round 3: no space [31m (system_disk, not done)"
        );
    }

    #[test]
    fn a_failure_of_the_run_names_no_step() {
        let failure = Failure::new(FailureMode::SystemTimeout, "deadline passed");
        assert_eq!(
            failure.to_string(),
            "run: deadline passed (system_timeout, in doubt)"
        );
    }

    #[test]
    fn a_new_failure_is_in_doubt_and_as_retryable_as_its_mode() {
        for mode in FailureMode::BUILT_IN {
            let failure = Failure::new(mode.clone(), "");
            assert_eq!(failure.effect, FailedEffect::InDoubt);
            assert_eq!(failure.retryable, mode.is_retryable());
            assert_eq!(
                failure.retryable(true).retryable,
                !mode.is_terminal(),
                "{mode}"
            );
        }
    }

    #[test]
    fn the_written_form_is_stable() {
        let failure = Failure::new(FailureMode::RateLimited, "slow down")
            .causes(["429", "bucket empty"])
            .at("mail", 1, 2)
            .effect(FailedEffect::NotDone)
            .retry_after(Some(Duration::from_micros(1500)));
        let written = serde_json::to_string(&failure).unwrap();
        assert_eq!(
            written,
            r#"{"mode":"policy_rate_limit","message":"slow down","causes":["429","bucket empty"],"step":"mail","round":1,"attempt":2,"effect":"not_done","retryable":true,"retry_after_ms":2}"#
        );
        assert_eq!(serde_json::from_str::<Failure>(&written).unwrap(), failure);

        let without = failure.retry_after(None);
        let written = serde_json::to_string(&without).unwrap();
        assert!(!written.contains("retry_after"));
        assert_eq!(serde_json::from_str::<Failure>(&written).unwrap(), without);
    }

    #[test]
    fn doubt_is_above_not_done() {
        assert!(FailedEffect::NotDone < FailedEffect::InDoubt);
    }
}
