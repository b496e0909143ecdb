//! What is known of a run: the fold of its journal, with the queues that make deciding cheap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::failure::Failure;
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Decision, End, Parking, RunStarted, Standing};
use crate::machine::kept::Moment;
use crate::machine::scope::{EffectNow, NodeState, Phase, Scope, ScopeIx};
use crate::machine::signals::Signals;
use crate::saga::{Feed, Gathering, Graph, NodeIx, UNDO, undo_path};
use crate::step::{StepIx, StepTable, Value};

/// The state of one run.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) header: Arc<RunStarted>,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) fence: u64,
    /// Who started the run, or claimed it last.
    pub(crate) worker: Arc<str>,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) deadline_reported: bool,
    /// The saga itself, and all that has begun inside its steps.
    pub(super) scopes: Vec<Scope>,
    /// The names of all steps.
    pub(crate) table: StepTable,
    /// Where the steps are whose numbers come after those of the saga's own.
    pub(super) places: Vec<(ScopeIx, NodeIx)>,
    /// Scopes that are to be asked what they want; the last one first.
    pub(super) stirred: Vec<ScopeIx>,
    /// When scopes have something to do by themselves.
    pub(super) alarms: BTreeSet<(Timestamp, ScopeIx)>,
    /// Whether the deadline is to be put to the policy.
    pub(super) time_is_up: bool,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) stop: Option<String>,
    pub(crate) paused: Option<Paused>,
    /// Who gives the run up, and why: it ends as soon as nothing is in flight.
    pub(super) abandon: Option<(String, String)>,
    /// Tokens of the commands that are in the journal.
    pub(super) tokens: Vec<Arc<str>>,
    pub(super) signals: Signals,
    pub(crate) parked: Option<Parking>,
    pub(super) parked_at: Timestamp,
    /// How long the run has been parked or paused so far, but for what goes on now.
    pub(super) stood: Duration,
    /// Recoveries since an operator last had a word, of all scopes together (rule D6).
    pub(crate) recoveries: u32,
    pub(crate) recoveries_total: u32,
    /// The scope that made the last decision about something that went wrong.
    pub(super) decided_last: ScopeIx,
    pub(crate) compensations: Vec<Compensation>,
    /// The latest of what happened to the run as a whole.
    pub(crate) moments: VecDeque<Moment>,
    /// Names that steps had before a migration, with the last round of each: no other step comes to their keys.
    pub(super) retired: BTreeMap<Arc<str>, u32>,
    pub(crate) end: Option<End>,
}

/// A cancel that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) told: CancelTold,
    /// Whether it is still to be carried out.
    pub(crate) pending: bool,
}

/// A pause, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
}

/// One undo that has come to an end, in order.
#[derive(Clone, Debug)]
pub(crate) struct Compensation {
    pub(crate) step: StepIx,
    pub(crate) round: u32,
    pub(crate) attempts: u32,
    pub(crate) ended_at: Timestamp,
    pub(crate) took: Duration,
    /// What the effect was when it was undone.
    pub(crate) effect: EffectNow,
    /// Who said that it was undone, where no `compensate` did.
    pub(crate) by_hand: Option<String>,
    /// Nothing where it succeeded.
    pub(crate) failure: Option<Box<Failure>>,
}

/// A step of a run, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) scope: ScopeIx,
    pub(crate) step: NodeIx,
    /// The graph of its scope.
    pub(crate) graph: &'a Graph,
}

impl State {
    /// The state of a run of which nothing is known but its start.
    #[must_use]
    pub fn begin(graph: &Graph, started: &Arc<RunStarted>, at: Timestamp) -> Self {
        let mut root = Scope::begin(graph, graph.steps.len(), None, Arc::from(""));
        root.stirred = true;
        State {
            header: Arc::clone(started),
            started_at: at,
            ended_at: None,
            fence: 1,
            worker: Arc::clone(&started.worker),
            deadline: started.deadline,
            deadline_reported: false,
            scopes: vec![root],
            table: graph.table.of_run(),
            places: Vec::new(),
            stirred: vec![ScopeIx::ROOT],
            alarms: BTreeSet::new(),
            time_is_up: false,
            cancel: None,
            stop: None,
            paused: None,
            abandon: None,
            tokens: Vec::new(),
            signals: Signals::default(),
            parked: None,
            parked_at: at,
            stood: Duration::ZERO,
            recoveries: 0,
            recoveries_total: 0,
            decided_last: ScopeIx::ROOT,
            compensations: Vec::new(),
            moments: VecDeque::new(),
            retired: BTreeMap::new(),
            end: None,
        }
    }

    /// The last decision about something that went wrong, wherever it was made.
    pub(crate) fn last_decision(&self) -> Option<&Decision<StepIx>> {
        self.scope(self.decided_last).last_decision.as_deref()
    }

    pub(crate) fn root(&self) -> &Scope {
        &self.scopes[0]
    }

    pub(crate) fn scope(&self, scope: ScopeIx) -> &Scope {
        &self.scopes[scope.at()]
    }

    /// Where a step of the run is.
    pub(crate) fn whereabouts(&self, step: StepIx) -> (ScopeIx, NodeIx) {
        let own = self.scopes[0].nodes.len();
        match step.at().checked_sub(own) {
            None => (ScopeIx::ROOT, NodeIx(step.0)),
            // What a journal of another graph would name is undefined, and must not panic.
            Some(at) => self
                .places
                .get(at)
                .copied()
                .unwrap_or((ScopeIx::ROOT, NodeIx(0))),
        }
    }

    pub(crate) fn place<'a>(&self, graph: &'a Graph, step: StepIx) -> Place<'a> {
        let (scope, step) = self.whereabouts(step);
        let graph = self.graph_of(graph, scope);
        Place { scope, step, graph }
    }

    /// The graph of a scope, in the graph of the saga.
    pub(crate) fn graph_of<'a>(&self, root: &'a Graph, scope: ScopeIx) -> &'a Graph {
        match self.scope(scope).inside {
            None => root,
            Some((around, step)) => self.graph_inside(root, scope, around, step),
        }
    }

    /// Apart from the above, so that a flat saga pays for no call.
    fn graph_inside<'a>(
        &self,
        root: &'a Graph,
        scope: ScopeIx,
        around: ScopeIx,
        step: NodeIx,
    ) -> &'a Graph {
        let around = self.graph_of(root, around);
        let step = around.step(step);
        let own = if self.scope(scope).undoes {
            step.undone_by()
        } else {
            step.inside()
        };
        own.unwrap_or(around)
    }

    /// The step with this path, if the run has it by now.
    pub(crate) fn step_named(&self, root: &Graph, path: &str) -> Option<StepIx> {
        let mut ix = ScopeIx::ROOT;
        let mut found = None;
        let mut undo = false;
        for part in path.split('/') {
            if let Some(step) = found {
                let node = self.scope(ix).seen(step);
                ix = if undo { node.undoer? } else { node.child? };
            }
            let (part, undoes) = match part.strip_suffix(UNDO) {
                Some(part) => (part, true),
                None => (part, false),
            };
            undo = undoes;
            let (name, item) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((name, item)) => (name, Some(item.parse::<u32>().ok()?)),
                None => (part, None),
            };
            let of_items = |ix| matches!(self.graph_of(root, ix).gathers, Gathering::Each { .. });
            // Items have no names.
            (!of_items(ix)).then_some(())?;
            let mut step = self.graph_of(root, ix).step_named(name)?;
            if let Some(item) = item {
                ix = self.scope(ix).seen(step).child?;
                of_items(ix).then_some(())?;
                step = NodeIx(item);
            }
            (step.at() < self.scope(ix).nodes.len()).then_some(())?;
            found = Some(step);
        }
        found
            .filter(|_| !undo)
            .map(|step| self.scope(ix).number(step))
    }

    /// What undoes a step as a whole begins, begins again, or goes on.
    pub(super) fn open_undo(&mut self, root: &Graph, place: Place<'_>, undo: &Graph) {
        let node = self.scope(place.scope).seen(place.step);
        let (undoer, round) = (node.undoer, node.round);
        let ix = match undoer {
            None => {
                let ix = ScopeIx(u32::try_from(self.scopes.len()).unwrap_or(u32::MAX));
                let around = self.scope(place.scope);
                let path = Arc::from(undo_path(&place.graph.path(&around.path, place.step)));
                let around = Some((place.scope, place.step));
                let mut scope = Scope::begin(undo, undo.steps.len(), around, path);
                scope.undoes = true;
                self.scopes.push(scope);
                self.scopes[place.scope.at()].nodes[place.step.at()].undoer = Some(ix);
                ix
            }
            Some(ix) if self.scope(ix).round == round && self.scope(ix).phase != Phase::Ended => {
                self.scopes[ix.at()].retry_failed(undo, None);
                ix
            }
            Some(ix) => {
                self.scopes[ix.at()].begin_again(undo, undo.steps.len());
                ix
            }
        };
        self.scopes[ix.at()].round = round;
        self.number(undo, ix);
        self.after(root, ix);
    }

    /// The steps inside a step begin, begin again, or go on.
    pub(super) fn open(
        &mut self,
        root: &Graph,
        place: Place<'_>,
        inside: &Graph,
        items: Option<u32>,
        at: Timestamp,
    ) {
        let steps = match (inside.gathers, items) {
            (Gathering::Each { .. }, Some(items)) => items as usize,
            // Its list could not be made: the failure follows.
            (Gathering::Each { .. }, None) => return,
            _ => inside.steps.len(),
        };
        let node = self.scope(place.scope).seen(place.step);
        let (child, round) = (node.child, node.round);
        let ix = match child {
            None => {
                let ix = ScopeIx(u32::try_from(self.scopes.len()).unwrap_or(u32::MAX));
                let around = self.scope(place.scope);
                let path = Arc::from(place.graph.path(&around.path, place.step));
                let around = Some((place.scope, place.step));
                self.scopes.push(Scope::begin(inside, steps, around, path));
                self.scopes[place.scope.at()].nodes[place.step.at()].child = Some(ix);
                ix
            }
            Some(ix) if self.scope(ix).round == round => {
                self.scopes[ix.at()].retry_failed(inside, None);
                ix
            }
            Some(ix) => {
                self.scopes[ix.at()].begin_again(inside, steps);
                ix
            }
        };
        self.scopes[ix.at()].round = round;
        self.scopes[ix.at()].deadline = inside.deadline.map(|limit| at.after(limit));
        self.number(inside, ix);
        self.pass_retired_rounds(inside, ix);
        self.after(root, ix);
    }

    /// Gives numbers to steps that have none.
    fn number(&mut self, inside: &Graph, ix: ScopeIx) {
        let scope = &self.scopes[ix.at()];
        let (from, to) = (scope.numbers.len(), scope.nodes.len());
        if from >= to {
            return;
        }
        let path = Arc::clone(&scope.path);
        let new = (from..to).map(NodeIx::new);
        let names = new.clone().map(|step| Arc::from(inside.path(&path, step)));
        let first = self.table.grow(names).0;
        let new_places = new.clone().map(|step| (ix, step));
        self.places.extend(new_places);
        let numbers = new.zip(first..).map(|(_, number)| StepIx(number));
        self.scopes[ix.at()].numbers.extend(numbers);
    }

    /// The step's place among all steps of its definition: see [`Graph::all_steps`].
    pub(crate) fn place_in_definition(&self, root: &Graph, step: StepIx) -> usize {
        let (ix, step) = self.whereabouts(step);
        self.definition_place(root, ix, step)
    }

    fn definition_place(&self, root: &Graph, ix: ScopeIx, step: NodeIx) -> usize {
        let graph = self.graph_of(root, ix);
        let place = match graph.gathers {
            Gathering::Each { .. } => 0,
            _ => graph
                .places
                .get(step.at())
                .map_or(0, |place| *place as usize),
        };
        let Some((around, outer)) = self.scope(ix).inside else {
            return place;
        };
        let before = if self.scope(ix).undoes {
            let inside = self.graph_of(root, around).step(outer).inside();
            inside.map_or(0, |inside| inside.size() as usize)
        } else {
            0
        };
        self.definition_place(root, around, outer) + 1 + before + place
    }

    /// One step's part of the state.
    pub(crate) fn node(&self, step: StepIx) -> &NodeState {
        let (scope, step) = self.whereabouts(step);
        self.scope(scope).seen(step)
    }

    /// The step that this one is inside of.
    pub(crate) fn step_around(&self, step: StepIx) -> Option<StepIx> {
        let (scope, _) = self.whereabouts(step);
        let (around, outer) = self.scope(scope).inside?;
        Some(self.scope(around).number(outer))
    }

    /// The scopes around this one, from the inside out; itself not among them.
    pub(super) fn around(&self, scope: ScopeIx) -> impl Iterator<Item = (ScopeIx, NodeIx)> {
        std::iter::successors(self.scope(scope).inside, |(around, _)| {
            self.scope(*around).inside
        })
    }

    /// Whether the scope, or one around it, has undone the step that it belongs to.
    pub(crate) fn is_inside_of_what_has_undone(&self, scope: ScopeIx) -> bool {
        let around = self.around(scope).map(|(around, _)| around);
        let mut scopes = std::iter::once(scope).chain(around);
        scopes.any(|scope| self.scope(scope).has_undone())
    }

    /// The same as far as the scope goes forward or back with them: what undoes a step goes its own way,
    /// whatever the scopes around it do.
    pub(super) fn around_in_step(&self, scope: ScopeIx) -> impl Iterator<Item = (ScopeIx, NodeIx)> {
        let inside = |ix: ScopeIx| {
            let scope = self.scope(ix);
            scope.inside.filter(|_| !scope.undoes)
        };
        std::iter::successors(inside(scope), move |(around, _)| inside(*around))
    }

    /// Whether the pivot is done or in doubt (rule D4).
    #[must_use]
    pub fn is_past_pivot(&self, graph: &Graph) -> bool {
        self.root().is_past_pivot(graph)
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.root().phase == Phase::Ended
    }

    /// Whether the run waits for an operator.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.root().phase == Phase::Parked
    }

    /// Whether the run is to be parked by what was folded last.
    pub(crate) fn is_to_be_parked(&self) -> bool {
        self.root().park_wanted.is_some()
    }

    /// Whether an operator paused the run.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether a step's future, or a probe's, is under way.
    #[must_use]
    pub fn has_in_flight(&self) -> bool {
        self.root().has_in_flight()
    }

    /// The run's fencing token.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How the run stands, for the store's list. `until` is what [`decide`](Self::decide) waits for.
    #[must_use]
    pub fn standing(&self, until: Option<Timestamp>) -> Standing {
        match (&self.end, self.root().phase, until) {
            (Some(End::Completed { .. }), ..) => Standing::Completed,
            (Some(End::Compensated), ..) => Standing::Compensated,
            (Some(End::Stopped { .. }), ..) => Standing::Stopped,
            (Some(End::Abandoned { .. }), ..) => Standing::Abandoned,
            (None, Phase::Parked, _) => Standing::Parked,
            (None, ..) if self.paused.is_some() && !self.has_in_flight() => Standing::Paused,
            (None, _, Some(until)) if !self.has_in_flight() => Standing::Waiting { until },
            (None, ..) => Standing::Running,
        }
    }

    /// When a run goes on in which nothing is under way and nothing may start: it only waits.
    pub(crate) fn rests_until(&self, root: &Graph) -> Option<Timestamp> {
        let rests = |ix: ScopeIx| match self.scope(ix).phase {
            Phase::Forward { .. } => {
                let full = self.scope(ix).is_full(self.graph_of(root, ix));
                let nothing = self.scope(ix).next_ready().is_none() || full;
                nothing && self.next_answered(ix).is_none()
            }
            Phase::Ended => true,
            Phase::Draining | Phase::Unwinding | Phase::Parked => false,
        };
        if self.has_in_flight() || !self.is_awaiting() {
            return None;
        }
        let mut all =
            (0..self.scopes.len()).map(|ix| ScopeIx(u32::try_from(ix).unwrap_or(u32::MAX)));
        if !all.all(rests) {
            return None;
        }
        let timers = self.scopes.iter().filter_map(|scope| scope.timers.first());
        Some(
            timers
                .map(|(until, _)| *until)
                .min()
                .unwrap_or(Timestamp::NEVER),
        )
    }

    /// Where jitter for a step comes from: the same in every process (FNV-1a over uid and path).
    pub(super) fn seed(&self, step: StepIx) -> u64 {
        let path = self.table.name(step);
        let bytes = self.header.uid.bytes().chain(path.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// What the wiring of a scope's steps reads from. `input` is the scope's: for the saga, the run's.
    pub(crate) fn feed<'a>(&'a self, scope: ScopeIx, input: &'a Value) -> ScopeFeed<'a> {
        ScopeFeed {
            scope: self.scope(scope),
            input,
        }
    }
}

/// The values that a scope's steps are fed with.
pub(crate) struct ScopeFeed<'a> {
    scope: &'a Scope,
    input: &'a Value,
}

impl Feed for ScopeFeed<'_> {
    fn input(&self) -> &Value {
        self.input
    }

    fn output(&self, step: NodeIx) -> Option<&Value> {
        self.scope
            .nodes
            .get(step.at())
            .and_then(|node| node.output.as_ref())
    }
}
