//! Runs that another worker drives: waiting for them, and having their worker carry commands out.
//!
//! The store is asked, since nothing else is shared. All who wait in one process cost one question a
//! look, however many they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::lease::jittered;
use crate::coordinator::Shared;
use crate::coordinator::commands::{Answer, Told};
use crate::coordinator::error::{CommandError, GetError};
use crate::coordinator::slot::Asking;
use crate::ids::RunId;
use crate::journal::{Command, CommandAnswer, Standing, VerbName};
use crate::machine::{Refused, SignalTold};
use crate::store::{Claim, RunEntry, StoreError, SubmitError};

/// How often runs that others drive are looked at, while somebody waits for one.
const LOOK: Duration = Duration::from_millis(100);

/// So many are asked about in one go.
const PAGE: usize = 1_000;

/// Who waits for runs that others drive.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    waiting: Mutex<HashMap<RunId, Vec<Waiter>>>,
    more: Notify,
}

#[derive(Debug)]
struct Waiter {
    parked_too: bool,
    told: oneshot::Sender<()>,
}

impl Elsewhere {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Vec<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes back when the run has ended, is parked where that is asked for, or is not there any more.
    pub(crate) async fn settled(&self, run: &RunId, parked_too: bool) {
        let (told, settled) = oneshot::channel();
        let waiter = Waiter { parked_too, told };
        self.lock().entry(run.clone()).or_default().push(waiter);
        self.more.notify_one();
        // Whoever looks is gone with the coordinator, and so is the sender.
        let _ = settled.await;
    }

    /// The runs that somebody still waits for.
    fn waited_for(&self) -> Vec<RunId> {
        let mut waiting = self.lock();
        waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.told.is_closed());
            !waiters.is_empty()
        });
        waiting.keys().cloned().collect()
    }

    /// Tells those that this concerns.
    fn tell(&self, asked: &[RunId], found: &[RunEntry]) {
        let found: HashMap<&RunId, Standing> = found
            .iter()
            .map(|entry| (&entry.run, entry.standing))
            .collect();
        let mut waiting = self.lock();
        for run in asked {
            let Some(waiters) = waiting.get_mut(run) else {
                continue;
            };
            let standing = found.get(run).copied();
            let concerned = |waiter: &mut Waiter| match standing {
                None => true,
                Some(Standing::Parked) => waiter.parked_too,
                Some(standing) => standing.is_end(),
            };
            for waiter in waiters.extract_if(.., concerned) {
                // Whoever waited may have gone.
                let _ = waiter.told.send(());
            }
            if waiters.is_empty() {
                waiting.remove(run);
            }
        }
    }
}

/// Looks at the runs that somebody waits for, until the coordinator is gone.
pub(crate) async fn look_elsewhere(shared: Weak<Shared>) {
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        let elsewhere = Arc::clone(&alive.elsewhere);
        let asked = elsewhere.waited_for();
        if let Some(fleet) = alive.store.fleet() {
            for page in asked.chunks(PAGE) {
                match fleet.find_many(page).await {
                    Ok(found) => elsewhere.tell(page, &found),
                    Err(error) => {
                        tracing::warn!(%error, "runs of other workers can't be looked at: trying again");
                    }
                }
            }
        }
        drop(alive);
        if asked.is_empty() {
            elsewhere.more.notified().await;
        } else {
            sleep(jittered(LOOK)).await;
        }
    }
}

impl Shared {
    /// Carries a command out here, or has it carried out by the worker that drives the run.
    pub(crate) async fn command_in_fleet(
        shared: &Arc<Shared>,
        run: &RunId,
        asking: impl FnOnce(Answer) -> Asking,
    ) -> Result<Told, CommandError> {
        let failed = |error: StoreError| CommandError::Get(GetError::Store(error));
        let mut asking = asking(oneshot::channel().0);
        // What may be sent twice, because nobody knows what became of it, has a token.
        let named = asking.token.is_some();
        let token = asking.token.take();
        let mut command = Command::new(run.clone(), asking.verb.clone())
            .by(asking.by.clone())
            .reason(asking.reason.clone());
        command.token = token.unwrap_or(command.token);
        asking.token = Some(command.token.clone());
        loop {
            if shared.is_closing() {
                return Err(CommandError::Closed {
                    run: run.clone(),
                    why: shared.why_closed(),
                });
            }
            let slot = shared.slot(run);
            if !slot.is_active() {
                let theirs = match shared.look_before_waking(&slot, named).await {
                    Ok(Some(entry)) => shared.is_left_to_others(&entry).await.map_err(failed),
                    Ok(None) => Ok(false),
                    Err(refused) => Err(refused),
                };
                match theirs {
                    Ok(false) => {}
                    Ok(true) => {
                        shared.forget_slot(&slot);
                        return shared.command_elsewhere(&command).await;
                    }
                    Err(refused) => {
                        shared.forget_slot(&slot);
                        return Err(refused);
                    }
                }
            }
            let (answer, answered) = oneshot::channel();
            if slot.send(asking.again(answer)) {
                Shared::begin_driving(shared, slot);
            }
            match answered.await {
                Ok(told) => return told,
                // The run was lost to another worker while the command lay here.
                Err(_) => sleep(jittered(LOOK / 10)).await,
            }
        }
    }

    /// Whether an open command is to be carried out by this worker.
    pub(crate) async fn carries_out(&self, run: &RunId) -> Result<bool, StoreError> {
        if !self.is_in_fleet() {
            return Ok(true);
        }
        if self.registry.look(run, |slot| slot.is_active()) == Some(true) {
            return Ok(true);
        }
        match self.store.find(run).await? {
            Some(entry) => Ok(!self.is_left_to_others(&entry).await?),
            // Whoever looks first tells that there is no such run.
            None => Ok(true),
        }
    }

    /// Whether another worker drives the run, or has to, since it has the code; else it is reserved for this one.
    async fn is_left_to_others(&self, entry: &RunEntry) -> Result<bool, StoreError> {
        Ok(self.has_its_code_elsewhere(entry).await?
            || matches!(self.claim_run(&entry.run).await?, Claim::Theirs(_)))
    }

    /// Whether another worker can drive the run, and this one can't (rule I3).
    async fn has_its_code_elsewhere(&self, entry: &RunEntry) -> Result<bool, StoreError> {
        if self.definition(&entry.saga, entry.version).is_some() {
            return Ok(false);
        }
        let Some(fleet) = self.store.fleet() else {
            return Ok(false);
        };
        let workers = fleet.workers().await?;
        let mut live = workers.iter().filter(|worker| worker.live);
        Ok(live.any(|worker| {
            let mut definitions = worker.worker.definitions.iter();
            definitions.any(|(saga, version)| *saga == entry.saga && *version == entry.version)
        }))
    }

    /// Has a command carried out by whichever worker drives its run: it is handed to the store, where that worker
    /// finds it, or the next one where it is gone.
    pub(crate) async fn command_elsewhere(&self, command: &Command) -> Result<Told, CommandError> {
        let run = &command.run;
        let closed = |why: String| CommandError::Closed {
            run: run.clone(),
            why,
        };
        let failed = |error: StoreError| CommandError::Get(GetError::Store(error));
        match self.store.submit(command).await {
            Ok(()) => {}
            Err(SubmitError::NoSuchRun { run }) => return Err(CommandError::NoSuchRun { run }),
            Err(SubmitError::TokenTaken { token }) => {
                let why = Refused::TokenTaken(token);
                return Err(CommandError::refused(run, why, Vec::new()));
            }
            Err(SubmitError::Store(error)) => return Err(failed(error)),
        }
        let mut pause = Duration::from_millis(10);
        loop {
            let kept = self.store.find_command(&command.token).await;
            let Some(kept) = kept.map_err(failed)? else {
                return Err(closed("it was forgotten with its run".to_owned()));
            };
            match kept.answer {
                Some(CommandAnswer::Accepted { told: Some(told) }) => {
                    return Ok(Told::Cancel(told));
                }
                Some(CommandAnswer::Accepted { told: None }) => {
                    let signal = command.verb.name() == VerbName::Signal;
                    return Ok(if signal {
                        Told::Signal(SignalTold::Accepted)
                    } else {
                        Told::Done
                    });
                }
                Some(CommandAnswer::Late) => return Ok(Told::Signal(SignalTold::Late)),
                Some(CommandAnswer::Refused { why, legal }) => {
                    let why = Refused::Elsewhere(why);
                    return Err(CommandError::refused(run, why, legal));
                }
                None => {}
            }
            if self.is_closing() {
                return Err(closed(format!(
                    "{}; it is in the store, and the run's worker carries it out",
                    self.why_closed()
                )));
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}
