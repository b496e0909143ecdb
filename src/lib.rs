//! Sagas in your own process.

mod ids;
mod sharded;
pub mod failure;
pub mod machine;
pub mod journal;
mod partial;
pub mod policy;
pub mod saga;
pub mod step;
pub mod store;

pub use failure::FailureMode;
pub use ids::{RunId, Timestamp};
pub use policy::{RecoveryPolicy, RecoveryStrategy, Retry};
pub use saga::*;
pub use step::*;
pub use partial::*;
