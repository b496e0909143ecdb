//! One worker's own line to a memory store that several workers share: it can be held and cut.

#![allow(dead_code, unreachable_pub)]

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Journal};
use amends::store::{
    Append, AppendError, Appending, Claim, CommandEntry, Fleet, FleetTerms, KnownDefinition,
    LoadError, MemoryStore, PruneFilter, Pruned, Renewal, RunEntry, RunFilter, Store, StoreError,
    SubmitError, Worker, WorkerEntry,
};
use amends::{Outline, RunId};
use tokio::sync::watch;

use crate::undo::{World, word};

pub const LEASE: Duration = Duration::from_secs(15);
pub const LOOK: Duration = Duration::from_millis(500);

/// A store for workers, by the world's clock.
pub fn shared_store(world: &Arc<World>) -> Arc<MemoryStore> {
    let clock = Arc::clone(world);
    let store = MemoryStore::new().clock(move || clock.now());
    Arc::new(store.shared_by_workers(FleetTerms::new(LEASE, LOOK)))
}

/// Where an append is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is written, and its answer is on its way.
    Answer,
    /// It is on its way, and not written.
    Request,
}

/// What is lost of an append; its sender is told that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is written.
    Answer,
    /// It is not.
    Request,
}

/// What happens to the append with this number, from 1, of this line.
#[derive(Clone, Copy, Debug)]
struct Hold {
    nth: usize,
    held: Held,
}

pub struct Line {
    inner: Arc<MemoryStore>,
    hold: Mutex<Option<Hold>>,
    lose: Mutex<Option<(usize, Lost)>>,
    sent: Mutex<Vec<Vec<String>>>,
    /// Whether an append is held now, and whether it may go on.
    gate: watch::Sender<Gate>,
    cut: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gate {
    holding: bool,
    open: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({} appends)", self.sent().len())
    }
}

impl Line {
    pub fn to(store: &Arc<MemoryStore>) -> Arc<Line> {
        Arc::new(Line {
            inner: Arc::clone(store),
            hold: Mutex::default(),
            lose: Mutex::default(),
            sent: Mutex::default(),
            gate: watch::Sender::default(),
            cut: watch::Sender::default(),
        })
    }

    /// Holds the append with this number, from 1, until it is let go.
    pub fn hold(&self, nth: usize, held: Held) {
        *self.hold.lock().unwrap() = Some(Hold { nth, held });
    }

    /// Loses a part of the append with this number, from 1.
    pub fn lose(&self, nth: usize, lost: Lost) {
        *self.lose.lock().unwrap() = Some((nth, lost));
    }

    /// Waits until an append is held.
    pub async fn holds(&self) {
        let mut gate = self.gate.subscribe();
        gate.wait_for(|gate| gate.holding).await.unwrap();
    }

    pub fn let_go(&self) {
        self.gate.send_modify(|gate| gate.open = true);
    }

    /// From now on nothing that is asked of the store is answered, until the line is mended.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }

    /// The appends that were sent, each with its events in words.
    pub fn sent(&self) -> Vec<Vec<String>> {
        self.sent.lock().unwrap().clone()
    }

    async fn through(&self) {
        let mut cut = self.cut.subscribe();
        cut.wait_for(|cut| !cut).await.unwrap();
    }
}

#[async_trait::async_trait]
impl Store for Line {
    fn append(&self, append: Append) -> Appending {
        let name = |step| append.steps.name(step).to_string();
        let events = append.record.events.iter();
        let words = events.map(|event| word(&event.clone().map_step(name)));
        let nth = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(words.collect());
            sent.len()
        };
        let meant = self.hold.lock().unwrap().filter(|hold| hold.nth == nth);
        let held = meant.map(|hold| hold.held);
        let gone = self.lose.lock().unwrap().filter(|(of, _)| *of == nth);
        let lost = gone.map(|(_, lost)| lost);
        let (inner, gate) = (Arc::clone(&self.inner), self.gate.clone());
        let mut cut = self.cut.subscribe();
        Appending::future(async move {
            if held != Some(Held::Answer) {
                cut.wait_for(|cut| !cut).await.unwrap();
            }
            if held == Some(Held::Request) {
                let mut open = gate.subscribe();
                gate.send_modify(|gate| gate.holding = true);
                open.wait_for(|gate| gate.open).await.unwrap();
            }
            if lost == Some(Lost::Request) {
                return Err(AppendError::unknown("the line went dead"));
            }
            let answer = inner.append(append).await;
            if lost == Some(Lost::Answer) {
                return Err(AppendError::unknown("the line went dead"));
            }
            if held == Some(Held::Answer) {
                let mut open = gate.subscribe();
                gate.send_modify(|gate| gate.holding = true);
                open.wait_for(|gate| gate.open).await.unwrap();
            }
            answer
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.through().await;
        self.inner.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.through().await;
        self.inner.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.through().await;
        self.inner.scan(filter, after, limit).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.through().await;
        self.inner.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.through().await;
        self.inner.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.through().await;
        self.inner.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.through().await;
        self.inner.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.through().await;
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

    fn keeps_values(&self) -> bool {
        false
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }

    async fn close(&self) {}
}

#[async_trait::async_trait]
impl Fleet for Line {
    fn terms(&self) -> FleetTerms {
        self.inner.terms()
    }

    async fn join(&self, worker: &Worker) -> Result<(), StoreError> {
        self.through().await;
        self.inner.join(worker).await
    }

    async fn renew(&self, worker: &str) -> Result<Renewal, StoreError> {
        self.through().await;
        self.inner.renew(worker).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.through().await;
        self.inner.leave(worker).await
    }

    async fn claim_due(
        &self,
        worker: &str,
        definitions: &[(String, u32)],
        limit: usize,
    ) -> Result<Vec<RunId>, StoreError> {
        self.through().await;
        self.inner.claim_due(worker, definitions, limit).await
    }

    async fn claim(&self, worker: &str, run: &RunId) -> Result<Claim, StoreError> {
        self.through().await;
        self.inner.claim(worker, run).await
    }

    async fn find_many(&self, runs: &[RunId]) -> Result<Vec<RunEntry>, StoreError> {
        self.through().await;
        self.inner.find_many(runs).await
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        self.through().await;
        self.inner.workers().await
    }

    async fn take_permits(
        &self,
        worker: &str,
        limit: &str,
        most: u32,
        wanted: u32,
    ) -> Result<Vec<u32>, StoreError> {
        self.through().await;
        self.inner.take_permits(worker, limit, most, wanted).await
    }

    async fn give_back(
        &self,
        worker: &str,
        limit: &str,
        permits: &[u32],
    ) -> Result<(), StoreError> {
        self.through().await;
        self.inner.give_back(worker, limit, permits).await
    }
}
