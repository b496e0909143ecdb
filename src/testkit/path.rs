//! One run of a scenario, from its start through crashes to its rest.

use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::Clock;
use crate::coordinator::{CommandError, Coordinator, OutcomeError, RunHandle, StartError};
use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer, Event, Journal};
use crate::partial::Outcome;
use crate::step::Payload;
use crate::store::Store;
use crate::testkit::clock::VirtualClock;
use crate::testkit::explore::Reopen;
use crate::testkit::log::Entry;
use crate::testkit::oracle::{self, Rest};
use crate::testkit::report::{Explored, Violation, journal_in_words};
use crate::testkit::scenario::{Operator, Scenario, Way, When};
use crate::testkit::store::{CrashSignal, CrashingStore, StoreFault};

/// One run of a scenario, through as many processes as it takes.
pub(super) struct Path<'a, I, O> {
    /// The exploration's name, for reports.
    name: &'a str,
    real_time: bool,
    scenario: Scenario<I, O>,
    reopen: Reopen,
    now: Timestamp,
    /// Runs whose start was acknowledged.
    acknowledged: HashSet<RunId>,
    cancelled: bool,
    helped: bool,
    /// The planned commands that were made so far, with whether each was taken, once that is known.
    commands: Vec<(Command, Option<bool>)>,
    /// How many of the planned commands are done with.
    asked: usize,
    /// Whether open runs are taken up last first.
    pub(super) reversed: bool,
    points: Vec<(u64, StoreFault)>,
    rests: Vec<Rest>,
    /// The journals of runs that never came to rest.
    unfinished: Vec<(RunId, Journal)>,
    /// Whether the process is the last one, which has nothing to do.
    quiet: bool,
}

/// Why a process came to its end.
enum Ended {
    AtRest,
    Killed,
    Wrong(String),
}

impl<'a, I: Payload, O: Payload> Path<'a, I, O> {
    pub(super) fn new(
        real_time: bool,
        name: &'a str,
        scenario: Scenario<I, O>,
        reopen: Reopen,
    ) -> Self {
        Path {
            name,
            real_time,
            scenario,
            reopen,
            now: VirtualClock::START,
            acknowledged: HashSet::new(),
            cancelled: false,
            helped: false,
            commands: Vec::new(),
            asked: 0,
            reversed: false,
            points: Vec::new(),
            rests: Vec::new(),
            unfinished: Vec::new(),
            quiet: false,
        }
    }

    /// One process with a fault. Says whether all came to rest in spite of it.
    pub(super) fn disturbed(&mut self, point: (u64, StoreFault)) -> Result<bool, Violation> {
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
    pub(super) fn undisturbed(&mut self) -> Result<u64, Violation> {
        let (ended, appends) = self.process(None);
        match ended {
            Ended::AtRest => Ok(appends),
            Ended::Killed => Err(self.violation("the process ended without having been killed")),
            Ended::Wrong(what) => Err(self.violation(what)),
        }
    }

    /// Everything is at rest: asks the oracles. Gives the words.
    pub(super) fn judge(
        &mut self,
        explored: &mut Explored,
    ) -> Result<Vec<&'static str>, Violation> {
        let world = self.scenario.world.clone();
        world.deliver_late();
        oracle::check(self.scenario.saga.graph(), &world, &self.rests)
            .map_err(|what| self.violation(what))?;
        self.check_commands().map_err(|what| self.violation(what))?;
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
    pub(super) fn finish(
        &mut self,
        explored: &mut Explored,
    ) -> Result<Vec<&'static str>, Violation> {
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
        let runtime = builder.enable_time().start_paused(!self.real_time).build();
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
        let patience = if self.real_time {
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
        if let Ended::Wrong(_) = ended {
            for (run, _) in &self.scenario.runs {
                if let Ok(Some(journal)) = disk.load(run).await {
                    self.unfinished.push((run.clone(), journal));
                }
            }
        }
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
        while !self.quiet && self.asked < self.scenario.planned.len() {
            self.ask_next(&coordinator, &handles[0], disk, signal)
                .await?;
            self.asked += 1;
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

    /// Asks for the next of the planned commands, when its time has come, and waits for the answer.
    async fn ask_next(
        &mut self,
        coordinator: &Coordinator,
        handle: &RunHandle<O>,
        disk: &Arc<dyn Store>,
        signal: &CrashSignal,
    ) -> Result<(), Trouble> {
        let (when, way) = {
            let planned = &self.scenario.planned[self.asked];
            (planned.when, planned.way)
        };
        if self.commands.len() == self.asked {
            match when {
                When::Appends(appends) => {
                    let seen = self.appends_so_far(disk).await?;
                    tokio::select! {
                        biased;
                        () = signal.acknowledged(appends.saturating_sub(seen)) => {}
                        rest = handle.outcome() => drop(rest.map_err(Trouble::from)?),
                    }
                }
                When::Parked => {
                    let rest = handle.outcome().await.map_err(Trouble::from)?;
                    if !matches!(rest, Outcome::Parked(_)) {
                        // It ended instead: nobody is to ask for anything any more.
                        self.asked = self.scenario.planned.len() - 1;
                        return Ok(());
                    }
                }
                When::Later(wait) => tokio::time::sleep(wait).await,
            }
            let partial = coordinator.get(handle.id()).await.map_err(Trouble::wrong)?;
            let Some(partial) = partial else {
                return Err(Trouble::Wrong(format!("run `{}` is gone", handle.id())));
            };
            let verb = (self.scenario.planned[self.asked].verb)(&partial);
            let command = Command::new(handle.id().clone(), verb)
                .by("tester")
                .reason("planned")
                .token(format!("planned-{}", self.asked));
            self.commands.push((command, None));
        }
        let command = self.commands[self.asked].0.clone();
        let taken = match way {
            Way::Asked => match coordinator.command(&command).await {
                Ok(_) => true,
                Err(CommandError::Refused { .. }) => false,
                Err(CommandError::Closed { .. }) => return Err(Trouble::StoreDied),
                Err(error) => return Err(Trouble::wrong(error)),
            },
            Way::HandedIn => {
                // Handing in the same command again is no harm.
                disk.submit(&command).await.map_err(Trouble::wrong)?;
                answer(&command, handle, disk).await?
            }
        };
        self.commands[self.asked].1 = Some(taken);
        Ok(())
    }

    /// What was taken is in the journal once, and what was refused is not.
    fn check_commands(&self) -> Result<(), String> {
        let Some(rest) = self.rests.first() else {
            return Ok(());
        };
        for (command, taken) in &self.commands {
            let events = rest
                .journal
                .records
                .iter()
                .flat_map(|record| &record.events);
            let carried_out = events.filter(|event| match event {
                Event::Commanded { token } => **token == *command.token,
                Event::Signalled(signalled) => signalled.token.as_deref() == Some(&*command.token),
                _ => false,
            });
            let (verb, times) = (command.verb.name(), carried_out.count());
            let wanted = usize::from(*taken == Some(true));
            if times != wanted {
                return Err(format!(
                    "a command is carried out once, or refused: `{verb}` is in the journal {times} times, \
                     and was answered {taken:?}"
                ));
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

    pub(super) fn violation(&self, what: impl Into<String>) -> Violation {
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
        for (run, journal) in &self.unfinished {
            let _ = writeln!(story, "journal of `{run}`, which is not at rest:");
            story.push_str(&journal_in_words(journal));
        }
        Violation {
            name: self.name.to_owned(),
            points: self.points.clone(),
            what: what.into(),
            story,
        }
    }
}

/// So often an answer is looked for, 10 ms apart: longer than a store that fails is waited for.
const LOOKS: u32 = 10_000;

/// Waits for the answer to a command that was handed in: whether it was taken.
async fn answer<O: Payload>(
    command: &Command,
    handle: &RunHandle<O>,
    disk: &Arc<dyn Store>,
) -> Result<bool, Trouble> {
    let mut ended = false;
    for _ in 0..LOOKS {
        let entry = disk.find_command(&command.token).await;
        let entry = entry.map_err(Trouble::wrong)?;
        match entry.and_then(|entry| entry.answer) {
            Some(CommandAnswer::Accepted { .. } | CommandAnswer::Late) => return Ok(true),
            Some(CommandAnswer::Refused { .. }) => return Ok(false),
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            rest = handle.ended(), if !ended => {
                rest.map_err(Trouble::from)?;
                ended = true;
            }
        }
    }
    let verb = command.verb.name();
    Err(Trouble::Wrong(format!(
        "a command has its answer in the end: `{verb}` was handed in and has none"
    )))
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
