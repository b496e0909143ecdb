//! Looks at runs and steers them, from any process that can open their store.
//!
//! An [`Operator`] needs no definitions: it reads journals with the outlines that the store keeps, and hands
//! commands in, which the owner of a run carries out. The command line is made of it; so can be a page of
//! yours.
//!
//! ```
//! use amends::operator::Operator;
//! use amends::store::{MemoryStore, RunFilter};
//! use amends::{Coordinator, Saga, step_fn};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut saga = Saga::builder::<u64>("count");
//! let n = saga.input();
//! let more = saga.add(step_fn("add-one", async |_cx, n: &u64| Ok(n + 1), async |_cx, _n, _effect| Ok(())), n);
//! let saga = saga.returns(more)?;
//! let store = Arc::new(MemoryStore::new());
//! let coordinator = Coordinator::builder_shared(store.clone()).register(&saga).build().await?;
//! coordinator.start(&saga, "once", 41).await?.outcome().await?;
//!
//! let operator = Operator::new(store);
//! let view = operator.view(&"once".into()).await?.expect("it is kept");
//! assert_eq!(view.partial().completed, 1);
//! assert_eq!(operator.list(&RunFilter::all(), None, 10).await?.len(), 1);
//! # Ok(())
//! # }
//! ```

mod archive;
mod bulk;
mod definitions;
mod error;
mod hidden;
mod prune;
mod reading;
mod send;
mod stats;
mod verify;
mod view;

pub use archive::{ArchiveError, Export, Exported, ImportOutcome, ImportTotals};
pub use bulk::{Bulk, BulkOutcome, BulkReport, BulkTotals};
pub(crate) use definitions::report;
pub use definitions::{DefinitionReport, DefinitionsReport, Fate, VersionReport};
pub use error::OperatorError;
pub use hidden::hide_payloads;
pub use prune::{PruneTotals, Retention};
pub(crate) use reading::Reading;
pub use send::Sent;
pub use stats::{Durations, JournalStats, Stats, StepStats};
pub use verify::{Finding, FindingKind, Verified};
pub use view::RunView;

use std::sync::Arc;

use crate::ids::RunId;
use crate::saga::Graph;
use crate::store::{RunEntry, RunFilter, Store, StoreError};

/// Looks at runs and hands commands in, over a store that somebody else may own.
///
/// Cloning gives another handle to the same store.
#[derive(Clone, Debug)]
pub struct Operator {
    store: Arc<dyn Store>,
}

impl Operator {
    /// An operator over this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Operator { store }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The next `limit` runs at most that match, after the run with the number `after`.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn list(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.store.scan(filter, after, limit).await
    }

    /// All that the store knows of a run, or nothing where there is no such run. A damaged journal is read
    /// up to the damage, and [`RunView::damage`] tells it.
    ///
    /// # Errors
    ///
    /// Where the store fails, nothing of the journal can be read, or the store lacks the run's definition.
    pub async fn view(&self, run: &RunId) -> Result<Option<RunView>, OperatorError> {
        let Some(entry) = self.store.find(run).await? else {
            return Ok(None);
        };
        let Some(read) = Reading::of(&*self.store, run).await? else {
            return Ok(None);
        };
        let (saga, version, fingerprint) = read.definition()?;
        let outline = self.store.recall(saga, version, fingerprint).await?;
        let Some(outline) = outline else {
            let (run, saga) = (run.clone(), saga.to_owned());
            return Err(OperatorError::Get(crate::GetError::NoDefinition {
                run,
                saga,
                version,
            }));
        };
        let graph: Arc<Graph> = Arc::new(outline.to_graph());
        let journal = read.journal.clone();
        let damage = read.damage.clone();
        let state = read.fold(&graph)?;
        Ok(Some(RunView {
            entry,
            journal,
            graph,
            state,
            damage,
        }))
    }
}
