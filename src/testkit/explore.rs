//! Crash exploration: a scenario is run again and again, and killed at every place where that matters.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fmt::Write as _;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use crate::Clock;
use crate::coordinator::{CommandError, Coordinator, OutcomeError, RunHandle, StartError};
use crate::ids::{RunId, Timestamp};
use crate::journal::Journal;
use crate::partial::Outcome;
use crate::policy::RecoveryStrategy;
use crate::saga::Saga;
use crate::step::Payload;
use crate::store::{MemoryStore, Store};
use crate::testkit::clock::VirtualClock;
use crate::testkit::oracle::{self, Rest};
use crate::testkit::store::{CrashSignal, CrashingStore, StoreFault};
use crate::testkit::world::{Entry, World};

/// What is explored: a saga, its input, and the world that its steps act upon.
///
/// The saga's steps have to act upon this very world, or the exploration sees nothing.
pub struct Scenario<I, O> {
    saga: Saga<I, O>,
    world: World,
    runs: Vec<(RunId, I)>,
    cancel: Option<u64>,
    operator: Option<Operator>,
    ends: Option<Vec<&'static str>>,
}

/// What somebody does, once, about a run that was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operator {
    /// Lets it go on with this strategy.
    Retries(RecoveryStrategy),
    /// Gives it up.
    Abandons,
}

impl<I: Payload, O: Payload> Scenario<I, O> {
    /// One run of this saga, with this input.
    #[must_use]
    pub fn new(saga: Saga<I, O>, input: I, world: World) -> Self {
        Scenario {
            saga,
            world,
            runs: vec![(RunId::new("run-1"), input)],
            cancel: None,
            operator: None,
            ends: None,
        }
    }

    /// One more run in the same store, at the same time.
    #[must_use]
    pub fn and_run(mut self, input: I) -> Self {
        let id = RunId::new(format!("run-{}", self.runs.len() + 1));
        self.runs.push((id, input));
        self
    }

    /// Somebody cancels the first run once so many appends were acknowledged.
    #[must_use]
    pub fn cancelled_after(mut self, appends: u64) -> Self {
        self.cancel = Some(appends);
        self
    }

    /// Somebody helps, once, when the first run is parked. What they say is said again if a crash
    /// swallows it.
    #[must_use]
    pub fn when_parked(mut self, operator: Operator) -> Self {
        self.operator = Some(operator);
        self
    }

    /// Every run has to come to rest with one of these [words](Outcome::word), wherever it was killed.
    #[must_use]
    pub fn ends(mut self, words: &[&'static str]) -> Self {
        self.ends = Some(words.to_vec());
        self
    }
}

impl<I, O> fmt::Debug for Scenario<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("saga", &self.saga)
            .field("world", &self.world)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

/// Opens the same store again and again: once per process of a path.
pub type Reopen = Box<dyn FnMut() -> Arc<dyn Store>>;

/// Kills runs wherever it matters, and checks what becomes of them.
///
/// A scenario is run once undisturbed, and its appends are counted. Then it is run again for each append,
/// killed before and after it, and recovered by a new coordinator; and each recovery is killed in turn
/// before and after each of its appends, and recovered. Each append is also answered wrongly in the ways
/// of [`StoreFault`]. When all is at rest, the oracles are asked, and a last coordinator has to find
/// nothing to do.
///
/// # What is checked
///
/// * Each key takes effect at most once. No effect is undone under two keys, and none is forgotten. No
///   execute has a new key while its earlier effect stands, and no key is used again after its undo.
/// * Every call was announced by a durable record; what a step depends on has a durable result before it
///   is called; nothing is undone before what depended on it.
/// * Nothing starts after a failure for good, a cancel, or a decision to unwind.
/// * A run has one end, and it is true: completed with all effects standing, compensated with none, and
///   otherwise exactly what stands is listed.
/// * No start that was acknowledged is lost, every run comes to rest, and recovery is idempotent and,
///   with several runs, independent of their order.
///
/// ```
/// use amends::Saga;
/// use amends::testkit::{Explorer, Fault, Scenario, World};
///
/// let explored = Explorer::new("order").explore(|| {
///     let world = World::new().fail_calls("charge", .., Fault::Rejected);
///     let mut saga = Saga::builder::<u64>("order");
///     let order = saga.input();
///     let stock = saga.add(world.step::<u64>("reserve"), order);
///     let paid = saga.add(world.step::<String>("charge"), stock);
///     let saga = saga.returns(paid).expect("the definition has no faults");
///     Scenario::new(saga, 42, world).ends(&["compensated"])
/// })?;
/// assert!(explored.runs > 50, "{explored}");
/// # Ok::<(), amends::testkit::Violation>(())
/// ```
pub struct Explorer {
    name: String,
    stores: Box<dyn Fn() -> Reopen>,
    real_time: bool,
    once: bool,
}

impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("name", &self.name)
            .field("real_time", &self.real_time)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}

/// What an exploration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// Scenarios that were explored.
    pub scenarios: u64,
    /// Places at which a process was killed: an append, before or after, of a run or of a recovery.
    pub crash_points: u64,
    /// Runs that were killed and recovered, or whose store failed.
    pub runs: u64,
    /// How the runs came to rest, by their [words](Outcome::word).
    pub rests: BTreeMap<&'static str, u64>,
}

impl AddAssign for Explored {
    fn add_assign(&mut self, more: Explored) {
        self.scenarios += more.scenarios;
        self.crash_points += more.crash_points;
        self.runs += more.runs;
        for (word, times) in more.rests {
            *self.rests.entry(word).or_default() += times;
        }
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} scenarios, {} crash points, {} crash-and-recover runs",
            self.scenarios, self.crash_points, self.runs
        )?;
        let rests: Vec<String> = self
            .rests
            .iter()
            .map(|(word, times)| format!("{times} {word}"))
            .collect();
        if rests.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", rests.join(", "))
    }
}

/// Something that must not happen, with all that is needed to see why it did.
pub struct Violation {
    name: String,
    points: Vec<(u64, StoreFault)>,
    what: String,
    story: String,
}

impl Violation {
    /// Which promise was broken, and how.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The store's faults on the way there: the number of the append in its process, and the fault.
    #[must_use]
    pub fn points(&self) -> &[(u64, StoreFault)] {
        &self.points
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<String> = self
            .points
            .iter()
            .map(|(append, fault)| format!("{fault} append {append}"))
            .collect();
        let points = if points.is_empty() {
            "undisturbed".to_owned()
        } else {
            points.join(", then ")
        };
        write!(
            f,
            "`{}`, {points}: {}\n{}",
            self.name, self.what, self.story
        )
    }
}

/// As people read it: `unwrap` on an exploration prints what happened.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

impl Explorer {
    /// An exploration over memory stores, in virtual time. The name stands in its reports.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Explorer {
            name: name.into(),
            stores: Box::new(|| {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                Box::new(move || Arc::clone(&store))
            }),
            real_time: false,
            once: false,
        }
    }

    /// Explores over other stores: `stores` is called for each run, and what it gives is called for each
    /// process of that run, to open the same store again. The store of the process before is gone by then.
    ///
    /// Stores that answer from another thread need [`real_time`](Self::real_time).
    #[must_use]
    pub fn stores(mut self, stores: impl Fn() -> Reopen + 'static) -> Self {
        self.stores = Box::new(stores);
        self
    }

    /// Lets real time pass: keep retries and delays short.
    #[must_use]
    pub fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }

    /// Kills each run once, and no recovery.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Explores a scenario, which is made anew for every run.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: every process of a run gets one of its own. Call it from a plain `#[test]`.
    pub fn explore<I: Payload, O: Payload>(
        &self,
        make: impl Fn() -> Scenario<I, O>,
    ) -> Result<Explored, Violation> {
        let mut explored = Explored {
            scenarios: 1,
            ..Explored::default()
        };
        let mut path = self.path(&make);
        let appends = path.undisturbed()?;
        path.finish(&mut explored)?;
        // Every single disturbance first: what a reader sees of a violation is its shortest way.
        let mut recoveries = Vec::new();
        for append in 1..=appends {
            for fault in [StoreFault::CrashBefore, StoreFault::CrashAfter] {
                let mut path = self.path(&make);
                path.disturbed((append, fault))?;
                let recovery = path.undisturbed()?;
                let words = path.finish(&mut explored)?;
                explored.runs += 1;
                explored.crash_points += 1;
                if words.len() > 1 {
                    let mut path = self.path(&make);
                    path.disturbed((append, fault))?;
                    path.reversed = true;
                    path.undisturbed()?;
                    explored.runs += 1;
                    if path.finish(&mut explored)? != words {
                        return Err(path.violation("recovery depends on the order of runs"));
                    }
                }
                recoveries.push(((append, fault), recovery));
            }
            for fault in [
                StoreFault::AnswerLost,
                StoreFault::RequestLost,
                StoreFault::NotWritten,
                StoreFault::Dies,
            ] {
                let mut path = self.path(&make);
                if !path.disturbed((append, fault))? {
                    path.undisturbed()?;
                }
                path.finish(&mut explored)?;
                explored.runs += 1;
            }
        }
        for (first, appends) in recoveries.into_iter().filter(|_| !self.once) {
            for second in 1..=appends {
                for fault in [StoreFault::CrashBefore, StoreFault::CrashAfter] {
                    let mut path = self.path(&make);
                    path.disturbed(first)?;
                    path.disturbed((second, fault))?;
                    path.undisturbed()?;
                    path.judge(&mut explored)?;
                    explored.runs += 1;
                    explored.crash_points += 1;
                }
            }
        }
        Ok(explored)
    }

    fn path<I: Payload, O: Payload>(&self, make: &impl Fn() -> Scenario<I, O>) -> Path<'_, I, O> {
        Path {
            explorer: self,
            scenario: make(),
            reopen: (self.stores)(),
            now: VirtualClock::START,
            acknowledged: HashSet::new(),
            cancelled: false,
            helped: false,
            reversed: false,
            points: Vec::new(),
            rests: Vec::new(),
            quiet: false,
        }
    }
}

/// One run of a scenario, through as many processes as it takes.
struct Path<'a, I, O> {
    explorer: &'a Explorer,
    scenario: Scenario<I, O>,
    reopen: Reopen,
    now: Timestamp,
    /// Runs whose start was acknowledged.
    acknowledged: HashSet<RunId>,
    cancelled: bool,
    helped: bool,
    reversed: bool,
    points: Vec<(u64, StoreFault)>,
    rests: Vec<Rest>,
    /// Whether the process is the last one, which has nothing to do.
    quiet: bool,
}

/// Why a process came to its end.
enum Ended {
    AtRest,
    Killed,
    Wrong(String),
}

impl<I: Payload, O: Payload> Path<'_, I, O> {
    /// One process with a fault. Says whether all came to rest in spite of it.
    fn disturbed(&mut self, point: (u64, StoreFault)) -> Result<bool, Violation> {
        self.points.push(point);
        let (ended, _) = self.process(Some(point));
        match ended {
            Ended::AtRest => Ok(true),
            Ended::Killed => {
                let place = format!("{} append {}", point.1, point.0);
                self.scenario.world.note(Entry::Crash(place));
                Ok(false)
            }
            Ended::Wrong(what) => Err(self.violation(what)),
        }
    }

    /// One process without a fault, to rest. Gives the number of its appends.
    fn undisturbed(&mut self) -> Result<u64, Violation> {
        let (ended, appends) = self.process(None);
        match ended {
            Ended::AtRest => Ok(appends),
            Ended::Killed => Err(self.violation("the process ended without having been killed")),
            Ended::Wrong(what) => Err(self.violation(what)),
        }
    }

    /// Everything is at rest: asks the oracles. Gives the words.
    fn judge(&mut self, explored: &mut Explored) -> Result<Vec<&'static str>, Violation> {
        let world = self.scenario.world.clone();
        world.deliver_late();
        oracle::check(self.scenario.saga.graph(), &world, &self.rests)
            .map_err(|what| self.violation(what))?;
        let words: Vec<&'static str> = self.rests.iter().map(|rest| rest.word).collect();
        if let Some(allowed) = &self.scenario.ends
            && let Some(word) = words.iter().find(|word| !allowed.contains(word))
        {
            let what = format!("a run is {word}, and may only be {}", allowed.join(" or "));
            return Err(self.violation(what));
        }
        for word in &words {
            *explored.rests.entry(word).or_default() += 1;
        }
        Ok(words)
    }

    /// Asks the oracles, and recovers once more, for nothing.
    fn finish(&mut self, explored: &mut Explored) -> Result<Vec<&'static str>, Violation> {
        let words = self.judge(explored)?;
        let world = self.scenario.world.clone();
        let (happened, before) = (world.len(), std::mem::take(&mut self.rests));
        self.quiet = true;
        let (ended, appends) = self.process(None);
        if let Ended::Wrong(what) = ended {
            return Err(self.violation(what));
        }
        if appends > 0 || world.len() != happened {
            return Err(self.violation(
                "recovery is idempotent: a coordinator found something to do where all was at rest",
            ));
        }
        let same = before.len() == self.rests.len()
            && before.iter().zip(&self.rests).all(|(before, after)| {
                before.word == after.word
                    && before.journal.records.len() == after.journal.records.len()
            });
        if !same {
            return Err(self.violation("recovery is idempotent: a journal has changed"));
        }
        Ok(words)
    }

    fn process(&mut self, point: Option<(u64, StoreFault)>) -> (Ended, u64) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_time()
            .start_paused(!self.explorer.real_time)
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return (Ended::Wrong(format!("no runtime: {error}")), 0),
        };
        let disk = (self.reopen)();
        let store = CrashingStore::over(Arc::clone(&disk))
            .seen_by(self.scenario.world.clone())
            .reversed(self.reversed);
        let store = match point {
            Some((append, fault)) => store.fail_at(append, fault),
            None => store,
        };
        let signal = store.crash_signal();
        if !self.quiet {
            self.scenario.world.note(Entry::Process);
        }
        let ended = runtime.block_on(self.live(store, &disk, &signal));
        // This is the kill: everything in flight is dropped where it stands.
        drop(runtime);
        // A start of a run that is there asks for an append, and is refused: only what was written counts.
        let appends = if self.quiet {
            signal.acknowledged_so_far()
        } else {
            signal.appends()
        };
        (ended, appends)
    }

    async fn live(
        &mut self,
        store: CrashingStore,
        disk: &Arc<dyn Store>,
        signal: &CrashSignal,
    ) -> Ended {
        let clock = VirtualClock::starting_at(self.now);
        // Long enough for every backoff in virtual time, and an answer where nothing would ever happen.
        let patience = if self.explorer.real_time {
            Duration::from_secs(60)
        } else {
            Duration::from_secs(30 * 86_400)
        };
        let ended = tokio::select! {
            biased;
            () = signal.wait() => Ended::Killed,
            worked = tokio::time::timeout(patience, self.work(store, clock, disk, signal)) => match worked {
                Ok(Ok(())) => Ended::AtRest,
                Ok(Err(Trouble::StoreDied)) => Ended::Killed,
                Ok(Err(Trouble::Wrong(what))) => Ended::Wrong(what),
                Err(_) => Ended::Wrong("every run comes to rest: one is still under way, and nothing happens".to_owned()),
            },
        };
        self.now = clock.now();
        ended
    }

    async fn work(
        &mut self,
        store: CrashingStore,
        clock: VirtualClock,
        disk: &Arc<dyn Store>,
        signal: &CrashSignal,
    ) -> Result<(), Trouble> {
        let coordinator = Coordinator::builder(store)
            .clock(clock)
            .register(&self.scenario.saga)
            .build()
            .await
            .map_err(Trouble::wrong)?;
        let handles = self.begin(&coordinator, disk).await?;
        let first = RunId::new("run-1");
        if let Some(appends) = self
            .scenario
            .cancel
            .filter(|_| !self.cancelled && !self.quiet)
        {
            let seen = self.appends_so_far(disk).await?;
            tokio::select! {
                biased;
                () = signal.acknowledged(appends.saturating_sub(seen)) => {
                    let told = coordinator.cancel(&first, "tester", "planned").await;
                    if let Err(CommandError::Closed { .. }) = told {
                        return Err(Trouble::StoreDied);
                    }
                    // A run that has ended refuses, and that is an answer too.
                    self.cancelled = true;
                }
                rest = handles[0].outcome() => drop(rest),
            }
        }
        let mut words = Vec::new();
        for (at, handle) in handles.iter().enumerate() {
            let mut outcome = handle.outcome().await.map_err(Trouble::from)?;
            if at == 0
                && !self.helped
                && matches!(outcome, Outcome::Parked(_))
                && let Some(operator) = self.scenario.operator
            {
                let said = match operator {
                    Operator::Retries(strategy) => {
                        coordinator
                            .retry(&first, strategy, "tester", "planned")
                            .await
                    }
                    Operator::Abandons => coordinator.abandon(&first, "tester", "planned").await,
                };
                if let Err(CommandError::Closed { .. }) = said {
                    return Err(Trouble::StoreDied);
                }
                self.helped = true;
                if said.is_ok() {
                    outcome = handle.outcome().await.map_err(Trouble::from)?;
                }
            }
            words.push(outcome.word());
        }
        // Whatever else there is to be taken up has been taken up by now.
        coordinator.all_resumed().await;
        self.rests.clear();
        for ((run, _), word) in self.scenario.runs.iter().zip(words) {
            let partial = coordinator.get(run).await.map_err(Trouble::wrong)?;
            let journal = disk.load(run).await.map_err(Trouble::wrong)?;
            match (partial, journal) {
                (Some(partial), Some(journal)) => self.rests.push(Rest {
                    run: run.clone(),
                    word,
                    partial,
                    journal,
                }),
                _ => {
                    return Err(Trouble::Wrong(format!(
                        "run `{run}` is at rest and has no journal"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Starts what isn't there and attaches to what is, as a caller does after its own restart.
    async fn begin(
        &mut self,
        coordinator: &Coordinator,
        disk: &Arc<dyn Store>,
    ) -> Result<Vec<RunHandle<O>>, Trouble> {
        let mut handles = Vec::new();
        for (run, input) in &self.scenario.runs {
            let there = disk.find(run).await.map_err(Trouble::wrong)?.is_some();
            if self.acknowledged.contains(run) && !there {
                return Err(Trouble::Wrong(format!(
                    "no start that was acknowledged is lost: run `{run}` is gone"
                )));
            }
            let attached = if there && !self.quiet {
                coordinator
                    .attach(&self.scenario.saga, run)
                    .await
                    .map_err(Trouble::wrong)?
            } else {
                None
            };
            let handle = match attached {
                Some(handle) => handle,
                // The same id with the same input: the same run, if it is there after all.
                None => self.start(coordinator, run, input).await?,
            };
            self.acknowledged.insert(run.clone());
            handles.push(handle);
        }
        Ok(handles)
    }

    async fn start(
        &self,
        coordinator: &Coordinator,
        run: &RunId,
        input: &I,
    ) -> Result<RunHandle<O>, Trouble> {
        let saga = &self.scenario.saga;
        match coordinator.start(saga, run.clone(), input.clone()).await {
            Ok(handle) => Ok(handle),
            // The store refused once, or has died: a caller tries again.
            Err(StartError::Closed { .. }) => coordinator
                .start(saga, run.clone(), input.clone())
                .await
                .map_err(|error| match error {
                    StartError::Closed { .. } => Trouble::StoreDied,
                    other => Trouble::wrong(other),
                }),
            Err(other) => Err(Trouble::wrong(other)),
        }
    }

    async fn appends_so_far(&self, disk: &Arc<dyn Store>) -> Result<u64, Trouble> {
        let mut count = 0;
        for (run, _) in &self.scenario.runs {
            if let Some(journal) = disk.load(run).await.map_err(Trouble::wrong)? {
                count += u64::try_from(journal.records.len()).unwrap_or(u64::MAX);
            }
        }
        Ok(count)
    }

    fn violation(&self, what: impl Into<String>) -> Violation {
        let mut story = String::new();
        for entry in self.scenario.world.entries() {
            // Writing to a String can't fail.
            let _ = match entry {
                Entry::World(event) => writeln!(story, "  world    {event}"),
                Entry::Acknowledged { run, seq } => {
                    writeln!(story, "  journal  `{run}` record {seq} is durable")
                }
                Entry::Crash(place) => writeln!(story, "  crash    {place}"),
                Entry::Process => writeln!(story, "  process  begins"),
            };
        }
        for rest in &self.rests {
            let _ = writeln!(story, "journal of `{}`, which is {}:", rest.run, rest.word);
            story.push_str(&journal_in_words(&rest.journal));
        }
        Violation {
            name: self.explorer.name.clone(),
            points: self.points.clone(),
            what: what.into(),
            story,
        }
    }
}

/// One line per event.
fn journal_in_words(journal: &Journal) -> String {
    let mut words = String::new();
    for record in &journal.records {
        for event in &record.events {
            let event = event
                .clone()
                .map_step(|step| journal.steps.name(step).to_owned());
            // Writing to a String can't fail.
            let _ = writeln!(words, "  {:>3} {} {event:?}", record.seq, record.at);
        }
    }
    words
}

/// Why the work of a process broke off.
enum Trouble {
    StoreDied,
    Wrong(String),
}

impl Trouble {
    fn wrong(error: impl fmt::Display) -> Self {
        Trouble::Wrong(format!("the coordinator failed: {error}"))
    }
}

impl From<OutcomeError> for Trouble {
    fn from(error: OutcomeError) -> Self {
        match error {
            OutcomeError::Closed { .. } => Trouble::StoreDied,
            other => Trouble::wrong(other),
        }
    }
}
