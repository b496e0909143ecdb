//! Taking runs up: at start all that are open, later those whose timers ring or that get a command.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::coordinator::Shared;
use crate::coordinator::codeless::Codeless;
use crate::coordinator::driver::Driver;
use crate::coordinator::error::{CommandError, GetError};
use crate::coordinator::shared::{Registered, RunPermit};
use crate::coordinator::slot::Slot;
use crate::ids::RunId;
use crate::journal::{AppendId, Event, Standing};
use crate::machine::State;
use crate::operator::Reading;
use crate::partial::Snapshot;
use crate::saga::{Graph, Outline};
use crate::store::{Claim, LoadError, RunFilter, Store};

/// So many entries of the list of open runs are looked at in one go.
const PAGE: usize = 256;

/// When a run is looked at again that could not be taken up for a reason that may pass.
const LOOK_LATER: Duration = Duration::from_millis(500);

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
            let store = Arc::clone(&alive.store);
            drop(alive);
            return take_up_arrivals(shared, store, after).await;
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
                // Paused and parked runs wait for an operator; the others are not open.
                Standing::Paused
                | Standing::Parked
                | Standing::Completed
                | Standing::Compensated
                | Standing::Stopped
                | Standing::Abandoned => continue,
            }
            alive.resumed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Takes up runs that somebody else has started since: those with higher numbers that nobody drives.
async fn take_up_arrivals(shared: Weak<Shared>, store: Arc<dyn Store>, mut after: Option<u64>) {
    let running = RunFilter::open().standing(Standing::Running);
    loop {
        store.runs_arrived().await;
        loop {
            let page = match store.scan(&running, after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "the list of open runs can't be read: trying again");
                    tokio::time::sleep(LOOK_LATER).await;
                    continue;
                }
            };
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            for entry in page {
                let Some(alive) = shared.upgrade() else {
                    return;
                };
                let driven = alive.definition(&entry.saga, entry.version).is_none()
                    || alive.slot(&entry.run).is_active();
                if driven {
                    continue;
                }
                let Some(permit) = alive.run_permit().await else {
                    return;
                };
                Shared::wake_run(&alive, &entry.run, permit);
            }
        }
    }
}

/// Whether a run that nobody here drives has to be claimed first: another worker had it, or a driver of ours that
/// went away in the middle, whose calls nobody answers any more.
pub(super) fn has_to_claim(state: &State, worker: &str) -> bool {
    !state.is_ended() && (*state.worker != *worker || state.has_in_flight())
}

/// A run as its journal says it is.
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) seq: u64,
    pub(super) found: Found,
}

pub(super) enum Found {
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
            Found::Here(registered) => registered.graph(),
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
            tokio::spawn(async move { Shared::claim_and_drive(&shared, slot, permit).await });
        }
    }

    /// Drives a run that was reserved for this worker.
    pub(super) fn wake_claimed_run(shared: &Arc<Shared>, run: &RunId, permit: RunPermit) {
        let slot = shared.slot(run);
        if slot.activate() {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { Shared::load_and_drive(&shared, slot, permit).await });
        } else {
            // Its driver is about to go away, since the lease under which it had the run is over.
            Shared::look_later(shared, run);
        }
    }

    /// Looks in a while whether the run is to be driven here.
    pub(super) fn look_later(shared: &Arc<Shared>, run: &RunId) {
        let look = shared.store.fleet().map(|fleet| fleet.terms().look);
        let pause = look.unwrap_or(Duration::ZERO).max(LOOK_LATER);
        shared
            .timers
            .add(shared.clock.now().after(pause), run.clone());
    }

    /// Reserves the run, and drives it; leaves it alone where another worker has it.
    pub(super) async fn claim_and_drive(shared: &Arc<Shared>, slot: Arc<Slot>, permit: RunPermit) {
        match shared.claim_run(&slot.run).await {
            // A run that is over tells so to whoever asks something of it.
            Ok(Claim::Mine | Claim::Over) => Shared::load_and_drive(shared, slot, permit).await,
            Ok(Claim::Theirs(worker)) => {
                tracing::debug!(run = %slot.run, %worker, "another worker has the run");
                // Whoever asked something of it asks there.
                drop(slot.retire_idle());
                shared.forget_slot(&slot);
            }
            Err(error) => {
                tracing::warn!(run = %slot.run, %error, "the run can't be reserved: trying again");
                Shared::look_later(shared, &slot.run);
                shared.refuse(&slot, &error.to_string());
            }
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
                        // Whoever sends the signal wakes a run that waits for ever.
                        Standing::Waiting { until } if until > shared.clock.now() => {
                            shared.timers.add(until, entry.run);
                        }
                        Standing::Running | Standing::Waiting { .. } => {
                            if slot.activate() {
                                return Shared::begin_driving(&shared, slot);
                            }
                        }
                        Standing::Paused
                        | Standing::Parked
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
                let member = shared.member();
                let claims = has_to_claim(&state, &member.worker);
                let claim = Event::Claimed {
                    fence: state.fence() + 1,
                    worker: member.worker.to_string(),
                };
                let leave = (member, permit);
                let last = (seq, AppendId::random());
                let mut driver =
                    Driver::new(shared, slot, registered, Box::new(state), last, leave);
                if claims {
                    driver.first(claim, shared.clock.now());
                }
                driver.drive().await;
            }
            Ok(Some(Loaded {
                state,
                seq,
                found: Found::Changed { graph, differences },
            })) => {
                let run = Codeless { state, seq, graph };
                if shared.park_changed(&slot, run, &differences).await {
                    return Box::pin(Shared::load_and_drive(shared, slot, permit)).await;
                }
            }
            Ok(Some(Loaded {
                state,
                seq,
                found: Found::Outline(graph),
            })) => {
                let run = Codeless { state, seq, graph };
                if shared.leave_alone(&slot, run).await {
                    return Box::pin(Shared::load_and_drive(shared, slot, permit)).await;
                }
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
            Err(GetError::Store(error) | GetError::Load(LoadError::Store(error)))
                if !shared.is_closing() =>
            {
                tracing::warn!(%run, %error, "the run can't be read now: trying again");
                Shared::look_later(shared, &run);
                shared.refuse(&slot, &error.to_string());
            }
            Err(error) => {
                tracing::error!(%run, %error, "the run can't be taken up: it holds up nobody else");
                shared.unreadable.insert_new(run, error.to_string());
                shared.refuse(&slot, &error.to_string());
            }
        }
    }

    /// Gives the slot back without having driven, and refuses what was asked.
    pub(super) fn refuse(&self, slot: &Arc<Slot>, why: &str) {
        for command in slot.retire_idle() {
            let closed = CommandError::Closed {
                run: slot.run.clone(),
                why: why.to_owned(),
            };
            drop(command.answer.send(Err(closed)));
        }
        self.forget_slot(slot);
    }

    /// The run as its journal says it is, for whoever looks at it.
    pub(crate) async fn snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, GetError> {
        Ok(self.load_state(run).await?.map(|loaded| Snapshot {
            run: run.clone(),
            graph: loaded.found.graph(),
            state: Box::new(loaded.state),
        }))
    }

    pub(super) async fn load_state(&self, run: &RunId) -> Result<Option<Loaded>, GetError> {
        let Some(read) = Reading::of(&*self.store, run).await? else {
            return Ok(None);
        };
        let mut found = self.find_definition(run, read.definition()?).await?;
        let graph = found.graph();
        let (seq, why) = (read.last_seq(), read.damage.clone());
        let state = read.fold(&graph)?;
        if let Some(why) = why {
            found = Found::Damaged { graph, why };
        }
        Ok(Some(Loaded { state, seq, found }))
    }

    async fn find_definition(
        &self,
        run: &RunId,
        (saga, version, fingerprint): (&str, u32, &str),
    ) -> Result<Found, GetError> {
        let registered = self.definition(saga, version);
        if let Some(registered) = registered
            && *registered.definition.graph.fingerprint == *fingerprint
        {
            return Ok(Found::Here(Arc::clone(registered)));
        }
        let old = self.store.recall(saga, version, fingerprint).await?;
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
                let (run, saga) = (run.clone(), saga.to_owned());
                Err(GetError::NoDefinition { run, saga, version })
            }
        }
    }
}
