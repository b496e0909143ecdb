//! What has to hold of every run, whatever happened to it.
//!
//! The oracles know nothing of the machine. They read the journal as it is, and the world's log, into
//! which acknowledged appends are written in their order among everything else.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ids::RunId;
use crate::journal::{CancelTold, Event, Journal};
use crate::machine::audit;
use crate::partial::{EffectReport, PartialResult, StepStatus};
use crate::policy::RecoveryStrategy;
use crate::saga::{Graph, NodeIx, StepKind, UndoRule};
use crate::step::{Probed, StepIx};
use crate::testkit::keys::step_of;
use crate::testkit::log::{Entry, Happened, WorldEvent};
use crate::testkit::world::World;

/// A run that has come to rest.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) run: RunId,
    pub(super) word: &'static str,
    pub(super) partial: PartialResult,
    pub(super) journal: Journal,
}

/// Says what is wrong, if something is.
pub(super) fn check(graph: &Graph, world: &World, rests: &[Rest]) -> Result<(), String> {
    if let Some(complaint) = world.complaints().first() {
        return Err(complaint.clone());
    }
    let reach = Reach::of(graph);
    for rest in rests {
        audit::check(graph, &rest.journal)
            .and_then(|()| audit::check_times(&rest.journal))
            .map_err(|what| format!("journal of `{}`: {what}", rest.run))?;
    }
    let mut watched: Vec<Watched<'_>> = rests
        .iter()
        .map(|rest| Watched::of(graph, &reach, rest))
        .collect();
    let by_uid: HashMap<String, usize> = watched
        .iter()
        .enumerate()
        .map(|(at, watched)| (watched.uid.clone(), at))
        .collect();
    for entry in world.entries() {
        match entry {
            Entry::Acknowledged { run, seq } => {
                if let Some(watched) = watched.iter_mut().find(|watched| watched.rest.run == run) {
                    watched.acknowledged(seq);
                }
            }
            Entry::World(event) => {
                let (_, uid) = step_of(&event.key);
                let Some(&at) = by_uid.get(&uid) else {
                    return Err(format!(
                        "intent before effect: {event}, and no run with that key has a journal"
                    ));
                };
                watched[at]
                    .happened(&event)
                    .map_err(|what| format!("run `{}`: {what}", rests[at].run))?;
            }
            Entry::Crash(_) | Entry::Process => {}
        }
    }
    for watched in &watched {
        watched
            .at_the_end()
            .map_err(|what| format!("run `{}`: {what}", watched.rest.run))?;
    }
    Ok(())
}

/// Which steps depend on which, however indirectly.
struct Reach(Vec<Vec<usize>>);

impl Reach {
    fn of(graph: &Graph) -> Self {
        let mut below: Vec<HashSet<usize>> = vec![HashSet::new(); graph.steps.len()];
        // Steps come after what they depend on, so from the back each set is complete when it is read.
        for index in (0..graph.steps.len()).rev() {
            let mut all: HashSet<usize> = below[index].clone();
            all.insert(index);
            for dependency in &graph.steps[index].dependencies {
                below[dependency.at()].extend(&all);
            }
        }
        Reach(
            below
                .into_iter()
                .map(|set| {
                    let mut dependents: Vec<usize> = set.into_iter().collect();
                    dependents.sort_unstable();
                    dependents
                })
                .collect(),
        )
    }
}

/// One run, followed through the log.
struct Watched<'a> {
    graph: &'a Graph,
    reach: &'a Reach,
    rest: &'a Rest,
    uid: String,
    /// How many records are durable, and known to be.
    durable: usize,
    /// The step and round of each key that was announced.
    keys: HashMap<String, StepIx>,
    /// Calls that were announced in this process and not made yet.
    starts: Vec<u32>,
    undos: Vec<u32>,
    done: Vec<bool>,
    failed: HashSet<usize>,
    /// Why nothing may be executed now.
    halted: Option<String>,
    /// Whether a decision was made from which undos can follow.
    decided: bool,
    /// Whether the last decision was to stop, and to keep what is done.
    stops: bool,
    paused: bool,
    given_up: bool,
    /// What operators took as done, without a call.
    skipped: Vec<bool>,
    /// Effects that stand, per step and key.
    standing: Vec<BTreeMap<String, u32>>,
    undo_keys: HashMap<String, String>,
    /// Keys whose undo has succeeded at the participant.
    gone: HashSet<String>,
    /// Whether the last call left a doubt.
    doubt: Vec<bool>,
}

impl<'a> Watched<'a> {
    fn of(graph: &'a Graph, reach: &'a Reach, rest: &'a Rest) -> Self {
        let uid = match rest
            .journal
            .records
            .first()
            .and_then(|first| first.events.first())
        {
            Some(Event::RunStarted(started)) => started.uid.clone(),
            _ => String::new(),
        };
        let steps = graph.steps.len();
        Watched {
            graph,
            reach,
            rest,
            uid,
            durable: 0,
            keys: HashMap::new(),
            starts: vec![0; steps],
            undos: vec![0; steps],
            done: vec![false; steps],
            failed: HashSet::new(),
            halted: None,
            decided: false,
            stops: false,
            paused: false,
            given_up: false,
            skipped: vec![false; steps],
            standing: vec![BTreeMap::new(); steps],
            undo_keys: HashMap::new(),
            gone: HashSet::new(),
            doubt: vec![false; steps],
        }
    }

    fn acknowledged(&mut self, seq: u64) {
        let upto = usize::try_from(seq).unwrap_or(usize::MAX);
        let rest = self.rest;
        while self.durable < upto && self.durable < rest.journal.records.len() {
            for event in &rest.journal.records[self.durable].events {
                self.durable_event(event);
            }
            self.durable += 1;
        }
    }

    fn step(&self, step: StepIx) -> usize {
        let name = self.rest.journal.steps.name(step);
        self.graph.step_named(&name).map_or(usize::MAX, NodeIx::at)
    }

    fn durable_event(&mut self, event: &Event<StepIx>) {
        match event {
            Event::StepStarted { step, key, .. } => {
                let at = self.step(*step);
                self.keys.insert(key.to_string(), StepIx::new(at));
                self.starts[at] += 1;
                self.skipped[at] = false;
            }
            Event::StepDone { step, .. }
            | Event::Probed {
                step,
                answer: Probed::Done(_),
                ..
            }
            | Event::Resolved {
                step,
                answer: Probed::Done(_),
                ..
            } => {
                let at = self.step(*step);
                self.done[at] = true;
                self.failed.remove(&at);
            }
            Event::StepFailed { step, retry_at, .. } => {
                if retry_at.is_none() {
                    let at = self.step(*step);
                    self.failed.insert(at);
                }
            }
            Event::PassedOver { .. }
            | Event::WaitBegan { .. }
            | Event::WaitOver { .. }
            | Event::Signalled { .. } => {}
            Event::StepNotStarted { step } => {
                let at = self.step(*step);
                self.starts[at] = 0;
            }
            Event::UndoStarted { step, .. } => {
                let at = self.step(*step);
                self.undos[at] += 1;
            }
            Event::UndoNotStarted { step } => {
                let at = self.step(*step);
                self.undos[at] = 0;
            }
            Event::Undone { step, .. } => {
                let at = self.step(*step);
                self.done[at] = false;
                self.skipped[at] = false;
            }
            Event::Skipped { step, .. } => {
                let at = self.step(*step);
                self.done[at] = true;
                self.skipped[at] = true;
                self.failed.remove(&at);
            }
            Event::MarkedCompensated { step, .. } => {
                let at = self.step(*step);
                self.done[at] = false;
                self.skipped[at] = false;
                // By the operator's word: what the participant still holds is theirs to know.
                self.standing[at].clear();
                self.doubt[at] = false;
            }
            Event::Paused { .. } => self.paused = true,
            Event::Resumed { .. } => self.paused = false,
            Event::AbandonRequested { .. } => {
                self.given_up = true;
                self.halted = Some("the run was given up".to_owned());
            }
            Event::Claimed { .. } => {
                // What another process announced, this one may not do.
                self.starts.fill(0);
                self.undos.fill(0);
            }
            Event::Decided(decision) => {
                self.failed.clear();
                self.decided = true;
                self.stops = decision.stop;
                self.halted = match decision.strategy {
                    _ if decision.stop => Some("the run is to stop".to_owned()),
                    RecoveryStrategy::Compensate => Some("the run is being undone".to_owned()),
                    RecoveryStrategy::Manual => Some("the run is to be parked".to_owned()),
                    RecoveryStrategy::RetryFailed
                    | RecoveryStrategy::RetryFromCheckpoint
                    | RecoveryStrategy::RetryAll => None,
                };
            }
            Event::CancelRequested { told, .. } => {
                if *told != CancelTold::TooLate {
                    self.halted = Some("the run is cancelled".to_owned());
                }
            }
            Event::CancelTooLate => self.halted = None,
            Event::DeadlinePassed { past_pivot: false } => {
                self.halted = Some("the run's time is up".to_owned());
            }
            Event::StepStopped { .. } => {
                self.halted = Some("a step asked to end the run".to_owned());
            }
            Event::Parked(_) => {
                self.paused = false;
                self.halted = Some("the run is parked".to_owned());
            }
            Event::Ended(_) => self.halted = Some("the run has ended".to_owned()),
            Event::RunStarted(_)
            | Event::StepInterrupted { .. }
            | Event::Commanded { .. }
            | Event::InputEdited { .. }
            | Event::UndosRetried { .. }
            | Event::Progress { .. }
            | Event::Migrated(_)
            | Event::Probed { .. }
            | Event::Resolved { .. }
            | Event::UndoFailed { .. }
            | Event::DeadlinePassed { past_pivot: true } => {}
        }
    }

    fn stands(&self, at: usize) -> bool {
        self.standing[at].values().any(|times| *times > 0)
    }

    /// A dependent whose effect stands, and isn't assumed to be absent.
    fn standing_dependent(&self, at: usize) -> Option<&str> {
        self.reach.0[at]
            .iter()
            .find(|&&below| {
                self.stands(below) && self.graph.steps[below].undo_rule != UndoRule::Never
            })
            .map(|&below| &*self.graph.steps[below].name)
    }

    fn happened(&mut self, event: &WorldEvent) -> Result<(), String> {
        let Some(at) = self.graph.step_named(&event.step).map(NodeIx::at) else {
            return Err(format!("{event}, and the saga has no such step"));
        };
        let key = &event.key;
        match &event.what {
            Happened::Called => {
                self.called(at, event)?;
                self.doubt[at] = true;
            }
            Happened::TookEffect => {
                let times = self.standing[at].entry(key.clone()).or_insert(0);
                *times += 1;
                if *times > 1 {
                    return Err(format!(
                        "each key takes effect at most once: {event}, for the {times}. time"
                    ));
                }
                if self.gone.contains(key) {
                    return Err(format!("an effect is gone once it is undone: {event}"));
                }
            }
            Happened::UndoCalled { undo_key } => self.undo_called(at, event, undo_key)?,
            Happened::Undone => {
                if let Some(dependent) = self.standing_dependent(at) {
                    return Err(format!(
                        "nothing is undone before what depended on it: {event}, and `{dependent}` stands"
                    ));
                }
                if let Some(times) = self.standing[at].get_mut(key) {
                    *times = times.saturating_sub(1);
                }
                self.gone.insert(key.clone());
                self.doubt[at] = false;
            }
            Happened::NothingToUndo => {
                self.gone.insert(key.clone());
                self.doubt[at] = false;
            }
            Happened::ToldNotDone | Happened::Probed("never") => self.doubt[at] = false,
            Happened::Duplicate | Happened::Refused | Happened::Probed(_) | Happened::Looked => {}
        }
        Ok(())
    }

    fn called(&mut self, at: usize, event: &WorldEvent) -> Result<(), String> {
        let step = &self.graph.steps[at];
        if self.starts[at] == 0 || self.keys.get(&event.key) != Some(&StepIx::new(at)) {
            return Err(format!(
                "intent before effect: {event}, and no durable record announces this call"
            ));
        }
        self.starts[at] -= 1;
        if self.paused {
            return Err(format!("nothing starts in a pause: {event}"));
        }
        if let Some(why) = &self.halted {
            return Err(format!("nothing starts now: {event}, and {why}"));
        }
        if let Some(&failed) = self.failed.iter().next() {
            let failed = &self.graph.steps[failed].name;
            return Err(format!(
                "nothing starts after a failure for good: {event}, and `{failed}` has failed"
            ));
        }
        for dependency in &step.dependencies {
            if !self.done[dependency.at()] {
                let name = &self.graph.step(*dependency).name;
                return Err(format!(
                    "result before dependents: {event}, and `{name}` has no durable result"
                ));
            }
        }
        if step.kind == StepKind::ReadOnly {
            return Ok(());
        }
        if let Some(dependent) = self.standing_dependent(at) {
            return Err(format!(
                "no step is executed again under what depends on it: {event}, and `{dependent}` stands"
            ));
        }
        let other = self.standing[at]
            .iter()
            .find(|(key, times)| **times > 0 && **key != event.key);
        if let Some((other, _)) = other {
            return Err(format!(
                "no execute has a new key while its earlier effect stands: {event}, and {other} stands"
            ));
        }
        if self.undo_keys.contains_key(&event.key) {
            return Err(format!(
                "a key is never used again once an undo has started: {event}"
            ));
        }
        if step.at_most_once && self.doubt[at] {
            return Err(format!(
                "`at_most_once` in doubt is never executed again: {event}"
            ));
        }
        Ok(())
    }

    fn undo_called(&mut self, at: usize, event: &WorldEvent, undo_key: &str) -> Result<(), String> {
        if self.undos[at] == 0 {
            return Err(format!(
                "intent before undo: {event}, and no durable record announces this call"
            ));
        }
        self.undos[at] -= 1;
        if self.paused {
            return Err(format!("no undo starts in a pause: {event}"));
        }
        if self.given_up {
            return Err(format!(
                "no undo starts in a run that was given up: {event}"
            ));
        }
        if !self.decided {
            return Err(format!(
                "the decision to unwind comes before the first undo: {event}"
            ));
        }
        let first = self
            .undo_keys
            .entry(event.key.clone())
            .or_insert_with(|| undo_key.to_owned());
        if first != undo_key {
            return Err(format!(
                "no effect is undone under two keys: {event}, and {first} was used before"
            ));
        }
        // A stop settles what is in doubt, past the pivot too (rule E7).
        let goes_back = |pivot: NodeIx| {
            self.stands(pivot.at()) && !self.stops && (self.done[at] || at == pivot.at())
        };
        if self.graph.pivot.is_some_and(goes_back) {
            return Err(format!("nothing goes back past the pivot: {event}"));
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        let partial = &self.rest.partial;
        if usize::try_from(partial.total).ok() != Some(self.graph.steps.len()) {
            return Err(format!("the partial result counts {} steps", partial.total));
        }
        let word = self.rest.word;
        let standing: Vec<(usize, &String)> = self
            .standing
            .iter()
            .enumerate()
            .flat_map(|(at, keys)| keys.iter().map(move |(key, times)| (at, key, *times)))
            .filter(|(.., times)| *times > 0)
            .map(|(at, key, _)| (at, key))
            .collect();
        let name = |at: usize| &*self.graph.steps[at].name;
        if word == "completed" {
            for (at, step) in self.graph.steps.iter().enumerate() {
                let count = self.standing[at]
                    .values()
                    .filter(|times| **times > 0)
                    .count();
                let wanted = usize::from(step.kind != StepKind::ReadOnly && !self.skipped[at]);
                if count != wanted {
                    return Err(format!(
                        "`Completed` is true: `{}` stands {count} times, not {wanted}",
                        step.name
                    ));
                }
            }
            if partial.completed != partial.total {
                return Err(format!(
                    "`Completed` is true: {} of {} steps are said to be done",
                    partial.completed, partial.total
                ));
            }
            return Ok(());
        }
        // Whatever the word is, what stands is listed with its key, and what is listed as done stands.
        for &(at, key) in &standing {
            let listed = partial
                .outstanding
                .iter()
                .any(|listed| listed.step == name(at) && listed.key.as_deref() == Some(key));
            let assumed_absent = self.graph.steps[at].undo_rule == UndoRule::Never
                && partial.assumed_absent.iter().any(|step| step == name(at));
            if !listed && !assumed_absent {
                return Err(format!(
                    "none is forgotten: `{}` stands under {key}, and the {word} run doesn't list it",
                    name(at)
                ));
            }
        }
        for listed in &partial.outstanding {
            if word == "compensated" {
                return Err(format!(
                    "`Compensated` is true: `{}` is said to stand",
                    listed.step
                ));
            }
            let undo_failed = partial
                .step(&listed.step)
                .is_some_and(|step| step.status == StepStatus::UndoFailed);
            let stands = standing
                .iter()
                .any(|&(at, key)| name(at) == listed.step && listed.key.as_ref() == Some(key));
            // Its undo was called, and a crash in a run that was given up left nobody to call it again.
            let undo_cut_off = self.given_up
                && listed
                    .key
                    .as_ref()
                    .is_some_and(|key| self.gone.contains(key));
            // Somebody made it by hand, and says so.
            let by_hand =
                (0..self.skipped.len()).any(|at| self.skipped[at] && name(at) == listed.step);
            if listed.effect == EffectReport::Done
                && !stands
                && !undo_failed
                && !by_hand
                && !undo_cut_off
            {
                return Err(format!(
                    "exactly what stands is listed: `{}` is said to stand and doesn't",
                    listed.step
                ));
            }
        }
        Ok(())
    }
}
