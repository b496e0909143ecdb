//! What waits for a lane: the appends of some of the runs, in the order in which they came.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::ids::RunId;
use crate::observe::QueueDepth;
use crate::store::AppendError;

use super::rows::Record;

pub(super) type Answer = Result<(), AppendError>;

/// An append, and whom to tell. It is handed on a few times on its way, so the record stays where it is.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: Box<Record>,
    answer: oneshot::Sender<Answer>,
}

/// How much one batch takes at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) appends: usize,
    pub(super) bytes: usize,
}

/// The queue between all callers and the one lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    depth: QueueDepth,
    /// Told when there is work, or none will come any more.
    work: Notify,
    /// Told when the lane has come to its end.
    gone: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Why nothing is taken any more, if so.
    stopped: Option<&'static str>,
    gone: bool,
}

impl Queue {
    /// No change of the state can panic half-way, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an append, unless the store has stopped.
    pub(super) fn push(&self, record: Record) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let (answer, receiver) = oneshot::channel();
        let record = Box::new(record);
        let mut state = self.lock();
        if let Some(why) = state.stopped {
            return Err(AppendError::dead(why));
        }
        self.depth.grew();
        state.jobs.push_back(Job { record, answer });
        drop(state);
        self.work.notify_one();
        Ok(receiver)
    }

    /// Waits for appends, and takes what makes one batch: no two of one run, the others keep their order.
    /// Nothing when none will come.
    pub(super) async fn take(&self, limits: Limits) -> Option<Vec<Job>> {
        loop {
            let batch = {
                let mut state = self.lock();
                let batch = batch(&mut state.jobs, limits);
                if batch.is_empty() && state.stopped.is_some() {
                    return None;
                }
                batch
            };
            if !batch.is_empty() {
                self.depth.shrank(batch.len());
                return Some(batch);
            }
            self.work.notified().await;
        }
    }

    /// Answers appends that were not acknowledged, one of each run at most, and with them those that follow them in
    /// their runs and were handed in before anybody could know: without them they have no place. One look at
    /// what is queued does for all, since a lost server refuses whole batches while everybody waits.
    pub(super) fn refuse(&self, refused: impl IntoIterator<Item = (Job, AppendError)>) {
        let refused: Vec<(Job, AppendError)> = refused.into_iter().collect();
        let mut state = self.lock();
        let followers = {
            let places: HashMap<&RunId, (i64, &AppendError)> = refused
                .iter()
                .map(|(job, why)| (&job.record.run, (job.record.seq, why)))
                .collect();
            let (mut followers, mut stay) = (0, VecDeque::with_capacity(state.jobs.len()));
            for one in state.jobs.drain(..) {
                match places.get(&one.record.run) {
                    Some((seq, why)) if one.record.seq > *seq => {
                        followers += 1;
                        let _ = one.answer.send(Err(match why {
                            AppendError::Conflict => AppendError::Conflict,
                            _ => AppendError::not_written(
                                "the append before it was not acknowledged",
                            ),
                        }));
                    }
                    _ => stay.push_back(one),
                }
            }
            state.jobs = stay;
            followers
        };
        // Under the lock: whoever hands in the next one knows of this.
        for (job, why) in refused {
            let _ = job.answer.send(Err(why));
        }
        drop(state);
        self.depth.shrank(followers);
    }

    /// Takes nothing more. What is queued will still be written.
    pub(super) fn close(&self) {
        self.lock().stopped.get_or_insert("it was closed");
        self.work.notify_one();
    }

    /// Waits until the lane has come to its end.
    pub(super) async fn wait_gone(&self) {
        loop {
            let gone = self.gone.notified();
            if self.lock().gone {
                return;
            }
            gone.await;
        }
    }
}

impl Job {
    /// Tells the caller, who may have stopped listening, that it is durable.
    pub(super) fn acknowledge(self) {
        let _ = self.answer.send(Ok(()));
    }
}

fn batch(jobs: &mut VecDeque<Job>, limits: Limits) -> Vec<Job> {
    let most = jobs.len().min(limits.appends);
    let (mut batch, mut later) = (Vec::with_capacity(most), Vec::new());
    let mut runs: HashSet<RunId> = HashSet::with_capacity(most);
    let mut bytes = 0_usize;
    while batch.len() < limits.appends && bytes < limits.bytes {
        let Some(job) = jobs.pop_front() else { break };
        if runs.insert(job.record.run.clone()) {
            bytes = bytes.saturating_add(job.record.events.len());
            batch.push(job);
        } else {
            later.push(job);
        }
    }
    for job in later.into_iter().rev() {
        jobs.push_front(job);
    }
    batch
}

/// Held by the lane for as long as it lives. However it ends, nobody waits for it in vain.
#[derive(Debug)]
pub(super) struct Presence(pub(super) Arc<Queue>);

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        let why = *state
            .stopped
            .get_or_insert("the runtime in which it was connected has ended");
        for job in std::mem::take(&mut state.jobs) {
            let _ = job.answer.send(Err(AppendError::dead(why)));
        }
        drop(state);
        self.0.gone.notify_waiters();
    }
}
