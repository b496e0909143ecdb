//! Taking runs up: at start all that are open, later those whose timers ring or that get a command.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::coordinator::Shared;
use crate::coordinator::driver::Driver;
use crate::coordinator::error::{CommandError, GetError};
use crate::coordinator::shared::{Registered, RunPermit};
use crate::coordinator::slot::{Settled, Slot};
use crate::ids::RunId;
use crate::journal::{AppendId, Event, Journal, ParkReason, Parking, Record, RunStarted, Standing};
use crate::machine::State;
use crate::partial::Snapshot;
use crate::saga::{Graph, Outline};
use crate::store::{Append, LoadError, RunFilter};

/// So many entries of the list of open runs are looked at in one go.
const PAGE: usize = 256;

/// Takes up every open run, a bounded number at a time.
pub(super) async fn take_up_open_runs(shared: Weak<Shared>) {
    let mut after = None;
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        let page = match alive.store.scan(&RunFilter::open(), after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "the list of open runs can't be read: trying again");
                drop(alive);
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        let Some(last) = page.last() else {
            alive.scanned.set();
            return;
        };
        after = Some(last.number);
        for entry in page {
            if alive.definition(&entry.saga, entry.version).is_none() {
                // A worker that has the definition will take it up (rule I3).
                continue;
            }
            match entry.standing {
                Standing::Waiting { until } if until > alive.clock.now() => {
                    alive.timers.add(until, entry.run);
                }
                Standing::Running | Standing::Waiting { .. } => {
                    let Some(permit) = alive.run_permit().await else {
                        return;
                    };
                    Shared::wake_run(&alive, &entry.run, permit);
                }
                // Parked runs wait for an operator; the others are not open.
                Standing::Parked
                | Standing::Completed
                | Standing::Compensated
                | Standing::Stopped
                | Standing::Abandoned => continue,
            }
            alive.resumed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A run as its journal says it is.
struct Loaded {
    state: State,
    seq: u64,
    found: Found,
}

enum Found {
    /// Its definition is here.
    Here(Arc<Registered>),
    /// Its definition has the same name and version here, and another structure: what is different.
    Changed {
        graph: Arc<Graph>,
        differences: Vec<String>,
    },
    /// Its definition is known from the store only.
    Outline(Arc<Graph>),
    /// A record of its journal can't be read: the state is that of the records before.
    Damaged { graph: Arc<Graph>, why: String },
}

impl Found {
    fn graph(&self) -> Arc<Graph> {
        match self {
            Found::Here(registered) => Arc::clone(&registered.definition.graph),
            Found::Changed { graph, .. } | Found::Outline(graph) | Found::Damaged { graph, .. } => {
                Arc::clone(graph)
            }
        }
    }
}

impl Shared {
    /// Drives a run if nobody does.
    pub(super) fn wake_run(shared: &Arc<Shared>, run: &RunId, permit: RunPermit) {
        let slot = shared.slot(run);
        if slot.activate() {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { Shared::load_and_drive(&shared, slot, permit).await });
        }
    }

    /// Gives back a slot whose start found its id taken. The run that has the id may be a waiting one,
    /// whose timer rang, or that was to be taken up or got a command, while the start had its slot.
    pub(super) fn look_again(shared: &Arc<Shared>, slot: Arc<Slot>) {
        if !slot.deactivate_if_idle(None) {
            return Shared::begin_driving(shared, slot);
        }
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            match shared.store.find(&slot.run).await {
                Ok(Some(entry)) if shared.definition(&entry.saga, entry.version).is_some() => {
                    match entry.standing {
                        Standing::Waiting { until } if until > shared.clock.now() => {
                            shared.timers.add(until, entry.run);
                        }
                        Standing::Running | Standing::Waiting { .. } => {
                            if slot.activate() {
                                return Shared::begin_driving(&shared, slot);
                            }
                        }
                        Standing::Parked
                        | Standing::Completed
                        | Standing::Compensated
                        | Standing::Stopped
                        | Standing::Abandoned => {}
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(run = %slot.run, %error, "the run is taken up at the next start");
                }
            }
            shared.forget_slot(&slot);
        });
    }

    pub(super) async fn load_and_drive(shared: &Arc<Shared>, slot: Arc<Slot>, permit: RunPermit) {
        let run = slot.run.clone();
        match shared.load_state(&run).await {
            Ok(Some(Loaded {
                state,
                seq,
                found: Found::Here(registered),
            })) => {
                let claims = state.worker != shared.worker && !state.is_ended();
                let fence = state.fence() + 1;
                let mut driver = Driver::new(shared, slot, registered, state, seq, permit);
                if claims {
                    let worker = shared.worker.clone();
                    driver.first(Event::Claimed { fence, worker }, shared.clock.now());
                }
                driver.drive().await;
            }
            Ok(Some(Loaded {
                state,
                seq,
                found: Found::Changed { graph, differences },
            })) => {
                shared
                    .park_changed(&slot, state, seq, &graph, &differences)
                    .await;
            }
            Ok(Some(Loaded {
                state,
                found: Found::Outline(graph),
                ..
            })) => {
                let why = format!(
                    "saga `{}` version {} is not registered here",
                    graph.saga, graph.version
                );
                shared.refuse(&slot, &why);
                drop(state);
            }
            Ok(Some(Loaded {
                state,
                found: Found::Damaged { graph, why },
                ..
            })) => {
                tracing::error!(%run, %why, "the run is parked: it holds up nobody else");
                shared.unreadable.insert_new(run, why.clone());
                shared.settle_parked(&slot, state, graph, &why);
            }
            Ok(None) => shared.refuse(&slot, "there is no such run"),
            Err(error) => {
                tracing::error!(%run, %error, "the run can't be taken up: it holds up nobody else");
                shared.unreadable.insert_new(run, error.to_string());
                shared.refuse(&slot, &error.to_string());
            }
        }
    }

    /// Gives the slot back without having driven, and refuses what was asked.
    fn refuse(&self, slot: &Arc<Slot>, why: &str) {
        for command in slot.retire_idle() {
            let closed = CommandError::Closed {
                run: slot.run.clone(),
                why: why.to_owned(),
            };
            drop(command.answer.send(Err(closed)));
        }
        self.forget_slot(slot);
    }

    /// A changed definition never runs by accident: the run is parked, with the difference (promise 9).
    async fn park_changed(
        &self,
        slot: &Arc<Slot>,
        mut state: State,
        seq: u64,
        graph: &Arc<Graph>,
        differences: &[String],
    ) {
        if !state.is_parked() && !state.is_ended() {
            let message = format!(
                "saga `{}` version {} has changed since the run was started: {}. \
                 Register the old structure, or give the new one another version",
                graph.saga,
                graph.version,
                differences.join("; ")
            );
            let now = self.clock.now();
            let events = vec![
                Event::Claimed {
                    fence: state.fence() + 1,
                    worker: self.worker.clone(),
                },
                Event::Parked(Box::new(Parking::new(
                    ParkReason::DefinitionChanged,
                    message,
                ))),
            ];
            for event in &events {
                state.apply(graph, event, now);
            }
            let record = Record {
                seq: seq + 1,
                append_id: AppendId::random(),
                at: now,
                events,
            };
            let append = Append::new(
                slot.run.clone(),
                record,
                graph.table.clone(),
                Standing::Parked,
            );
            if let Err(error) = self.store.append(append).await {
                tracing::error!(run = %slot.run, %error, "the run could not be parked: the next start tries again");
            } else if let Some(registered) = self.definition(&graph.saga, graph.version) {
                registered.meters.parked();
            }
        }
        let why = "its definition has changed under the same version";
        self.settle_parked(slot, state, Arc::clone(graph), why);
    }

    /// Tells whoever waits that the run is parked, and why no command can be carried out.
    fn settle_parked(&self, slot: &Arc<Slot>, state: State, graph: Arc<Graph>, why: &str) {
        let run = slot.run.clone();
        let snapshot = Snapshot { run, state, graph };
        for command in slot.retire(Settled::Parked(Arc::new(snapshot))) {
            let (run, why) = (slot.run.clone(), why.to_owned());
            drop(command.answer.send(Err(CommandError::Closed { run, why })));
        }
        self.forget_slot(slot);
    }

    /// The run as its journal says it is, for whoever looks at it.
    pub(crate) async fn snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, GetError> {
        Ok(self.load_state(run).await?.map(|loaded| Snapshot {
            run: run.clone(),
            graph: loaded.found.graph(),
            state: loaded.state,
        }))
    }

    async fn load_state(&self, run: &RunId) -> Result<Option<Loaded>, GetError> {
        let (journal, damage) = match self.store.load(run).await {
            Ok(Some(journal)) => (journal, None),
            Ok(None) => return Ok(None),
            // What comes before the damage still tells what the run has achieved.
            Err(error @ LoadError::Unreadable { .. }) => {
                let why = error.to_string();
                let LoadError::Unreadable { ref before, .. } = error else {
                    return Err(error.into());
                };
                if before.records.is_empty() {
                    return Err(error.into());
                }
                ((**before).clone(), Some(why))
            }
            Err(error) => return Err(error.into()),
        };
        let no_start = || GetError::NoStart { run: run.clone() };
        let first = journal
            .records
            .first()
            .and_then(|record| record.events.first());
        let Some(Event::RunStarted(started)) = first else {
            return Err(no_start());
        };
        let mut found = self.find_definition(run, started).await?;
        let graph = found.graph();
        let (seq, at) = journal
            .records
            .last()
            .map_or_else(Default::default, |record| (record.seq, record.at));
        let mut state = fold(journal, &graph)?.ok_or_else(no_start)?;
        if let Some(why) = damage {
            let parking = Parking::new(ParkReason::Unreadable, why.clone());
            state.apply(&graph, &Event::Parked(Box::new(parking)), at);
            found = Found::Damaged { graph, why };
        }
        Ok(Some(Loaded { state, seq, found }))
    }

    async fn find_definition(&self, run: &RunId, started: &RunStarted) -> Result<Found, GetError> {
        let registered = self.definition(&started.saga, started.version);
        if let Some(registered) = registered
            && *registered.definition.graph.fingerprint == *started.fingerprint
        {
            return Ok(Found::Here(Arc::clone(registered)));
        }
        let old = self
            .store
            .recall(&started.saga, started.version, &started.fingerprint)
            .await?;
        match (old, registered) {
            (Some(old), Some(registered)) => {
                let differences = old.differences(&Outline::of(&registered.definition.graph));
                Ok(Found::Changed {
                    graph: Arc::new(old.to_graph()),
                    differences,
                })
            }
            (Some(old), None) => Ok(Found::Outline(Arc::new(old.to_graph()))),
            (None, _) => {
                let (run, saga, version) = (run.clone(), started.saga.clone(), started.version);
                Err(GetError::NoDefinition { run, saga, version })
            }
        }
    }
}

/// Folds a journal: the very function that running uses (promise 8).
fn fold(journal: Journal, graph: &Graph) -> Result<Option<State>, GetError> {
    let same = journal.steps.is_same(&graph.table);
    let mut numbers = Vec::new();
    if !same {
        for name in journal.steps.names() {
            let step = graph.step_named(name);
            let missing = || GetError::NoSuchStep {
                run: journal.run.clone(),
                step: name.to_owned(),
            };
            numbers.push(step.ok_or_else(missing)?);
        }
    }
    let mut state: Option<State> = None;
    for record in journal.records {
        for event in record.events {
            let event = if same {
                event
            } else {
                event.map_step(|step| numbers[step.at()])
            };
            match (&mut state, &event) {
                (Some(state), event) => state.apply(graph, event, record.at),
                (None, Event::RunStarted(started)) => {
                    state = Some(State::begin(graph, started, record.at));
                }
                (None, _) => return Ok(None),
            }
        }
    }
    Ok(state)
}
