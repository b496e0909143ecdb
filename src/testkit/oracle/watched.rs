//! One run, followed through the log: what its journal announced, and what its participants saw.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::failure::FailedEffect;
use crate::journal::{CancelTold, Cause, Decision, Event};
use crate::policy::RecoveryStrategy;
use crate::saga::{Gathering, Graph, NodeIx, StepKind, UndoRule};
use crate::step::{Probed, StepIx};
use crate::testkit::keys::step_of;
use crate::testkit::log::{Happened, WorldEvent};
use crate::testkit::oracle::Rest;
use crate::testkit::oracle::places::Places;

/// One run, followed through the log.
pub(super) struct Watched<'a> {
    pub(super) rest: &'a Rest,
    pub(super) uid: String,
    pub(super) places: Places<'a>,
    /// What is known of each place, by its number.
    pub(super) steps: Vec<Seen>,
    /// What is known of the saga, and of the inside of each step.
    scopes: HashMap<Option<usize>, Inside>,
    /// How many records are durable, and known to be.
    durable: usize,
    /// The place of each key that was announced.
    keys: HashMap<String, usize>,
    /// Whether the last decision about the run was to stop, and to keep what is done.
    stops: bool,
    paused: bool,
    pub(super) given_up: bool,
    undo_keys: HashMap<String, String>,
    /// Keys whose undo has succeeded at the participant.
    pub(super) gone: HashSet<String>,
}

/// What is known of a step.
#[derive(Default)]
pub(super) struct Seen {
    /// Calls that were announced in this process and not made yet.
    starts: u32,
    undos: u32,
    pub(super) done: bool,
    /// Its condition spared it.
    pub(super) passed_over: bool,
    /// An operator took it as done, without a call.
    pub(super) skipped: bool,
    /// What is around it goes on without it.
    absorbed: bool,
    /// What is inside it has begun and not come to an end.
    open: bool,
    /// It is being undone, by what is inside it.
    undoing: bool,
    round: u32,
    /// How many items its list has.
    pub(super) items: u32,
    /// Effects that stand, per key.
    pub(super) standing: BTreeMap<String, u32>,
    /// Calls of which nobody knows what became.
    pub(super) doubts: u32,
}

/// What is known of a graph.
#[derive(Default)]
struct Inside {
    /// What has failed for good, since the last decision.
    failed: Vec<usize>,
    /// Why nothing in it may be executed now.
    halted: Option<String>,
    /// Whether a decision was made from which undos can follow.
    decided: bool,
    /// The items that are under way, and those that are being undone.
    under_way: HashSet<usize>,
    undoing: HashSet<usize>,
}

impl<'a> Watched<'a> {
    pub(super) fn of(graph: &'a Graph, rest: &'a Rest) -> Self {
        let uid = match rest
            .journal
            .records
            .first()
            .and_then(|first| first.events.first())
        {
            Some(Event::RunStarted(started)) => started.uid.to_string(),
            _ => String::new(),
        };
        let mut watched = Watched {
            rest,
            uid,
            places: Places::of(graph),
            steps: Vec::new(),
            scopes: HashMap::new(),
            durable: 0,
            keys: HashMap::new(),
            stops: false,
            paused: false,
            given_up: false,
            undo_keys: HashMap::new(),
            gone: HashSet::new(),
        };
        watched.make_room();
        watched
    }

    fn make_room(&mut self) {
        self.steps.resize_with(self.places.len(), Seen::default);
    }

    pub(super) fn acknowledged(&mut self, seq: u64) -> Result<(), String> {
        let upto = usize::try_from(seq).unwrap_or(usize::MAX);
        let rest = self.rest;
        while self.durable < upto && self.durable < rest.journal.records.len() {
            let record = &rest.journal.records[self.durable];
            for event in &record.events {
                self.durable_event(event)
                    .map_err(|what| format!("record {}: {what}", record.seq))?;
            }
            self.durable += 1;
        }
        Ok(())
    }

    /// The number of the step with this path among all places.
    fn find(&mut self, path: &str) -> Option<usize> {
        let found = self.places.find(path);
        self.make_room();
        found
    }

    fn step(&mut self, step: StepIx) -> Result<usize, String> {
        let name = self.rest.journal.steps.name(step);
        self.find(&name)
            .ok_or_else(|| format!("the saga has no step `{name}`"))
    }

    fn scope(&mut self, scope: Option<usize>) -> &mut Inside {
        self.scopes.entry(scope).or_default()
    }

    fn halt(&mut self, why: &str) {
        self.scope(None).halted = Some(why.to_owned());
    }

    fn durable_event(&mut self, event: &Event<StepIx>) -> Result<(), String> {
        match event.step() {
            Some(step) => {
                let at = self.step(step)?;
                self.step_event(at, event)
            }
            None => self.run_event(event),
        }
    }

    fn step_event(&mut self, at: usize, event: &Event<StepIx>) -> Result<(), String> {
        let inside = self.places.at(at).step().inside();
        match event {
            Event::StepStarted {
                key, round, items, ..
            } => {
                self.announced(at, key, *round)?;
                self.may_begin(at)?;
                if inside.is_some() {
                    self.opened(at, *round, *items);
                }
                self.begins(at)?;
            }
            Event::StepDone { .. }
            | Event::Probed {
                answer: Probed::Done(_),
                ..
            }
            | Event::Resolved {
                answer: Probed::Done(_),
                ..
            } => {
                self.is_done(at);
                if inside.is_some() {
                    self.is_whole(at)?;
                }
                if let Event::StepDone { asks: true, .. } = event {
                    // What it did a part of is put to the policy like a failure.
                    let scope = self.places.at(at).scope();
                    self.scope(scope).failed.push(at);
                }
            }
            Event::Skipped { .. } => {
                self.is_done(at);
                self.steps[at].skipped = true;
            }
            // Nothing is called for what only waits.
            Event::WaitBegan { .. } => self.steps[at].done = false,
            Event::WaitOver { failure: None, .. } => self.is_done(at),
            Event::WaitOver { .. } => self.fails(at),
            Event::StepFailed {
                retry_at: None,
                failure,
                ..
            } => {
                self.fails(at);
                let undone = failure.effect == FailedEffect::NotDone;
                if undone && inside.is_some_and(Graph::is_saga) {
                    self.nothing_inside(at, "a sub-saga that failed has undone itself")?;
                }
            }
            Event::PassedOver { .. } => {
                self.nothing_inside(at, "what was passed over was not called")?;
                self.is_done(at);
                self.steps[at].passed_over = true;
            }
            Event::Probed {
                answer: Probed::Never,
                ..
            }
            | Event::Resolved {
                answer: Probed::Never,
                ..
            } => self.steps[at].doubts = 0,
            Event::StepNotStarted { .. } => {
                self.steps[at].starts = 0;
                self.ends(at);
            }
            Event::StepInterrupted { .. } | Event::StepStopped { .. } => {
                self.ends(at);
                if let Event::StepStopped { .. } = event {
                    self.halt("a step asked to end the run");
                }
            }
            Event::UndoStarted { .. } => {
                match inside {
                    Some(_) => self.steps[at].undoing = true,
                    None => self.steps[at].undos += 1,
                }
                if self.steps[at].done {
                    self.undo_begins(at);
                }
                let scope = self.places.at(at).scope();
                self.scope(scope).undoing.insert(at);
                self.not_too_many(at)?;
            }
            Event::UndoNotStarted { .. } => {
                self.steps[at].undos = 0;
                self.undo_ends(at);
            }
            Event::UndoFailed { retry_at: None, .. } => {
                self.steps[at].undoing = false;
                self.undo_ends(at);
            }
            Event::Undone { .. } => {
                if let Some(undo) = self.undo_of(at).filter(|&undo| self.steps[undo].open) {
                    self.is_undone_as_a_whole(at, undo)?;
                }
                self.was_undone(at);
                let rule = match inside {
                    Some(_) => "what was undone is undone with all that is inside",
                    None => "none is forgotten",
                };
                self.nothing_inside(at, rule)?;
            }
            Event::MarkedCompensated { .. } => {
                self.was_undone(at);
                // By the operator's word: what the participant still holds is theirs to know.
                self.steps[at].standing.clear();
                self.steps[at].doubts = 0;
            }
            // The others change nothing that is watched.
            _ => {}
        }
        Ok(())
    }

    /// A key is made once, says whose it is, and is of the round (rule K1).
    fn announced(&mut self, at: usize, key: &str, round: u32) -> Result<(), String> {
        let (path, uid) = step_of(key);
        let (wanted, last) = (self.places.path(at), format!("/{round}"));
        if path != wanted || uid != self.uid || !key.ends_with(&last) {
            return Err(format!(
                "a key is run, path and round: {key} is that of round {round} of `{wanted}`"
            ));
        }
        if let Some(other) = self.keys.insert(key.to_owned(), at)
            && other != at
        {
            let (one, two) = (self.places.path(at), self.places.path(other));
            return Err(format!("`{one}` and `{two}` have one key: {key}"));
        }
        Ok(())
    }

    /// What is inside a step begins, begins again in a new round, or goes on.
    fn opened(&mut self, at: usize, round: u32, items: Option<u32>) {
        let anew = self.steps[at].round != round;
        let inside: Vec<usize> = self.places.inside(Some(at)).collect();
        for &step in inside.iter().filter(|_| anew) {
            let seen = &mut self.steps[step];
            (seen.done, seen.passed_over, seen.skipped) = (false, false, false);
        }
        for scope in inside.into_iter().chain([at]) {
            let scope = self.scope(Some(scope));
            scope.failed.clear();
            scope.under_way.clear();
            scope.halted = None;
        }
        let seen = &mut self.steps[at];
        seen.round = round;
        seen.open = true;
        seen.items = items.unwrap_or_default();
    }

    fn begins(&mut self, at: usize) -> Result<(), String> {
        let place = self.places.at(at).clone();
        let seen = &mut self.steps[at];
        (seen.done, seen.passed_over, seen.skipped) = (false, false, false);
        seen.absorbed = false;
        if place.step().inside().is_none() {
            seen.starts += 1;
        }
        let Gathering::Each { .. } = place.last().graph.gathers else {
            return Ok(());
        };
        let scope = place.scope();
        let items = scope.map_or(0, |scope| self.steps[scope].items);
        if place.last().step.0 >= items {
            return Err(format!("`{}` is item of a list of {items}", place.path));
        }
        self.scope(scope).under_way.insert(at);
        self.not_too_many(at)
    }

    /// No more items are under way, or being undone, than the list allows.
    fn not_too_many(&mut self, at: usize) -> Result<(), String> {
        let place = self.places.at(at);
        let Gathering::Each {
            parallel: Some(most),
            ..
        } = place.last().graph.gathers
        else {
            return Ok(());
        };
        let inside = self.scopes.entry(place.scope()).or_default();
        let under_way = inside.under_way.len().max(inside.undoing.len());
        if under_way > most as usize {
            let path = &place.path;
            return Err(format!(
                "at most {most} items are under way at once: `{path}` is one too many"
            ));
        }
        Ok(())
    }

    /// The step is not under way any more.
    fn ends(&mut self, at: usize) {
        let scope = self.places.at(at).scope();
        self.steps[at].open = false;
        self.scope(scope).under_way.remove(&at);
    }

    /// For good.
    fn fails(&mut self, at: usize) {
        self.ends(at);
        let scope = self.places.at(at).scope();
        self.scope(scope).failed.push(at);
    }

    fn is_done(&mut self, at: usize) {
        self.ends(at);
        let scope = self.places.at(at).scope();
        self.scope(scope).failed.retain(|&failed| failed != at);
        self.steps[at].done = true;
    }

    /// The number of what undoes a step as a whole, where there is something.
    fn undo_of(&mut self, at: usize) -> Option<usize> {
        let undo = self.places.undo(at);
        self.make_room();
        undo
    }

    /// What undoes a step as a whole begins, or goes on.
    fn undo_begins(&mut self, at: usize) {
        if let Some(undo) = self.undo_of(at) {
            self.steps[undo].open = true;
            let scopes: Vec<usize> = self.places.inside(Some(at)).collect();
            for scope in scopes.into_iter().chain([undo]) {
                let scope = self.scope(Some(scope));
                scope.failed.clear();
                scope.halted = None;
            }
        }
    }

    /// What a step has left is taken back by what was done to undo it, and both belong together.
    fn is_undone_as_a_whole(&mut self, at: usize, undo: usize) -> Result<(), String> {
        if let Some(graph) = self.places.graph(Some(undo)) {
            self.is_graph_whole(Some(undo), graph)?;
        }
        self.steps[undo].open = false;
        let inside: Vec<usize> = self.places.inside(Some(at)).collect();
        for step in inside {
            self.steps[step].standing.clear();
            self.steps[step].doubts = 0;
            if self.places.at(step).around.contains(&undo) {
                self.steps[step].done = false;
            }
        }
        Ok(())
    }

    fn undo_ends(&mut self, at: usize) {
        let scope = self.places.at(at).scope();
        self.scope(scope).undoing.remove(&at);
    }

    fn was_undone(&mut self, at: usize) {
        self.ends(at);
        self.undo_ends(at);
        let seen = &mut self.steps[at];
        (seen.done, seen.passed_over, seen.skipped) = (false, false, false);
        seen.undoing = false;
    }

    fn run_event(&mut self, event: &Event<StepIx>) -> Result<(), String> {
        match event {
            Event::Claimed { .. } => {
                // What another process announced, this one may not do.
                for at in 0..self.steps.len() {
                    (self.steps[at].starts, self.steps[at].undos) = (0, 0);
                    if self.places.at(at).step().inside().is_none() {
                        self.ends(at);
                        self.undo_ends(at);
                    }
                }
            }
            Event::Decided(decision) => self.decided(decision)?,
            Event::Paused { .. } => self.paused = true,
            Event::Resumed { .. } => self.paused = false,
            Event::AbandonRequested { .. } => {
                self.given_up = true;
                self.halt("the run was given up");
            }
            Event::CancelRequested { told, .. } if *told == CancelTold::TooLate => {}
            Event::CancelRequested { .. } => self.halt("the run is cancelled"),
            Event::CancelTooLate => self.scope(None).halted = None,
            Event::DeadlinePassed { past_pivot: false } => self.halt("the run's time is up"),
            Event::Parked(_) => {
                self.paused = false;
                self.halt("the run is parked");
            }
            Event::Ended(_) => self.halt("the run has ended"),
            // The others change nothing that is watched, or are about a step.
            _ => {}
        }
        Ok(())
    }

    fn decided(&mut self, decision: &Decision<StepIx>) -> Result<(), String> {
        let scope = match decision.scope {
            None => None,
            Some(step) => {
                let at = self.step(step)?;
                // While a step is undone as a whole, what is decided is about that.
                let undo = self.undo_of(at).filter(|&undo| self.steps[undo].open);
                Some(undo.unwrap_or(at))
            }
        };
        self.scope(scope).failed.clear();
        self.scope(scope).decided = true;
        if decision.cause == Cause::Absorbed {
            for &step in &decision.failed {
                let at = self.step(step)?;
                self.steps[at].absorbed = true;
            }
            return Ok(());
        }
        let halted = match decision.strategy {
            _ if decision.stop => Some("the run is to stop"),
            RecoveryStrategy::Compensate => Some("the run is being undone"),
            RecoveryStrategy::Manual => {
                // Whoever decided it, it is the whole run that is parked (rule N1).
                self.halt("the run is to be parked");
                return Ok(());
            }
            RecoveryStrategy::RetryFailed
            | RecoveryStrategy::RetryFromCheckpoint
            | RecoveryStrategy::RetryAll => None,
        };
        self.scope(scope).halted = halted.map(str::to_owned);
        if scope.is_none() {
            self.stops = decision.stop;
            // What is under way inside steps goes on with it.
            for inside in self.scopes.values_mut() {
                inside.failed.clear();
            }
        }
        Ok(())
    }

    pub(super) fn stands(&self, at: usize) -> bool {
        self.steps[at].standing.values().any(|times| *times > 0)
    }

    /// Whether rule `never` asserts that what failed left nothing.
    fn is_asserted(&self, at: usize) -> bool {
        self.places.at(at).step().undo_rule == UndoRule::Never
    }

    /// A dependent whose effect stands, and isn't assumed to be absent.
    fn standing_dependent(&self, at: usize) -> Option<&str> {
        (0..self.steps.len())
            .find(|&later| {
                self.stands(later) && !self.is_asserted(later) && self.places.depends(later, at)
            })
            .map(|later| self.places.path(later))
    }

    /// Inside this step, and of the step itself, nothing stands.
    pub(super) fn nothing_inside(&self, at: usize, rule: &str) -> Result<(), String> {
        let mut inside = self.places.inside(Some(at)).chain([at]);
        match inside.find(|&step| self.stands(step) && !self.is_asserted(step)) {
            None => Ok(()),
            Some(step) => Err(format!("{rule}: `{}` stands", self.places.path(step))),
        }
    }

    pub(super) fn happened(&mut self, event: &WorldEvent) -> Result<(), String> {
        let Some(at) = self.find(&event.step) else {
            return Err(format!("{event}, and the saga has no such step"));
        };
        if self.places.at(at).step().inside().is_some() {
            return Err(format!(
                "what has steps inside is never called itself: {event}"
            ));
        }
        let key = &event.key;
        match &event.what {
            Happened::Called => {
                self.called(at, event)?;
                self.steps[at].doubts += 1;
            }
            Happened::TookEffect => {
                let times = self.steps[at].standing.entry(key.clone()).or_insert(0);
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
                if let Some(times) = self.steps[at].standing.get_mut(key) {
                    *times = times.saturating_sub(1);
                }
                self.gone.insert(key.clone());
                self.steps[at].doubts = 0;
            }
            Happened::NothingToUndo => {
                self.gone.insert(key.clone());
                self.steps[at].doubts = 0;
            }
            Happened::Probed("never") => self.steps[at].doubts = 0,
            Happened::ToldNotDone | Happened::Refused => {
                let doubts = &mut self.steps[at].doubts;
                *doubts = doubts.saturating_sub(1);
            }
            Happened::Duplicate | Happened::Probed(_) | Happened::Looked => {}
        }
        Ok(())
    }

    fn called(&mut self, at: usize, event: &WorldEvent) -> Result<(), String> {
        if self.steps[at].starts == 0 || self.keys.get(&event.key) != Some(&at) {
            return Err(format!(
                "intent before effect: {event}, and no durable record announces this call"
            ));
        }
        self.steps[at].starts -= 1;
        if self.paused {
            return Err(format!("nothing starts in a pause: {event}"));
        }
        self.may_be_called(at, event)?;
        let step = self.places.at(at).step();
        if step.kind == StepKind::ReadOnly {
            return Ok(());
        }
        if let Some(dependent) = self.standing_dependent(at) {
            return Err(format!(
                "no step is executed again under what depends on it: {event}, and `{dependent}` stands"
            ));
        }
        let other = self.steps[at]
            .standing
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
        if step.at_most_once && self.steps[at].doubts > 0 {
            return Err(format!(
                "`at_most_once` in doubt is never executed again: {event}"
            ));
        }
        Ok(())
    }

    /// Whether all around the step has begun, and all before it is done.
    fn may_be_called(&mut self, at: usize, event: &WorldEvent) -> Result<(), String> {
        let place = self.places.at(at).clone();
        // What undoes a step is no part of what goes on around it.
        let outside = self.places.outside_of_undo(at);
        for (level, scope) in place.levels.iter().zip(place.scopes()).skip(outside) {
            if let Some(around) = scope.filter(|&around| !self.steps[around].open) {
                let around = self.places.path(around);
                return Err(format!(
                    "nothing inside starts on its own: {event}, and `{around}` isn't under way"
                ));
            }
            self.is_due(level.graph, scope, level.step, event)?;
        }
        Ok(())
    }

    /// Whether all that has to be done in a graph before a step of it is.
    fn is_due(
        &mut self,
        graph: &'a Graph,
        scope: Option<usize>,
        step: NodeIx,
        event: &WorldEvent,
    ) -> Result<(), String> {
        // A fallback's ways are in order, too, but there none has to succeed.
        let before = graph.step(step).dependencies.iter();
        for &before in before.filter(|_| graph.is_saga()) {
            let before = self.number(scope, graph, before);
            if !self.steps[before].done {
                let name = self.places.path(before);
                return Err(format!(
                    "result before dependents: {event}, and `{name}` has no durable result"
                ));
            }
        }
        if graph.gathers != Gathering::Fallback {
            return Ok(());
        }
        for way in (0..step.at()).map(NodeIx::new) {
            let before = self.number(scope, graph, way);
            if let Some(doubt) = self.unsettled_in(before) {
                return Err(format!(
                    "a way is settled before the next one is tried: {event}, and `{doubt}` isn't"
                ));
            }
        }
        Ok(())
    }

    /// Nothing begins where something has failed for good or was decided otherwise, and no way, nor anything
    /// inside one, once another is done.
    fn may_begin(&mut self, at: usize) -> Result<(), String> {
        let place = self.places.at(at).clone();
        let path = &place.path;
        let outside = self.places.outside_of_undo(at);
        for (level, scope) in place.levels.iter().zip(place.scopes()).skip(outside) {
            let graph = level.graph;
            let most = most_may_fail(graph, scope.map(|at| self.steps[at].items));
            let inside = self.scope(scope);
            if let Some(why) = &inside.halted {
                return Err(format!("nothing starts now: `{path}`, and {why}"));
            }
            if let Some(&failed) = inside.failed.get(most) {
                let failed = self.places.path(failed);
                return Err(format!(
                    "nothing starts after a failure for good: `{path}`, and `{failed}` has failed"
                ));
            }
            if !matches!(graph.gathers, Gathering::Fallback | Gathering::Race) {
                continue;
            }
            for way in (0..graph.steps.len()).map(NodeIx::new) {
                let other = self.number(scope, graph, way);
                if way != level.step && self.steps[other].done {
                    let name = self.places.path(other);
                    return Err(format!(
                        "one way is enough: `{path}` starts, and `{name}` is done"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A step in or at this one that may have left something.
    pub(super) fn unsettled_in(&self, at: usize) -> Option<&str> {
        let mut inside = self.places.inside(Some(at)).chain([at]);
        inside
            .find(|&step| {
                let called = self.places.at(step).step().kind != StepKind::ReadOnly;
                let left = self.stands(step) || self.steps[step].doubts > 0;
                called && left && !self.is_asserted(step)
            })
            .map(|step| self.places.path(step))
    }

    pub(super) fn number(&mut self, scope: Option<usize>, graph: &'a Graph, step: NodeIx) -> usize {
        let number = self.places.number(scope, graph, step);
        self.make_room();
        number
    }

    fn undo_called(&mut self, at: usize, event: &WorldEvent, undo_key: &str) -> Result<(), String> {
        if self.steps[at].undos == 0 {
            return Err(format!(
                "intent before undo: {event}, and no durable record announces this call"
            ));
        }
        self.steps[at].undos -= 1;
        if self.paused {
            return Err(format!("no undo starts in a pause: {event}"));
        }
        if self.given_up {
            return Err(format!(
                "no undo starts in a run that was given up: {event}"
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
        let place = self.places.at(at).clone();
        // Whose decision it is: that of the innermost graph that isn't undone as a whole.
        let mut around = place.around.as_slice();
        while let Some((last, outer)) = around.split_last()
            && self.steps[*last].undoing
        {
            around = outer;
        }
        let mut deciding = around.iter().copied().map(Some).chain([None]);
        if !deciding.any(|scope| self.scope(scope).decided) {
            return Err(format!(
                "the decision to unwind comes before the first undo: {event}"
            ));
        }
        for depth in around.len()..place.levels.len() {
            let level = place.levels[depth];
            let scope = depth.checked_sub(1).map(|above| place.around[above]);
            let Some(pivot) = level.graph.pivot else {
                continue;
            };
            // What is gone on without is settled past the pivot, too (rule E7).
            let inside = place.around[depth..].iter().chain([&at]);
            let without = inside.copied().any(|step| self.steps[step].absorbed);
            let pivot = self.number(scope, level.graph, pivot);
            let own = self.number(scope, level.graph, level.step);
            // A stop settles what is in doubt, past the pivot too (rule E7).
            let back = !self.stops && !without && (self.steps[own].done || own == pivot);
            if back && self.is_irrevocable(pivot) {
                return Err(format!("nothing goes back past the pivot: {event}"));
            }
        }
        Ok(())
    }

    /// Whether a pivot has left what can't be taken back: itself, or the point of no return inside it.
    fn is_irrevocable(&self, pivot: usize) -> bool {
        let step = self.places.at(pivot).step();
        if step.inside().is_none() {
            return self.stands(pivot);
        }
        self.places.inside(Some(pivot)).any(|at| {
            let step = self.places.at(at).step();
            let final_step = step.pivot || step.kind == StepKind::Irreversible;
            final_step && self.stands(at)
        })
    }
}

/// How many steps of a graph may fail for good while others still begin.
pub(super) fn most_may_fail(graph: &Graph, items: Option<u32>) -> usize {
    match graph.gathers {
        Gathering::Each {
            tolerate: Some(most),
            ..
        } => most.of(items.unwrap_or_default() as usize),
        Gathering::Race => graph.steps.len().saturating_sub(1),
        Gathering::Saga | Gathering::Fallback | Gathering::Each { tolerate: None, .. } => 0,
    }
}
