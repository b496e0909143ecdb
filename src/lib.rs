//! Sagas in your own process.

mod ids;
mod sharded;
pub mod failure;
pub mod journal;
pub mod policy;
pub mod saga;
pub mod step;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use failure::FailureMode;
pub use ids::{RunId, Timestamp};
pub use policy::{RecoveryPolicy, RecoveryStrategy, Retry};
pub use saga::*;
pub use step::*;
