//! A run as its journal and the store's outline of its definition show it.

use std::sync::Arc;

use crate::ids::RunId;
use crate::journal::{Journal, VerbName};
use crate::machine::{Stage, State};
use crate::partial::PartialResult;
use crate::saga::Graph;
use crate::store::RunEntry;

/// All that can be known of a run without its code.
///
/// What only code says (whether a step must run at most once, say) is not in an outline, so the run's owner
/// may refuse what [`legal`](Self::legal) has.
#[derive(Clone, Debug)]
pub struct RunView {
    pub(super) entry: RunEntry,
    pub(super) journal: Journal,
    pub(super) graph: Arc<Graph>,
    pub(super) state: State,
    pub(super) damage: Option<String>,
}

impl RunView {
    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.entry.run
    }

    /// Its entry in the store's list.
    #[must_use]
    pub fn entry(&self) -> &RunEntry {
        &self.entry
    }

    /// Its journal, as far as it can be read.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Its definition, as the store keeps it.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What its journal means.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// All that it has achieved so far.
    #[must_use]
    pub fn partial(&self) -> PartialResult {
        PartialResult::of(&self.entry.run, &self.state, &self.graph)
    }

    /// What it is doing, as far as verbs depend on it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.stage(&self.graph)
    }

    /// The verbs that it takes now.
    #[must_use]
    pub fn legal(&self) -> Vec<VerbName> {
        self.state.legal(&self.graph)
    }

    /// What is wrong with its journal, if something is: then all else is true up to the damage only.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}
