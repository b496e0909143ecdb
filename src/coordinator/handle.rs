//! Waiting for a run.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::coordinator::Coordinator;
use crate::coordinator::error::{GetError, OutcomeError};
use crate::coordinator::shared::Shared;
use crate::coordinator::slot::{Settled, Slot};
use crate::ids::RunId;
use crate::journal::End;
use crate::partial::{Completed, Outcome, Snapshot};
use crate::saga::Saga;
use crate::step::Payload;

/// A started run. Dropping it doesn't touch the run.
pub struct RunHandle<O> {
    coordinator: Coordinator,
    slot: Arc<Slot>,
    _output: PhantomData<fn() -> O>,
}

impl<O> Drop for RunHandle<O> {
    fn drop(&mut self) {
        self.coordinator.shared().forget_slot(&self.slot);
    }
}

impl<O> fmt::Debug for RunHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.slot.run)
    }
}

impl Coordinator {
    /// A handle to a run of this saga that was started before, or nothing where there is no such run.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn attach<I, O: Payload>(
        &self,
        _saga: &Saga<I, O>,
        run: &RunId,
    ) -> Result<Option<RunHandle<O>>, GetError> {
        let slot = self.shared().slot(run);
        let known = slot.is_active() || self.shared().store.find(run).await?.is_some();
        let handle = RunHandle::new(self.clone(), slot);
        Ok(known.then_some(handle))
    }
}

impl<O: Payload> RunHandle<O> {
    pub(super) fn new(coordinator: Coordinator, slot: Arc<Slot>) -> Self {
        RunHandle {
            coordinator,
            slot,
            _output: PhantomData,
        }
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.slot.run
    }

    /// Waits until the run has ended, or is parked. Asking again gives the same answer, or a newer one.
    ///
    /// # Errors
    ///
    /// Where the coordinator stops driving the run first, or the run can't be read.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again.
    pub async fn outcome(&self) -> Result<Outcome<O>, OutcomeError> {
        self.wait(true).await
    }

    /// Waits until the run has ended: past parking, until an operator has helped.
    ///
    /// # Errors
    ///
    /// As [`outcome`](Self::outcome).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again.
    pub async fn ended(&self) -> Result<Outcome<O>, OutcomeError> {
        self.wait(false).await
    }

    async fn wait(&self, parked_too: bool) -> Result<Outcome<O>, OutcomeError> {
        let shared = self.coordinator.shared();
        // A run that never waited is over by now.
        if let Some(Settled::Ended(snapshot)) = self.settled_here(shared) {
            return self.outcome_of(snapshot);
        }
        loop {
            let changed = self.slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.settled_here(shared) {
                Some(Settled::Ended(snapshot)) => return self.outcome_of(snapshot),
                Some(Settled::Parked(snapshot)) if parked_too => return self.outcome_of(snapshot),
                Some(Settled::Lost) => {
                    return Err(OutcomeError::Lost {
                        run: self.id().clone(),
                    });
                }
                Some(Settled::Closed(why)) => {
                    return Err(OutcomeError::Closed {
                        run: self.id().clone(),
                        why,
                    });
                }
                Some(Settled::Parked(_)) => {}
                None if self.slot.is_active() => {}
                // Nobody drives it: it waits, is parked, or ended before this handle was made.
                None => {
                    if let Some(snapshot) = self.at_rest(shared, parked_too).await? {
                        return self.outcome_of(Arc::new(snapshot));
                    }
                    if shared.is_closing() {
                        let why = shared.why_closed();
                        return Err(OutcomeError::Closed {
                            run: self.id().clone(),
                            why,
                        });
                    }
                }
            }
            if shared.is_in_fleet() && !self.slot.is_active() {
                tokio::select! {
                    () = changed => {}
                    () = shared.elsewhere.settled(self.id(), parked_too) => {}
                }
            } else {
                changed.await;
            }
        }
    }

    /// What is known here. In a fleet a run that nobody drives here may have gone on elsewhere since.
    fn settled_here(&self, shared: &Shared) -> Option<Settled> {
        let settled = self.slot.settled();
        let may_have_gone_on = shared.is_in_fleet() && !self.slot.is_active();
        settled.filter(|settled| match settled {
            Settled::Parked(_) | Settled::Lost => !may_have_gone_on,
            Settled::Ended(_) | Settled::Closed(_) => true,
        })
    }

    async fn at_rest(
        &self,
        shared: &Arc<Shared>,
        parked_too: bool,
    ) -> Result<Option<Snapshot>, GetError> {
        let snapshot = shared.snapshot(self.id()).await?;
        Ok(snapshot.filter(|snapshot| {
            snapshot.state.is_ended()
                || (parked_too && snapshot.state.is_parked() && !self.slot.is_active())
        }))
    }

    fn outcome_of(&self, snapshot: Arc<Snapshot>) -> Result<Outcome<O>, OutcomeError> {
        Ok(match &snapshot.state.end {
            Some(End::Completed { output }) => {
                let output = output.get::<O>();
                let output = output.map_err(|cause| OutcomeError::Payload {
                    run: self.id().clone(),
                    cause,
                })?;
                Outcome::Completed(Completed {
                    output: Arc::unwrap_or_clone(output),
                    snapshot,
                })
            }
            Some(End::Compensated) => Outcome::Compensated(snapshot.partial()),
            Some(End::Stopped { .. }) => Outcome::Stopped(snapshot.partial()),
            Some(End::Abandoned { .. }) => Outcome::Abandoned(snapshot.partial()),
            None => Outcome::Parked(snapshot.partial()),
        })
    }
}
