//! A store that fails when it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::ids::RunId;
use crate::journal::{Command, CommandAnswer, Journal};
use crate::saga::Outline;
use crate::store::{
    Append, AppendError, Appending, CommandEntry, KnownDefinition, LoadError, PruneFilter, Pruned,
    RunEntry, RunFilter, Store, StoreError, SubmitError,
};
use crate::testkit::log::Entry;
use crate::testkit::world::World;

/// What becomes of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoreFault {
    /// The process is killed before it is written.
    CrashBefore,
    /// The process is killed after it was written, and before anybody knows.
    CrashAfter,
    /// It is written, and the answer is lost: the caller is told that nobody knows.
    AnswerLost,
    /// It isn't written, and the caller is told that nobody knows.
    RequestLost,
    /// It isn't written, and the caller is told so.
    NotWritten,
    /// It isn't written, and the store refuses everything from then on.
    Dies,
}

impl StoreFault {
    /// Whether the process is gone with it.
    #[must_use]
    pub fn is_crash(self) -> bool {
        matches!(self, StoreFault::CrashBefore | StoreFault::CrashAfter)
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreFault::CrashBefore => "killed before",
            StoreFault::CrashAfter => "killed after",
            StoreFault::AnswerLost => "answer lost at",
            StoreFault::RequestLost => "request lost at",
            StoreFault::NotWritten => "not written at",
            StoreFault::Dies => "store dead at",
        })
    }
}

/// Wraps a store and lets some of its appends, counted from 1, fail.
///
/// After a crash point nothing is answered any more: wait for its [`crash_signal`](Self::crash_signal) and drop the
/// runtime, or the coordinator with all handles. What was written is in the store underneath; go on with
/// a new coordinator on that one.
///
/// ```
/// use std::sync::Arc;
/// use amends::store::{MemoryStore, Store};
/// use amends::testkit::{CrashingStore, StoreFault, VirtualClock, World};
/// use amends::{Coordinator, Saga};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let world = World::new();
/// let mut saga = Saga::builder::<u64>("order");
/// let paid = saga.add(world.step::<u64>("charge"), saga.input());
/// let saga = saga.returns(paid)?;
/// let disk: Arc<dyn Store> = Arc::new(MemoryStore::new());
///
/// let store = CrashingStore::over(Arc::clone(&disk)).fail_at(2, StoreFault::CrashBefore);
/// let crashed = store.crash_signal();
/// let first = Coordinator::builder(store).clock(VirtualClock::new()).register(&saga).build().await?;
/// let run = first.start(&saga, "order-1", 42).await?;
/// crashed.wait().await;
/// drop((run, first));
///
/// let second = Coordinator::builder_shared(disk).clock(VirtualClock::new()).register(&saga).build().await?;
/// let run = second.start(&saga, "order-1", 42).await?;
/// assert_eq!(run.outcome().await?.word(), "completed");
/// assert_eq!(world.effects("charge"), 1);
/// # Ok(())
/// # }
/// ```
pub struct CrashingStore {
    inner: Arc<dyn Store>,
    faults: Mutex<BTreeMap<u64, StoreFault>>,
    shared: Arc<Counts>,
    world: Option<World>,
    reversed: bool,
    dead: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    acknowledged: AtomicU64,
    crashed: AtomicBool,
    changed: Notify,
}

/// Tells that a [`CrashingStore`] has reached its crash point.
#[derive(Clone, Debug)]
pub struct CrashSignal(Arc<Counts>);

impl CrashSignal {
    /// Waits for the crash point.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again.
    pub async fn wait(&self) {
        self.until(|counts| counts.crashed.load(Ordering::Acquire))
            .await;
    }

    /// How many appends were asked for, the failed ones among them.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.0.asked.load(Ordering::Acquire)
    }

    /// How many appends were acknowledged.
    pub(super) fn acknowledged_so_far(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until so many appends were acknowledged.
    pub(super) async fn acknowledged(&self, appends: u64) {
        self.until(|counts| counts.acknowledged.load(Ordering::Acquire) >= appends)
            .await;
    }

    async fn until(&self, condition: impl Fn(&Counts) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.0) {
                return;
            }
            changed.await;
        }
    }
}

impl CrashingStore {
    /// Wraps a store.
    pub fn new(store: impl Store) -> Self {
        CrashingStore::over(Arc::new(store))
    }

    /// Wraps a store that is shared: it survives the crash.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Self {
        CrashingStore {
            inner: store,
            faults: Mutex::default(),
            shared: Arc::default(),
            world: None,
            reversed: false,
            dead: AtomicBool::new(false),
        }
    }

    /// Lets the append with this number fail. An append that is sent again has a number of its own.
    #[must_use]
    pub fn fail_at(self, append: u64, fault: StoreFault) -> Self {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(append, fault);
        self
    }

    /// Tells of the crash, and counts, after the store was given away.
    #[must_use]
    pub fn crash_signal(&self) -> CrashSignal {
        CrashSignal(Arc::clone(&self.shared))
    }

    /// Writes acknowledged appends into the world's log, in order with what happens there.
    pub(super) fn seen_by(mut self, world: World) -> Self {
        self.world = Some(world);
        self
    }

    /// Lists open runs last first, so that they are taken up in another order.
    pub(super) fn reversed(mut self, reversed: bool) -> Self {
        self.reversed = reversed;
        self
    }

    /// What becomes of the write that is asked for now.
    fn next_fault(&self) -> Option<StoreFault> {
        let number = self.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get(&number).copied()
    }

    fn crash(&self) -> Appending {
        self.shared.crashed.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
        Appending::future(std::future::pending())
    }
}

impl fmt::Debug for CrashingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashingStore")
            .field("inner", &self.inner)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for CrashingStore {
    fn append(&self, append: Append) -> Appending {
        if self.shared.crashed.load(Ordering::Acquire) {
            return Appending::future(std::future::pending());
        }
        if self.dead.load(Ordering::Acquire) {
            return Appending::ready(Err(AppendError::dead("planned death of the store")));
        }
        let fault = self.next_fault();
        match fault {
            Some(StoreFault::CrashBefore) => return self.crash(),
            Some(StoreFault::RequestLost) => {
                return Appending::ready(Err(AppendError::unknown("planned loss of a request")));
            }
            Some(StoreFault::NotWritten) => {
                return Appending::ready(Err(AppendError::not_written("planned refusal")));
            }
            Some(StoreFault::Dies) => {
                self.dead.store(true, Ordering::Release);
                return Appending::ready(Err(AppendError::dead("planned death of the store")));
            }
            Some(StoreFault::CrashAfter | StoreFault::AnswerLost) | None => {}
        }
        let (run, seq) = (append.run.clone(), append.record.seq);
        let appending = self.inner.append(append);
        let (shared, world) = (Arc::clone(&self.shared), self.world.clone());
        Appending::future(async move {
            let answer = appending.await;
            match fault {
                Some(StoreFault::CrashAfter) => {
                    shared.crashed.store(true, Ordering::Release);
                    shared.changed.notify_waiters();
                    return std::future::pending().await;
                }
                Some(_) => return Err(AppendError::unknown("planned loss of an answer")),
                None => {}
            }
            if answer.is_ok() {
                if let Some(world) = world {
                    world.note(Entry::Acknowledged { run, seq });
                }
                shared.acknowledged.fetch_add(1, Ordering::AcqRel);
                shared.changed.notify_waiters();
            }
            answer
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.inner.load(run).await
    }

    async fn load_after(&self, run: &RunId, seq: u64) -> Result<Option<Journal>, LoadError> {
        self.inner.load_after(run, seq).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.inner.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        let mut found = self.inner.scan(filter, after, limit).await?;
        if self.reversed {
            // The caller goes on after the last number it was given: runs are listed more than once, none is missed.
            found.reverse();
        }
        Ok(found)
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.inner.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.inner.open_commands(after, limit).await
    }

    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        self.inner.open_commands_of(run).await
    }

    /// Counted like an append, so that a process can be killed between what a command led to and its answer.
    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        if self.shared.crashed.load(Ordering::Acquire) {
            return std::future::pending().await;
        }
        let fault = self.next_fault();
        match fault {
            Some(StoreFault::CrashBefore) => {
                drop(self.crash());
                return std::future::pending().await;
            }
            Some(StoreFault::RequestLost | StoreFault::NotWritten | StoreFault::Dies) => {
                return Err(StoreError::failed(
                    "answer a command",
                    "planned loss of the request",
                ));
            }
            Some(StoreFault::CrashAfter | StoreFault::AnswerLost) | None => {}
        }
        self.inner.answer_command(token, answer).await?;
        match fault {
            Some(StoreFault::CrashAfter) => {
                drop(self.crash());
                std::future::pending().await
            }
            Some(_) => Err(StoreError::failed(
                "answer a command",
                "planned loss of the acknowledgement",
            )),
            None => Ok(()),
        }
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.inner.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.inner.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.inner.prune(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.inner.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.inner.recall(saga, version, fingerprint).await
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        self.inner.register(definitions).await
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        self.inner.definitions().await
    }

    /// Never: whoever appends has to be ready to send the same bytes again.
    fn keeps_values(&self) -> bool {
        false
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
