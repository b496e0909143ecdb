//! What a step says that did a part of its work.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::mode::FailureMode;

/// A step is done, and says that it did a part of its items only.
///
/// No failure: its output is kept, and its effect undone like any other. A recovery policy may answer to it
/// where a rule names it, by its mode or by [`FailedEffect::Done`](super::FailedEffect::Done).
///
/// ```
/// use amends::FailureMode;
/// use amends::failure::PartialSuccess;
///
/// let part = PartialSuccess::new(7, 10, "3 lines are out of stock");
/// assert_eq!(part.mode, FailureMode::PartialStepFailures);
/// assert_eq!(part.to_string(), "7 of 10: 3 lines are out of stock (partial_step_failures)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartialSuccess {
    /// How many items are done.
    pub done: u64,
    /// How many there were.
    pub of: u64,
    /// What became of the others, for people.
    pub message: String,
    /// By what a policy knows it.
    pub mode: FailureMode,
}

impl PartialSuccess {
    /// So many of so many items, of mode [`PartialStepFailures`](FailureMode::PartialStepFailures).
    #[must_use]
    pub fn new(done: u64, of: u64, message: impl Into<String>) -> Self {
        PartialSuccess {
            done,
            of,
            message: message.into(),
            mode: FailureMode::PartialStepFailures,
        }
    }

    /// The same of another mode:
    /// [`PartialServiceFailures`](FailureMode::PartialServiceFailures), or one of your own.
    #[must_use]
    pub fn with_mode(mut self, mode: FailureMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether anything is missing.
    pub(crate) fn lacks_something(&self) -> bool {
        self.done < self.of
    }
}

impl fmt::Display for PartialSuccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, of, message) = (self.done, self.of, &self.message);
        write!(f, "{done} of {of}: {message} ({})", self.mode)
    }
}
