//! Step names, and the numbers that stand for them inside one run.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// The number of a step inside one run or one loaded journal.
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
///
/// A run whose sub-sagas and fan-outs begin gets more names as it goes on. They are only ever added, so
/// every clone of the table stays right.
#[derive(Clone, Default)]
pub struct StepTable {
    first: Arc<Vec<Arc<str>>>,
    grown: Option<Arc<RwLock<Vec<Arc<str>>>>>,
}

impl StepTable {
    /// A table of these names, numbered from 0.
    #[must_use]
    pub fn new(names: Vec<Arc<str>>) -> Self {
        StepTable {
            first: Arc::new(names),
            grown: None,
        }
    }

    /// The name of a step; `?` for a number that isn't in the table.
    #[must_use]
    pub fn name(&self, step: StepIx) -> Arc<str> {
        let name = match step.at().checked_sub(self.first.len()) {
            None => Some(Arc::clone(&self.first[step.at()])),
            Some(at) => self.grown(|names| names.get(at).cloned()),
        };
        name.unwrap_or_else(|| Arc::from("?"))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.grown(|names| Some(names.len())).unwrap_or(0)
    }

    /// Whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names in the order of their numbers.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names = (*self.first).clone();
        self.grown(|grown| {
            names.extend(grown.iter().cloned());
            Some(())
        });
        names
    }

    /// Whether both are the very same table, so that numbers need no translation.
    #[must_use]
    pub fn is_same(&self, other: &StepTable) -> bool {
        let same_growth = match (&self.grown, &other.grown) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (Some(_), None) | (None, Some(_)) => false,
        };
        Arc::ptr_eq(&self.first, &other.first) && same_growth
    }

    /// Whether this is the table of a run that began with the other one.
    pub(crate) fn begins_as(&self, other: &StepTable) -> bool {
        Arc::ptr_eq(&self.first, &other.first)
    }

    /// A table that begins with these names, and grows by itself.
    pub(crate) fn of_run(&self) -> StepTable {
        StepTable {
            first: Arc::clone(&self.first),
            grown: None,
        }
    }

    /// Adds names at the end and gives the number of the first.
    pub(crate) fn grow(&mut self, names: impl IntoIterator<Item = Arc<str>>) -> StepIx {
        let grown = self.grown.get_or_insert_default();
        // No code that can panic runs under this lock, and it is never held across an await.
        let mut held = grown.write().unwrap_or_else(PoisonError::into_inner);
        let first = StepIx::new(self.first.len() + held.len());
        held.extend(names);
        first
    }

    fn grown<T>(&self, read: impl FnOnce(&[Arc<str>]) -> Option<T>) -> Option<T> {
        let grown = self.grown.as_ref()?;
        read(&grown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PartialEq for StepTable {
    fn eq(&self, other: &StepTable) -> bool {
        self.is_same(other) || self.names() == other.names()
    }
}

impl Eq for StepTable {}

impl fmt::Debug for StepTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
