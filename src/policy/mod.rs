//! What to do about a failure, as data: retry of a step, recovery of a run, and why.
//!
//! [`Retry`] belongs to a step and comes first. What it can't mend is put to the run's
//! [`RecoveryPolicy`], whose [`Explanation`] is journalled with the decision. A [`PolicySet`] holds both
//! for a whole saga: it can be written as TOML (feature `toml`), and replaced in a running
//! [`Coordinator`](crate::Coordinator::replace_policies).

mod duration;
mod explanation;
mod pattern;
mod recovery;
mod retry;
mod set;
mod strategy;
#[cfg(feature = "toml")]
mod text;

pub use explanation::{Explanation, PassedOver, Situation};
pub use recovery::{Condition, RecoveryPolicy, Rule};
pub use retry::{GiveUp, Jitter, Retry, RetryVerdict};
pub use set::{PolicySet, StepRetries};
pub use strategy::RecoveryStrategy;
#[cfg(feature = "toml")]
pub use text::{PolicyFault, PolicyFileError};
