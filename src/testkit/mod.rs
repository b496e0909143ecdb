//! Tests for your own sagas: virtual time, a world that goes wrong to order, and crash exploration.
//!
//! * [`VirtualClock`]: wall time for a coordinator in a paused runtime.
//! * [`World`]: all participants in one, with [`Fault`]s where a test wants them.
//! * [`CrashingStore`]: wraps a store and lets single appends fail.
//! * [`Explorer`]: kills a run before and after each append, and its recovery again at each append of the
//!   recovery, and checks after each that nothing was lost, repeated, or reported falsely.
//! * [`conformance`]: the suite that every store has to pass, for stores of your own.
//!
//! Needs the feature `testkit`, which belongs into `dev-dependencies`: it turns on tokio's pausable
//! clock. `docs/testing.md` shows the way from a saga to its exploration.

mod clock;
pub mod conformance;
mod explore;
mod fault;
mod keys;
mod log;
mod oracle;
mod participant;
mod path;
mod report;
mod scenario;
mod store;
mod world;

pub use clock::VirtualClock;
pub use explore::{Explorer, Reopen};
pub use fault::Fault;
pub use log::{Happened, WorldEvent};
pub use report::{Explored, Violation};
pub use scenario::{Operator, Scenario, When};
pub use store::{CrashSignal, CrashingStore, StoreFault};
pub use world::World;

/// The guide's examples are compiled and run like any other.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
mod guide {}
