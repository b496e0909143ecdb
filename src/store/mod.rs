//! Where journals live: the [`Store`] trait, in memory, in a SQLite file, and in PostgreSQL.
//!
//! A store is small: it appends records on a condition, hands journals back, and lists runs. All meaning
//! is in the journal; a store looks into a record only for what it needs to find the run again.
//! Every store has to pass one conformance suite, `testkit::conformance`, which is made for stores of
//! other people too.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod assembly;
mod definitions;
mod error;
mod fleet;
mod memory;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod prefix;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod record;
#[cfg(feature = "sqlite")]
mod sqlite;

pub(crate) use definitions::{DefinitionKey, key_of};
pub use definitions::{Handling, KnownDefinition};
pub use error::{AppendError, Damage, LoadError, StoreError, SubmitError};
pub use fleet::{Claim, Fleet, FleetTerms, Renewal, Worker, WorkerEntry};
pub use memory::MemoryStore;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use memory::owner_of;
pub use outbox::{Outbox, Published};
#[cfg(feature = "postgres")]
pub use postgres::{
    Migration, PostgresHold, PostgresHolder, PostgresOptions, PostgresReport, PostgresStore,
    PostgresTable,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteOwner, SqliteReport, SqliteStore};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer, Journal, Record, Standing};
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

    /// What [`scan`](Self::scan) gives, each run with its journal, which is nothing where the run was
    /// forgotten meanwhile. Entry and journal are of one moment. Stores that can read many journals faster
    /// than one by one do so.
    async fn scan_journals(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(RunEntry, Result<Option<Journal>, LoadError>)>, StoreError> {
        let mut found = Vec::new();
        for mut entry in self.scan(filter, after, limit).await? {
            let journal = loop {
                let journal = self.load(&entry.run).await;
                // Whoever drives the run may have gone on between the two looks.
                match self.find(&entry.run).await? {
                    Some(now) if now != entry => entry = now,
                    _ => break journal,
                }
            };
            found.push((entry, journal));
        }
        Ok(found)
    }

    /// How many runs stand how, what went wrong with the parked ones, and how many commands wait.
    async fn counts(&self) -> Result<Counts, StoreError> {
        const PAGE: usize = 1_000;
        let mut counts = Counts::default();
        let mut after = None;
        loop {
            let page = self.scan(&RunFilter::all(), after, PAGE).await?;
            let Some(last) = page.last() else { break };
            if after >= Some(last.number) {
                let why = "the list of runs goes back to where it was";
                return Err(StoreError::failed("counting runs", why));
            }
            after = Some(last.number);
            for entry in &page {
                counts.add_runs(&entry.saga, entry.standing, 1);
                counts.add_versions(&entry.saga, entry.version, entry.standing, 1);
                if entry.standing == Standing::Parked {
                    counts.add_parked(entry.trouble.clone(), 1);
                }
            }
        }
        let mut after = None;
        loop {
            let page = self.open_commands(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            counts.open_commands += page.len() as u64;
        }
        Ok(counts)
    }

    /// What is wrong with the store itself, beyond what a look at each journal finds; one line each.
    /// Nothing where nothing is, or where the store has no way to look.
    async fn oddities(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Keeps the outline of a definition, once per saga, version and fingerprint.
    async fn remember(&self, outline: &Outline) -> Result<(), StoreError>;

    /// The outline that was kept.
    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError>;

    /// Keeps the outlines of all definitions that the owner of the store has from now on, and what it does
    /// with their runs. Other definitions are kept, and handled by nobody any more.
    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        for definition in definitions {
            self.remember(&definition.outline).await?;
        }
        Ok(())
    }

    /// All definitions that were kept, in the order of saga, version and fingerprint. A store that can't say
    /// gives none: then nobody learns from it which runs can be finished.
    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        Ok(Vec::new())
    }

    /// Puts a command where the owner of its run finds it, also from a process that doesn't own the store.
    /// Once this is acknowledged it survives what an append survives. Its number is higher than those of all
    /// commands before it, the forgotten ones too.
    ///
    /// What it says about when it was made is replaced by when the store accepted it, by the store's own clock:
    /// some instant between the call and its acknowledgement. That decides whether a signal came in time
    /// (rule I5), so no sender can date one back.
    ///
    /// The same command under the same token is acknowledged again, and kept once, as of when it came first.
    async fn submit(&self, command: &Command) -> Result<(), SubmitError>;

    /// The next `limit` commands at most that have no answer, in the order in which they came, after the
    /// number `after`.
    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError>;

    /// All commands to this run that have no answer, in the order in which they came.
    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.open_commands(after, 256).await?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            after = Some(last.number);
            found.extend(page.into_iter().filter(|entry| entry.command.run == *run));
        }
    }

    /// Keeps what became of a command. An answer that is there already is left as it is.
    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError>;

    /// The command with this token, with its answer if there is one.
    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError>;

    /// Comes back when there may be commands that [`open_commands`](Self::open_commands) didn't give before,
    /// within a second of their being handed in.
    async fn commands_arrived(&self);

    /// Comes back when there may be runs that somebody else has started, who drives none, within half a second of
    /// their being there. A store that only its owner writes to never does; nobody asks one that serves a fleet.
    async fn runs_arrived(&self) {
        std::future::pending::<()>().await;
    }

    /// Forgets, for ever, the next `limit` runs at most that match, after the number `after`: one small
    /// piece of work, between which other writers get their turn. Only runs that have ended are forgotten,
    /// and never the newest of all runs, whose number must not be given again.
    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError>;

    /// Whether values stay in the process as they are: then nobody makes JSON of them.
    fn keeps_values(&self) -> bool {
        false
    }

    /// What it does for several coordinators that share it; nothing where one coordinator has it for itself.
    ///
    /// Of a store that serves a fleet, a definition counts as [handled](KnownDefinition::handling) also where
    /// a worker whose lease lasts drives its runs.
    fn fleet(&self) -> Option<&dyn Fleet> {
        None
    }

    /// Its records in an order that a reader can follow; nothing where it has none.
    fn outbox(&self) -> Option<&dyn Outbox> {
        None
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
    /// What went wrong with the run, where that has changed.
    pub trouble: TroubleChange,
}

/// What went wrong with a run, so that it can be found by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Trouble {
    /// The step that failed; empty where the run itself did.
    pub step: String,
    /// The wire value of the failure's mode.
    pub mode: String,
}

impl Trouble {
    /// A trouble of this step.
    pub fn new(step: impl Into<String>, mode: impl Into<String>) -> Self {
        Trouble {
            step: step.into(),
            mode: mode.into(),
        }
    }
}

/// How an append changes what is kept of a run's trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TroubleChange {
    /// Not at all.
    #[default]
    Same,
    /// This is what went wrong.
    Now(Trouble),
    /// It was overcome.
    Gone,
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
            trouble: TroubleChange::Same,
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
    /// What it can be found by.
    pub labels: BTreeMap<String, String>,
    /// What went wrong, where it is parked, or ended otherwise than completed.
    pub trouble: Option<Trouble>,
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
            labels: BTreeMap::new(),
            trouble: None,
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
    /// Only runs with all these labels.
    pub labels: Vec<(String, String)>,
    /// Only runs whose trouble is of this step.
    pub step: Option<String>,
    /// Only runs whose trouble is of this mode, by its wire value.
    pub mode: Option<String>,
    /// Only runs that were started at this instant or later.
    pub started_from: Option<Timestamp>,
    /// Only runs that were started before this instant.
    pub started_before: Option<Timestamp>,
    /// The newest first: from the highest number down.
    pub newest_first: bool,
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

    /// Runs with this label only; said again, with all of them.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// Runs whose trouble is of this step only.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.step = Some(step.into());
        self
    }

    /// Runs whose trouble is of this mode only: its wire value.
    #[must_use]
    pub fn mode(mut self, mode: impl Into<String>) -> Self {
        self.mode = Some(mode.into());
        self
    }

    /// Runs that were started at this instant or later only.
    #[must_use]
    pub fn started_from(mut self, at: Timestamp) -> Self {
        self.started_from = Some(at);
        self
    }

    /// Runs that were started before this instant only.
    #[must_use]
    pub fn started_before(mut self, at: Timestamp) -> Self {
        self.started_before = Some(at);
        self
    }

    /// From the newest run to the oldest, instead of the other way round.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
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
            && self
                .labels
                .iter()
                .all(|(key, value)| entry.labels.get(key) == Some(value))
            && self.has_trouble(entry)
            && self
                .started_from
                .is_none_or(|from| entry.started_at >= from)
            && self
                .started_before
                .is_none_or(|before| entry.started_at < before)
    }

    fn has_trouble(&self, entry: &RunEntry) -> bool {
        let of = |wanted: &Option<String>, found: fn(&Trouble) -> &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| entry.trouble.as_ref().map(found) == Some(wanted.as_str()))
        };
        of(&self.step, |trouble| &trouble.step) && of(&self.mode, |trouble| &trouble.mode)
    }
}

/// A command in a store.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommandEntry {
    /// Its number in its store: commands that came later have higher ones.
    pub number: u64,
    /// The command.
    pub command: Command,
    /// What became of it, if anything has.
    pub answer: Option<CommandAnswer>,
}

impl CommandEntry {
    /// A command that has no answer yet.
    #[must_use]
    pub fn new(number: u64, command: Command) -> Self {
        CommandEntry {
            number,
            command,
            answer: None,
        }
    }
}

/// Which ended runs are forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneFilter {
    /// Those that ended before this instant.
    pub ended_before: Timestamp,
    /// Those that ended so; all of them where this is empty.
    pub standings: Vec<Standing>,
    /// Those with these numbers in the store, whatever else matches by now; all of them where this is nothing.
    pub numbers: Option<BTreeSet<u64>>,
}

impl PruneFilter {
    /// All runs that ended before this instant.
    #[must_use]
    pub fn ended_before(at: Timestamp) -> Self {
        PruneFilter {
            ended_before: at,
            standings: Vec::new(),
            numbers: None,
        }
    }

    /// Only those with these numbers in the store.
    #[must_use]
    pub fn numbers(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.numbers = Some(numbers.into_iter().collect());
        self
    }

    /// Only those that ended so; said again, those that ended so too.
    #[must_use]
    pub fn standing(mut self, standing: Standing) -> Self {
        self.standings.push(standing);
        self
    }

    /// Whether a run may be forgotten.
    #[must_use]
    pub fn matches(&self, entry: &RunEntry) -> bool {
        entry.standing.is_end()
            && entry.ended_at.is_some_and(|at| at < self.ended_before)
            && (self.standings.is_empty() || self.standings.contains(&entry.standing))
            && self.has_number(entry.number)
    }

    fn has_number(&self, number: u64) -> bool {
        self.numbers
            .as_ref()
            .is_none_or(|numbers| numbers.contains(&number))
    }
}

/// How many runs there are, by what they are listed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Runs by saga, and by the word for how they stand.
    pub runs: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// The same runs by saga and version.
    pub versions: BTreeMap<String, BTreeMap<u32, BTreeMap<&'static str, u64>>>,
    /// Parked runs by what went wrong with them; nothing went wrong with those that were told to park.
    pub parked: BTreeMap<Option<Trouble>, u64>,
    /// Commands that have no answer yet.
    pub open_commands: u64,
}

impl Counts {
    /// So many more runs of a saga stand so.
    pub fn add_runs(&mut self, saga: &str, standing: Standing, runs: u64) {
        if !self.runs.contains_key(saga) {
            self.runs.insert(saga.to_owned(), BTreeMap::new());
        }
        if let Some(of_saga) = self.runs.get_mut(saga) {
            *of_saga.entry(standing.as_str()).or_default() += runs;
        }
    }

    /// So many more runs of a version of a saga stand so: of those that [`add_runs`](Self::add_runs) is told.
    pub fn add_versions(&mut self, saga: &str, version: u32, standing: Standing, runs: u64) {
        if !self.versions.contains_key(saga) {
            self.versions.insert(saga.to_owned(), BTreeMap::new());
        }
        if let Some(versions) = self.versions.get_mut(saga) {
            let of_version = versions.entry(version).or_default();
            *of_version.entry(standing.as_str()).or_default() += runs;
        }
    }

    /// So many more runs are parked because of this.
    pub fn add_parked(&mut self, trouble: Option<Trouble>, runs: u64) {
        *self.parked.entry(trouble).or_default() += runs;
    }

    /// How many runs stand so, over all sagas.
    #[must_use]
    pub fn standing(&self, standing: Standing) -> u64 {
        let of = |sagas: &BTreeMap<&'static str, u64>| sagas.get(standing.as_str()).copied();
        self.runs.values().filter_map(of).sum()
    }

    /// How many runs there are.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.runs.values().flat_map(BTreeMap::values).sum()
    }
}

/// One piece of pruning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The runs that were forgotten.
    pub runs: u64,
    /// Where the next piece goes on; nothing when there is no more.
    pub next: Option<u64>,
}

impl Pruned {
    /// So many runs were forgotten, and the next piece goes on there.
    #[must_use]
    pub fn new(runs: u64, next: Option<u64>) -> Self {
        Pruned { runs, next }
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
