//! Whether and when a failed attempt is followed by another: a pure function.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::form::Form;
use crate::failure::{Failure, FailureMode, millis};

mod form;

/// When a failed attempt is followed by another one, and after how long a wait.
///
/// | | [`exponential`](Retry::exponential), the default | [`linear`](Retry::linear) | [`constant`](Retry::constant) | [`compensation`](Retry::compensation) | [`none`](Retry::none) |
/// |---|---|---|---|---|---|
/// | first wait | 200 ms | 1 s | 2 s | 200 ms | |
/// | grows by | ×2 | +1 s | | ×2 | |
/// | cap | 30 s | 30 s | | 60 s | |
/// | jitter | equal | none | none | equal | |
/// | attempts | 3 | 3 | 3 | 10 | 1 |
///
/// *Attempts* are calls: 3 attempts are a first call and two retries. Which failures are retried is
/// in the failure: by default those that are [retryable](Failure::retryable), and never a terminal
/// one. There is no limit of total time unless one is set. Waits are whole milliseconds; a shorter or
/// broken one is rounded up.
///
/// A policy that makes no sense can be written down, and is listed by [`faults`](Retry::faults); a
/// definition that holds one does not build.
///
/// ```
/// use std::time::Duration;
/// use amends::failure::{Failure, FailureMode};
/// use amends::policy::{GiveUp, Jitter, Retry, RetryVerdict};
///
/// let retry = Retry::exponential().initial(Duration::from_secs(1)).jitter(Jitter::None).max_attempts(4);
/// let reset = Failure::new(FailureMode::SystemNetwork, "connection reset");
/// let verdict = |attempts| retry.verdict(&reset, attempts, Duration::ZERO, None, 0);
///
/// assert_eq!(verdict(1), RetryVerdict::Again { after: Duration::from_secs(1) });
/// assert_eq!(verdict(2), RetryVerdict::Again { after: Duration::from_secs(2) });
/// assert_eq!(verdict(3), RetryVerdict::Again { after: Duration::from_secs(4) });
/// assert_eq!(verdict(4), RetryVerdict::GiveUp(GiveUp::AttemptsUsedUp));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct Retry {
    backoff: Backoff,
    initial_ms: u64,
    /// Set where the backoff is linear; elsewhere it is a fault.
    step_ms: Option<u64>,
    /// Set where the backoff is exponential; elsewhere it is a fault.
    factor: Option<u32>,
    cap_ms: Option<u64>,
    jitter: Jitter,
    max_attempts: u32,
    total_ms: Option<u64>,
    only: Option<Vec<FailureMode>>,
}

/// How the wait grows from attempt to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backoff {
    Constant,
    Linear,
    Exponential,
}

/// How a wait is spread, so that many runs that failed together don't come back together.
///
/// `d` is the wait that the policy computes, already under the cap. No jitter exceeds the cap.
/// The spread is uniform and comes from the seed alone, so the same seed gives the same wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Exactly `d`.
    None,
    /// Between nothing and `d`.
    Full,
    /// Between half of `d` and `d`.
    Equal,
    /// Between the first wait and three times the previous one, under the cap. It grows by itself:
    /// step and factor have no part in it, and the first wait is exact.
    Decorrelated,
}

/// What a [`Retry`] says about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Another attempt, once this wait is over.
    Again {
        /// The wait, in whole milliseconds.
        after: Duration,
    },
    /// No further attempt: the step has failed for good.
    GiveUp(GiveUp),
}

/// Why no further attempt is made. Where several reasons hold, the first in this order is given.
///
/// ```
/// use amends::policy::GiveUp;
///
/// assert_eq!(GiveUp::AttemptsUsedUp.to_string(), "all attempts are used up");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUp {
    /// The mode is terminal: no policy retries it.
    Terminal,
    /// The failure is not retryable, or not among the modes of [`Retry::only`].
    NotRetryable,
    /// As many attempts were made as [`Retry::max_attempts`] allows.
    AttemptsUsedUp,
    /// The next attempt would begin after [`Retry::total`].
    TimeUsedUp,
    /// The step is declared `at_most_once`, and its effect is in doubt (rule K5).
    AtMostOnce,
}

impl Retry {
    /// One attempt and no retry.
    ///
    /// The rest is as in [`exponential`](Retry::exponential), should you raise `max_attempts` after all.
    #[must_use]
    pub fn none() -> Self {
        Self::exponential().max_attempts(1)
    }

    /// The same wait each time: 2 s, without jitter and without a cap, 3 attempts.
    #[must_use]
    pub fn constant() -> Self {
        Self {
            backoff: Backoff::Constant,
            initial_ms: 2_000,
            step_ms: None,
            factor: None,
            cap_ms: None,
            jitter: Jitter::None,
            max_attempts: 3,
            total_ms: None,
            only: None,
        }
    }

    /// A wait that grows by the same step each time: 1 s, 2 s, 3 s and so on to 30 s, without jitter,
    /// 3 attempts.
    #[must_use]
    pub fn linear() -> Self {
        Self {
            backoff: Backoff::Linear,
            initial_ms: 1_000,
            step_ms: Some(1_000),
            cap_ms: Some(30_000),
            ..Self::constant()
        }
    }

    /// A wait that doubles each time: 200 ms, 400 ms, 800 ms and so on to 30 s, with equal jitter,
    /// 3 attempts.
    #[must_use]
    pub fn exponential() -> Self {
        Self {
            backoff: Backoff::Exponential,
            initial_ms: 200,
            factor: Some(2),
            cap_ms: Some(30_000),
            jitter: Jitter::Equal,
            ..Self::constant()
        }
    }

    /// What an undo gets unless it is told otherwise: exponential to 60 s, 10 attempts. More patient
    /// than [`exponential`](Retry::exponential), since an undo that fails for good needs a person.
    #[must_use]
    pub fn compensation() -> Self {
        Self::exponential()
            .cap(Duration::from_secs(60))
            .max_attempts(10)
    }

    /// The wait after the first failed attempt.
    #[must_use]
    pub fn initial(mut self, wait: Duration) -> Self {
        self.initial_ms = millis::up(wait);
        self
    }

    /// By how much each wait is longer than the one before it. Default: 1 s. Only a linear policy
    /// has a step; set on another, it is a fault.
    #[must_use]
    pub fn step(mut self, longer_by: Duration) -> Self {
        self.step_ms = Some(millis::up(longer_by));
        self
    }

    /// How many times as long each wait is as the one before it. Default: 2. Only an exponential
    /// policy has a factor; set on another, it is a fault.
    #[must_use]
    pub fn factor(mut self, times: u32) -> Self {
        self.factor = Some(times);
        self
    }

    /// No computed wait is longer than this, jitter included. A wait that the failure itself asks for
    /// may be. Default: 30 s; none for a constant policy.
    #[must_use]
    pub fn cap(mut self, longest: Duration) -> Self {
        self.cap_ms = Some(millis::up(longest));
        self
    }

    /// How waits are spread. Default: [`Jitter::Equal`] for exponential policies, else
    /// [`Jitter::None`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// How many calls are made at most, the first one included; 1 is no retry. Default: 3. Zero is a
    /// fault.
    #[must_use]
    pub fn max_attempts(mut self, calls: u32) -> Self {
        self.max_attempts = calls;
        self
    }

    /// How long after the start of the first attempt a new one may begin; one that has begun is not
    /// stopped by it. Default: no limit.
    #[must_use]
    pub fn total(mut self, time: Duration) -> Self {
        self.total_ms = Some(millis::up(time));
        self
    }

    /// Retry exactly these modes: no other, however retryable, and these even where the failure is
    /// not retryable. A terminal mode is never retried; to list nothing else, or nothing, is a fault.
    /// Default: what the failure says.
    #[must_use]
    pub fn only(mut self, modes: impl IntoIterator<Item = FailureMode>) -> Self {
        self.only = Some(modes.into_iter().collect());
        self
    }

    /// Whether and when the next attempt is made.
    ///
    /// * `attempts_made`: calls that count against `max_attempts`, the failed one included. A
    ///   recovery grants them anew, and an attempt that a crash interrupted is not counted.
    /// * `since_first`: the time since the first of them began.
    /// * `previous_delay`: the wait before the failed attempt, if there was one.
    /// * `seed`: where jitter comes from. Give each step of each run its own; one seed serves all
    ///   attempts. The wait is made from the `attempts_made`-th number of the `SplitMix64` sequence of
    ///   the seed and from nothing else, so that a replay agrees with what happened.
    ///
    /// A [`retry_after`](Failure::retry_after) of more than zero replaces the computed wait, above
    /// the cap too, but not the limits of attempts and time. The cap holds before jitter, so that waits
    /// at the cap are still spread, and after it, so that none is longer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use amends::failure::{Failure, FailureMode};
    /// use amends::policy::{Retry, RetryVerdict};
    ///
    /// let busy = Failure::new(FailureMode::RateLimited, "slow down").retry_after(Some(Duration::from_secs(90)));
    /// assert_eq!(
    ///     Retry::default().verdict(&busy, 1, Duration::ZERO, None, 7),
    ///     RetryVerdict::Again { after: Duration::from_secs(90) },
    /// );
    /// ```
    #[must_use]
    pub fn verdict(
        &self,
        failure: &Failure,
        attempts_made: u32,
        since_first: Duration,
        previous_delay: Option<Duration>,
        seed: u64,
    ) -> RetryVerdict {
        if failure.mode.is_terminal() {
            return RetryVerdict::GiveUp(GiveUp::Terminal);
        }
        let wanted = match &self.only {
            Some(modes) => modes.iter().any(|mode| mode.is_same_mode(&failure.mode)),
            None => failure.retryable,
        };
        if !wanted {
            return RetryVerdict::GiveUp(GiveUp::NotRetryable);
        }
        if attempts_made >= self.max_attempts {
            return RetryVerdict::GiveUp(GiveUp::AttemptsUsedUp);
        }
        // A wait of zero is what careless services send for "I don't know".
        let asked_for = failure.retry_after.filter(|wait| !wait.is_zero());
        let after = asked_for.map_or_else(
            || self.delay(attempts_made, previous_delay, seed),
            millis::rounded,
        );
        let begins = since_first.saturating_add(after);
        if self
            .total_ms
            .is_some_and(|total| begins > Duration::from_millis(total))
        {
            return RetryVerdict::GiveUp(GiveUp::TimeUsedUp);
        }
        RetryVerdict::Again { after }
    }

    /// What is wrong with the policy, each as a lower-case phrase; nothing, if it can be used.
    ///
    /// ```
    /// use amends::policy::Retry;
    ///
    /// assert!(Retry::default().faults().is_empty());
    /// assert_eq!(
    ///     Retry::none().max_attempts(0).faults(),
    ///     ["max_attempts is 0: it counts calls, so that 1 is no retry"],
    /// );
    /// ```
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.faults_by_key()
            .into_iter()
            .map(|(_, fault)| fault)
            .collect()
    }

    /// The same, each with the key of the written form that is to blame.
    pub(super) fn faults_by_key(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.max_attempts == 0 {
            faults.push((
                "max_attempts",
                "max_attempts is 0: it counts calls, so that 1 is no retry".to_owned(),
            ));
        }
        if let Some(cap) = self.cap_ms.filter(|cap| *cap < self.initial_ms) {
            let initial = self.initial_ms;
            faults.push((
                "cap",
                format!("the cap of {cap} ms is below the first wait of {initial} ms: raise the one or lower the other"),
            ));
        }
        if self.factor == Some(0) {
            faults.push((
                "factor",
                "the factor is 0: waits would vanish; 1 keeps them as they are".to_owned(),
            ));
        }
        if self.factor.is_some() && self.backoff != Backoff::Exponential {
            faults.push((
                "factor",
                "a factor is set, but only an exponential backoff has one: leave it out".to_owned(),
            ));
        }
        if self.step_ms.is_some() && self.backoff != Backoff::Linear {
            faults.push((
                "step",
                "a step is set, but only a linear backoff has one: leave it out".to_owned(),
            ));
        }
        if self.jitter == Jitter::Decorrelated && self.backoff == Backoff::Constant {
            faults.push((
                "jitter",
                "decorrelated jitter makes waits grow, but the backoff is constant: take full or equal".to_owned(),
            ));
        }
        if let Some(modes) = &self.only {
            if modes.is_empty() {
                faults.push((
                    "only",
                    "`only` lists no mode: to retry nothing, use none".to_owned(),
                ));
            }
            for mode in modes.iter().filter(|mode| mode.is_terminal()) {
                faults.push((
                    "only",
                    format!(
                        "`only` lists {mode}, which is terminal and never retried: leave it out"
                    ),
                ));
            }
        }
        faults
    }

    /// The same waits, without limits of attempts, time or modes.
    pub(super) fn without_limits(self) -> Self {
        Self {
            max_attempts: u32::MAX,
            total_ms: None,
            only: None,
            ..self
        }
    }

    #[cfg(feature = "toml")]
    pub(super) fn only_modes(&self) -> Option<&[FailureMode]> {
        self.only.as_deref()
    }

    pub(super) fn spreads_by_the_previous(&self) -> bool {
        self.jitter == Jitter::Decorrelated
    }

    pub(crate) fn delay(
        &self,
        attempts_made: u32,
        previous: Option<Duration>,
        seed: u64,
    ) -> Duration {
        let cap = self.cap_ms.unwrap_or(u64::MAX);
        let planned = self.planned(attempts_made).min(cap);
        let random = split_mix(seed, attempts_made);
        let delay = match self.jitter {
            Jitter::None => planned,
            Jitter::Full => between(0, planned, random),
            // Half rounded up: a wait of 1 ms keeps a lower bound.
            Jitter::Equal => between(planned.div_ceil(2), planned, random),
            Jitter::Decorrelated => match previous {
                None => self.initial_ms,
                Some(previous) => {
                    let highest = millis::up(previous).saturating_mul(3);
                    between(self.initial_ms, highest.max(self.initial_ms), random)
                }
            },
        };
        Duration::from_millis(delay.min(cap))
    }

    /// The wait in milliseconds, before cap and jitter.
    fn planned(&self, attempts_made: u32) -> u64 {
        // The first wait follows the first attempt. None is made before the first verdict, except that
        // interrupted attempts are not counted.
        let earlier_waits = attempts_made.saturating_sub(1);
        match self.backoff {
            Backoff::Constant => self.initial_ms,
            Backoff::Linear => {
                let step = self.step_ms.unwrap_or_default();
                self.initial_ms
                    .saturating_add(step.saturating_mul(earlier_waits.into()))
            }
            Backoff::Exponential => {
                let factor = u64::from(self.factor.unwrap_or(1));
                self.initial_ms
                    .saturating_mul(factor.saturating_pow(earlier_waits))
            }
        }
    }
}

impl Default for Retry {
    /// [`Retry::exponential`]: the modes decide what is retried, and what nobody knows is not.
    fn default() -> Self {
        Self::exponential()
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Terminal => "the failure is terminal",
            Self::NotRetryable => "the failure is not retryable",
            Self::AttemptsUsedUp => "all attempts are used up",
            Self::TimeUsedUp => "the time for retries is used up",
            Self::AtMostOnce => "the step runs at most once, and nobody knows whether it did",
        })
    }
}

/// The `nth` number, from 1, of the `SplitMix64` sequence that begins at `seed`.
fn split_mix(seed: u64, nth: u32) -> u64 {
    let state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(nth.into()));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `random` scaled to `lowest..=highest`.
fn between(lowest: u64, highest: u64, random: u64) -> u64 {
    let width = u128::from(highest - lowest) + 1;
    // The high half of the product is below `width`, so it fits and the sum can't pass `highest`.
    let offset = (u128::from(random) * width) >> 64;
    lowest + u64::try_from(offset).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
