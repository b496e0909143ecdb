//! From an error to its meaning, by type, through the whole chain of causes.

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::adapters::{self, Known};
use super::failure::FailedEffect;
use super::millis;
use super::mode::FailureMode;

/// How many errors of a chain are looked at. No honest chain is that long, and one that ends never
/// must not hold up a run.
const CHAIN_LIMIT: usize = 64;

/// What an error means to a run.
///
/// A [`FailedEffect::NotDone`] in it is a conclusion about *one call*. It counts for a step that
/// declares itself atomic; for any other step something before that call may have left an effect, and
/// the run takes the attempt to be in doubt.
///
/// ```
/// use std::time::Duration;
/// use amends::failure::{Classification, FailedEffect, FailureMode};
///
/// let busy = Classification::new(FailureMode::RateLimited, FailedEffect::NotDone)
///     .retry_after(Some(Duration::from_secs(30)));
/// assert!(busy.retryable);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    /// The class of what went wrong.
    pub mode: FailureMode,
    /// What the failed call left behind.
    pub effect: FailedEffect,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// How long to wait before the next attempt, where the error said so.
    pub retry_after: Option<Duration>,
}

impl Classification {
    /// Retryable as the mode is, without a wait of its own.
    #[must_use]
    pub fn new(mode: FailureMode, effect: FailedEffect) -> Self {
        Self {
            retryable: mode.is_retryable(),
            mode,
            effect,
            retry_after: None,
        }
    }

    /// Whether another attempt may help. Default: as the mode has it. A terminal mode stays not
    /// retryable, whatever is said here.
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

/// Knows what some errors mean.
///
/// Implement it for the errors of your own services, and hand it to [`Classifier::with`]. It should
/// depend on nothing but the error: the same error must mean the same each time.
///
/// ```
/// use std::error::Error;
/// use amends::failure::{Classification, Classifier, Classify, FailedEffect, FailureMode};
///
/// #[derive(Debug)]
/// struct Declined;
/// impl std::fmt::Display for Declined {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("the bank declined the card")
///     }
/// }
/// impl Error for Declined {}
///
/// #[derive(Debug)]
/// struct Bank;
/// impl Classify for Bank {
///     fn classify(&self, error: &(dyn Error + 'static)) -> Option<Classification> {
///         error.downcast_ref::<Declined>()?;
///         Some(Classification::new(FailureMode::InvalidInput, FailedEffect::NotDone))
///     }
/// }
///
/// let known = Classifier::new().with(Bank).classify(&Declined);
/// assert_eq!(known.mode, FailureMode::InvalidInput);
/// ```
pub trait Classify: Send + Sync + Debug + 'static {
    /// What this one error means, or `None` where it is not known. Don't follow
    /// [`source`](Error::source): the [`Classifier`] asks about each error of the chain.
    fn classify(&self, error: &(dyn Error + 'static)) -> Option<Classification>;

    /// Whether to be asked only when nothing else knows any error of the chain. Default: no.
    fn is_last_resort(&self) -> bool {
        false
    }
}

/// The one place that decides what an error means; retry, record and recovery read its answer.
///
/// It walks the chain of causes from the outermost error inwards, and the first error that anyone
/// knows decides: your own classifiers in the order in which they were added, then the built-in
/// adapters. What an [`io::Error`] was made from belongs to the chain, and your own classifiers are
/// asked about it before its [`kind`](io::Error::kind) decides. At most 64 errors are looked at.
///
/// A client library knows how far a call had come, and not why it failed: there the effect is its
/// word, and the mode that of the cause further in, where anyone knows it. So a `reqwest` error of a
/// connect that found nobody listening is `resource_api`, not done; and whatever is inside an error of
/// a call that was under way, the effect stays in doubt.
///
/// What is known is told, with the reasons, by the tables in the documentation of
/// [this module](crate::failure). Anything else is `agent_logic`, not retryable, in doubt.
///
/// Nothing is guessed from words, unless you add [`WordRules`](super::WordRules).
///
/// An error that forwards both its message and its `source` to an inner one (`transparent`, in
/// `thiserror`) hides that inner error from everyone: write a [`Classify`] for the outer type.
/// So does an `Arc` or `Box` of an error of your own; of an [`io::Error`], or of a `dyn Error`
/// in an `Arc`, it is seen through.
///
/// ```
/// use std::io;
/// use amends::failure::{Classifier, FailedEffect, FailureMode};
///
/// let classifier = Classifier::new();
/// let reset = io::Error::from(io::ErrorKind::ConnectionReset);
/// let wrapped = io::Error::other(io::Error::other(reset));
/// assert_eq!(classifier.classify(&wrapped).mode, FailureMode::SystemNetwork);
///
/// let unknown = classifier.classify(&io::Error::other("connection timeout"));
/// assert_eq!(unknown.mode, FailureMode::StepLogic);
/// assert_eq!(unknown.effect, FailedEffect::InDoubt);
/// assert!(!unknown.retryable);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    own: Vec<Arc<dyn Classify>>,
    last_resorts: Vec<Arc<dyn Classify>>,
}

impl Classifier {
    /// Knows what the built-in adapters know, and nothing more.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks `classifier` too, after those that were added before it.
    #[must_use]
    pub fn with(mut self, classifier: impl Classify) -> Self {
        let list = if classifier.is_last_resort() {
            &mut self.last_resorts
        } else {
            &mut self.own
        };
        list.push(Arc::new(classifier));
        self
    }

    /// What the error means. Always an answer; for what nobody knows it is
    /// [`FailureMode::StepLogic`], in doubt, not retryable.
    #[must_use]
    pub fn classify(&self, error: &(dyn Error + 'static)) -> Classification {
        self.known(error)
            .or_else(|| chain(error).find_map(|error| ask(&self.last_resorts, error)))
            .unwrap_or_else(|| Classification::new(FailureMode::StepLogic, FailedEffect::InDoubt))
    }

    /// What anyone knows by type. The first answer decides; where that is only about how far the call
    /// had come, its effect stands, and the rest is for the next one to say.
    fn known(&self, error: Link<'_>) -> Option<Classification> {
        let mut phase: Option<Classification> = None;
        for error in chain(error) {
            let own = contents(error).find_map(|error| ask(&self.own, error));
            let whole = match own {
                Some(known) => known,
                None => match adapters::classify(error) {
                    Some(Known::Whole(known)) => known,
                    Some(Known::Phase(known)) => {
                        phase.get_or_insert(known);
                        continue;
                    }
                    None => continue,
                },
            };
            let effect = phase.map_or(whole.effect, |phase| phase.effect);
            return Some(Classification { effect, ..whole });
        }
        phase
    }
}

fn ask(classifiers: &[Arc<dyn Classify>], error: &(dyn Error + 'static)) -> Option<Classification> {
    classifiers.iter().find_map(|one| one.classify(error))
}

type Link<'a> = &'a (dyn Error + 'static);

/// The error and its causes, outermost first.
pub(super) fn chain(error: Link<'_>) -> impl Iterator<Item = Link<'_>> {
    std::iter::successors(Some(error), |&error| {
        inside(error).or_else(|| error.source())
    })
    .take(CHAIN_LIMIT)
}

/// The error and what it is merely an envelope of.
fn contents(error: Link<'_>) -> impl Iterator<Item = Link<'_>> {
    std::iter::successors(Some(error), |&error| inside(error)).take(CHAIN_LIMIT)
}

/// What an envelope holds. Their `source` is that of the error inside, so that following it would
/// step over the very error that is known.
fn inside(error: Link<'_>) -> Option<Link<'_>> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|inner| inner as Link<'_>);
    }
    if let Some(error) = error.downcast_ref::<Arc<io::Error>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Box<io::Error>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**error);
    }
    None
}

#[cfg(test)]
mod tests;
