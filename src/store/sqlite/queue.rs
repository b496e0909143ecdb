//! What waits for the writer: one vector, swapped whole, so that a lock is held for a few instructions.

use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ids::RunId;
use crate::observe::QueueDepth;
use crate::saga::Outline;
use crate::store::AppendError;
use crate::store::record::NewRecord;

pub(super) type Answer = Result<(), AppendError>;

/// Something to write, and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    answer: oneshot::Sender<Answer>,
}

impl Job {
    /// Tells the caller, who may have stopped listening.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// What the writer writes.
#[derive(Debug)]
pub(super) enum Write {
    Record(NewRecord<i64>),
    Outline {
        of: Outline,
        json: String,
    },
    /// All definitions that the owner has now, each as it is written, with what it does with their runs.
    Definitions(Vec<NewDefinition>),
    /// A command, from whoever has one.
    Command(NewCommand),
    /// What became of the command with this token.
    Answer {
        token: String,
        json: String,
    },
    /// How far a reader of the outbox has come.
    Cursor {
        name: String,
        position: i64,
    },
    /// Ended runs that are forgotten, by number.
    Forget(Vec<i64>),
}

/// A definition on its way into its row.
#[derive(Debug)]
pub(super) struct NewDefinition {
    pub(super) of: Outline,
    pub(super) json: String,
    /// What the owner does with its runs, as JSON.
    pub(super) handling: Option<String>,
}

/// A command on its way into its row.
#[derive(Debug)]
pub(super) struct NewCommand {
    pub(super) token: String,
    pub(super) run: RunId,
    pub(super) json: String,
}

impl Write {
    /// Its size, as far as it depends on what users hand in.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Write::Record(record) => record.events.len(),
            Write::Outline { json, .. } | Write::Answer { json, .. } => json.len(),
            Write::Definitions(all) => all.iter().map(|one| one.json.len()).sum(),
            Write::Command(command) => command.json.len(),
            Write::Cursor { name, .. } => name.len(),
            // So that only a few share a commit, and nobody waits long for it.
            Write::Forget(runs) => runs.len().saturating_mul(64 << 10),
        }
    }
}

/// Why a store takes nothing any more.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("it was closed")]
    Closed,
    #[error("it was opened by somebody who doesn't own it: only the owner appends")]
    NotOwner,
    #[error(
        "a commit failed so that nobody knows what reached the disk; open the file anew to see what did"
    )]
    Commit(#[source] Arc<dyn Error + Send + Sync>),
    #[error("its writer thread panicked")]
    Panicked,
}

impl From<Stopped> for AppendError {
    fn from(why: Stopped) -> Self {
        AppendError::dead(why)
    }
}

/// The queue between all callers and the one writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    depth: QueueDepth,
    /// Told when there is work, or none will come any more, or the store is closed.
    work: Condvar,
    /// Told when the writer has let go of everything.
    gone: Condvar,
}

/// For how many jobs a batch is held back, and how long at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathering {
    pub(super) jobs: usize,
    pub(super) at_most: Duration,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    /// With how many jobs the writer is to be woken; 0 while it doesn't sleep.
    wanted: usize,
    /// Why nothing is taken any more, if so.
    stopped: Option<Stopped>,
    /// Whether the store's owner wants no more of it.
    closed: bool,
    /// Whether the writer has let go of everything.
    gone: bool,
}

impl Queue {
    /// No change of the state can panic half-way, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, unless the store has stopped.
    pub(super) fn push(&self, write: Write) -> Result<oneshot::Receiver<Answer>, Stopped> {
        let (answer, receiver) = oneshot::channel();
        // Before the writer can take it, so that the depth is never below zero.
        self.depth.grew();
        let mut state = self.lock();
        if let Some(why) = &state.stopped {
            self.depth.shrank(1);
            return Err(why.clone());
        }
        state.jobs.push(Job { write, answer });
        // The writer sleeps only while there are fewer, so only this one has to wake it.
        let wakes = state.jobs.len() == state.wanted;
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        Ok(receiver)
    }

    /// Waits for jobs, or for so long, and adds all there are to `jobs`. Says no when none will come.
    ///
    /// Where there are some already, or may soon be, it waits first for as many as are worth while.
    pub(super) fn take(
        &self,
        jobs: &mut Vec<Job>,
        gathering: Gathering,
        at_most: Duration,
    ) -> bool {
        let taken = jobs.len();
        let mut state = self.lock();
        let worth_while = gathering.jobs.saturating_sub(taken);
        if worth_while > 1 {
            state = self.sleep(state, worth_while, gathering.at_most);
        }
        if taken == 0 {
            state = self.sleep(state, 1, at_most);
        }
        if jobs.is_empty() {
            std::mem::swap(&mut state.jobs, jobs);
        } else {
            jobs.append(&mut state.jobs);
        }
        let goes_on = !jobs.is_empty() || state.stopped.is_none();
        drop(state);
        self.depth.shrank(jobs.len() - taken);
        goes_on
    }

    /// Waits until there are so many jobs, for so long, or until none will come.
    fn sleep<'q>(
        &self,
        mut state: MutexGuard<'q, State>,
        jobs: usize,
        at_most: Duration,
    ) -> MutexGuard<'q, State> {
        state.wanted = jobs;
        let fewer = |state: &mut State| state.jobs.len() < jobs && state.stopped.is_none();
        let waited = self.work.wait_timeout_while(state, at_most, fewer);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.wanted = 0;
        state
    }

    /// Takes nothing more. What is queued will still be written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.stopped.get_or_insert(Stopped::Closed);
        drop(state);
        self.work.notify_one();
    }

    /// Waits until the store is closed.
    pub(super) fn wait_closed(&self) {
        let state = self.lock();
        drop(self.work.wait_while(state, |state| !state.closed));
    }

    /// Takes nothing more, and answers what is queued that it was not acknowledged.
    pub(super) fn fail(&self, why: &Stopped) {
        let mut state = self.lock();
        state.stopped = Some(why.clone());
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.depth.shrank(jobs.len());
        for job in jobs {
            job.answer(Err(why.clone().into()));
        }
    }

    fn leave(&self) {
        self.lock().gone = true;
        self.gone.notify_all();
    }

    /// Waits until the writer has let go of everything, or for so long.
    pub(super) fn wait_gone(&self, at_most: Option<Duration>) {
        let state = self.lock();
        // Which of the two it was does not matter to those who wait.
        match at_most {
            None => drop(self.gone.wait_while(state, |state| !state.gone)),
            Some(at_most) => drop(
                self.gone
                    .wait_timeout_while(state, at_most, |state| !state.gone),
            ),
        }
    }
}

/// Held by the writer thread for as long as it lives. However it ends, nobody waits for it in vain.
#[derive(Debug)]
pub(super) struct Presence(pub(super) Arc<Queue>);

impl Drop for Presence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&Stopped::Panicked);
        }
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(3_600);

    fn push(queue: &Queue) {
        drop(queue.push(Write::Forget(Vec::new())).unwrap());
    }

    fn gathering(jobs: usize, at_most: Duration) -> Gathering {
        Gathering { jobs, at_most }
    }

    #[test]
    fn a_batch_is_held_back_until_it_is_worth_while() {
        let (queue, mut jobs) = (Queue::default(), Vec::new());
        let taken = AtomicBool::new(false);
        push(&queue);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Only once the writer waits for them; or it has not waited, and the test fails below.
                while queue.lock().wanted != 3 && !taken.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                (0..2).for_each(|_| push(&queue));
            });
            assert!(queue.take(&mut jobs, gathering(3, FOR_EVER), FOR_EVER));
            taken.store(true, Ordering::Relaxed);
        });
        assert_eq!(jobs.len(), 3);
    }

    #[test]
    fn what_was_left_over_counts_and_comes_first() {
        let (queue, mut jobs) = (Queue::default(), Vec::new());
        for run in 1..=3 {
            drop(queue.push(Write::Forget(vec![run])).unwrap());
        }
        assert!(queue.take(&mut jobs, Gathering::default(), FOR_EVER));
        jobs.remove(0);
        drop(queue.push(Write::Forget(vec![4])).unwrap());
        assert!(queue.take(&mut jobs, gathering(3, FOR_EVER), FOR_EVER));
        let runs: Vec<_> = jobs.iter().map(|job| format!("{:?}", job.write)).collect();
        assert_eq!(runs, ["Forget([2])", "Forget([3])", "Forget([4])"]);
    }

    #[test]
    fn whoever_comes_alone_is_taken_when_the_time_is_up() {
        let (queue, mut jobs) = (Queue::default(), Vec::new());
        push(&queue);
        assert!(queue.take(
            &mut jobs,
            gathering(100, Duration::from_millis(1)),
            FOR_EVER
        ));
        assert_eq!(jobs.len(), 1);
        jobs.clear();
        std::thread::scope(|scope| {
            scope.spawn(|| push(&queue));
            assert!(queue.take(&mut jobs, gathering(100, Duration::ZERO), FOR_EVER));
        });
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn nobody_is_waited_for_once_the_store_is_closed() {
        let (queue, mut jobs) = (Queue::default(), Vec::new());
        push(&queue);
        std::thread::scope(|scope| {
            scope.spawn(|| queue.close());
            assert!(queue.take(&mut jobs, gathering(100, FOR_EVER), FOR_EVER));
        });
        assert_eq!(jobs.len(), 1);
        jobs.clear();
        assert!(!queue.take(&mut jobs, gathering(100, FOR_EVER), FOR_EVER));
    }
}
