//! Making a turn durable (rule W2).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::{Driver, Gone};
use crate::coordinator::slot::Started;
use crate::journal::{End, Event, Record};
use crate::machine::State;
use crate::observe::RunCounts;
use crate::store::{Append, AppendError, Appending, Trouble, TroubleChange};

/// How long an append that was not written waits before it is tried again.
const FIRST_STALL: Duration = Duration::from_millis(50);
const LONGEST_STALL: Duration = Duration::from_secs(5);

impl Driver {
    /// Appends the batch as one record (rule W2). Attempts in flight go on meanwhile.
    pub(super) async fn append(&mut self) -> Result<(), Gone> {
        let events = std::mem::take(&mut self.batch);
        let standing = self.state.standing(if self.asked.is_empty() {
            self.until
        } else {
            None
        });
        self.append_id = self.append_id.next();
        let at = self
            .batch_at
            .take()
            .unwrap_or_else(|| self.shared.clock.now());
        let record = Record {
            seq: self.seq + 1,
            append_id: self.append_id,
            at,
            events,
        };
        let standing_changed = self.standing != Some(standing);
        let trouble = if standing_changed {
            self.state.trouble()
        } else {
            TroubleChange::Same
        };
        let append = Append {
            run: self.slot.run.clone(),
            record,
            steps: self.state.table.clone(),
            standing,
            standing_changed,
            trouble,
        };
        // A store that keeps values answers at once and for certain, so nothing has to be sent again. In a box, so that
        // runs that never need it don't carry it along.
        let spare = (!self.shared.store.keeps_values()).then(|| Box::new(append.clone()));
        // What was read before a fail-over may be gone after it. A claim was made for that very journal, so it
        // is not sent again: the run is read and claimed anew.
        let claims = self.shared.is_in_fleet()
            && matches!(append.record.events.first(), Some(Event::Claimed { .. }));
        let appending = RunCounts::appending();
        self.may_append()?;
        let sent = self.shared.store.append(append);
        if let Err(error) = self.sent(sent).await {
            Box::pin(self.send_again(error, spare, claims)).await?;
        }
        self.counts.appended(&appending);
        self.counts.durable(self.state.is_parked());
        self.seq += 1;
        self.standing = Some(standing);
        if std::mem::take(&mut self.starting) {
            self.slot.set_started(Started::Durable);
        }
        self.slot.changed.notify_waiters();
        Ok(())
    }

    /// Sends an append again for as long as nobody knows that the store has it, or that it never will.
    async fn send_again(
        &mut self,
        mut error: AppendError,
        spare: Option<Box<Append>>,
        claims: bool,
    ) -> Result<(), Gone> {
        let mut stall = FIRST_STALL;
        // Once nobody knows, it stays so until the store has the append: what is said of a later try is said of that.
        let mut unknown = false;
        loop {
            unknown |= matches!(error, AppendError::Unknown(_));
            match error {
                AppendError::Conflict => return Err(Gone::Lost),
                AppendError::Dead(cause) => {
                    self.shared.store_died(cause.to_string());
                    return Err(Gone::Closed);
                }
                AppendError::NotWritten(cause) if self.starting && !unknown => {
                    return Err(Gone::NotStarted(format!(
                        "the store did not take it ({cause})"
                    )));
                }
                AppendError::Unknown(cause) if claims => {
                    tracing::warn!(run = %self.slot.run, %cause, "whether the run was claimed is not known: it is looked at again");
                    return Err(Gone::Lost);
                }
                AppendError::Unknown(cause) | AppendError::NotWritten(cause) => {
                    tracing::warn!(run = %self.slot.run, %cause, "the append is sent again in {stall:?}");
                    let Some(append) = spare.as_deref().cloned() else {
                        return Err(Gone::Lost);
                    };
                    self.stall(stall).await?;
                    stall = (stall * 2).min(LONGEST_STALL);
                    self.may_append()?;
                    let sent = self.shared.store.append(append);
                    match self.sent(sent).await {
                        Ok(()) => return Ok(()),
                        Err(again) => error = again,
                    }
                }
            }
        }
    }

    /// A worker whose lease is over writes nothing more: somebody else may have the run.
    fn may_append(&self) -> Result<(), Gone> {
        if !self.member.is_over() {
            Ok(())
        } else if self.starting {
            let why = "this worker has lost its lease, and joins the fleet again";
            Err(Gone::NotStarted(why.to_owned()))
        } else {
            Err(Gone::Lost)
        }
    }

    /// Waits for the store's answer. Attempts in flight go on meanwhile.
    fn sent(&mut self, mut sent: Appending) -> impl Future<Output = Result<(), AppendError>> {
        poll_fn(move |cx| {
            self.poll_calls(cx);
            Pin::new(&mut sent).poll(cx)
        })
    }

    /// Waits before an append is sent again; results are kept meanwhile.
    async fn stall(&mut self, delay: Duration) -> Result<(), Gone> {
        let mut sleep = std::pin::pin!(tokio::time::sleep(delay));
        let shared = Arc::clone(&self.shared);
        poll_fn(|cx| {
            self.slot.waker.register(cx.waker());
            self.poll_calls(cx);
            if shared.is_closing() {
                Poll::Ready(Err(Gone::Closed))
            } else if self.member.is_over() {
                Poll::Ready(Err(Gone::Lost))
            } else {
                sleep.as_mut().poll(cx).map(Ok)
            }
        })
        .await
    }
}

impl State {
    /// What went wrong, for the store's list: of a run that is parked, or ended otherwise than completed.
    pub(crate) fn trouble(&self) -> TroubleChange {
        let overcome = match &self.end {
            Some(End::Completed { .. }) => true,
            Some(_) => false,
            None if self.is_parked() => false,
            None => return TroubleChange::Same,
        };
        let Some(decision) = self.last_decision() else {
            return TroubleChange::Same;
        };
        if overcome {
            return TroubleChange::Gone;
        }
        let failed = decision.failed.first().map(|&step| {
            let mode = self.node(step).went_wrong().map(ToString::to_string);
            Trouble::new(&*self.table.name(step), mode.unwrap_or_default())
        });
        let of_the_run = || {
            let why = decision.why.first()?;
            Some(Trouble::new("", why.saw.mode.to_string()))
        };
        failed
            .or_else(of_the_run)
            .map_or(TroubleChange::Same, TroubleChange::Now)
    }
}
