//! Where journals live: the [`Store`] trait, in memory, and in a SQLite file.
//!
//! A store is small: it appends records on a condition, hands journals back, and lists runs. All meaning
//! is in the journal; a store looks into a record only for what it needs to find the run again.
//! Every store has to pass one conformance suite, `testkit::conformance`, which is made for stores of
//! other people too.

mod error;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::{AppendError, Damage, LoadError, StoreError};
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::ids::{RunId, Timestamp};
use crate::journal::{Journal, Record, Standing};
use crate::saga::Outline;
use crate::step::StepTable;

/// Keeps journals.
///
/// # What an implementation promises
///
/// * An append is atomic, conditional and durable: it succeeds only if the run's journal ends at
///   `seq - 1`, it is there wholly or not at all, and once it has succeeded it survives a crash of the
///   process and of the machine (the memory store excepted).
/// * The same append sent again (same `seq`, same [`AppendId`](crate::journal::AppendId)) succeeds without writing anything (rule W2).
/// * An acknowledged append is seen by every later `load`, `find` and `scan`.
/// * Nothing that was appended is ever changed.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Appends one record. The call itself returns at once, in the order of calls for one run; the
    /// answer comes when the record is durable. Dropping the [`Appending`] doesn't take the append back.
    fn append(&self, append: Append) -> Appending;

    /// The run's whole journal, or nothing where there is no such run.
    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError>;

    /// The run's journal after the record `seq`: what a watcher hasn't seen yet. Stores that can read
    /// less than the whole do so.
    async fn load_after(&self, run: &RunId, seq: u64) -> Result<Option<Journal>, LoadError> {
        Ok(self.load(run).await?.map(|mut journal| {
            journal.records.retain(|record| record.seq > seq);
            journal
        }))
    }

    /// The run's entry in the list of runs.
    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError>;

    /// The next `limit` runs at most that match, in the order of their numbers, after the number `after`.
    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError>;

    /// Keeps the outline of a definition, once per saga, version and fingerprint.
    async fn remember(&self, outline: &Outline) -> Result<(), StoreError>;

    /// The outline that was kept.
    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError>;

    /// Whether values stay in the process as they are: then nobody makes JSON of them.
    fn keeps_values(&self) -> bool {
        false
    }

    /// Finishes what was appended, and lets go of what the store holds (a file's lock, say). A store that
    /// held something refuses appends after this. Closing twice does nothing.
    async fn close(&self);
}

/// One append, as a store gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// What is appended. A record with `seq` 1 begins a new run, and its first event is `RunStarted`.
    pub record: Record,
    /// The names behind the record's step numbers.
    pub steps: StepTable,
    /// How the run stands after it.
    pub standing: Standing,
    /// Whether that is another standing than before, so that a store needs no look-up to keep its list.
    pub standing_changed: bool,
}

impl Append {
    /// An append that changes the run's standing.
    #[must_use]
    pub fn new(run: RunId, record: Record, steps: StepTable, standing: Standing) -> Self {
        Append {
            run,
            record,
            steps,
            standing,
            standing_changed: true,
        }
    }
}

/// A run in the list of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunEntry {
    /// The run's number in its store: runs that were started later have higher ones.
    pub number: u64,
    /// Its id.
    pub run: RunId,
    /// Its saga.
    pub saga: String,
    /// The saga's version.
    pub version: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// How it stands.
    pub standing: Standing,
    /// When it ended, if it did.
    pub ended_at: Option<Timestamp>,
}

impl RunEntry {
    /// An entry of a run that was just started.
    pub fn new(
        number: u64,
        run: RunId,
        saga: impl Into<String>,
        version: u32,
        started_at: Timestamp,
    ) -> Self {
        let (saga, standing) = (saga.into(), Standing::Running);
        RunEntry {
            number,
            run,
            saga,
            version,
            started_at,
            standing,
            ended_at: None,
        }
    }
}

/// Which runs a scan gives. The default gives all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunFilter {
    /// Only runs that have not ended.
    pub open: bool,
    /// Only runs of this saga.
    pub saga: Option<String>,
    /// Only runs that stand so; the instant of `Waiting` is not compared.
    pub standing: Option<Standing>,
    /// Only runs whose id begins so.
    pub prefix: Option<String>,
}

impl RunFilter {
    /// All runs.
    #[must_use]
    pub fn all() -> Self {
        RunFilter::default()
    }

    /// Runs that have not ended.
    #[must_use]
    pub fn open() -> Self {
        RunFilter {
            open: true,
            ..RunFilter::default()
        }
    }

    /// Runs of this saga only.
    #[must_use]
    pub fn saga(mut self, saga: impl Into<String>) -> Self {
        self.saga = Some(saga.into());
        self
    }

    /// Runs that stand so only.
    #[must_use]
    pub fn standing(mut self, standing: Standing) -> Self {
        self.standing = Some(standing);
        self
    }

    /// Runs whose id begins so only.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Whether an entry matches.
    #[must_use]
    pub fn matches(&self, entry: &RunEntry) -> bool {
        (!self.open || !entry.standing.is_end())
            && self.saga.as_ref().is_none_or(|saga| *saga == entry.saga)
            && self
                .standing
                .is_none_or(|standing| standing.as_str() == entry.standing.as_str())
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| entry.run.as_str().starts_with(prefix))
    }
}

/// The answer to an append, when it comes. A concrete type, so that an append that is answered at once
/// costs no allocation.
#[derive(Debug)]
#[must_use = "an append that is not awaited may have failed"]
pub struct Appending(Answer);

enum Answer {
    Ready(Option<Result<(), AppendError>>),
    Channel(oneshot::Receiver<Result<(), AppendError>>),
    Future(Pin<Box<dyn Future<Output = Result<(), AppendError>> + Send>>),
}

impl Appending {
    /// An answer that is there already.
    pub fn ready(answer: Result<(), AppendError>) -> Self {
        Appending(Answer::Ready(Some(answer)))
    }

    /// An answer that a writer will send. A sender that is dropped means that nobody knows.
    pub fn channel(receiver: oneshot::Receiver<Result<(), AppendError>>) -> Self {
        Appending(Answer::Channel(receiver))
    }

    /// An answer that a future gives.
    pub fn future(future: impl Future<Output = Result<(), AppendError>> + Send + 'static) -> Self {
        Appending(Answer::Future(Box::pin(future)))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Ready(_) => "ready",
            Answer::Channel(_) | Answer::Future(_) => "pending",
        })
    }
}

impl Future for Appending {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Ready(answer) => Poll::Ready(answer.take().unwrap_or(Ok(()))),
            Answer::Channel(receiver) => Pin::new(receiver).poll(cx).map(|answer| {
                answer.unwrap_or_else(|_| Err(AppendError::unknown("the writer went away")))
            }),
            Answer::Future(future) => future.as_mut().poll(cx),
        }
    }
}
