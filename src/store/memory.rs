//! Journals in the process: for tests, and for runs that need not survive it.

mod fleet;

pub(super) use fleet::owner_of;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer, Event, Journal, Record};
use crate::saga::Outline;
use crate::sharded::Sharded;
use crate::step::{StepIx, StepTable};
use crate::store::{
    Append, AppendError, Appending, CommandEntry, DefinitionKey, Fleet, KnownDefinition, LoadError,
    PruneFilter, Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError, TroubleChange,
    key_of,
};

/// A store without a disk: what it holds is gone with the process.
///
/// Values stay as they are; nothing is serialised. Ended runs are kept up to a bound
/// ([`MemoryStore::KEPT`] by default), the oldest forgotten first, and so is, with them, that their ids
/// were used.
///
/// ```
/// use amends::store::MemoryStore;
///
/// let store = MemoryStore::new().keep_ended(10);
/// assert_eq!(store.len(), 0);
/// ```
pub struct MemoryStore {
    runs: Sharded<RunId, Held>,
    order: Mutex<Order>,
    definitions: Mutex<BTreeMap<DefinitionKey, KnownDefinition>>,
    commands: Mutex<Commands>,
    /// Whether any command was ever handed in: runs without commands take no lock for them.
    commanded: AtomicBool,
    arrived: Notify,
    kept: usize,
    next: AtomicU64,
    time: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Those who share the store, where several do. Locked before any run.
    workers: Option<Mutex<fleet::Workers>>,
}

/// In which order runs began and ended. Written at a run's start and at its end.
#[derive(Default)]
struct Order {
    /// By their numbers, for scans.
    runs: BTreeMap<u64, RunId>,
    ended: VecDeque<(u64, RunId)>,
}

/// Commands in the order in which they came, found by their tokens.
#[derive(Default)]
struct Commands {
    entries: BTreeMap<u64, CommandEntry>,
    numbers: HashMap<String, u64>,
}

impl Commands {
    fn by_token(&self, token: &str) -> Option<&CommandEntry> {
        self.entries.get(self.numbers.get(token)?)
    }
}

struct Held {
    entry: RunEntry,
    /// The worker that the journal named last, or that has reserved the run since.
    owner: Arc<str>,
    steps: StepTable,
    records: Vec<Record>,
}

impl Held {
    /// Keeps a record. Its steps are numbered as whoever appends it numbers them: another coordinator, or
    /// an import, may have done it otherwise.
    fn take(&mut self, mut record: Record, steps: &StepTable) {
        if !steps.is_same(&self.steps) {
            let (kept, new) = (self.steps.names(), steps.names());
            let alike = new
                .iter()
                .zip(&kept)
                .take_while(|(new, kept)| new == kept)
                .count();
            if self.records.iter().all(|record| all_below(record, alike)) {
                // The same numbers for all that was written: the run may have got more steps since.
                self.steps = steps.clone();
            } else if let Some(numbers) = renumbered(&kept, &new) {
                for kept in &mut self.records {
                    renumber(kept, &numbers);
                }
                self.steps = steps.clone();
            } else {
                let mut names = kept;
                let more = new.iter().filter(|name| !names.contains(name));
                let more: Vec<Arc<str>> = more.cloned().collect();
                names.extend(more);
                let numbers = renumbered(&new, &names).unwrap_or_default();
                self.steps = StepTable::new(names);
                renumber(&mut record, &numbers);
            }
        }
        self.records.push(record);
    }
}

/// The numbers under which `names` stand in another table, where all of them do.
fn renumbered(names: &[Arc<str>], other: &[Arc<str>]) -> Option<Vec<StepIx>> {
    let places: HashMap<&str, StepIx> = other
        .iter()
        .enumerate()
        .map(|(at, name)| (&**name, StepIx::new(at)))
        .collect();
    let numbers = names.iter().map(|name| places.get(&**name).copied());
    numbers.collect()
}

/// Whether a record names no step from this number on.
fn all_below(record: &Record, end: usize) -> bool {
    let mut below = true;
    for event in &record.events {
        drop(event.clone().map_step(|step| below &= step.at() < end));
    }
    below
}

fn renumber(record: &mut Record, numbers: &[StepIx]) {
    record.events = std::mem::take(&mut record.events)
        .into_iter()
        .map(|event| event.map_step(|step| numbers[step.at()]))
        .collect();
}

/// A panic while one of these locks was held left nothing half-changed: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// How many ended runs are kept unless the store is told otherwise.
    pub const KEPT: usize = 1_000;

    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore {
            runs: Sharded::default(),
            order: Mutex::default(),
            definitions: Mutex::default(),
            commands: Mutex::default(),
            commanded: AtomicBool::new(false),
            arrived: Notify::new(),
            kept: MemoryStore::KEPT,
            next: AtomicU64::new(1),
            time: Box::new(Timestamp::now),
            workers: None,
        }
    }

    /// Where it takes the time from at which commands are accepted: the system's clock, unless it is said. In a
    /// test with a clock of its own it has to be that clock, else all signals come too early or too late.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.time = Box::new(now);
        self
    }

    /// Keeps so many ended runs.
    #[must_use]
    pub fn keep_ended(mut self, most: usize) -> Self {
        self.kept = most;
        self
    }

    /// How many runs it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn begin(&self, append: Append) -> Result<(), AppendError> {
        let Some(Event::RunStarted(started)) = append.record.events.first() else {
            return Err(AppendError::not_written(
                "the first record of a run begins with its start",
            ));
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut entry = RunEntry::new(
            number,
            append.run.clone(),
            &*started.saga,
            started.version,
            append.record.at,
        );
        entry.labels.clone_from(&started.labels);
        entry.standing = append.standing;
        if let TroubleChange::Now(trouble) = append.trouble {
            entry.trouble = Some(trouble);
        }
        entry.ended_at = append.standing.is_end().then_some(append.record.at);
        let id = append.record.append_id;
        let owner = Arc::clone(&started.worker);
        let held = Held {
            entry,
            owner,
            steps: append.steps,
            records: vec![append.record],
        };
        if self.runs.insert_new(append.run.clone(), held) {
            lock(&self.order).runs.insert(number, append.run.clone());
            if append.standing.is_end() {
                self.forget_oldest(number, append.run);
            }
            return Ok(());
        }
        let first = self.runs.look(&append.run, |held| {
            held.records.first().map(|record| record.append_id)
        });
        if first.flatten() == Some(id) {
            Ok(())
        } else {
            Err(AppendError::Conflict)
        }
    }

    fn go_on(&self, append: Append) -> Result<(), AppendError> {
        let Append {
            run,
            record,
            steps,
            standing,
            trouble,
            ..
        } = append;
        let (at, id, seq) = (record.at, record.append_id, record.seq);
        let done = self.runs.change(&run, |held| {
            let last = held
                .records
                .last()
                .map_or((0, None), |last| (last.seq, Some(last.append_id)));
            if seq <= last.0 {
                let ours = held
                    .records
                    .get(usize::try_from(seq).unwrap_or(usize::MAX).wrapping_sub(1));
                return if ours.is_some_and(|ours| ours.append_id == id) {
                    Ok(None)
                } else {
                    Err(AppendError::Conflict)
                };
            }
            if seq != last.0 + 1 {
                return Err(AppendError::Conflict);
            }
            if let Some(migrated) = record.migrated() {
                held.entry.version = migrated.version;
            }
            if let Some(owner) = owner_of(&record) {
                held.owner = Arc::from(owner);
            }
            held.take(record, &steps);
            held.entry.standing = standing;
            match trouble {
                TroubleChange::Same => {}
                TroubleChange::Now(trouble) => held.entry.trouble = Some(trouble),
                TroubleChange::Gone => held.entry.trouble = None,
            }
            if standing.is_end() {
                held.entry.ended_at = Some(at);
                // The journal won't grow again.
                held.records.shrink_to_fit();
                return Ok(Some(held.entry.number));
            }
            Ok(None)
        });
        match done {
            None => Err(AppendError::Conflict),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(number))) => {
                self.forget_oldest(number, run);
                Ok(())
            }
        }
    }

    /// The run has ended: it is kept, and the one that ended first is forgotten if that makes too many.
    fn forget_oldest(&self, number: u64, run: RunId) {
        let too_many = {
            let mut order = lock(&self.order);
            order.ended.push_back((number, run));
            let too_many = order.ended.len() > self.kept;
            let oldest = too_many.then(|| order.ended.pop_front()).flatten();
            oldest.and_then(|(number, _)| order.runs.remove(&number))
        };
        if let Some(run) = too_many {
            self.runs.remove(&run);
            self.forget_commands(&run);
        }
    }

    /// Forgets a run, with the commands that were given to it.
    fn forget(&self, number: u64, run: &RunId) {
        self.runs.remove(run);
        lock(&self.order).runs.remove(&number);
        self.forget_commands(run);
    }

    fn forget_commands(&self, run: &RunId) {
        if !self.commanded.load(Ordering::Acquire) {
            return;
        }
        let mut commands = lock(&self.commands);
        let Commands { entries, numbers } = &mut *commands;
        entries.retain(|_, entry| entry.command.run != *run);
        numbers.retain(|_, number| entries.contains_key(number));
    }

    /// The next runs in the order of their numbers, or in the other.
    fn piece(&self, newest_first: bool, after: Option<u64>) -> Vec<(u64, RunId)> {
        const PIECE: usize = 256;
        let order = &lock(&self.order).runs;
        let copy = |(number, run): (&u64, &RunId)| (*number, run.clone());
        if newest_first {
            let below = order.range(..after.unwrap_or(u64::MAX)).rev();
            below.take(PIECE).map(copy).collect()
        } else {
            let from = after.map_or(0, |after| after.saturating_add(1));
            order.range(from..).take(PIECE).map(copy).collect()
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn append(&self, append: Append) -> Appending {
        Appending::ready(if append.record.seq == 1 {
            self.begin(append)
        } else {
            self.go_on(append)
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        Ok(self.runs.look(run, |held| Journal {
            run: run.clone(),
            steps: held.steps.clone(),
            records: held.records.clone(),
        }))
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        Ok(self.runs.look(run, |held| held.entry.clone()))
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        let mut found = Vec::new();
        let mut after = after;
        while found.len() < limit {
            // In pieces, so that starts of runs don't wait for a long scan.
            let piece = self.piece(filter.newest_first, after);
            let Some((last, _)) = piece.last() else { break };
            after = Some(*last);
            let entries = piece
                .iter()
                .filter_map(|(_, run)| self.runs.look(run, |held| held.entry.clone()));
            let room = limit - found.len();
            found.extend(entries.filter(|entry| filter.matches(entry)).take(room));
        }
        Ok(found)
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        if self.find(&command.run).await?.is_none() {
            let run = command.run.clone();
            return Err(SubmitError::NoSuchRun { run });
        }
        {
            let mut commands = lock(&self.commands);
            if let Some(known) = commands.by_token(&command.token) {
                if known.command.asks_the_same_as(command) {
                    return Ok(());
                }
                let token = command.token.clone();
                return Err(SubmitError::TokenTaken { token });
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.commanded.store(true, Ordering::Release);
            commands.numbers.insert(command.token.clone(), number);
            let mut accepted = command.clone();
            accepted.at = (self.time)();
            let entry = CommandEntry::new(number, accepted);
            commands.entries.insert(number, entry);
        }
        self.arrived.notify_one();
        Ok(())
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let commands = lock(&self.commands);
        let open = commands.entries.range(from..).map(|(_, entry)| entry);
        Ok(open
            .filter(|entry| entry.answer.is_none())
            .take(limit)
            .cloned()
            .collect())
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        let mut commands = lock(&self.commands);
        if let Some(number) = commands.numbers.get(token).copied()
            && let Some(entry) = commands.entries.get_mut(&number)
        {
            entry.answer.get_or_insert_with(|| answer.clone());
        }
        Ok(())
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        Ok(lock(&self.commands).by_token(token).cloned())
    }

    async fn commands_arrived(&self) {
        match self.fleet() {
            None => self.arrived.notified().await,
            // Only one of several who wait is told.
            Some(fleet) => {
                let look = tokio::time::sleep(fleet.terms().look);
                tokio::select! {
                    () = self.arrived.notified() => {}
                    () = look => {}
                }
            }
        }
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        self.workers.is_some().then_some(self as &dyn Fleet)
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        let newest = lock(&self.order)
            .runs
            .last_key_value()
            .map(|(number, _)| *number);
        let piece = self.piece(false, after);
        let next = piece.last().map(|(number, _)| *number);
        let mut pruned = Pruned::new(0, next);
        let mut forgotten = HashSet::new();
        for (number, run) in piece
            .into_iter()
            .filter(|(number, _)| Some(*number) != newest)
        {
            if pruned.runs == limit as u64 {
                break;
            }
            pruned.next = Some(number);
            let old = self.runs.look(&run, |held| filter.matches(&held.entry));
            if old == Some(true) {
                self.forget(number, &run);
                forgotten.insert(number);
                pruned.runs += 1;
            }
        }
        // Its id may be started again, and that run is not the oldest.
        lock(&self.order)
            .ended
            .retain(|(number, _)| !forgotten.contains(number));
        Ok(pruned)
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        lock(&self.definitions)
            .entry(key_of(outline))
            .or_insert_with(|| KnownDefinition::new(outline.clone(), None));
        Ok(())
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        let key = (saga.to_owned(), version, fingerprint.to_owned());
        let definitions = lock(&self.definitions);
        Ok(definitions.get(&key).map(|known| known.outline.clone()))
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        let mut kept = lock(&self.definitions);
        for known in kept.values_mut() {
            known.handling = None;
        }
        for definition in definitions {
            let known = kept.entry(definition.key());
            known.or_insert_with(|| definition.clone()).handling = definition.handling;
        }
        Ok(())
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        Ok(lock(&self.definitions).values().cloned().collect())
    }

    fn keeps_values(&self) -> bool {
        true
    }

    /// Does nothing: there is nothing to let go of, and the next coordinator may use the store.
    async fn close(&self) {}
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} runs)", self.len())
    }
}
