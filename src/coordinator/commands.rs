//! Commands about a run: how they reach its driver, and what they are answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::coordinator::error::{CommandError, GetError};
use crate::coordinator::slot::{Asking, Slot};
use crate::coordinator::{Coordinator, Shared};
use crate::ids::RunId;
use crate::journal::{CancelTold, Command, ResolvedEffect, Verb};
use crate::machine::{Refused, SignalTold};
use crate::policy::RecoveryStrategy;
use crate::saga::ApprovalVerdict;
use crate::step::{Payload, Value};
use crate::store::RunEntry;

/// What whoever sent a command is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// It is in the run's journal.
    Done,
    /// It was a cancel, and this is what becomes of it.
    Cancel(CancelTold),
    /// It was a signal.
    Signal(SignalTold),
}

impl Told {
    pub(super) fn cancel(told: Option<CancelTold>) -> Self {
        told.map_or(Told::Done, Told::Cancel)
    }
}

/// What an operator knows about an effect in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<T> {
    /// It happened, and this is its output.
    Done(T),
    /// It did not happen, and will be refused if it still arrives.
    NotDone,
}

impl Coordinator {
    /// Asks for a run to be cancelled: nothing new starts, what is in flight is awaited, and what is done
    /// is undone in reverse. Wakes a run that waits.
    ///
    /// The answer says what that means now (rule C1): with [`CancelTold::Pending`] the pivot's fate
    /// decides, with [`CancelTold::TooLate`] the run goes forward. Cancelling again does no harm.
    ///
    /// # Errors
    ///
    /// Where there is no such run, or it has ended.
    ///
    /// # Cancel safety
    ///
    /// The command is on its way once this was polled; dropping the future only drops the answer.
    pub async fn cancel(
        &self,
        run: &RunId,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<CancelTold, CommandError> {
        let told = self.ask(run, Verb::Cancel, by, reason).await?;
        Ok(match told {
            Told::Cancel(told) => told,
            Told::Done | Told::Signal(_) => CancelTold::Accepted,
        })
    }

    /// Lets a parked run go on with this strategy: `compensate` undoes it, the others retry. Grants
    /// attempts and recoveries anew (rule D6).
    ///
    /// # Errors
    ///
    /// Where there is no such run, it isn't parked, or the strategy isn't available.
    pub async fn retry(
        &self,
        run: &RunId,
        strategy: RecoveryStrategy,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        let verb = match strategy {
            RecoveryStrategy::Compensate => Verb::Compensate,
            strategy => Verb::retry(strategy),
        };
        self.ask(run, verb, by, reason).await.map(drop)
    }

    /// Says what became of an effect in doubt of a parked run. The run stays parked until it is retried.
    ///
    /// # Errors
    ///
    /// Where there is no such run, it isn't parked, or the step isn't in doubt.
    pub async fn resolve<T: Payload>(
        &self,
        run: &RunId,
        step: impl Into<String>,
        resolution: Resolution<T>,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        let effect = match resolution {
            Resolution::Done(output) => ResolvedEffect::Done(Some(Value::typed(Arc::new(output)))),
            Resolution::NotDone => ResolvedEffect::NotDone,
        };
        let step = step.into();
        self.ask(run, Verb::Resolve { step, effect }, by, reason)
            .await
            .map(drop)
    }

    /// Gives a run up: attempts in flight are awaited, then it ends `Abandoned`, and its outcome lists what
    /// stands. The answer comes when the command is journalled.
    ///
    /// # Errors
    ///
    /// Where there is no such run, or it has ended.
    pub async fn abandon(
        &self,
        run: &RunId,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        self.ask(run, Verb::Abandon, by, reason).await.map(drop)
    }

    /// Sends a signal to a run: the step with the path `name` waits for it, or will (rule I5). Durable when
    /// this returns. Each call is a signal of its own; to be able to send the same one again, make a
    /// [`Command`] with a token of your own, and use [`command`](Self::command).
    ///
    /// Says whether the wait was over already.
    ///
    /// # Errors
    ///
    /// Where there is no such run, it has ended, its saga waits for no such signal, or the payload is not what
    /// the wait wants.
    pub async fn signal<T: Payload>(
        &self,
        run: &RunId,
        name: &str,
        payload: T,
    ) -> Result<SignalTold, CommandError> {
        self.signal_by(run, name, payload, "", "").await
    }

    /// Approves what an [`approval`](crate::approval) asks for.
    ///
    /// # Errors
    ///
    /// As for [`signal`](Self::signal), and where `by` is not one of the approvers, or there is no reason.
    pub async fn approve(
        &self,
        run: &RunId,
        name: &str,
        by: &str,
        reason: &str,
    ) -> Result<SignalTold, CommandError> {
        self.signal_by(run, name, ApprovalVerdict::Approved, by, reason)
            .await
    }

    /// Denies what an [`approval`](crate::approval) asks for.
    ///
    /// # Errors
    ///
    /// As for [`approve`](Self::approve).
    pub async fn deny(
        &self,
        run: &RunId,
        name: &str,
        by: &str,
        reason: &str,
    ) -> Result<SignalTold, CommandError> {
        self.signal_by(run, name, ApprovalVerdict::Denied, by, reason)
            .await
    }

    async fn signal_by<T: Payload>(
        &self,
        run: &RunId,
        name: &str,
        payload: T,
        by: &str,
        reason: &str,
    ) -> Result<SignalTold, CommandError> {
        let signal = Verb::Signal {
            name: name.to_owned(),
            payload: Value::typed(Arc::new(payload)),
        };
        let command = Command::new(run.clone(), signal).by(by).reason(reason);
        Ok(match self.command(&command).await? {
            Told::Signal(told) => told,
            Told::Done | Told::Cancel(_) => SignalTold::Accepted,
        })
    }

    /// Carries out any command. What has no method of its own here, [`Verb::Pause`] say, goes this way, and
    /// so does what has to be safe to send again: the same token is carried out once, and the token is all that is
    /// compared.
    ///
    /// From another process, hand it to the store: [`Store::submit`](crate::store::Store::submit).
    ///
    /// # Errors
    ///
    /// Where there is no such run, or its state doesn't allow it: then nothing was changed, and the error
    /// lists what would be taken.
    ///
    /// # Cancel safety
    ///
    /// The command is on its way once this was polled; dropping the future only drops the answer.
    pub async fn command(&self, command: &Command) -> Result<Told, CommandError> {
        let asking = |answer| Asking {
            verb: command.verb.clone(),
            by: command.by.clone(),
            reason: command.reason.clone(),
            at: self.shared().clock.now(),
            token: Some(command.token.clone()),
            answer,
        };
        Shared::command(self.shared(), &command.run, asking).await
    }

    pub(super) async fn ask(
        &self,
        run: &RunId,
        verb: Verb,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<Told, CommandError> {
        let (by, reason) = (by.into(), reason.into());
        let asking = |answer| Asking {
            verb,
            by,
            reason,
            at: self.shared().clock.now(),
            token: None,
            answer,
        };
        Shared::command(self.shared(), run, asking).await
    }
}

/// Where the answer to a command goes.
pub(super) type Answer = oneshot::Sender<Result<Told, CommandError>>;

impl Shared {
    /// Hands a command to the driver of its run, which is begun where there is none, and waits for the answer.
    pub(super) async fn command(
        shared: &Arc<Shared>,
        run: &RunId,
        asking: impl FnOnce(Answer) -> Asking,
    ) -> Result<Told, CommandError> {
        let closed = || CommandError::Closed {
            run: run.clone(),
            why: shared.why_closed(),
        };
        if shared.is_closing() {
            return Err(closed());
        }
        if shared.is_in_fleet() {
            return Shared::command_in_fleet(shared, run, asking).await;
        }
        let (answer, answered) = oneshot::channel();
        let asking = asking(answer);
        let slot = shared.slot(run);
        if !slot.is_active()
            && let Err(refused) = shared
                .look_before_waking(&slot, asking.token.is_some())
                .await
        {
            shared.forget_slot(&slot);
            return Err(refused);
        }
        if slot.send(asking) {
            Shared::begin_driving(shared, slot);
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Before anything is woken: a run that isn't there, or is over, stays so. Nothing where it is only about to be
    /// there.
    pub(super) async fn look_before_waking(
        &self,
        slot: &Slot,
        named: bool,
    ) -> Result<Option<RunEntry>, CommandError> {
        let run = &slot.run;
        match self.store.find(run).await.map_err(GetError::Store)? {
            None if !slot.is_active() => Err(CommandError::NoSuchRun { run: run.clone() }),
            // The journal knows whether a command with a name is the one that ended it.
            Some(entry) if entry.standing.is_end() && !named => {
                Err(CommandError::refused(run, Refused::Ended, Vec::new()))
            }
            found => Ok(found),
        }
    }
}
