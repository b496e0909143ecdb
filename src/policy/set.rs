//! All the policies of one saga, to be written down together and replaced together.

use crate::policy::pattern::{is_exact, matches};
use crate::policy::{Condition, RecoveryPolicy, Retry};

/// The recovery policy of a saga and the retries of its steps, apart from its definition.
///
/// What a set does not say stays as the definition has it: an empty set changes nothing. What it says
/// goes before the definition. Policies are not part of a saga's structure, so that a run goes on under
/// another set than it was started with.
///
/// For the retry of a step the first [`StepRetries`] counts that matches its name and says one; then the
/// [`retry`](Self::retry) of all other steps; then the definition. The same goes for the retry of its
/// undo, each on its own.
///
/// With the feature `toml` a set is read from a file and written to one: see `docs/policies.md`.
///
/// ```
/// use amends::policy::{PolicySet, StepRetries};
/// use amends::{RecoveryPolicy, Retry};
///
/// let set = PolicySet::new()
///     .recovery(RecoveryPolicy::by_progress().max_recoveries(5))
///     .retry(Retry::exponential().max_attempts(4))
///     .step(StepRetries::new("charge-*").retry(Retry::none()));
/// assert!(set.faults().is_empty());
/// assert_eq!(set.retry_of("charge-card"), Some(&Retry::none()));
/// assert_eq!(set.retry_of("ship"), Some(&Retry::exponential().max_attempts(4)));
/// assert_eq!(set.compensation_retry_of("ship"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    pub(super) recovery: Option<RecoveryPolicy>,
    pub(super) retry: Option<Retry>,
    pub(super) compensation_retry: Option<Retry>,
    pub(super) steps: Vec<StepRetries>,
}

/// The retries of the steps whose name matches a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRetries {
    pub(super) pattern: String,
    pub(super) retry: Option<Retry>,
    pub(super) compensation_retry: Option<Retry>,
}

impl StepRetries {
    /// Nothing yet about the steps whose name matches; `*` stands for any number of characters.
    pub fn new(pattern: impl Into<String>) -> Self {
        StepRetries {
            pattern: pattern.into(),
            retry: None,
            compensation_retry: None,
        }
    }

    /// How these steps are retried. Default: as if the pattern did not match.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// How their undos are retried. Default: as if the pattern did not match.
    #[must_use]
    pub fn compensation_retry(mut self, retry: Retry) -> Self {
        self.compensation_retry = Some(retry);
        self
    }
}

impl PolicySet {
    /// A set that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        PolicySet::default()
    }

    /// The recovery policy. Default: the definition's.
    #[must_use]
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.recovery = Some(policy);
        self
    }

    /// How all steps are retried that no [`StepRetries`] says it of. Default: as the definition has it.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// How all undos are retried that no [`StepRetries`] says it of. Default: as the definition has it.
    #[must_use]
    pub fn compensation_retry(mut self, retry: Retry) -> Self {
        self.compensation_retry = Some(retry);
        self
    }

    /// Adds the retries of some steps, after the others: the first that matches counts.
    #[must_use]
    pub fn step(mut self, step: StepRetries) -> Self {
        self.steps.push(step);
        self
    }

    /// The recovery policy that the set says, if it says one.
    #[must_use]
    pub fn recovery_policy(&self) -> Option<&RecoveryPolicy> {
        self.recovery.as_ref()
    }

    /// The retry that the set says for a step, if it says one.
    #[must_use]
    pub fn retry_of(&self, step: &str) -> Option<&Retry> {
        self.of(step, |said| said.retry.as_ref())
            .or(self.retry.as_ref())
    }

    /// The retry that the set says for a step's undo, if it says one.
    #[must_use]
    pub fn compensation_retry_of(&self, step: &str) -> Option<&Retry> {
        self.of(step, |said| said.compensation_retry.as_ref())
            .or(self.compensation_retry.as_ref())
    }

    fn of<'a>(
        &'a self,
        step: &str,
        said: impl Fn(&'a StepRetries) -> Option<&'a Retry>,
    ) -> Option<&'a Retry> {
        self.steps
            .iter()
            .filter(|retries| matches(&retries.pattern, step))
            .find_map(said)
    }

    /// What is wrong with the set, whatever the saga: empty where nothing is.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(policy) = &self.recovery {
            faults.extend(policy.faults());
        }
        let mut retry = |place: String, retry: &Option<Retry>| {
            if let Some(retry) = retry {
                faults.extend(retry.faults().iter().map(|why| format!("{place}: {why}")));
            }
        };
        retry("retry".to_owned(), &self.retry);
        retry("compensation_retry".to_owned(), &self.compensation_retry);
        for step in &self.steps {
            let pattern = &step.pattern;
            retry(format!("step `{pattern}`: retry"), &step.retry);
            retry(
                format!("step `{pattern}`: compensation_retry"),
                &step.compensation_retry,
            );
        }
        for step in &self.steps {
            if step.retry.is_none() && step.compensation_retry.is_none() {
                faults.push(format!("step `{}`: it says no retry", step.pattern));
            }
        }
        faults
    }

    /// Names of steps, without a `*`, that none of these steps has. A pattern may match none: a set may
    /// serve several sagas. The rules of a policy see the steps of its own saga only.
    pub(crate) fn unknown_steps(
        &self,
        own: &dyn Fn(&str) -> bool,
        known: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut unknown = Vec::new();
        let rules = self.recovery.iter().flat_map(RecoveryPolicy::rules);
        for rule in rules {
            for condition in rule.conditions() {
                if let Condition::Step(pattern) = condition
                    && is_exact(pattern)
                    && !own(pattern)
                {
                    let rule = rule.name();
                    unknown.push(if known(pattern) {
                        format!(
                            "rule `{rule}`: `{pattern}` is inside another step, so that it never matches: \
                             a policy sees the steps of its own saga"
                        )
                    } else {
                        format!(
                            "rule `{rule}`: the saga has no step `{pattern}`, so that it never matches"
                        )
                    });
                }
            }
        }
        for step in &self.steps {
            if is_exact(&step.pattern) && !known(&step.pattern) {
                unknown.push(format!("the saga has no step `{}`", step.pattern));
            }
        }
        unknown
    }
}
