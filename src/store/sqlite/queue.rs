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

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
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
        let first = state.jobs.len() == 1;
        drop(state);
        // The writer sleeps only while there is nothing, so only the first has to wake it.
        if first {
            self.work.notify_one();
        }
        Ok(receiver)
    }

    /// Waits for jobs, or for so long, and takes all there are into `jobs`, which is empty. Says no when none
    /// will come.
    pub(super) fn take(&self, jobs: &mut Vec<Job>, at_most: Duration) -> bool {
        let mut state = self.lock();
        if state.jobs.is_empty() && state.stopped.is_none() {
            let waited = self.work.wait_timeout(state, at_most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.jobs, jobs);
        let goes_on = !jobs.is_empty() || state.stopped.is_none();
        drop(state);
        self.depth.shrank(jobs.len());
        goes_on
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
