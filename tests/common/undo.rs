//! A world that records calls, steps that follow a script, lives that end in a crash, and a store that
//! misbehaves when it is told to.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use amends::failure::Stale;
use amends::journal::{
    AppendId, Command, CommandAnswer, Event, Interner, Journal, decode_events, encode_events,
};
use amends::step::PayloadError;
use amends::store::{
    Append, AppendError, Appending, CommandEntry, Damage, LoadError, MemoryStore, PruneFilter,
    Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError,
};
use amends::{
    Action, Clock, Coordinator, CoordinatorBuilder, Effect, FailureMode, Outline, PartialResult,
    Probe, Probed, RunId, SomeNode, Step, StepContext, StepError, StepSpec, Timestamp, read_only,
    step,
};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a call does when it is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// It succeeds.
    Done,
    /// It fails, retryably, and says that nothing was done. Of a probe: `Never`.
    NotDone,
    /// It refuses: nothing was done, no retry helps.
    Rejected,
    /// It fails, retryably, and nobody knows. Of a probe: `Unknown`.
    Doubt,
    /// It fails with an error that nobody knows: in doubt, and no retry.
    Strange,
    /// It asks to end the run.
    Stop,
    /// Its participant refuses the call's fence, wrapped in another error.
    Stale,
    /// It succeeds from this fence on; a lower one is refused, and the participant tells which it has seen.
    From(u64),
    /// It panics.
    Panic,
    /// It never returns.
    Hang,
    /// It waits until it is told to stop, then does the next.
    Told(Box<Act>),
    /// It takes so many milliseconds, then does the next.
    Slow(u64, Box<Act>),
}

impl Act {
    pub fn after(self, millis: u64) -> Act {
        Act::Slow(millis, Box::new(self))
    }
}

/// One call of user code.
#[derive(Clone, Debug)]
pub struct Call {
    /// `do a`, `undo a` or `probe a`.
    pub what: String,
    pub round: u32,
    pub attempt: u32,
    pub fence: u64,
    pub key: String,
    pub effect_key: String,
    /// What an undo was told: the output, or `in doubt`.
    pub effect: String,
    pub told_to_stop: bool,
    /// Milliseconds since the world began.
    pub at: u64,
}

/// Calls, in order, and what they are to do.
pub struct World {
    script: Mutex<HashMap<String, VecDeque<Act>>>,
    always: Mutex<HashMap<String, Act>>,
    calls: Mutex<Vec<Call>>,
    trace: Mutex<Vec<String>>,
    changed: Notify,
    time: Mutex<(Timestamp, Instant)>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.trace().iter()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

const BEGINNING: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// Wall time that follows tokio's clock, and goes on over a crash.
#[derive(Clone, Debug)]
pub struct WorldClock(Arc<World>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

impl World {
    pub fn new() -> Arc<World> {
        Arc::new(World {
            script: Mutex::default(),
            always: Mutex::default(),
            calls: Mutex::default(),
            trace: Mutex::default(),
            changed: Notify::new(),
            time: Mutex::new((BEGINNING, Instant::now())),
        })
    }

    pub fn now(&self) -> Timestamp {
        let (base, origin) = *lock(&self.time);
        base.after(Instant::now().saturating_duration_since(origin))
    }

    /// Milliseconds since the world began.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.now().since(BEGINNING).as_millis()).unwrap()
    }

    pub fn clock(self: &Arc<Self>) -> WorldClock {
        WorldClock(Arc::clone(self))
    }

    /// A coordinator over this store, in this world's time.
    pub fn coordinator(self: &Arc<Self>, store: &Arc<impl Store>) -> CoordinatorBuilder {
        let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
        Coordinator::builder_shared(store).clock(self.clock())
    }

    /// What the next calls do, one after the other; later ones succeed, or do what `always` says.
    pub fn on(&self, what: &str, acts: impl IntoIterator<Item = Act>) {
        lock(&self.script)
            .entry(what.to_owned())
            .or_default()
            .extend(acts);
    }

    /// What calls do for which nothing else is said.
    pub fn always(&self, what: &str, act: Act) {
        lock(&self.always).insert(what.to_owned(), act);
    }

    fn next(&self, what: &str) -> Act {
        let scripted = lock(&self.script)
            .get_mut(what)
            .and_then(VecDeque::pop_front);
        scripted
            .or_else(|| lock(&self.always).get(what).cloned())
            .unwrap_or(Act::Done)
    }

    /// Adds a line of the test's own.
    pub fn note(&self, line: impl Into<String>) {
        lock(&self.trace).push(line.into());
        self.changed.notify_waiters();
    }

    /// All lines: `do a` when a call begins, `did a` when it returns, `cut a` when its future is dropped.
    pub fn trace(&self) -> Vec<String> {
        lock(&self.trace).clone()
    }

    /// The calls' beginnings only.
    pub fn began(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.what).collect()
    }

    /// The beginnings of calls of one kind: `do`, `undo` or `probe`.
    pub fn of_kind(&self, kind: &str) -> Vec<String> {
        let kind = format!("{kind} ");
        let names = self.began();
        names
            .iter()
            .filter_map(|what| what.strip_prefix(&kind))
            .map(str::to_owned)
            .collect()
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    pub fn calls_of(&self, what: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.what == what);
        calls
    }

    pub fn count(&self, what: &str) -> usize {
        self.calls_of(what).len()
    }

    /// Waits for the `times`th line like this.
    pub async fn seen(&self, line: &str, times: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.trace().iter().filter(|seen| *seen == line).count() >= times {
                return;
            }
            changed.await;
        }
    }

    /// Forgets what was recorded.
    pub fn forget(&self) {
        lock(&self.calls).clear();
        lock(&self.trace).clear();
    }

    async fn call(
        self: &Arc<Self>,
        kind: &str,
        past: &str,
        cx: &StepContext,
        effect: &str,
    ) -> Result<Probed<String>, StepError> {
        let what = format!("{kind} {}", cx.step());
        lock(&self.calls).push(Call {
            what: what.clone(),
            round: cx.round(),
            attempt: cx.attempt(),
            fence: cx.fence(),
            key: cx.idempotency_key().to_owned(),
            effect_key: cx.effect_key().to_owned(),
            effect: effect.to_owned(),
            told_to_stop: cx.is_cancelled(),
            at: self.millis(),
        });
        self.note(what.clone());
        let mut cut = Cut {
            world: Arc::clone(self),
            line: Some(format!("cut {}", cx.step())),
        };
        let mut act = self.next(&what);
        loop {
            act = match act {
                Act::Slow(millis, then) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    *then
                }
                Act::Told(then) => {
                    cx.cancelled().await;
                    *then
                }
                Act::Hang => std::future::pending().await,
                act => {
                    cut.line = None;
                    self.note(format!("{past} {}", cx.step()));
                    return end(act, cx, kind);
                }
            };
        }
    }

    /// A step without an input that does what the script says; its output is its name and round.
    pub fn step(self: &Arc<Self>, name: &str) -> StepSpec<(), String> {
        step(name, Scripted(Arc::clone(self)))
    }

    /// The same with a probe.
    pub fn probed(self: &Arc<Self>, name: &str) -> StepSpec<(), String> {
        self.step(name).probe(Asked(Arc::clone(self)))
    }

    /// The same, read-only.
    pub fn read(self: &Arc<Self>, name: &str) -> StepSpec<(), String> {
        read_only(name, Looks(Arc::clone(self)))
    }

    pub fn probe(self: &Arc<Self>) -> Asked {
        Asked(Arc::clone(self))
    }

    pub fn action(self: &Arc<Self>) -> Looks {
        Looks(Arc::clone(self))
    }
}

struct Cut {
    world: Arc<World>,
    line: Option<String>,
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.world.note(line);
        }
    }
}

fn end(act: Act, cx: &StepContext, kind: &str) -> Result<Probed<String>, StepError> {
    let network = |error: StepError| Err(error.with_mode(FailureMode::SystemNetwork));
    match (act, kind) {
        (Act::From(seen), _) if cx.fence() < seen => Err(Stale::new(cx.fence()).seen(seen).into()),
        (Act::Done | Act::From(_), _) => Ok(Probed::Done(format!("{}#{}", cx.step(), cx.round()))),
        (Act::NotDone, "probe") => Ok(Probed::Never),
        (Act::Doubt, "probe") => Ok(Probed::Unknown),
        (Act::NotDone, _) => network(StepError::not_done("not now")),
        (Act::Doubt, _) => network(StepError::in_doubt("the answer was lost")),
        (Act::Rejected, _) => Err(StepError::rejected("no")),
        (Act::Strange, _) => Err(std::io::Error::other("boom").into()),
        (Act::Stop, _) => Err(StepError::stop("enough")),
        (Act::Stale, _) => {
            Err(StepError::not_done(std::io::Error::other(Stale::new(cx.fence()))).retryable(true))
        }
        (act, _) => panic!("scripted panic ({act:?})"),
    }
}

/// Does what its world says.
#[derive(Debug)]
pub struct Scripted(Arc<World>);

impl Step for Scripted {
    type Input = ();
    type Output = String;

    async fn execute(&self, cx: &StepContext, (): &()) -> Result<String, StepError> {
        output(self.0.call("do", "did", cx, "").await?)
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        (): &(),
        effect: Effect<&String>,
    ) -> Result<(), StepError> {
        let effect = match effect {
            Effect::Done(output) => output,
            Effect::InDoubt => "in doubt",
        };
        self.0.call("undo", "undid", cx, effect).await.map(|_| ())
    }
}

/// The same without an undo.
#[derive(Debug)]
pub struct Looks(Arc<World>);

impl Action for Looks {
    type Input = ();
    type Output = String;

    async fn execute(&self, cx: &StepContext, (): &()) -> Result<String, StepError> {
        output(self.0.call("do", "did", cx, "").await?)
    }
}

fn output(answer: Probed<String>) -> Result<String, StepError> {
    match answer {
        Probed::Done(output) => Ok(output),
        Probed::Never | Probed::Unknown => Err(StepError::in_doubt("only probes answer so")),
    }
}

/// A probe that answers what its world says.
#[derive(Debug)]
pub struct Asked(Arc<World>);

impl Probe for Asked {
    type Input = ();
    type Output = String;

    async fn probe(&self, cx: &StepContext, (): &()) -> Result<Probed<String>, StepError> {
        self.0.call("probe", "probed", cx, "").await
    }
}

/// A step that starts after several others.
pub fn after_all<I: amends::Payload, O: amends::Payload>(
    part: StepSpec<I, O>,
    nodes: impl IntoIterator<Item = SomeNode>,
) -> StepSpec<I, O> {
    nodes.into_iter().fold(part, StepSpec::after)
}

/// A process of its own: it does nothing but while it is run, as if it were frozen in between, and virtual time
/// goes on without it.
pub struct Process {
    runtime: tokio::runtime::Runtime,
    /// The world's time when it was run last.
    left_at: Option<Timestamp>,
}

impl Process {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        Process {
            runtime,
            left_at: None,
        }
    }

    /// Lets it go on. Its clock has gone on meanwhile.
    pub fn run<T>(&mut self, world: &Arc<World>, body: impl AsyncFnOnce() -> T) -> T {
        let frozen = self.left_at.map(|left| lock(&world.time).0.since(left));
        let value = self.runtime.block_on(async {
            if let Some(frozen) = frozen {
                let (base, _) = *lock(&world.time);
                // The time that has passed is in the base already.
                *lock(&world.time) = (base, Instant::now() + frozen);
                tokio::time::advance(frozen).await;
            }
            let (base, _) = *lock(&world.time);
            *lock(&world.time) = (base, Instant::now());
            let value = body().await;
            let now = world.now();
            *lock(&world.time) = (now, Instant::now());
            value
        });
        self.left_at = Some(lock(&world.time).0);
        value
    }
}

/// One life of a process, in virtual time that goes on in the next. When `body` returns, whatever is
/// still in flight is gone, as in a crash: nothing is polled any more.
pub fn life<T>(world: &Arc<World>, body: impl AsyncFnOnce() -> T) -> T {
    Process::new().run(world, body)
}

/// What a [`TestStore`] does with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Write,
    /// Written, and nobody is told.
    WriteUnknown,
    /// Not written, and nobody is told.
    Unknown,
    NotWritten,
    Dead,
    Conflict,
    /// Not written, never answered: the process dies here.
    Stuck,
    /// Written, never answered: the process dies here.
    WriteStuck,
}

/// An append as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub run: RunId,
    pub seq: u64,
    pub id: AppendId,
    pub events: Vec<String>,
}

type Judge = Box<dyn FnMut(&Sent) -> Answer + Send>;

/// A memory store that goes through JSON, is slow if told so, and misbehaves as told.
pub struct TestStore {
    inner: Arc<MemoryStore>,
    judge: Mutex<Judge>,
    sent: Mutex<Vec<Sent>>,
    delay: Mutex<Duration>,
    unreadable: Mutex<HashMap<RunId, Damage>>,
    stuck: Notify,
    is_stuck: Mutex<bool>,
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestStore({} appends)", lock(&self.sent).len())
    }
}

impl TestStore {
    pub fn new() -> Arc<TestStore> {
        TestStore::over(Arc::new(MemoryStore::new()))
    }

    pub fn over(inner: Arc<MemoryStore>) -> Arc<TestStore> {
        Arc::new(TestStore {
            inner,
            judge: Mutex::new(Box::new(|_| Answer::Write)),
            sent: Mutex::default(),
            delay: Mutex::default(),
            unreadable: Mutex::default(),
            stuck: Notify::new(),
            is_stuck: Mutex::default(),
        })
    }

    /// Who says what becomes of each append.
    pub fn judge(&self, judge: impl FnMut(&Sent) -> Answer + Send + 'static) {
        *lock(&self.judge) = Box::new(judge);
        *lock(&self.is_stuck) = false;
    }

    /// How long an append takes before it is written and answered.
    pub fn delay(&self, delay: Duration) {
        *lock(&self.delay) = delay;
    }

    pub fn damage(&self, run: &str, what: Damage) {
        lock(&self.unreadable).insert(RunId::new(run), what);
    }

    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.sent).clone()
    }

    /// Waits until an append was met with [`Answer::Stuck`] or [`Answer::WriteStuck`].
    pub async fn stuck(&self) {
        let stuck = self.stuck.notified();
        tokio::pin!(stuck);
        stuck.as_mut().enable();
        if !*lock(&self.is_stuck) {
            stuck.await;
        }
    }

    fn json(journal: &Journal) -> Journal {
        let mut names = Interner::default();
        let mut records = journal.records.clone();
        for record in &mut records {
            let text = encode_events(&record.events, &journal.steps).unwrap();
            record.events = decode_events(1, &text, &mut names).unwrap();
        }
        Journal {
            run: journal.run.clone(),
            steps: names.into_table(),
            records,
        }
    }
}

#[async_trait::async_trait]
impl Store for TestStore {
    fn append(&self, append: Append) -> Appending {
        let events = append.record.events.iter();
        let sent = Sent {
            run: append.run.clone(),
            seq: append.record.seq,
            id: append.record.append_id,
            events: events
                .map(|event| {
                    word(
                        &event
                            .clone()
                            .map_step(|step| append.steps.name(step).to_string()),
                    )
                })
                .collect(),
        };
        lock(&self.sent).push(sent.clone());
        let answer = lock(&self.judge)(&sent);
        let writes = matches!(
            answer,
            Answer::Write | Answer::WriteUnknown | Answer::WriteStuck
        );
        if matches!(answer, Answer::Stuck | Answer::WriteStuck) {
            *lock(&self.is_stuck) = true;
            self.stuck.notify_waiters();
        }
        let (inner, delay) = (Arc::clone(&self.inner), *lock(&self.delay));
        let go = async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let written = if writes {
                inner.append(append).await
            } else {
                Ok(())
            };
            match answer {
                Answer::Write => written,
                Answer::WriteUnknown | Answer::Unknown => {
                    Err(AppendError::unknown("the line went dead"))
                }
                Answer::NotWritten => Err(AppendError::not_written("the disk is full")),
                Answer::Dead => Err(AppendError::dead("the sync failed")),
                Answer::Conflict => Err(AppendError::Conflict),
                Answer::Stuck | Answer::WriteStuck => std::future::pending().await,
            }
        };
        Appending::future(go)
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        let journal = self
            .inner
            .load(run)
            .await?
            .map(|journal| Self::json(&journal));
        let damage = lock(&self.unreadable).get(run).cloned();
        match (damage, journal) {
            (Some(what), Some(mut before)) => {
                let seq = before.records.len() as u64;
                before.records.pop();
                Err(LoadError::Unreadable {
                    run: run.clone(),
                    seq,
                    what,
                    before: Box::new(before),
                })
            }
            (_, journal) => Ok(journal),
        }
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
        self.inner.scan(filter, after, limit).await
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

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.inner.answer_command(token, answer).await
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

    async fn close(&self) {}
}

/// An event in a few words: its kind, and its step if it has one.
pub fn word(event: &Event<String>) -> String {
    let json = serde_json::to_value(event).unwrap();
    if let Some(kind) = json.as_str() {
        return kind.to_owned();
    }
    let (kind, body) = json.as_object().unwrap().iter().next().unwrap();
    let detail = ["step", "strategy", "reason"]
        .iter()
        .find_map(|field| body.get(field)?.as_str());
    match (kind.as_str(), detail) {
        ("ended", _) => {
            let end = body.as_str().map(str::to_owned);
            let end = end.or_else(|| Some(body.as_object()?.keys().next()?.clone()));
            format!("ended {}", end.unwrap())
        }
        ("cancel_requested", _) => format!("cancel_requested {}", body["told"].as_str().unwrap()),
        ("deadline_passed", _) => format!("deadline_passed {}", body["past_pivot"]),
        ("run_started" | "claimed", _) | (_, None) => kind.clone(),
        (kind, Some(detail)) => format!("{kind} {detail}"),
    }
}

/// The run's journal in words, one list per record.
pub async fn records(store: &dyn Store, run: &str) -> Vec<Vec<String>> {
    let journal = store.load(&RunId::new(run)).await.unwrap().unwrap();
    let steps = journal.steps;
    let words =
        |event: Event<amends::StepIx>| word(&event.map_step(|step| steps.name(step).to_string()));
    journal
        .records
        .into_iter()
        .map(|record| record.events.into_iter().map(words).collect())
        .collect()
}

/// The run's journal in words.
pub async fn events(store: &dyn Store, run: &str) -> Vec<String> {
    records(store, run).await.concat()
}

/// What stands, and how surely: `a done`, `b in_doubt`.
pub fn standing(partial: &PartialResult) -> Vec<String> {
    let effect = |standing: &amends::Outstanding| {
        let effect = serde_json::to_value(standing.effect).unwrap();
        format!("{} {}", standing.step, effect.as_str().unwrap())
    };
    partial.outstanding.iter().map(effect).collect()
}

/// The output of a step that is done, if it has one.
pub fn output_of(partial: &PartialResult, step: &str) -> Result<Option<String>, PayloadError> {
    Ok(partial.output::<String>(step)?.map(Arc::unwrap_or_clone))
}
