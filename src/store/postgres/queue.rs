//! What waits for the lanes: appends, in the order in which they came.
//!
//! The first lane takes whatever is there. The others take only what makes a batch that is worth a commit of its own: so
//! few appends share few commits, and many don't wait for one another's. Where the first doesn't come back, as when a
//! row of its batch waits for somebody's open transaction, the others stand in for it.

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
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) appends: usize,
    pub(super) bytes: usize,
}

/// So many appends, or bytes of their events, are worth a commit of their own while another is on its way.
const WORTH: Limits = Limits {
    appends: 64,
    bytes: 256 << 10,
};

/// The queue between all callers and the lanes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    depth: QueueDepth,
    /// For each lane, told when there is work for it, or none will come any more.
    work: Vec<Notify>,
    /// Told when the last lane has come to its end.
    gone: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How many bytes of events they have.
    bytes: usize,
    /// Runs of which a lane has an append in its hands: others of theirs wait, so that they stay in order.
    held: HashSet<RunId>,
    /// Why nothing is taken any more, if so.
    stopped: Option<&'static str>,
    /// How many lanes there are.
    lanes: usize,
    /// How much is worth a commit of its own.
    worth: Limits,
    /// Whether the first lane has its batch for long, as behind somebody's open transaction: then the others take
    /// whatever is there.
    first_is_away: bool,
}

impl State {
    fn is_worth_a_commit(&self) -> bool {
        self.jobs.len() >= self.worth.appends || self.bytes >= self.worth.bytes
    }

    /// For how many lanes there is work.
    fn wanted(&self) -> usize {
        if self.is_worth_a_commit() || (self.first_is_away && !self.jobs.is_empty()) {
            usize::MAX
        } else {
            usize::from(!self.jobs.is_empty())
        }
    }

    /// Takes what makes one batch: nothing of runs that are held, and no two of one run; the others keep their order.
    fn batch(&mut self, limits: Limits) -> Vec<Job> {
        let most = self.jobs.len().min(limits.appends);
        let (mut batch, mut later) = (Vec::with_capacity(most), Vec::new());
        let mut bytes = 0_usize;
        while batch.len() < limits.appends && bytes < limits.bytes {
            let Some(job) = self.jobs.pop_front() else {
                break;
            };
            if self.held.insert(job.record.run.clone()) {
                bytes = bytes.saturating_add(job.record.events.len());
                batch.push(job);
            } else {
                later.push(job);
            }
        }
        for job in later.into_iter().rev() {
            self.jobs.push_front(job);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        batch
    }
}

impl Queue {
    /// For so many lanes, whose batches have these limits.
    pub(super) fn new(lanes: usize, limits: Limits) -> Self {
        let worth = Limits {
            appends: WORTH.appends.min(limits.appends),
            bytes: WORTH.bytes.min(limits.bytes),
        };
        Queue {
            state: Mutex::new(State {
                lanes,
                worth,
                ..State::default()
            }),
            work: (0..lanes).map(|_| Notify::new()).collect(),
            ..Queue::default()
        }
    }

    /// Tells so many lanes that there is work, without the lock: to wake somebody takes a while.
    fn tell(&self, lanes: usize) {
        for work in self.work.iter().take(lanes) {
            work.notify_one();
        }
    }

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
        state.bytes = state.bytes.saturating_add(record.events.len());
        state.jobs.push_back(Job { record, answer });
        let wanted = state.wanted();
        drop(state);
        self.tell(wanted);
        Ok(receiver)
    }

    /// Waits for appends, and takes what makes one batch for this lane, whose runs are held from then on. Nothing when
    /// none will come.
    pub(super) async fn take(&self, lane: usize, limits: Limits) -> Option<Vec<Job>> {
        let work = self.work.get(lane)?;
        loop {
            let batch = {
                let mut state = self.lock();
                if lane == 0 {
                    state.first_is_away = false;
                }
                let mine = lane == 0 || state.is_worth_a_commit() || state.first_is_away;
                let batch = if mine {
                    state.batch(limits)
                } else {
                    Vec::new()
                };
                // The first lane stays for what waits for others.
                let over = lane > 0 || state.jobs.is_empty();
                if batch.is_empty() && over && state.stopped.is_some() {
                    return None;
                }
                batch
            };
            if !batch.is_empty() {
                self.depth.shrank(batch.len());
                return Some(batch);
            }
            work.notified().await;
        }
    }

    /// The first lane won't be back soon: the others take what it would have taken.
    pub(super) fn first_is_away(&self) {
        let mut state = self.lock();
        state.first_is_away = true;
        let wanted = state.wanted();
        drop(state);
        self.tell(wanted);
    }

    /// Lets go of runs whose appends in hand are settled.
    pub(super) fn release<'a>(&self, runs: impl IntoIterator<Item = &'a RunId>) {
        let mut state = self.lock();
        for run in runs {
            state.held.remove(run);
        }
        let wanted = state.wanted();
        drop(state);
        self.tell(wanted);
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
            let (mut followers, mut bytes) = (0, 0);
            let mut stay = VecDeque::with_capacity(state.jobs.len());
            for one in state.jobs.drain(..) {
                match places.get(&one.record.run) {
                    Some((seq, why)) if one.record.seq > *seq => {
                        followers += 1;
                        bytes += one.record.events.len();
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
            state.bytes = state.bytes.saturating_sub(bytes);
            followers
        };
        // Under the lock: whoever hands in the next one knows of this.
        for (job, why) in refused {
            state.held.remove(&job.record.run);
            let _ = job.answer.send(Err(why));
        }
        let wanted = state.wanted();
        drop(state);
        self.tell(wanted);
        self.depth.shrank(followers);
    }

    /// Takes nothing more. What is queued will still be written.
    pub(super) fn close(&self) {
        self.lock().stopped.get_or_insert("it was closed");
        for work in &self.work {
            work.notify_one();
        }
    }

    /// Waits until the lanes have come to their end.
    pub(super) async fn wait_gone(&self) {
        loop {
            let gone = self.gone.notified();
            if self.lock().lanes == 0 {
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

/// Held by a lane for as long as it lives. However it ends, nobody waits for it in vain.
#[derive(Debug)]
pub(super) struct Presence(pub(super) Arc<Queue>);

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.lanes -= 1;
        // Where it was told to stop, the last one writes what is left.
        let orderly = state.stopped.is_some() && state.lanes > 0 && !std::thread::panicking();
        let why = *state
            .stopped
            .get_or_insert("the runtime in which it was connected has ended");
        if !orderly {
            for job in std::mem::take(&mut state.jobs) {
                let _ = job.answer.send(Err(AppendError::dead(why)));
            }
        }
        drop(state);
        self.0.gone.notify_waiters();
    }
}
