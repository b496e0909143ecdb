//! Setting a coordinator up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::coordinator::clock::{Clock, SystemClock};
use crate::coordinator::error::BuildError;
use crate::coordinator::limits::{FleetLimit, StepLimits};
use crate::coordinator::migrate::known_definitions;
use crate::coordinator::migration::Migration;
use crate::coordinator::shared::{Registered, Setup, Shared, replace_policies};
use crate::coordinator::{Coordinator, fleet, mailbox, resume, timers};
use crate::failure::{Classifier, Classify};
use crate::observe::Meters;
use crate::policy::PolicySet;
use crate::saga::{Definition, GraphStep, Saga};
use crate::store::{Store, Worker};

/// Settings of a [`Coordinator`], each with a default.
pub struct CoordinatorBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    worker: Worker,
    classifier: Classifier,
    definitions: Vec<Arc<Definition>>,
    migrations: Vec<Migration>,
    policies: Vec<(String, PolicySet)>,
    max_runs: Option<usize>,
    max_attempts: Option<usize>,
    grace: Duration,
    resident: Duration,
}

impl CoordinatorBuilder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        CoordinatorBuilder {
            store,
            clock: Arc::new(SystemClock),
            worker: Worker::new("", "amends"),
            classifier: Classifier::new(),
            definitions: Vec::new(),
            migrations: Vec::new(),
            policies: Vec::new(),
            max_runs: Some(10_000),
            max_attempts: None,
            grace: Duration::from_secs(30),
            resident: Duration::from_millis(100),
        }
    }

    /// Lets this coordinator run this saga. Several versions of one saga may be registered.
    #[must_use]
    pub fn register<I, O>(mut self, saga: &Saga<I, O>) -> Self {
        self.definitions.push(Arc::clone(&saga.definition));
        self
    }

    /// Declares how runs of a definition that isn't registered go on with one that is. Nothing is migrated
    /// before somebody [says so](Coordinator::migrate), run by run.
    #[must_use]
    pub fn migrate(mut self, migration: Migration) -> Self {
        self.migrations.push(migration);
        self
    }

    /// Puts all registered versions of a saga under these policies; by default each has those of its
    /// definition. [`Coordinator::replace_policies`] does the same later.
    #[must_use]
    pub fn policies(mut self, saga: impl Into<String>, policies: PolicySet) -> Self {
        self.policies.push((saga.into(), policies));
        self
    }

    /// A name for this coordinator in journals and logs; `amends` by default. A random part is added.
    #[must_use]
    pub fn worker(mut self, name: impl Into<String>) -> Self {
        self.worker.name = name.into();
        self
    }

    /// Something to tell this coordinator by among the workers of a fleet.
    #[must_use]
    pub fn worker_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.worker.labels.insert(name.into(), value.into());
        self
    }

    /// Knows errors that the built-in adapters don't.
    #[must_use]
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.classifier = self.classifier.with(classify);
        self
    }

    /// How many runs are driven at once; 10,000 by default. A start beyond waits for its turn before it
    /// writes anything. Runs that wait for a timer or an operator don't count.
    #[must_use]
    pub fn max_runs(mut self, most: usize) -> Self {
        self.max_runs = Some(most.max(1));
        self
    }

    /// How many attempts, of all steps and undos, are in flight at once; no limit by default.
    #[must_use]
    pub fn max_attempts(mut self, most: usize) -> Self {
        self.max_attempts = Some(most.max(1));
        self
    }

    /// How long [`Coordinator::shutdown`] waits for attempts in flight; 30 s by default.
    #[must_use]
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a run may wait with its state kept in memory; 100 ms by default. A run that waits for
    /// longer costs a timer entry, and is read from its journal when it goes on.
    #[must_use]
    pub fn keep_resident(mut self, wait: Duration) -> Self {
        self.resident = wait;
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the coordinator and begins to take up every run that has not ended.
    ///
    /// # Errors
    ///
    /// [`BuildError::TwoDefinitions`], [`BuildError::Policies`], [`BuildError::Migration`], or what the store failed with.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<Coordinator, BuildError> {
        let mut definitions: HashMap<String, BTreeMap<u32, Arc<Registered>>> = HashMap::new();
        let mut meters = Meters::new();
        for definition in self.definitions {
            let graph = &definition.graph;
            let versions = definitions.entry(graph.saga.to_string()).or_default();
            if let Some(other) = versions.get(&graph.version)
                && other.definition.graph.fingerprint != graph.fingerprint
            {
                return Err(BuildError::TwoDefinitions {
                    saga: graph.saga.to_string(),
                    version: graph.version,
                });
            }
            let limits = graph
                .all_steps()
                .iter()
                .map(|(path, step)| step_limits(&self.store, &graph.saga, path, step))
                .collect();
            let version = graph.version;
            let meters = meters.definition(graph);
            versions.insert(
                version,
                Arc::new(Registered::new(definition, limits, meters)),
            );
        }
        for (saga, policies) in &self.policies {
            replace_policies(&definitions, saga, policies)?;
        }
        let known = known_definitions(&*self.store, &definitions, &self.migrations).await?;
        self.store.register(&known).await?;
        meters.count_parked(&*self.store).await?;
        let mut joins_as = self.worker;
        for (saga, versions) in &definitions {
            let versions = versions.keys().map(|version| (saga.clone(), *version));
            joins_as.definitions.extend(versions);
        }
        joins_as.definitions.sort();
        let member = match self.store.fleet() {
            Some(joins) => fleet::join(joins, &joins_as).await?,
            None => Arc::new(fleet::Member::sole(&joins_as.name)),
        };
        let in_fleet = self.store.fleet().is_some();
        let shared = Arc::new(Shared::new(Setup {
            store: self.store,
            clock: self.clock,
            joins_as,
            member,
            classifier: self.classifier,
            definitions,
            known,
            migrations: self.migrations,
            max_runs: self.max_runs,
            max_attempts: self.max_attempts,
            grace: self.grace,
            resident: self.resident,
        }));
        let timers = tokio::spawn(timers::keep_time(Arc::downgrade(&shared)));
        shared.keep(timers.abort_handle());
        if in_fleet {
            let lease = tokio::spawn(fleet::keep_lease(Arc::downgrade(&shared)));
            shared.keep(lease.abort_handle());
            let work = tokio::spawn(fleet::take_up_free_runs(Arc::downgrade(&shared)));
            shared.keep(work.abort_handle());
            let elsewhere = tokio::spawn(fleet::look_elsewhere(Arc::downgrade(&shared)));
            shared.keep(elsewhere.abort_handle());
        } else {
            let resume = tokio::spawn(resume::take_up_open_runs(Arc::downgrade(&shared)));
            shared.keep(resume.abort_handle());
        }
        let mailbox = tokio::spawn(mailbox::take_commands(Arc::downgrade(&shared)));
        shared.keep(mailbox.abort_handle());
        Ok(Coordinator::new(shared))
    }
}

/// A limit of the fleet is one of this coordinator where it has its store for itself.
fn step_limits(store: &Arc<dyn Store>, saga: &str, path: &str, step: &GraphStep) -> StepLimits {
    let in_fleet = store.fleet().is_some();
    let of_fleet = step.max_in_flight_in_fleet;
    let here = step
        .max_in_flight
        .into_iter()
        .chain(of_fleet.filter(|_| !in_fleet));
    let fleet = |most| Arc::new(FleetLimit::new(Arc::clone(store), saga, path, most));
    StepLimits {
        here: here
            .min()
            .map(|most| Arc::new(Semaphore::new(most as usize))),
        fleet: of_fleet.filter(|_| in_fleet).map(fleet),
    }
}

impl fmt::Debug for CoordinatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorBuilder")
            .field("store", &self.store)
            .field("worker", &self.worker.name)
            .field("definitions", &self.definitions)
            .field("max_runs", &self.max_runs)
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}
