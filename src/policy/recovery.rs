//! The recovery policy of a run: ordered rules, first match wins.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Category, FailedEffect, FailureMode, Severity};
use crate::policy::{
    Explanation, Jitter, PassedOver, RecoveryStrategy, Retry, Situation, duration, pattern,
};

/// The name under which an explanation gives what is done when no rule matches.
pub(super) const OTHERWISE: &str = "otherwise";

/// The same where a step did a part of its work, and no rule names that.
const NOT_NAMED: &str = "no rule names it";

/// Each wait between recoveries is made by itself, so that this jitter would never grow.
pub(super) const DECORRELATED: &str = "decorrelated jitter grows from the wait before, and waits \
    between recoveries don't know it: take equal or full";

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// The mode is terminal.
    Terminal,
    /// The mode is not terminal.
    NotTerminal,
    /// The failure is retryable.
    Retryable,
    /// The failure is not retryable.
    NotRetryable,
    /// Recoveries or time are used up.
    UsedUp,
    /// Recoveries and time are left.
    NotUsedUp,
    /// The pivot is done or in doubt.
    PastPivot,
    /// The pivot has not taken effect.
    BeforePivot,
    /// `completed / total` is at least this fraction, compared in whole numbers; true for an empty saga.
    CompletedAtLeast {
        /// The fraction's upper number.
        numerator: u32,
        /// The fraction's lower number.
        denominator: u32,
    },
    /// The failure has one of these modes.
    Mode(Vec<FailureMode>),
    /// The mode is of this category.
    Category(Category),
    /// The mode is at least as bad as this.
    SeverityAtLeast(Severity),
    /// The failing step has this name; `*` stands for any number of characters.
    Step(String),
    /// The failed step left this behind; [`FailedEffect::Done`] where it is done in part.
    Effect(FailedEffect),
    /// The run has had at least so many recoveries.
    RecoveriesAtLeast(u32),
    /// The run was started at least so long ago, the time for which it was parked or paused not
    /// counted.
    ElapsedAtLeast(#[serde(with = "duration::millis")] Duration),
}

impl Condition {
    fn holds(&self, saw: &Situation) -> bool {
        match self {
            Condition::Terminal => saw.mode.is_terminal(),
            Condition::NotTerminal => !saw.mode.is_terminal(),
            Condition::Retryable => saw.retryable,
            Condition::NotRetryable => !saw.retryable,
            Condition::UsedUp => saw.used_up(),
            Condition::NotUsedUp => !saw.used_up(),
            Condition::PastPivot => saw.past_pivot,
            Condition::BeforePivot => !saw.past_pivot,
            Condition::CompletedAtLeast {
                numerator,
                denominator,
            } => {
                u64::from(saw.completed) * u64::from(*denominator)
                    >= u64::from(saw.total) * u64::from(*numerator)
            }
            Condition::Mode(modes) => modes.iter().any(|mode| mode.is_same_mode(&saw.mode)),
            Condition::Category(category) => saw.mode.category() == *category,
            Condition::SeverityAtLeast(least) => saw.mode.severity() >= *least,
            Condition::Step(pattern) => pattern::matches(pattern, &saw.step),
            Condition::Effect(effect) => saw.effect == *effect,
            Condition::RecoveriesAtLeast(least) => saw.recoveries >= *least,
            Condition::ElapsedAtLeast(least) => saw.elapsed >= *least,
        }
    }

    /// What makes no sense about it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Condition::CompletedAtLeast {
                numerator,
                denominator: 0,
            } => Some(format!("a completion of {numerator}/0")),
            Condition::CompletedAtLeast {
                numerator,
                denominator,
            } if numerator > denominator => Some(format!(
                "a completion of {numerator}/{denominator} is more than all, and never reached"
            )),
            Condition::Mode(modes) if modes.is_empty() => {
                Some("it lists no mode, and never matches".to_owned())
            }
            Condition::Step(pattern) if pattern.is_empty() => Some("it names no step".to_owned()),
            _ => None,
        }
    }

    /// Why it does not hold, in words.
    fn because(&self, saw: &Situation) -> String {
        match self {
            Condition::Terminal => format!("{} is not terminal", saw.mode),
            Condition::NotTerminal => format!("{} is terminal", saw.mode),
            Condition::Retryable => "the failure is not retryable".to_owned(),
            Condition::NotRetryable => "the failure is retryable".to_owned(),
            Condition::UsedUp => format!(
                "{} of {} recoveries used, time is left",
                saw.recoveries, saw.max_recoveries
            ),
            Condition::NotUsedUp if saw.time_used_up => "the run's time is used up".to_owned(),
            Condition::NotUsedUp => format!(
                "{} of {} recoveries used",
                saw.recoveries, saw.max_recoveries
            ),
            Condition::PastPivot => "the run is before the pivot".to_owned(),
            Condition::BeforePivot => "the run is past the pivot".to_owned(),
            Condition::CompletedAtLeast {
                numerator,
                denominator,
            } => format!(
                "{} of {} done is less than {numerator}/{denominator}",
                saw.completed, saw.total
            ),
            Condition::Mode(modes) => {
                let words: Vec<&str> = modes.iter().map(FailureMode::wire).collect();
                format!("the mode is {}, not {}", saw.mode, words.join(" or "))
            }
            Condition::Category(category) => {
                format!("the category is {}, not {category}", saw.mode.category())
            }
            Condition::SeverityAtLeast(least) => {
                format!("the severity is {}, below {least}", saw.mode.severity())
            }
            Condition::Step(pattern) if saw.step.is_empty() => {
                format!("the run itself failed, and no step that matches `{pattern}`")
            }
            Condition::Step(pattern) => format!("`{}` does not match `{pattern}`", saw.step),
            Condition::Effect(effect) => format!("the effect is {}, not {effect}", saw.effect),
            Condition::RecoveriesAtLeast(least) => {
                format!("{} recoveries used, fewer than {least}", saw.recoveries)
            }
            Condition::ElapsedAtLeast(least) => format!(
                "{} after the start, less than {}",
                duration::text(saw.elapsed),
                duration::text(*least)
            ),
        }
    }
}

/// One rule: when all its conditions hold, its strategy is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub(super) name: String,
    pub(super) when: Vec<Condition>,
    pub(super) then: RecoveryStrategy,
}

impl Rule {
    /// A rule that always matches, until [`when`](Self::when) narrows it.
    pub fn new(name: impl Into<String>, then: RecoveryStrategy) -> Self {
        Rule {
            name: name.into(),
            when: Vec::new(),
            then,
        }
    }

    /// Adds a condition; all have to hold.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.when.push(condition);
        self
    }

    /// The rule's name, as explanations give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its conditions, in the order in which they are looked at.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.when
    }

    /// Whether it is about a step that did a part of its work, and not about any failure.
    fn names_the_part(&self, saw: &Situation) -> bool {
        self.when.iter().any(|condition| match condition {
            Condition::Effect(effect) => *effect == FailedEffect::Done,
            Condition::Mode(modes) => modes.iter().any(|mode| mode.is_same_mode(&saw.mode)),
            _ => false,
        })
    }

    /// What it says to do.
    #[must_use]
    pub fn strategy(&self) -> RecoveryStrategy {
        self.then
    }
}

/// Decides what is done about a failure that a step's retries could not mend.
///
/// Ordered rules over what the failure and the run look like; the first that matches decides. Every
/// decision is explained in the journal. The policy is asked once per failure when all attempts in
/// flight have come in; of several answers the strictest is taken.
///
/// A step that is done in part ([`PartialSuccess`](crate::failure::PartialSuccess)) is no failure: it is seen
/// with the effect [`Done`](FailedEffect::Done), and only rules that name it, by that effect or by its mode,
/// are about it. Where none matches, or one says `retry_failed`, the run simply goes on.
///
/// A strategy that is not available gives way to `manual`, and the explanation says why: past the pivot
/// nothing goes back (rule D4), and what can't be undone isn't repeated (rule S3).
///
/// ```
/// use amends::policy::{Condition, RecoveryPolicy, RecoveryStrategy, Rule, Situation};
/// use amends::FailureMode;
///
/// let patient = RecoveryPolicy::saga()
///     .max_recoveries(5)
///     .first(Rule::new("fraud needs eyes", RecoveryStrategy::Manual)
///         .when(Condition::Mode(vec![FailureMode::SecurityViolation])));
///
/// let lost = Situation::new("charge-card", FailureMode::SystemNetwork, 1, 3);
/// assert_eq!(patient.decide(&lost).says, RecoveryStrategy::RetryFailed);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveryPolicy {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
    pub(super) otherwise: RecoveryStrategy,
    pub(super) max_recoveries: u32,
    #[serde(deserialize_with = "without_limits")]
    pub(super) backoff: Retry,
    /// Made when it is first asked for, and again after a change.
    #[serde(skip)]
    digest: OnceLock<String>,
}

/// The digest is made of the rest.
impl PartialEq for RecoveryPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.rules == other.rules
            && self.otherwise == other.otherwise
            && self.max_recoveries == other.max_recoveries
            && self.backoff == other.backoff
    }
}

impl Eq for RecoveryPolicy {}

fn without_limits<'de, D: Deserializer<'de>>(from: D) -> Result<Retry, D::Error> {
    Ok(Retry::deserialize(from)?.without_limits())
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        RecoveryPolicy::saga()
    }
}

impl RecoveryPolicy {
    /// A policy without rules, that takes `otherwise` for everything. Three recoveries, with a backoff
    /// that doubles from 1 s to 1 min.
    pub fn new(name: impl Into<String>, otherwise: RecoveryStrategy) -> Self {
        let backoff = Retry::exponential()
            .initial(Duration::from_secs(1))
            .cap(Duration::from_secs(60))
            .jitter(Jitter::Equal)
            .without_limits();
        RecoveryPolicy {
            name: name.into(),
            rules: Vec::new(),
            otherwise,
            max_recoveries: 3,
            backoff,
            digest: OnceLock::new(),
        }
    }

    /// The default. Before the pivot: terminal → manual; not retryable → compensate; recoveries or time
    /// used up → compensate; else `retry_failed`. Past it: retryable → `retry_failed`, else manual.
    #[must_use]
    pub fn saga() -> Self {
        use Condition::{NotRetryable, PastPivot, Retryable, Terminal, UsedUp};
        use RecoveryStrategy::{Compensate, Manual, RetryFailed};
        RecoveryPolicy::new("saga", RetryFailed)
            .rule(Rule::new("terminal", Manual).when(Terminal))
            .rule(
                Rule::new("used up past the pivot", Manual)
                    .when(PastPivot)
                    .when(UsedUp),
            )
            .rule(
                Rule::new("retryable past the pivot", RetryFailed)
                    .when(PastPivot)
                    .when(Retryable),
            )
            .rule(Rule::new("past the pivot", Manual).when(PastPivot))
            .rule(Rule::new("not retryable", Compensate).when(NotRetryable))
            .rule(Rule::new("used up", Compensate).when(UsedUp))
    }

    /// Decides by how far the run has come: terminal, not retryable or used up → manual; at least 3/4
    /// done → `retry_failed`; at least 1/4 → `retry_from_checkpoint`; else `retry_all`.
    #[must_use]
    pub fn by_progress() -> Self {
        use Condition::{CompletedAtLeast, NotRetryable, Terminal, UsedUp};
        use RecoveryStrategy::{Manual, RetryAll, RetryFailed, RetryFromCheckpoint};
        RecoveryPolicy::new("by_progress", RetryAll)
            .rule(Rule::new("terminal", Manual).when(Terminal))
            .rule(Rule::new("not retryable", Manual).when(NotRetryable))
            .rule(Rule::new("used up", Manual).when(UsedUp))
            .rule(
                Rule::new("three quarters done", RetryFailed).when(CompletedAtLeast {
                    numerator: 3,
                    denominator: 4,
                }),
            )
            .rule(
                Rule::new("a quarter done", RetryFromCheckpoint).when(CompletedAtLeast {
                    numerator: 1,
                    denominator: 4,
                }),
            )
    }

    /// The same policy under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self.changed()
    }

    /// Adds a rule after the others.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self.changed()
    }

    /// Adds a rule before the others.
    #[must_use]
    pub fn first(mut self, rule: Rule) -> Self {
        self.rules.insert(0, rule);
        self.changed()
    }

    /// How many recoveries a run may have; 3 by default. An operator's retry resets the count.
    #[must_use]
    pub fn max_recoveries(mut self, most: u32) -> Self {
        self.max_recoveries = most;
        self.changed()
    }

    /// How long recoveries wait: delays of this retry policy. Its limits of attempts, time and modes
    /// are not used, and not kept.
    #[must_use]
    pub fn backoff(mut self, backoff: Retry) -> Self {
        self.backoff = backoff.without_limits();
        self.changed()
    }

    pub(super) fn changed(mut self) -> Self {
        self.digest = OnceLock::new();
        self
    }

    /// The policy's name, as explanations give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many recoveries a run may have.
    #[must_use]
    pub fn recoveries(&self) -> u32 {
        self.max_recoveries
    }

    /// The rules, in the order in which they are looked at.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is done where no rule matches.
    #[must_use]
    pub fn otherwise(&self) -> RecoveryStrategy {
        self.otherwise
    }

    /// Which policy this is, whatever its name: the first 12 hex digits of SHA-256 over its JSON, whose
    /// keys always come in the same order. Each [`Explanation`] holds it, so that a journal says which
    /// version of a policy decided. Made once and kept.
    ///
    /// ```
    /// use amends::RecoveryPolicy;
    ///
    /// let policy = RecoveryPolicy::saga();
    /// assert_eq!(policy.digest().len(), 12);
    /// assert_ne!(policy.digest(), RecoveryPolicy::saga().max_recoveries(4).digest());
    /// ```
    #[must_use]
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            // Neither maps with other keys than strings nor anything else that JSON lacks is in it.
            let json = serde_json::to_vec(self).unwrap_or_default();
            let hash = Sha256::digest(json);
            hash.iter().take(6).fold(String::new(), |mut hex, byte| {
                // Writing to a String can't fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        })
    }

    /// The delay before recovery number `recovery` (from 1).
    #[must_use]
    pub fn delay(&self, recovery: u32, seed: u64) -> Duration {
        self.backoff.delay(recovery, None, seed)
    }

    /// The answer to one failure, and why.
    #[must_use]
    pub fn decide(&self, saw: &Situation) -> Explanation {
        let mut passed_over = Vec::new();
        let in_part = saw.effect == FailedEffect::Done;
        for rule in &self.rules {
            if in_part && !rule.names_the_part(saw) {
                passed_over.push(PassedOver {
                    rule: rule.name.clone(),
                    because: "it does not name a step that is done in part".to_owned(),
                });
                continue;
            }
            match rule.when.iter().find(|condition| !condition.holds(saw)) {
                None => return self.explain(&rule.name, rule.then, saw, passed_over),
                Some(condition) => passed_over.push(PassedOver {
                    rule: rule.name.clone(),
                    because: condition.because(saw),
                }),
            }
        }
        if in_part {
            return self.explain(NOT_NAMED, RecoveryStrategy::RetryFailed, saw, passed_over);
        }
        self.explain(OTHERWISE, self.otherwise, saw, passed_over)
    }

    fn explain(
        &self,
        rule: &str,
        says: RecoveryStrategy,
        saw: &Situation,
        passed_over: Vec<PassedOver>,
    ) -> Explanation {
        Explanation {
            policy: self.name.clone(),
            digest: self.digest().to_owned(),
            rule: rule.to_owned(),
            says,
            saw: saw.clone(),
            passed_over,
            overruled: None,
        }
    }

    /// What is wrong with the policy: empty where nothing is.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .backoff
            .faults()
            .into_iter()
            .map(|fault| format!("backoff: {fault}"))
            .collect();
        if self.backoff.spreads_by_the_previous() {
            faults.push(format!("backoff: {DECORRELATED}"));
        }
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            let name = &rule.name;
            if name.is_empty() {
                faults.push("a rule has no name: explanations go by it".to_owned());
            } else if name == OTHERWISE {
                faults.push(format!(
                    "a rule is called `{OTHERWISE}`, as explanations call it when no rule matches"
                ));
            } else if !names.insert(name) {
                faults.push(format!(
                    "two rules are called `{name}`: explanations could not tell them apart"
                ));
            }
            faults.extend(
                rule.when
                    .iter()
                    .filter_map(Condition::fault)
                    .map(|fault| format!("rule `{name}`: {fault}")),
            );
        }
        faults
    }
}

impl fmt::Display for RecoveryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecoveryStrategy::{Compensate, Manual, RetryAll, RetryFailed, RetryFromCheckpoint};

    #[test]
    fn boundaries_belong_to_the_upper_band() {
        let policy = RecoveryPolicy::by_progress();
        let says = |completed, total| {
            policy
                .decide(&Situation::new(
                    "s",
                    FailureMode::SystemNetwork,
                    completed,
                    total,
                ))
                .says
        };
        assert_eq!(says(3, 4), RetryFailed);
        assert_eq!(says(6, 8), RetryFailed);
        assert_eq!(says(2, 4), RetryFromCheckpoint);
        assert_eq!(says(1, 4), RetryFromCheckpoint);
        assert_eq!(says(1, 5), RetryAll);
        assert_eq!(says(0, 4), RetryAll);
        assert_eq!(says(0, 0), RetryFailed);
    }

    #[test]
    fn the_default_compensates_what_cannot_be_retried() {
        let policy = RecoveryPolicy::saga();
        let mut saw = Situation::new("s", FailureMode::StepValidation, 3, 4);
        assert_eq!(policy.decide(&saw).says, Compensate);
        saw.past_pivot = true;
        assert_eq!(policy.decide(&saw).says, Manual);
        let mut saw = Situation::new("s", FailureMode::SystemNetwork, 0, 4);
        assert_eq!(policy.decide(&saw).says, RetryFailed);
        saw.recoveries = 3;
        assert_eq!(policy.decide(&saw).says, Compensate);
        saw.past_pivot = true;
        assert_eq!(policy.decide(&saw).says, Manual);
        saw.recoveries = 2;
        assert_eq!(policy.decide(&saw).says, RetryFailed);
        assert_eq!(
            policy
                .decide(&Situation::new("s", FailureMode::SecurityViolation, 0, 4))
                .says,
            Manual
        );
    }

    #[test]
    fn an_explanation_names_the_rules_that_did_not_match() {
        let why = RecoveryPolicy::saga().decide(&Situation::new(
            "pay",
            FailureMode::StepValidation,
            1,
            4,
        ));
        assert_eq!(why.rule, "not retryable");
        assert_eq!(why.passed_over.len(), 4);
        assert_eq!(
            why.passed_over[0].because,
            "agent_validation is not terminal"
        );
    }
}
