//! Several coordinators on one memory store: a fleet within one process, for tests of what fleets do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Held, MemoryStore, lock};
use crate::ids::{RunId, Timestamp};
use crate::journal::{Event, Record, Standing};
use crate::store::{
    Claim, Fleet, FleetTerms, Renewal, RunEntry, Store as _, StoreError, Worker, WorkerEntry,
};

/// The workers of a memory store, and the permits that they share.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) terms: FleetTerms,
    leases: BTreeMap<String, Leased>,
    permits: HashMap<(String, u32), String>,
}

#[derive(Debug)]
struct Leased {
    worker: Worker,
    joined_at: Timestamp,
    renewed_at: Timestamp,
    until: Timestamp,
}

impl Workers {
    pub(super) fn new(terms: FleetTerms) -> Self {
        Workers {
            terms,
            leases: BTreeMap::new(),
            permits: HashMap::new(),
        }
    }

    fn is_live(&self, worker: &str, now: Timestamp) -> bool {
        self.leases
            .get(worker)
            .is_some_and(|lease| now < lease.until)
    }
}

/// The worker that a record makes the owner of its run.
pub(in crate::store) fn owner_of(record: &Record) -> Option<&str> {
    let mut events = record.events.iter().rev();
    events.find_map(|event| match event {
        Event::RunStarted(started) => Some(&*started.worker),
        Event::Claimed { worker, .. } => Some(worker.as_str()),
        _ => None,
    })
}

impl MemoryStore {
    /// Lets several coordinators in this process share the store, as workers share a database.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use amends::store::{FleetTerms, MemoryStore, Store as _};
    ///
    /// let terms = FleetTerms::new(Duration::from_secs(15), Duration::from_millis(500));
    /// let store = MemoryStore::new().shared_by_workers(terms);
    /// assert_eq!(store.fleet().map(|fleet| fleet.terms()), Some(terms));
    /// ```
    #[must_use]
    pub fn shared_by_workers(mut self, terms: FleetTerms) -> Self {
        self.workers = Some(std::sync::Mutex::new(Workers::new(terms)));
        self
    }

    /// Works on the workers; nothing where this store has none, and then nobody asks.
    fn with_workers<R>(&self, work: impl FnOnce(&mut Workers, Timestamp) -> R) -> Option<R> {
        let now = (self.time)();
        let workers = self.workers.as_ref()?;
        Some(work(&mut lock(workers), now))
    }

    /// The runs of which this holds, in the order of their starts.
    fn open_runs(&self, mut wanted: impl FnMut(&mut Held) -> bool, limit: usize) -> Vec<RunId> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit {
            let piece = self.piece(false, after);
            let Some((last, _)) = piece.last() else { break };
            after = Some(*last);
            for (_, run) in piece {
                if found.len() < limit
                    && self
                        .runs
                        .change(&run, |held| !held.entry.standing.is_end() && wanted(held))
                        == Some(true)
                {
                    found.push(run);
                }
            }
        }
        found
    }
}

#[async_trait]
impl Fleet for MemoryStore {
    fn terms(&self) -> FleetTerms {
        self.with_workers(|workers, _| workers.terms)
            .unwrap_or(FleetTerms::new(
                std::time::Duration::MAX,
                std::time::Duration::MAX,
            ))
    }

    async fn join(&self, worker: &Worker) -> Result<(), StoreError> {
        self.with_workers(|workers, now| {
            let lease = Leased {
                worker: worker.clone(),
                joined_at: now,
                renewed_at: now,
                until: now.after(workers.terms.lease),
            };
            workers.leases.insert(worker.id.clone(), lease);
        });
        Ok(())
    }

    async fn renew(&self, worker: &str) -> Result<Renewal, StoreError> {
        let renewed = self.with_workers(|workers, now| {
            let until = now.after(workers.terms.lease);
            let live = workers.is_live(worker, now);
            if let Some(lease) = workers.leases.get_mut(worker)
                && live
            {
                (lease.renewed_at, lease.until) = (now, until);
            }
            live
        });
        Ok(match renewed {
            Some(true) => Renewal::Renewed,
            Some(false) | None => Renewal::Lost,
        })
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.with_workers(|workers, _| {
            workers.leases.remove(worker);
            workers.permits.retain(|_, holder| holder != worker);
        });
        Ok(())
    }

    async fn claim_due(
        &self,
        worker: &str,
        definitions: &[(String, u32)],
        limit: usize,
    ) -> Result<Vec<RunId>, StoreError> {
        let found = self.with_workers(|workers, now| {
            if !workers.is_live(worker, now) {
                return Vec::new();
            }
            let claimable = |held: &mut Held| {
                let due = match held.entry.standing {
                    Standing::Running => true,
                    Standing::Waiting { until } => until <= now,
                    _ => false,
                };
                let entry = &held.entry;
                let ours = definitions
                    .iter()
                    .any(|(saga, version)| *saga == entry.saga && *version == entry.version);
                let free = due && ours && !workers.is_live(&held.owner, now);
                if free {
                    held.owner = Arc::from(worker);
                }
                free
            };
            self.open_runs(claimable, limit)
        });
        Ok(found.unwrap_or_default())
    }

    async fn claim(&self, worker: &str, run: &RunId) -> Result<Claim, StoreError> {
        let claimed = self.with_workers(|workers, now| {
            self.runs.change(run, |held| {
                if held.entry.standing.is_end() {
                    Claim::Over
                } else if *held.owner != *worker && workers.is_live(&held.owner, now) {
                    Claim::Theirs(held.owner.to_string())
                } else {
                    held.owner = Arc::from(worker);
                    Claim::Mine
                }
            })
        });
        Ok(claimed.flatten().unwrap_or(Claim::Over))
    }

    async fn find_many(&self, runs: &[RunId]) -> Result<Vec<RunEntry>, StoreError> {
        let mut found = Vec::new();
        for run in runs {
            found.extend(self.find(run).await?);
        }
        Ok(found)
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        let found = self.with_workers(|workers, now| {
            let mut owned: HashMap<String, u64> = HashMap::new();
            let count = |held: &mut Held| {
                *owned.entry(held.owner.to_string()).or_default() += 1;
                false
            };
            self.open_runs(count, usize::MAX);
            let mut found: Vec<WorkerEntry> = workers
                .leases
                .values()
                .map(|lease| WorkerEntry {
                    worker: lease.worker.clone(),
                    joined_at: lease.joined_at,
                    renewed_at: lease.renewed_at,
                    until: lease.until,
                    live: now < lease.until,
                    runs: owned.get(&lease.worker.id).copied().unwrap_or_default(),
                })
                .collect();
            found.sort_by(|a, b| (&a.worker.name, a.joined_at).cmp(&(&b.worker.name, b.joined_at)));
            found
        });
        Ok(found.unwrap_or_default())
    }

    async fn take_permits(
        &self,
        worker: &str,
        limit: &str,
        most: u32,
        wanted: u32,
    ) -> Result<Vec<u32>, StoreError> {
        let taken = self.with_workers(|workers, now| {
            if !workers.is_live(worker, now) {
                return Vec::new();
            }
            let mut taken = Vec::new();
            for permit in 1..=most {
                if taken.len() >= wanted as usize {
                    break;
                }
                let key = (limit.to_owned(), permit);
                let holder = workers.permits.get(&key);
                if holder.is_none_or(|holder| !workers.is_live(holder, now)) {
                    workers.permits.insert(key, worker.to_owned());
                    taken.push(permit);
                }
            }
            taken
        });
        Ok(taken.unwrap_or_default())
    }

    async fn give_back(
        &self,
        worker: &str,
        limit: &str,
        permits: &[u32],
    ) -> Result<(), StoreError> {
        self.with_workers(|workers, _| {
            for permit in permits {
                let key = (limit.to_owned(), *permit);
                if workers
                    .permits
                    .get(&key)
                    .is_some_and(|holder| holder == worker)
                {
                    workers.permits.remove(&key);
                }
            }
        });
        Ok(())
    }
}
