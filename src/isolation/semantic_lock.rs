//! A lock that is a value in the user's own row.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::isolation::LockError;
use crate::ids::{RunId, Timestamp};
use crate::step::{CallKind, StepContext};

/// Which run has a row under way, and until when: a value that you keep in the row itself, as JSON in
/// one column or as four columns.
///
/// All functions here are pure. In one transaction of your own read the row, [`take`](Self::take) the lock, and write
/// both your change and the lock. A later step [`keep`](Self::keep)s it and in the end [`release`](Self::release)s it; so does the
/// `compensate` of the step that took it.
///
/// # What is guaranteed, and what is not
///
/// * Of all runs that ask, in transactions that exclude each other on the row, at most one holds the
///   lock until its time is up.
/// * It is advice: whoever writes the row without asking is not stopped.
/// * It is a lease: when its time is up, others may take it, whether its run is dead, parked or only
///   slow. So a later step that relies on the lock asks [`keep`](Self::keep).
/// * It separates runs. Steps of one run share it, also those that run side by side.
/// * It is no barrier against duplicates: after the release nothing in the row remembers the run. The
///   effect's key does that.
///
/// ```
/// use std::time::Duration;
/// use amends::isolation::{Released, SemanticLock, TakenHow};
/// use amends::{StepContext, StepError, Timestamp};
///
/// struct Account { balance: u64, lock: Option<SemanticLock> }
///
/// // Each of these stands between reading the row and writing it, in one transaction.
///
/// // `execute` of the first step:
/// fn withdraw(row: &mut Account, cx: &StepContext, amount: u64) -> Result<(), StepError> {
///     let taken = SemanticLock::take(row.lock.as_ref(), cx, Duration::from_secs(600), Timestamp::now())?;
///     if taken.how != TakenHow::Again { // otherwise an earlier attempt has been here
///         row.balance = row.balance.checked_sub(amount).ok_or_else(|| StepError::rejected("too little money"))?;
///     }
///     row.lock = Some(taken.lock);
///     Ok(())
/// }
///
/// // its `compensate`, where the lock has not been released or lost:
/// fn give_back(row: &mut Account, cx: &StepContext, amount: u64) -> Result<(), StepError> {
///     let released = SemanticLock::release(row.lock.as_ref(), cx)?;
///     if released == Released::Freed { // otherwise an earlier attempt has been here
///         row.balance += amount;
///     }
///     row.lock = released.left();
///     Ok(())
/// }
///
/// // `execute` of the last step that needs the row:
/// fn approve(row: &mut Account, cx: &StepContext) -> Result<(), StepError> {
///     let kept = SemanticLock::keep(row.lock.as_ref(), cx, Duration::ZERO, Timestamp::now())?;
///     if row.balance < 50 {
///         return Err(StepError::rejected("50 have to stay"));
///     }
///     row.lock = SemanticLock::release(Some(&kept), cx)?.left();
///     Ok(())
/// }
/// # use amends::store::MemoryStore;
/// # use amends::{Coordinator, Saga, step_with};
/// # use std::sync::{Arc, Mutex};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # struct Approve(Arc<Mutex<Account>>);
/// # impl amends::Action for Approve {
/// #     type Input = ();
/// #     type Output = ();
/// #     async fn execute(&self, cx: &StepContext, (): &()) -> Result<(), StepError> {
/// #         approve(&mut self.0.lock().unwrap(), cx)
/// #     }
/// # }
/// # let account = Arc::new(Mutex::new(Account { balance: 100, lock: None }));
/// # let mut saga = Saga::builder::<u64>("pay");
/// # let amount = saga.input();
/// # let withdrawn = saga.add(step_with("withdraw", Arc::clone(&account),
/// #     async |account, cx, amount: &u64| withdraw(&mut account.lock().unwrap(), cx, *amount),
/// #     async |account, cx, amount, _effect| give_back(&mut account.lock().unwrap(), cx, *amount)).atomic(), amount);
/// # let approved = saga.add(amends::irreversible("approve", Approve(Arc::clone(&account))).pivot().atomic(), withdrawn);
/// # let saga = saga.returns(approved)?;
/// # let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// # for (run, amount, end, left) in [("a", 30, "completed", 70), ("b", 30, "compensated", 70), ("c", 20, "completed", 50)] {
/// #     assert_eq!(coordinator.start(&saga, run, amount).await?.outcome().await?.word(), end);
/// #     let account = account.lock().unwrap();
/// #     assert_eq!((account.balance, &account.lock), (left, &None));
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SemanticLock {
    /// The run that holds it.
    pub run: RunId,
    /// The [`effect_key`](StepContext::effect_key) of the step that took it: its undo releases it. It
    /// begins with the run's random uid, by which two runs of one name in two stores are told apart.
    pub key: String,
    /// The highest [`fence`](StepContext::fence) under which it was taken or kept.
    pub fence: u64,
    /// From when on another run may take it over.
    pub until: Timestamp,
}

/// A lock that was taken. Write [`lock`](Self::lock) into the row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the lock is held only once it is written into the row"]
pub struct Taken {
    /// What the row has to hold from now on.
    pub lock: SemanticLock,
    /// What there was before.
    pub how: TakenHow,
}

/// How a lock came to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakenHow {
    /// Nobody held it.
    Fresh,
    /// This very effect holds it already. So an earlier attempt has committed the transaction that wrote
    /// it: what that transaction changed must not be changed again.
    Again,
    /// The run holds it already, for another step, or for an earlier round of this one. It stays that
    /// other step's to release when it is undone; an earlier round's becomes this round's. It says
    /// nothing about whether this step has made its own change yet.
    Joined,
    /// The time of this lock, another run's, was up. That run may be dead, and its change half-way; or
    /// parked, and it will find its lock [lost](LockError::Lost). Look at it before you build on the row.
    Expired(SemanticLock),
}

/// What became of a lock that was to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the lock is released only once `left` is written into the row"]
#[non_exhaustive]
pub enum Released {
    /// It was the caller's: empty the lock's columns.
    Freed,
    /// There is no lock: it was released before, or never taken.
    Already,
    /// It is somebody else's, of another run, or in an undo of another step of this run. Leave it.
    Kept(SemanticLock),
}

impl Released {
    /// What the row has to hold from now on, whichever it was.
    #[must_use]
    pub fn left(self) -> Option<SemanticLock> {
        match self {
            Released::Freed | Released::Already => None,
            Released::Kept(lock) => Some(lock),
        }
    }
}

impl SemanticLock {
    /// Takes the lock for the run of this call, or makes it last longer where the run has it already.
    ///
    /// `current` is what the row holds, read in the transaction that will write the answer. `now` is best
    /// the database's time, which all that share the row have in common. The lock lasts until
    /// `now + for_how_long`, and never less than it did; [`Duration::MAX`] is for ever. Make it longer
    /// than the run takes, with its retries, and as long as a parked run may wait for an operator.
    ///
    /// # Errors
    ///
    /// * [`LockError::Held`]: another run has it, and its time is not up.
    /// * [`LockError::Stale`]: the run itself holds it under a higher fence.
    pub fn take(
        current: Option<&SemanticLock>,
        cx: &StepContext,
        for_how_long: Duration,
        now: Timestamp,
    ) -> Result<Taken, LockError> {
        let until = now.after(for_how_long);
        let fresh = SemanticLock {
            run: cx.run().clone(),
            key: cx.effect_key().to_owned(),
            fence: cx.fence(),
            until,
        };
        let (lock, how) = match current {
            None => (fresh, TakenHow::Fresh),
            Some(held) if held.is_of(cx) => {
                held.refuse_stale(cx)?;
                let until = held.until.max(until);
                if held.key == fresh.key {
                    (SemanticLock { until, ..fresh }, TakenHow::Again)
                } else if step_of(&held.key) == step_of(&fresh.key) {
                    // Its undo did not release it: an operator said that the effect is gone, perhaps. The
                    // undo of this round has to find its own key.
                    (SemanticLock { until, ..fresh }, TakenHow::Joined)
                } else {
                    let key = held.key.clone();
                    (
                        SemanticLock {
                            key,
                            until,
                            ..fresh
                        },
                        TakenHow::Joined,
                    )
                }
            }
            Some(held) if held.is_expired(now) => (fresh, TakenHow::Expired(held.clone())),
            Some(held) => {
                return Err(LockError::Held {
                    by: held.run.clone(),
                    until: held.until,
                    left: held.until.since(now),
                });
            }
        };
        Ok(Taken { lock, how })
    }

    /// Makes sure, in a later step, that the run still holds the lock that an earlier one took, and makes
    /// it last until `now + for_how_long` where that is longer. Write the answer into the row.
    ///
    /// With [`Duration::ZERO`] it only asks. A lock whose time is up counts as held as long as nobody
    /// has taken it over: nobody else has been at the row.
    ///
    /// # Errors
    ///
    /// * [`LockError::Lost`]: there is no lock, or it is another run's.
    /// * [`LockError::Stale`]: the run holds it under a higher fence.
    pub fn keep(
        current: Option<&SemanticLock>,
        cx: &StepContext,
        for_how_long: Duration,
        now: Timestamp,
    ) -> Result<SemanticLock, LockError> {
        match current {
            Some(held) if held.is_of(cx) => {
                held.refuse_stale(cx)?;
                Ok(SemanticLock {
                    fence: cx.fence(),
                    until: held.until.max(now.after(for_how_long)),
                    ..held.clone()
                })
            }
            other => Err(LockError::Lost {
                run: cx.run().clone(),
                by: other.map(|held| held.run.clone()),
            }),
        }
    }

    /// Lets go of the lock, as often as it is asked.
    ///
    /// In `execute` it frees the lock of the run, whichever step took it: call it in the step after
    /// which others may have the row. In `compensate`, or a probe, it frees only what this very step
    /// took, so that undoing a later step doesn't bare what an earlier one has yet to undo. Another
    /// run's lock is never freed: that is no error, since an undo comes there too when the step itself
    /// was refused, or has lost its lock.
    ///
    /// # Errors
    ///
    /// [`LockError::Stale`]: the run holds it under a higher fence.
    pub fn release(
        current: Option<&SemanticLock>,
        cx: &StepContext,
    ) -> Result<Released, LockError> {
        let Some(held) = current else {
            return Ok(Released::Already);
        };
        if !held.is_of(cx) {
            return Ok(Released::Kept(held.clone()));
        }
        held.refuse_stale(cx)?;
        let own = step_of(&held.key) == step_of(cx.effect_key());
        if own || cx.kind() == CallKind::Execute {
            Ok(Released::Freed)
        } else {
            Ok(Released::Kept(held.clone()))
        }
    }

    /// Whether another run may take it over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.until
    }

    /// Whether the run of this call holds it, its time up or not.
    #[must_use]
    pub fn is_of(&self, cx: &StepContext) -> bool {
        self.run == *cx.run() && uid_of(&self.key) == uid_of(cx.effect_key())
    }

    fn refuse_stale(&self, cx: &StepContext) -> Result<(), LockError> {
        if cx.fence() < self.fence {
            return Err(LockError::Stale {
                run: self.run.clone(),
                fence: cx.fence(),
                seen: self.fence,
            });
        }
        Ok(())
    }
}

/// A key is uid, step and round, with `/` between them (rule K1).
fn uid_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(uid, _)| uid)
}

/// The key without its round.
fn step_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(step, _)| step)
}

#[cfg(test)]
mod tests;
