//! Sagas in your own process.

mod coordinator;
pub mod failure;
mod ids;
pub mod journal;
pub mod machine;
mod partial;
pub mod policy;
pub mod saga;
mod sharded;
pub mod step;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use coordinator::*;
pub use failure::FailureMode;
pub use ids::{RunId, Timestamp};
pub use partial::*;
pub use policy::{RecoveryPolicy, RecoveryStrategy, Retry};
pub use saga::*;
pub use step::*;
