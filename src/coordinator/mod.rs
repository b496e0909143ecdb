//! The only place that awaits: drives machines, calls steps, keeps timers, carries out commands.
//!
//! One task drives one run. It asks the machine what to do, appends what that means, and only then does
//! it. A run that waits for a timer or for an operator has no task: a timer entry is all that is left of
//! it in memory, and its state is folded again from its journal when it goes on.

mod attempt;
mod builder;
mod clock;
mod codeless;
mod commands;
mod driver;
mod error;
mod fleet;
mod handle;
mod limits;
mod mailbox;
mod migrate;
mod migration;
mod resume;
mod shared;
mod slot;
mod spans;
mod start;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod start_in;
mod timers;
mod watch;

pub use builder::CoordinatorBuilder;
pub use clock::{Clock, SystemClock};
pub use commands::{Resolution, Told};
pub use error::{BuildError, CommandError, GetError, OutcomeError, PoliciesError, StartError};
pub use handle::RunHandle;
pub use migration::{Migration, MigrationFrom};
pub use start::StartOptions;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use start_in::StartedIn;
pub use watch::{Watch, WatchedEvent};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use crate::coordinator::shared::Shared;
use crate::ids::RunId;
use crate::operator::{self, DefinitionsReport};
use crate::partial::PartialResult;
use crate::policy::PolicySet;
use crate::store::{RunEntry, RunFilter, Store, StoreError, WorkerEntry};

/// Drives runs over one store.
///
/// Building it claims the store and takes up every run that has not ended. Cloning gives another handle
/// to the same coordinator. Dropping the last one drops what is in flight, as a crash would: use
/// [`shutdown`](Self::shutdown) to let attempts finish.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, RunId, Saga, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("count");
/// let n = saga.input();
/// let more = saga.add(step_fn("add-one", async |_cx, n: &u64| Ok(n + 1), async |_cx, _n, _effect| Ok(())), n);
/// let saga = saga.returns(more)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let run = coordinator.start(&saga, RunId::new("once"), 41).await?;
/// assert_eq!(run.outcome().await?.completed(), Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Owner>,
}

/// Dropped with the last handle.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.abort();
    }
}

impl Coordinator {
    /// Begins a coordinator over this store.
    pub fn builder(store: impl Store) -> CoordinatorBuilder {
        CoordinatorBuilder::new(Arc::new(store))
    }

    /// The same with a store that is shared.
    #[must_use]
    pub fn builder_shared(store: Arc<dyn Store>) -> CoordinatorBuilder {
        CoordinatorBuilder::new(store)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Coordinator {
            inner: Arc::new(Owner { shared }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// This coordinator's name, with a random part: journals say who drove a run. In a fleet it is another one
    /// after a lease was lost.
    #[must_use]
    pub fn worker(&self) -> String {
        self.shared().member().worker.to_string()
    }

    /// The workers that share the store: those whose lease lasts, and those that were lost a while ago at most.
    /// None where the coordinator has its store for itself.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        match self.shared().store.fleet() {
            Some(fleet) => fleet.workers().await,
            None => Ok(Vec::new()),
        }
    }

    /// How many open runs were found at start and have been taken up so far: claimed, or given a timer.
    /// Runs that were parked are not among them.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.shared().resumed.load(Ordering::Acquire)
    }

    /// Waits until all open runs that were found at start have been taken up.
    pub async fn all_resumed(&self) -> u64 {
        self.shared().scanned.wait().await;
        self.resumed()
    }

    /// How many runs are being driven now.
    #[must_use]
    pub fn driving(&self) -> usize {
        // The registry also holds runs that somebody only waits for.
        let driven = |slot: &Arc<slot::Slot>| slot.is_active().then_some(());
        self.shared().registry.collect(|_, slot| driven(slot)).len()
    }

    /// All that is known of a run, or nothing where there is no such run.
    ///
    /// # Errors
    ///
    /// Where the journal can't be read.
    pub async fn get(&self, run: &RunId) -> Result<Option<PartialResult>, GetError> {
        Ok(self
            .shared()
            .snapshot(run)
            .await?
            .map(|snapshot| snapshot.partial()))
    }

    /// The next `limit` runs at most, after the run with the number `after`.
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
        self.shared().store.scan(filter, after, limit).await
    }

    /// Open runs whose saga and version are not registered here (rule I3): they wait for a coordinator
    /// that has them.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn without_definition(&self, limit: usize) -> Result<Vec<RunEntry>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit {
            let page = self.list(&RunFilter::open(), after, 256).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            let unknown = page.into_iter().filter(|entry| {
                self.shared()
                    .definition(&entry.saga, entry.version)
                    .is_none()
            });
            let room = limit - found.len();
            found.extend(unknown.take(room));
        }
        Ok(found)
    }

    /// Which runs of the store this coordinator can finish, and which not, and why.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn definitions(&self) -> Result<DefinitionsReport, StoreError> {
        let shared = self.shared();
        let known = shared.store.definitions().await?;
        operator::report(&*shared.store, known, &shared.known).await
    }

    /// Runs whose journals could not be read when they were to be taken up, with the reason. They are
    /// parked, in this coordinator's eyes, and hold up nobody.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(RunId, String)> {
        self.shared()
            .unreadable
            .collect(|run, why| Some((run.clone(), why.clone())))
    }

    /// Puts all registered versions of a saga under these policies, without a restart.
    ///
    /// Runs that are open, also those that sleep or are parked, are decided by them from the next failure
    /// on: the explanation of each decision holds the digest of the policy that made it. What was
    /// decided stands: a retry that waits goes on waiting. The set counts against the definition, not
    /// against a set from before, so that an empty one gives the definition's policies back. Nothing is
    /// written to the store: the next coordinator begins with the definition's own, or with what its
    /// [builder](CoordinatorBuilder::policies) is told.
    ///
    /// ```
    /// use amends::policy::PolicySet;
    /// use amends::store::MemoryStore;
    /// use amends::{Coordinator, PoliciesError, Retry, Saga, step_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut saga = Saga::builder::<u64>("count");
    /// let n = saga.input();
    /// let more = saga.add(step_fn("add-one", async |_cx, n: &u64| Ok(n + 1), async |_cx, _n, _effect| Ok(())), n);
    /// let saga = saga.returns(more)?;
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
    ///
    /// coordinator.replace_policies("count", &PolicySet::new().retry(Retry::linear()))?;
    ///
    /// let never = PolicySet::new().retry(Retry::none().max_attempts(0));
    /// let refused = coordinator.replace_policies("count", &never);
    /// assert!(matches!(refused, Err(PoliciesError::Faulty { faults, .. }) if faults.len() == 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PoliciesError`] where the saga is not registered, or with all that is wrong with the policies;
    /// nothing is replaced then.
    pub fn replace_policies(&self, saga: &str, policies: &PolicySet) -> Result<(), PoliciesError> {
        shared::replace_policies(&self.shared().definitions, saga, policies)
    }

    /// Starts nothing more, waits for what is in flight, hands what is left over to the other workers where
    /// there are some, and closes the store.
    ///
    /// Attempts have the coordinator's grace period to finish (30 s unless the builder was told
    /// otherwise); then they are dropped, and are in doubt for the next coordinator.
    pub async fn shutdown(&self) {
        self.shared().shutdown().await;
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("worker", &self.worker())
            .field("store", &self.shared().store)
            .field("driving", &self.driving())
            .finish_non_exhaustive()
    }
}
