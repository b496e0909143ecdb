//! Step names, and the numbers that stand for them inside one definition.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The number of a step inside one definition or one loaded journal.
///
/// It means nothing without the [`StepTable`] that it belongs to, and is never written: journals hold names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepIx(pub u32);

impl StepIx {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }

    /// The number of the `index`-th step. Definitions are refused long before `u32` is exhausted.
    pub(crate) fn new(index: usize) -> Self {
        StepIx(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// The names behind the numbers: shared by all records of a run, so that events in memory need no strings.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StepTable(Arc<Vec<Arc<str>>>);

impl StepTable {
    /// A table of these names, numbered from 0.
    #[must_use]
    pub fn new(names: Vec<Arc<str>>) -> Self {
        StepTable(Arc::new(names))
    }

    /// The name of a step; `?` for a number that isn't in the table.
    #[must_use]
    pub fn name(&self, step: StepIx) -> &str {
        self.0.get(step.at()).map_or("?", |name| name)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Whether both are the very same table, so that numbers need no translation.
    #[must_use]
    pub fn is_same(&self, other: &StepTable) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
