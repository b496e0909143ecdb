//! What a store does for several coordinators that share it: workers, their leases, and who drives what.
//!
//! Who owns a run is decided in its journal alone: claiming it is an append that raises its fence (rule W1),
//! and of two workers that append at one place one wins. All that is here only keeps workers from
//! getting into each other's way, and lets them find the work of those that are gone. So a store may answer
//! late, twice or wrongly about a *reservation* and no effect is repeated; about a *lease* it must not be
//! wrong, because whoever has one trusts that its runs are left to it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::ids::{RunId, Timestamp};
use crate::store::{RunEntry, StoreError};

/// Several coordinators on one store.
///
/// A worker is one coordinator between joining and leaving. Its lease is on itself, not on each run: as long
/// as it is renewed, runs whose last owner it is are its own. All instants here are the store's: the clocks of
/// workers are never compared.
///
/// The owner of a run is the worker that its journal named last, in a `RunStarted` or a `Claimed` (a worker that
/// never joined, an empty name say, is nobody), or the one that has reserved it since.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// How long leases last, and how often workers look for work.
    fn terms(&self) -> FleetTerms;

    /// Adds a worker, with a lease that begins at some instant after the call. Its id must be new.
    async fn join(&self, worker: &Worker) -> Result<(), StoreError>;

    /// Lets the worker's lease begin again, at some instant after the call; [`Renewal::Lost`] where it has run out
    /// or the worker has left, and then it never gets it back.
    async fn renew(&self, worker: &str) -> Result<Renewal, StoreError>;

    /// Ends the lease at once: whatever the worker owned is anybody's. A worker that has left, or never joined,
    /// leaves without an error.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Reserves the next `limit` runs at most that have something to do now and belong to nobody: running, or
    /// waiting until an instant that has come, of one of these definitions, and without an owner whose lease
    /// lasts. Those that have waited longest come first, more or less.
    ///
    /// A run that is given here belongs to this worker as long as its lease lasts, as if it had appended: no
    /// other call reserves it. Where the worker has no lease, nothing is given.
    async fn claim_due(
        &self,
        worker: &str,
        definitions: &[(String, u32)],
        limit: usize,
    ) -> Result<Vec<RunId>, StoreError>;

    /// Reserves one run, however it stands, unless another worker whose lease lasts owns it.
    async fn claim(&self, worker: &str, run: &RunId) -> Result<Claim, StoreError>;

    /// The entries of those of these runs that are there, in any order.
    async fn find_many(&self, runs: &[RunId]) -> Result<Vec<RunEntry>, StoreError>;

    /// All workers that have a lease, and those whose lease ran out a while ago at most, by name and then by when they joined.
    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError>;

    /// Takes free permits of a limit that all workers share, `wanted` at most: numbers from 1 to `most`, each of
    /// which one worker has at a time. Those of workers whose lease has run out are free.
    async fn take_permits(
        &self,
        worker: &str,
        limit: &str,
        most: u32,
        wanted: u32,
    ) -> Result<Vec<u32>, StoreError>;

    /// Gives permits back that this worker took; others are left as they are.
    async fn give_back(&self, worker: &str, limit: &str, permits: &[u32])
    -> Result<(), StoreError>;
}

/// How a fleet keeps time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetTerms {
    /// How long a lease lasts unless it is renewed. A worker renews each third of it, and stops itself when two
    /// thirds have passed without.
    pub lease: Duration,
    /// How often a worker looks for runs without an owner, give or take a fifth.
    pub look: Duration,
}

impl FleetTerms {
    /// Leases of this length, and a look for work so often.
    #[must_use]
    pub fn new(lease: Duration, look: Duration) -> Self {
        FleetTerms { lease, look }
    }
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lasts for its full length again.
    Renewed,
    /// It had run out: somebody may own this worker's runs.
    Lost,
}

/// What became of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The run is this worker's.
    Mine,
    /// Another worker, with this id, has it, and its lease lasts.
    Theirs(String),
    /// It has ended, or there is no such run: nobody drives it.
    Over,
}

/// A worker, as it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// What no other worker ever was called: journals name it.
    pub id: String,
    /// The name that it was given.
    pub name: String,
    /// What it can be told by.
    pub labels: BTreeMap<String, String>,
    /// Sagas and versions whose runs it drives.
    pub definitions: Vec<(String, u32)>,
}

impl Worker {
    /// A worker without labels that drives nothing.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        Worker {
            id: id.into(),
            name: name.into(),
            labels: BTreeMap::new(),
            definitions: Vec::new(),
        }
    }

    /// It drives runs of this saga and version.
    #[must_use]
    pub fn drives(mut self, saga: impl Into<String>, version: u32) -> Self {
        self.definitions.push((saga.into(), version));
        self
    }

    /// It has this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}

/// A worker in the list of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerEntry {
    /// The worker.
    pub worker: Worker,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When its lease was last renewed.
    pub renewed_at: Timestamp,
    /// When its lease runs out, or ran out.
    pub until: Timestamp,
    /// Whether its lease lasts.
    pub live: bool,
    /// How many runs that have not ended it owns.
    pub runs: u64,
}

impl WorkerEntry {
    /// A live worker that has just joined and owns nothing.
    #[must_use]
    pub fn new(worker: Worker, joined_at: Timestamp, until: Timestamp) -> Self {
        WorkerEntry {
            worker,
            joined_at,
            renewed_at: joined_at,
            until,
            live: true,
            runs: 0,
        }
    }
}
