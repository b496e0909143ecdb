//! Numbers about all runs, for whoever installs a recorder.
//!
//! A side room: the coordinator and the stores tell it what happens, and it decides nothing. Spans, which
//! are about one run, are the coordinator's own affair, beside the driver that they follow.

// Two modules with one face, so that those who tell needn't know whether anybody counts.
#[cfg_attr(not(feature = "metrics"), path = "no_meters.rs")]
mod meters;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use meters::{BatchSize, QueueDepth};
pub(crate) use meters::{DefinitionMeters, Meters, RunCounts};
