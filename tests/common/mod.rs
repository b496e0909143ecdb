//! A world whose steps do as they are told and write down every call.
//!
//! A test plans what each call does, gives the coordinator one life or several over the same memory
//! store, and compares exact lists. Each life is a runtime of its own with paused time; its end is a
//! crash, because the runtime is dropped with all that is in flight.

// Helper functions of tests aren't test functions, and no test file uses all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{Cause, Command, CommandAnswer, End, Event, Journal};
use amends::policy::Jitter;
use amends::store::{
    Append, Appending, CommandEntry, LoadError, MemoryStore, PruneFilter, Pruned, RunEntry,
    RunFilter, Store, StoreError, SubmitError,
};
use amends::*;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What one call does.
#[derive(Debug)]
pub enum Act {
    /// An `execute` returns this output; a `compensate` returns `Ok`.
    Done(u64),
    /// It returns this error.
    Fails(StepError),
    /// It panics.
    Panics,
    /// It never returns.
    Hangs,
    /// It sleeps, writes `woke <step>` down, and goes on so. Dropped before, it writes `dropped <step>`.
    After(Duration, Box<Act>),
    /// It waits until it is told to stop, then goes on so. Dropped before, it writes `dropped <step>`.
    WhenTold(Box<Act>),
    /// A probe answers so.
    Says(Probed<u64>),
}

impl Act {
    /// A definite failure that may be tried again.
    pub fn not_done() -> Act {
        Act::Fails(StepError::not_done("refused").with_mode(FailureMode::SystemNetwork))
    }

    /// A doubtful failure that may be tried again.
    pub fn in_doubt() -> Act {
        Act::Fails(StepError::in_doubt("no answer").with_mode(FailureMode::SystemNetwork))
    }

    /// A doubtful failure that may not be tried again.
    pub fn lost() -> Act {
        Act::Fails(
            StepError::in_doubt("lost")
                .with_mode(FailureMode::SystemNetwork)
                .retryable(false),
        )
    }

    /// A business refusal: nothing done, not to be tried again.
    pub fn rejected() -> Act {
        Act::Fails(StepError::rejected("no"))
    }

    /// The same, later.
    pub fn after(self, wait: Duration) -> Act {
        Act::After(wait, Box::new(self))
    }
}

/// One call of user code, as the step saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `do`, `undo` or `probe`.
    pub what: &'static str,
    pub step: String,
    pub key: String,
    pub effect_key: String,
    pub round: u32,
    pub attempt: u32,
    pub fence: u64,
    /// The input as `Debug` has it.
    pub input: String,
    /// What an undo was told: `done 7` or `in doubt`; empty otherwise.
    pub effect: String,
    /// When it was made, since the world began.
    pub at: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    plans: HashMap<String, VecDeque<Act>>,
    calls: Vec<Call>,
    log: Vec<String>,
}

/// Where the steps of a test live: it survives crashes, as participants and stores do.
#[derive(Clone, Debug)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    pub store: Arc<MemoryStore>,
    /// How long an append takes.
    append_takes: Arc<Mutex<Duration>>,
    /// How long earlier lives took.
    before: Arc<Mutex<Duration>>,
    began: Arc<Mutex<Option<Instant>>>,
}

/// Wall time that follows tokio's, over all lives.
#[derive(Debug)]
struct WorldClock(World);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        EPOCH.after(self.0.now())
    }
}

/// The world's store, with appends that take their time.
#[derive(Debug)]
struct TakingTime(World);

#[async_trait::async_trait]
impl Store for TakingTime {
    fn append(&self, append: Append) -> Appending {
        let (store, time) = (self.0.store.clone(), *self.0.append_takes.lock().unwrap());
        if time.is_zero() {
            return store.append(append);
        }
        Appending::future(async move {
            tokio::time::sleep(time).await;
            store.append(append).await
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.0.store.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.0.store.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.0.store.scan(filter, after, limit).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.0.store.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.0.store.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.0.store.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.0.store.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.0.store.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.0.store.prune(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.0.store.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.0.store.recall(saga, version, fingerprint).await
    }

    fn keeps_values(&self) -> bool {
        self.0.store.keeps_values()
    }

    async fn close(&self) {
        self.0.store.close().await;
    }
}

/// When the world began, for journals.
pub const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// So long a life may take: the clock moves on by itself when everybody waits, so a run that nothing will
/// ever wake fails its test instead of hanging it.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

pub const SECOND: Duration = Duration::from_secs(1);

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

impl World {
    pub fn new() -> World {
        World {
            inner: Arc::default(),
            changed: Arc::default(),
            store: Arc::new(MemoryStore::new()),
            append_takes: Arc::default(),
            before: Arc::default(),
            began: Arc::default(),
        }
    }

    /// How old the world is.
    pub fn now(&self) -> Duration {
        let began = *self.began.lock().unwrap();
        *self.before.lock().unwrap() + began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// A coordinator that knows these sagas, for as long as `body` takes; then it crashes.
    pub fn life<I, O, T>(&self, saga: &Saga<I, O>, body: impl AsyncFnOnce(Coordinator) -> T) -> T {
        self.life_with(|builder| builder.register(saga), body)
    }

    /// The same with other settings.
    pub fn life_with<T>(
        &self,
        settings: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder,
        body: impl AsyncFnOnce(Coordinator) -> T,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            *self.began.lock().unwrap() = Some(Instant::now());
            let builder = Coordinator::builder(TakingTime(self.clone()));
            let builder = settings(builder.clock(WorldClock(self.clone())));
            let coordinator = builder.build().await.unwrap();
            // This handle keeps the coordinator alive until nothing can be noticed any more.
            let told = tokio::time::timeout(LIFETIME, body(coordinator.clone())).await;
            let told = told.expect("a run that stands still for ever");
            let lived = self.began.lock().unwrap().take().unwrap().elapsed();
            *self.before.lock().unwrap() += lived;
            told
        })
    }

    /// Starts run `r` with this input and drives it until it ends or is parked.
    pub fn run_to_rest<I: Payload, O: Payload>(&self, saga: &Saga<I, O>, input: I) -> Outcome<O> {
        self.life(saga, async |coordinator| {
            let run = coordinator.start(saga, "r", input).await.unwrap();
            run.outcome().await.unwrap()
        })
    }

    /// Starts run `r` with this input and crashes as soon as `line` is in the log.
    pub fn crash_at<I: Payload, O: Payload>(&self, saga: &Saga<I, O>, input: I, line: &str) {
        self.life(saga, async |coordinator| {
            let _run = coordinator.start(saga, "r", input).await.unwrap();
            self.until(line).await;
        });
    }

    /// Takes run `r` up again on the same store, and crashes once there are `lines` lines in the log.
    pub fn resume_and_crash<I, O>(&self, saga: &Saga<I, O>, lines: usize) {
        self.life(saga, async |_coordinator| self.until_lines(lines).await);
    }

    /// Takes run `r` up again on the same store and drives it until it ends or is parked.
    pub fn recover<I, O: Payload>(&self, saga: &Saga<I, O>) -> Outcome<O> {
        self.life(saga, async |coordinator| {
            let run = coordinator.attach(saga, &"r".into()).await.unwrap();
            run.expect("run `r` was started").outcome().await.unwrap()
        })
    }

    /// Lets every append take so long from now on, so that something can happen meanwhile.
    pub fn appends_take(&self, time: Duration) {
        *self.append_takes.lock().unwrap() = time;
    }

    /// Says what the next calls of `do a`, `undo a` or `probe a` do, one after the other. Unplanned calls
    /// succeed, with the attempt's number as the output; an unplanned probe answers `Unknown`.
    pub fn plan(&self, call: &str, acts: impl IntoIterator<Item = Act>) {
        let mut inner = self.inner.lock().unwrap();
        inner.plans.entry(call.to_owned()).or_default().extend(acts);
    }

    /// A step that does as planned. Its input is whatever the wiring gives.
    pub fn step<I: Payload + Debug>(&self, name: &str) -> StepSpec<I, u64> {
        step(name, Planned::<I>(self.clone(), PhantomData))
    }

    /// The same as a step that changes nothing.
    pub fn read_only<I: Payload + Debug>(&self, name: &str) -> StepSpec<I, u64> {
        read_only(name, PlannedAction::<I>(self.clone(), PhantomData))
    }

    /// The same as a step that can't be undone.
    pub fn irreversible<I: Payload + Debug>(&self, name: &str) -> StepSpec<I, u64> {
        irreversible(name, PlannedAction::<I>(self.clone(), PhantomData))
    }

    /// A probe that answers as planned.
    pub fn probe<I: Payload + Debug>(&self) -> impl Probe<Input = I, Output = u64> {
        PlannedProbe::<I>(self.clone(), PhantomData)
    }

    /// The calls so far, one line each: `do a`, `undo a (done 1)`, `undo a (in doubt)`, `probe a`; and
    /// `woke a`, `dropped a` where a planned wait ended so.
    pub fn log(&self) -> Vec<String> {
        self.inner.lock().unwrap().log.clone()
    }

    /// All that is known of the calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// The calls of `do a`, `undo a` or `probe a`.
    pub fn calls_of(&self, call: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|made| format!("{} {}", made.what, made.step) == call);
        calls
    }

    /// Waits until the log has this line.
    pub async fn until(&self, line: &str) {
        self.until_log(|log| log.iter().any(|logged| logged == line))
            .await;
    }

    /// Waits until the log has so many lines.
    pub async fn until_lines(&self, lines: usize) {
        self.until_log(|log| log.len() >= lines).await;
    }

    pub async fn until_log(&self, reached: impl Fn(&[String]) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if reached(&self.inner.lock().unwrap().log) {
                return;
            }
            changed.await;
        }
    }

    /// The events of run `r`, record by record.
    pub fn journal(&self) -> Vec<Vec<Event<String>>> {
        let journal = self.store.load(&"r".into()).now_or_never();
        let journal = journal.expect("the memory store answers at once");
        let journal = journal.unwrap().expect("run `r` was started");
        let steps = journal.steps;
        let name = |step| steps.name(step).to_string();
        let records = journal.records.into_iter();
        records
            .map(|record| {
                let events = record.events.into_iter();
                events.map(|event| event.map_step(name)).collect()
            })
            .collect()
    }

    /// The events of run `r` in short words, record by record; see [`brief`].
    pub fn records(&self) -> Vec<Vec<String>> {
        let records = self.journal();
        let records = records.iter();
        records
            .map(|events| events.iter().map(brief).collect())
            .collect()
    }

    /// The events of run `r` in short words.
    pub fn story(&self) -> Vec<String> {
        self.records().concat()
    }

    fn write(&self, line: String) {
        self.inner.lock().unwrap().log.push(line);
        self.changed.notify_waiters();
    }

    /// Writes a call down and says what was planned for it.
    fn called<I: Debug>(
        &self,
        what: &'static str,
        cx: &StepContext,
        input: &I,
        effect: Option<Effect<&u64>>,
    ) -> Option<Act> {
        let effect = match effect {
            Some(Effect::Done(output)) => format!("done {output}"),
            Some(Effect::InDoubt) => "in doubt".to_owned(),
            None => String::new(),
        };
        let name = format!("{what} {}", cx.step());
        let at = self.now();
        let mut inner = self.inner.lock().unwrap();
        inner.calls.push(Call {
            what,
            step: cx.step().to_owned(),
            key: cx.idempotency_key().to_owned(),
            effect_key: cx.effect_key().to_owned(),
            round: cx.round(),
            attempt: cx.attempt(),
            fence: cx.fence(),
            input: format!("{input:?}"),
            effect: effect.clone(),
            at,
        });
        inner.log.push(if effect.is_empty() {
            name.clone()
        } else {
            format!("{name} ({effect})")
        });
        let act = inner.plans.get_mut(&name).and_then(VecDeque::pop_front);
        drop(inner);
        self.changed.notify_waiters();
        act
    }

    /// Waits as planned, and says what comes after the waiting.
    async fn wait(&self, cx: &StepContext, mut act: Act) -> Act {
        loop {
            let mut waiting = Waiting {
                world: self,
                step: cx.step(),
                over: false,
            };
            act = match act {
                Act::After(wait, then) => {
                    tokio::time::sleep(wait).await;
                    waiting.over = true;
                    self.write(format!("woke {}", cx.step()));
                    *then
                }
                Act::WhenTold(then) => {
                    cx.cancelled().await;
                    waiting.over = true;
                    *then
                }
                Act::Hangs => std::future::pending().await,
                other => {
                    waiting.over = true;
                    return other;
                }
            };
        }
    }
}

/// Notices that a planned wait was dropped.
struct Waiting<'a> {
    world: &'a World,
    step: &'a str,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A crash drops futures too, but nobody notices a crash: by then the life is over.
        if !self.over && self.world.began.lock().unwrap().is_some() {
            self.world.write(format!("dropped {}", self.step));
        }
    }
}

struct Planned<I>(World, PhantomData<fn(I)>);
struct PlannedAction<I>(World, PhantomData<fn(I)>);
struct PlannedProbe<I>(World, PhantomData<fn(I)>);

async fn execute<I: Debug + Sync>(
    world: &World,
    cx: &StepContext,
    input: &I,
) -> Result<u64, StepError> {
    let act = world.called("do", cx, input, None);
    let act = act.unwrap_or(Act::Done(u64::from(cx.attempt())));
    match world.wait(cx, act).await {
        Act::Done(output) => Ok(output),
        Act::Fails(error) => Err(error),
        Act::Panics => panic!("as planned"),
        other => unreachable!("{other:?} is not for an execute"),
    }
}

impl<I: Payload + Debug> Step for Planned<I> {
    type Input = I;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<u64, StepError> {
        execute(&self.0, cx, input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&u64>,
    ) -> Result<(), StepError> {
        let act = self.0.called("undo", cx, input, Some(effect));
        match self.0.wait(cx, act.unwrap_or(Act::Done(0))).await {
            Act::Done(_) => Ok(()),
            Act::Fails(error) => Err(error),
            Act::Panics => panic!("as planned"),
            other => unreachable!("{other:?} is not for a compensate"),
        }
    }
}

impl<I: Payload + Debug> Action for PlannedAction<I> {
    type Input = I;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<u64, StepError> {
        execute(&self.0, cx, input).await
    }
}

impl<I: Payload + Debug> Probe for PlannedProbe<I> {
    type Input = I;
    type Output = u64;

    async fn probe(&self, cx: &StepContext, input: &I) -> Result<Probed<u64>, StepError> {
        let act = self.0.called("probe", cx, input, None);
        let act = act.unwrap_or(Act::Says(Probed::Unknown));
        match self.0.wait(cx, act).await {
            Act::Says(answer) => Ok(answer),
            Act::Fails(error) => Err(error),
            Act::Panics => panic!("as planned"),
            other => unreachable!("{other:?} is not for a probe"),
        }
    }
}

/// So many calls, one second apart, without jitter.
pub fn calls(most: u32) -> Retry {
    Retry::constant()
        .initial(SECOND)
        .jitter(Jitter::None)
        .max_attempts(most)
}

/// An event in two or three words.
pub fn brief(event: &Event<String>) -> String {
    match event {
        Event::RunStarted(_) => "run started".to_owned(),
        Event::Claimed { fence, .. } => format!("claimed {fence}"),
        Event::StepStarted { step, round, .. } => format!("start {step} {round}"),
        Event::StepDone { step, .. } => format!("done {step}"),
        Event::StepFailed { step, retry_at, .. } => match retry_at {
            Some(_) => format!("failed {step}, again"),
            None => format!("failed {step}"),
        },
        Event::StepStopped { step, .. } => format!("stopped {step}"),
        Event::StepInterrupted { step, .. } => format!("interrupted {step}"),
        Event::StepNotStarted { step } => format!("not started {step}"),
        Event::Progress { step, value } => {
            format!("progress {step} {}", value.to_json().unwrap().get())
        }
        Event::Probed { step, answer, .. } => match answer {
            Probed::Done(_) => format!("probed {step}: done"),
            Probed::Never => format!("probed {step}: never"),
            Probed::Unknown => format!("probed {step}: unknown"),
        },
        Event::PassedOver { step } => format!("passed over {step}"),
        Event::Decided(decision) if decision.stop => "decided to stop".to_owned(),
        Event::Decided(decision) if decision.cause == Cause::Absorbed => {
            format!("without {}", decision.failed.join(" "))
        }
        Event::Decided(decision) => match &decision.scope {
            Some(inside) => format!("decided {} in {inside}", decision.strategy),
            None => format!("decided {}", decision.strategy),
        },
        Event::UndoStarted { step, round, .. } => format!("undo {step} {round}"),
        Event::Undone { step, .. } => format!("undone {step}"),
        Event::UndoFailed { step, retry_at, .. } => match retry_at {
            Some(_) => format!("undo failed {step}, again"),
            None => format!("undo failed {step}"),
        },
        Event::UndoNotStarted { step } => format!("undo not started {step}"),
        Event::CancelRequested { told, .. } => format!("cancel {told:?}"),
        Event::CancelTooLate => "cancel too late".to_owned(),
        Event::DeadlinePassed { .. } => "deadline passed".to_owned(),
        Event::Resolved { step, .. } => format!("resolved {step}"),
        Event::Parked(parking) => format!("parked {}", parking.reason),
        Event::Ended(end) => match end {
            End::Completed { .. } => "ended completed".to_owned(),
            End::Compensated => "ended compensated".to_owned(),
            End::Stopped { .. } => "ended stopped".to_owned(),
            End::Abandoned { .. } => "ended abandoned".to_owned(),
        },
        other => format!("{other:?}"),
    }
}
