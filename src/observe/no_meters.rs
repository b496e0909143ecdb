//! Nothing is counted: the face of the other module, without any cost.

// Each function has the form of its counterpart.
#![allow(
    clippy::unused_self,
    clippy::unused_async,
    clippy::needless_pass_by_value
)]

use crate::journal::Event;
use crate::saga::Graph;
use crate::step::StepIx;
use crate::store::{Store, StoreError};

pub(crate) struct Meters;

impl Meters {
    pub(crate) fn new() -> Self {
        Meters
    }

    pub(crate) fn definition(&mut self, _graph: &Graph) -> DefinitionMeters {
        DefinitionMeters
    }

    pub(crate) async fn count_parked(&self, _store: &dyn Store) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) struct DefinitionMeters;

impl DefinitionMeters {
    pub(crate) fn run(&self, _parked: bool) -> RunCounts {
        RunCounts
    }
}

pub(crate) struct RunCounts;

impl RunCounts {
    pub(crate) fn note(&mut self, _event: &Event<StepIx>, _place: impl Fn(StepIx) -> usize) {}

    pub(crate) fn durable(&mut self, _parked: bool) {}

    pub(crate) fn appending() -> Appending {
        Appending
    }

    pub(crate) fn appended(&self, _appending: &Appending) {}
}

pub(crate) struct Appending;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Default)]
pub(crate) struct QueueDepth;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl QueueDepth {
    pub(crate) fn grew(&self) {}

    pub(crate) fn shrank(&self, _by: usize) {}
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Default)]
pub(crate) struct BatchSize;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl BatchSize {
    pub(crate) fn committed(&self, _writes: usize) {}
}
