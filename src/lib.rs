//! Sagas in your own process.

mod coordinator;
pub mod diagram;
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

pub use coordinator::*;
pub use failure::FailureMode;
pub use ids::{RunId, Timestamp};
pub use partial::*;
pub use policy::{RecoveryPolicy, RecoveryStrategy, Retry};
pub use saga::*;
pub use step::*;

/// The pages of `docs/`, so that their examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/defining.md")]
mod defining {}
