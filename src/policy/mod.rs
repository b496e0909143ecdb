//! What to do about a failure, as data: retry of a step, recovery of a run, and why.
//!
//! [`Retry`] belongs to a step and comes first. What it can't mend is put to the run's
//! [`RecoveryPolicy`], whose [`Explanation`] is journalled with the decision.

mod explanation;
mod recovery;
mod retry;
mod strategy;

pub use explanation::{Explanation, PassedOver, Situation};
pub use recovery::{Condition, RecoveryPolicy, Rule};
pub use retry::{GiveUp, Jitter, Retry, RetryVerdict};
pub use strategy::RecoveryStrategy;
