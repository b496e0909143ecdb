//! What all drivers of one coordinator share.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::coordinator::clock::Clock;
use crate::coordinator::error::PoliciesError;
use crate::coordinator::fleet::{Elsewhere, Member};
use crate::coordinator::limits::StepLimits;
use crate::coordinator::migration::Migration;
use crate::coordinator::slot::{Settled, Slot};
use crate::coordinator::timers::Timers;
use crate::failure::Classifier;
use crate::ids::RunId;
use crate::observe::DefinitionMeters;
use crate::policy::PolicySet;
use crate::saga::{Definition, Graph};
use crate::sharded::Sharded;
use crate::store::{KnownDefinition, Store, Worker};

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What it joins a fleet as, and would where there is one.
    pub(crate) joins_as: Worker,
    pub(crate) classifier: Arc<Classifier>,
    pub(crate) definitions: HashMap<String, BTreeMap<u32, Arc<Registered>>>,
    /// The same as the store has them, with those from which a migration is declared.
    pub(crate) known: Vec<KnownDefinition>,
    pub(crate) migrations: Vec<Migration>,
    pub(crate) registry: Sharded<RunId, Arc<Slot>>,
    pub(crate) timers: Arc<Timers>,
    /// Runs that may be driven at once; nothing where there is no limit.
    pub(crate) runs: Option<Arc<Semaphore>>,
    /// Attempts that may be in flight at once.
    pub(crate) attempts: Option<Arc<Semaphore>>,
    pub(crate) resumed: AtomicU64,
    pub(crate) scanned: Flag,
    pub(crate) unreadable: Sharded<RunId, String>,
    /// Runs of other workers that somebody waits for.
    pub(crate) elsewhere: Arc<Elsewhere>,
    pub(crate) grace: Duration,
    /// A run that waits for longer than this has no task.
    pub(crate) resident: Duration,
    member: Mutex<Arc<Member>>,
    closing: AtomicU8,
    why_closed: Mutex<Option<String>>,
    drivers: AtomicUsize,
    idle: Notify,
    background: Mutex<Vec<AbortHandle>>,
}

/// A definition with the permits of its steps, and the policies that it has now.
pub(crate) struct Registered {
    pub(crate) definition: Arc<Definition>,
    /// By their places among all steps of the definition.
    pub(crate) limits: Vec<StepLimits>,
    pub(crate) meters: DefinitionMeters,
    /// Counts replacements, so that drivers look at a number and take no lock.
    edition: AtomicU64,
    graph: Mutex<Arc<Graph>>,
}

impl Registered {
    pub(crate) fn new(
        definition: Arc<Definition>,
        limits: Vec<StepLimits>,
        meters: DefinitionMeters,
    ) -> Self {
        Registered {
            graph: Mutex::new(Arc::clone(&definition.graph)),
            definition,
            limits,
            meters,
            edition: AtomicU64::new(0),
        }
    }

    /// Which graph [`graph`](Self::graph) gives. Ask for it first: then a replacement that comes in
    /// between is noticed the next time, and never missed.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// The definition's graph under the policies that were set last.
    pub(crate) fn graph(&self) -> Arc<Graph> {
        Arc::clone(&self.graph.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace_policies(&self, policies: &PolicySet) {
        let graph = Arc::new(self.definition.graph.under(policies));
        *self.graph.lock().unwrap_or_else(PoisonError::into_inner) = graph;
        self.edition.fetch_add(1, Ordering::Release);
    }
}

/// Puts all versions of a saga under these policies, or none.
pub(crate) fn replace_policies(
    definitions: &HashMap<String, BTreeMap<u32, Arc<Registered>>>,
    saga: &str,
    policies: &PolicySet,
) -> Result<(), PoliciesError> {
    let Some(versions) = definitions.get(saga) else {
        let mut registered: Vec<String> = definitions.keys().cloned().collect();
        registered.sort();
        return Err(PoliciesError::NotRegistered {
            saga: saga.to_owned(),
            registered,
        });
    };
    let mut faults = policies.faults();
    let graphs = || versions.values().map(|version| &version.definition.graph);
    let own = |name: &str| graphs().any(|graph| graph.step_named(name).is_some());
    let known = |name: &str| {
        graphs().any(|graph| {
            let mut steps = graph.all_steps().into_iter();
            steps.any(|(path, _)| path.replace("[]", "") == name)
        })
    };
    faults.extend(policies.unknown_steps(&own, &known));
    if !faults.is_empty() {
        return Err(PoliciesError::Faulty {
            saga: saga.to_owned(),
            faults,
        });
    }
    for registered in versions.values() {
        registered.replace_policies(policies);
    }
    Ok(())
}

/// Set once, waited for by many.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    set: AtomicBool,
    told: Notify,
}

impl Flag {
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(crate) async fn wait(&self) {
        let told = self.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !self.set.load(Ordering::Acquire) {
            told.await;
        }
    }
}

/// Closing has degrees: nothing new starts, then what is in flight is dropped.
const OPEN: u8 = 0;
const SHUTTING_DOWN: u8 = 1;
const OUT_OF_GRACE: u8 = 2;
const ABORTING: u8 = 3;

/// What a builder decides about a [`Shared`].
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) joins_as: Worker,
    pub(crate) member: Arc<Member>,
    pub(crate) classifier: Classifier,
    pub(crate) definitions: HashMap<String, BTreeMap<u32, Arc<Registered>>>,
    pub(crate) known: Vec<KnownDefinition>,
    pub(crate) migrations: Vec<Migration>,
    pub(crate) max_runs: Option<usize>,
    pub(crate) max_attempts: Option<usize>,
    pub(crate) grace: Duration,
    pub(crate) resident: Duration,
}

impl Shared {
    pub(crate) fn new(setup: Setup) -> Self {
        let semaphore = |most: Option<usize>| most.map(|most| Arc::new(Semaphore::new(most)));
        Shared {
            store: setup.store,
            clock: setup.clock,
            joins_as: setup.joins_as,
            classifier: Arc::new(setup.classifier),
            definitions: setup.definitions,
            known: setup.known,
            migrations: setup.migrations,
            registry: Sharded::default(),
            timers: Arc::default(),
            runs: semaphore(setup.max_runs),
            attempts: semaphore(setup.max_attempts),
            resumed: AtomicU64::new(0),
            scanned: Flag::default(),
            unreadable: Sharded::default(),
            elsewhere: Arc::default(),
            grace: setup.grace,
            resident: setup.resident,
            member: Mutex::new(setup.member),
            closing: AtomicU8::new(OPEN),
            why_closed: Mutex::default(),
            drivers: AtomicUsize::new(0),
            idle: Notify::new(),
            background: Mutex::default(),
        }
    }

    /// Who drives what is driven from now on.
    pub(crate) fn member(&self) -> Arc<Member> {
        Arc::clone(&self.member.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_member(&self, member: Arc<Member>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    pub(crate) fn definition(&self, saga: &str, version: u32) -> Option<&Arc<Registered>> {
        self.definitions.get(saga)?.get(&version)
    }

    /// The run's slot, made where there is none.
    pub(crate) fn slot(&self, run: &RunId) -> Arc<Slot> {
        self.registry.change_or_insert(
            run,
            || Arc::new(Slot::new(run.clone())),
            |slot| Arc::clone(slot),
        )
    }

    /// Takes a slot out of the registry, whoever holds it.
    pub(crate) fn remove_slot(&self, slot: &Arc<Slot>) {
        self.registry
            .remove_if(&slot.run, |held| Arc::ptr_eq(held, slot));
        slot.forgotten.store(true, Ordering::Release);
    }

    /// Forgets a slot that nobody drives and nobody holds but its caller.
    pub(crate) fn forget_slot(&self, slot: &Arc<Slot>) {
        if slot.forgotten.load(Ordering::Acquire) {
            return;
        }
        self.registry.remove_if(&slot.run, |held| {
            // Clones are made under this shard's lock, or from a holder: two are the map's and the caller's.
            Arc::ptr_eq(held, slot) && !held.is_active() && Arc::strong_count(held) <= 2
        });
    }

    /// The right to drive one more run. Nothing where the coordinator is closing.
    pub(crate) async fn run_permit(&self) -> Option<RunPermit> {
        let permit = match &self.runs {
            Some(runs) => Some(Arc::clone(runs).acquire_owned().await.ok()?),
            None => None,
        };
        (!self.is_closing()).then_some(RunPermit(permit))
    }

    /// How many more runs may be driven; nothing where there is no limit.
    pub(crate) fn room_for_runs(&self) -> Option<usize> {
        let runs = self.runs.as_ref()?;
        Some(runs.available_permits())
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) != OPEN
    }

    pub(crate) fn is_aborting(&self) -> bool {
        self.closing.load(Ordering::Acquire) >= OUT_OF_GRACE
    }

    /// Whether what is in flight is dropped at the end of a shutdown, while the store still takes records.
    pub(crate) fn is_out_of_grace(&self) -> bool {
        self.closing.load(Ordering::Acquire) == OUT_OF_GRACE
    }

    /// The store has stopped: nothing more starts, and nothing is acknowledged (rule W2).
    pub(crate) fn store_died(&self, why: String) {
        tracing::error!(%why, "the store has stopped: this coordinator drives nothing any more");
        self.close(ABORTING, why);
    }

    pub(crate) fn abort(&self) {
        // As after a crash, its lease runs out: nothing is given back in its name.
        self.member().end();
        self.close(ABORTING, "it was dropped".to_owned());
        let background = std::mem::take(
            &mut *self
                .background
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for task in background {
            task.abort();
        }
    }

    pub(crate) fn why_closed(&self) -> String {
        let why = self
            .why_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        why.clone()
            .unwrap_or_else(|| "it is shutting down".to_owned())
    }

    fn close(&self, degree: u8, why: String) {
        self.why_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(why);
        self.closing.fetch_max(degree, Ordering::AcqRel);
        if let Some(runs) = &self.runs {
            runs.close();
        }
        if let Some(attempts) = &self.attempts {
            attempts.close();
        }
        for slot in self.registry.collect(|_, slot| Some(Arc::clone(slot))) {
            if slot.is_active() {
                slot.waker.wake();
            } else {
                // Somebody may wait for a run that only waits.
                drop(slot.retire(Settled::Closed(self.why_closed())));
            }
        }
    }

    /// Has all drivers look whether they may go on.
    pub(crate) fn wake_drivers(&self) {
        for slot in self.registry.collect(|_, slot| Some(Arc::clone(slot))) {
            slot.waker.wake();
        }
    }

    /// Whether nothing is driven.
    pub(crate) fn is_idle(&self) -> bool {
        self.drivers.load(Ordering::Acquire) == 0
    }

    pub(crate) async fn shutdown(&self) {
        self.close(SHUTTING_DOWN, "it was shut down".to_owned());
        if tokio::time::timeout(self.grace, self.no_drivers())
            .await
            .is_err()
        {
            tracing::warn!(
                "attempts were still in flight at the end of the grace period: they are in doubt"
            );
            self.close(OUT_OF_GRACE, String::new());
            self.no_drivers().await;
        }
        // What it drove is handed over at once; a lease that can't be given up runs out.
        if let Some(fleet) = self.store.fleet() {
            let member = self.member();
            member.end();
            if let Err(error) = fleet.leave(&member.worker).await {
                tracing::warn!(worker = %member.worker, %error, "the lease could not be given up: it runs out");
            }
        }
        self.abort();
        self.store.close().await;
    }

    async fn no_drivers(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.drivers.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    pub(crate) fn keep(&self, task: AbortHandle) {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
    }

    pub(crate) fn driver_begins(shared: &Arc<Shared>) -> DriverGuard {
        shared.drivers.fetch_add(1, Ordering::AcqRel);
        DriverGuard(Arc::clone(shared))
    }
}

/// The right to drive a run.
#[derive(Debug)]
pub(crate) struct RunPermit(
    #[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
);

/// Counts a driver for as long as it lives.
pub(crate) struct DriverGuard(Arc<Shared>);

impl Drop for DriverGuard {
    fn drop(&mut self) {
        if self.0.drivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.member().worker)
    }
}
