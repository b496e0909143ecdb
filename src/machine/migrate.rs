//! A run that goes on with another definition: which ones may, and what becomes of the state.
//!
//! Steps keep all that is known of them, under their new names: rounds, keys, outputs, calls. What the
//! fold needs beyond that (which steps are ready, which are left to be taken up) is made anew from the new
//! graph. All of it is derived from the two definitions and the event, so a replay comes to the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::Arc;

use crate::journal::{Migrated, StepMoves};
use crate::machine::scope::{
    EffectNow, NodeState, Phase, Scope, ScopeIx, Status, Told, UndoStatus,
};
use crate::machine::state::State;
use crate::saga::{
    Form, Gathering, Graph, GraphStep, NodeIx, StepKind, escape, unwired_name, wired_name,
};
use crate::step::StepIx;

/// The graph of the definition before, with what outlines don't tell (retries, probes, the order of undos)
/// as the definition after has it: as it would be if only that had been changed.
pub(crate) fn graph_before(migrated: &Migrated, after: &Graph) -> Graph {
    let mut graph = migrated.from.to_graph();
    let copy = graph.clone();
    settle_as(&mut graph, &Move::of_sagas(&copy, after, &migrated.steps));
    graph
}

fn settle_as(graph: &mut Graph, moved: &Move<'_>) {
    graph.siblings = moved.new.siblings;
    graph.undo_order = moved.new.undo_order;
    graph.on_stop = moved.new.on_stop;
    graph.policy = moved.new.policy.clone();
    graph.gathers = moved.new.gathers;
    for (index, step) in graph.steps.iter_mut().enumerate() {
        let step_ix = NodeIx::new(index);
        step.escaped = escape(&step.name);
        let Some(now) = moved.to(step_ix) else {
            continue;
        };
        if let (Form::Inside(inside), Some(moved)) = (&mut step.form, moved.inside(step_ix, now)) {
            settle_as(Arc::make_mut(inside), &moved);
        }
        let now = moved.new.step(now);
        if let Form::Wait { .. } = now.form {
            step.form = now.form.clone();
        }
        step.atomic = now.atomic;
        step.at_most_once = now.at_most_once;
        step.undo_rule = now.undo_rule;
        step.probed = now.probed;
        step.retry = now.retry.clone();
        step.undo_retry = now.undo_retry.clone();
        step.timeout = now.timeout;
        step.undo_timeout = now.undo_timeout;
        step.max_in_flight = now.max_in_flight;
        step.max_in_flight_in_fleet = now.max_in_flight_in_fleet;
    }
}

/// Two definitions of one scope, and where the steps of the first went.
struct Move<'a> {
    old: &'a Graph,
    new: &'a Graph,
    moves: &'a StepMoves,
    /// The path of the step that they are the inside of, in the old definition and in the new one: empty for
    /// a saga itself. All items of a fan-out are one in it.
    at: String,
    now_at: String,
    /// The new number of each old step, and the other way round; of a fan-out, items keep their numbers.
    to: Vec<Option<NodeIx>>,
    from: Vec<Option<NodeIx>>,
}

impl<'a> Move<'a> {
    fn of_sagas(old: &'a Graph, new: &'a Graph, moves: &'a StepMoves) -> Self {
        Move::new(old, new, moves, String::new(), String::new())
    }

    fn new(
        old: &'a Graph,
        new: &'a Graph,
        moves: &'a StepMoves,
        at: String,
        now_at: String,
    ) -> Self {
        let counterpart = |step: &GraphStep| {
            let name = moves.name_inside(&at, &now_at, &step.name)?;
            let now = new.step_named(&name)?;
            is_of_one_form(step, new.step(now)).then_some(now)
        };
        let to: Vec<Option<NodeIx>> = match old.gathers {
            Gathering::Each { .. } => Vec::new(),
            _ => old.steps.iter().map(counterpart).collect(),
        };
        let mut from = vec![None; new.steps.len()];
        for (index, to) in to.iter().enumerate() {
            if let Some(to) = to {
                from[to.at()] = Some(NodeIx::new(index));
            }
        }
        Move {
            old,
            new,
            moves,
            at,
            now_at,
            to,
            from,
        }
    }

    fn is_fan_out(&self) -> bool {
        matches!(self.old.gathers, Gathering::Each { .. })
    }

    fn to(&self, step: NodeIx) -> Option<NodeIx> {
        if self.is_fan_out() {
            let one_form = is_of_one_form(self.old.step(step), self.new.step(step));
            return one_form.then_some(step);
        }
        self.to.get(step.at()).copied().flatten()
    }

    fn from(&self, step: NodeIx) -> Option<NodeIx> {
        if self.is_fan_out() {
            return self.to(step);
        }
        self.from.get(step.at()).copied().flatten()
    }

    /// The same for the steps inside a step and its counterpart.
    fn inside(&self, step: NodeIx, now: NodeIx) -> Option<Move<'a>> {
        let (old, new) = (self.old.step(step), self.new.step(now));
        let (old, new) = (old.inside()?, new.inside()?);
        let at = path_in_definition(self.old, &self.at, step);
        let now_at = path_in_definition(self.new, &self.now_at, now);
        Some(Move::new(old, new, self.moves, at, now_at))
    }

    /// Whether a step's input comes from where it came from.
    fn is_wired_as_before(&self, old: NodeIx, new: NodeIx) -> bool {
        let (old, new) = (&self.old.step(old).wired, &self.new.step(new).wired);
        let as_now = old.iter().map(|wired| self.rewired(wired));
        as_now.eq(new.iter().map(|wired| Some(wired.clone())))
    }

    /// How an input would be described if the steps that it comes from had their new names.
    fn rewired(&self, wired: &str) -> Option<String> {
        let (mapped, name) = match wired
            .strip_prefix("map(")
            .and_then(|of| of.strip_suffix(')'))
        {
            Some(name) => (true, name),
            None => (false, wired),
        };
        let name = match name {
            "input" => "input".to_owned(),
            name => {
                let name = unwired_name(name);
                wired_name(&self.moves.name_inside(&self.at, &self.now_at, &name)?)
            }
        };
        Some(if mapped { format!("map({name})") } else { name })
    }
}

/// Whether both are calls, or waits of one kind, or hold steps that are the same to each other.
fn is_of_one_form(one: &GraphStep, other: &GraphStep) -> bool {
    match (&one.form, &other.form) {
        (Form::Call, Form::Call) => true,
        (Form::Inside(one), Form::Inside(other)) => {
            discriminant(&one.gathers) == discriminant(&other.gathers)
        }
        (Form::Wait { signal, .. }, Form::Wait { signal: other, .. }) => signal == other,
        (Form::Call | Form::Inside(_) | Form::Wait { .. }, _) => false,
    }
}

fn path_in_definition(graph: &Graph, around: &str, step: NodeIx) -> String {
    match graph.gathers {
        Gathering::Each { .. } => format!("{around}[]"),
        _ => graph.path(around, step),
    }
}

/// All steps that depend on this one, directly or not.
fn descendants(graph: &Graph, step: NodeIx) -> BTreeSet<NodeIx> {
    let (mut found, mut open) = (BTreeSet::new(), vec![step]);
    while let Some(step) = open.pop() {
        let dependents = graph.step(step).dependents.iter();
        open.extend(dependents.copied().filter(|after| found.insert(*after)));
    }
    found
}

/// How a step stands, in words.
fn in_words(node: &NodeState) -> &'static str {
    match (node.status, node.effect) {
        (Status::Done, _) | (_, EffectNow::Done) => "is done",
        (_, EffectNow::InDoubt) if node.child.is_some() => "is under way",
        (_, EffectNow::InDoubt) => "is in doubt",
        (_, EffectNow::NotDone) => "was called and is to be undone whatever it said",
    }
}

/// The judgement on one scope: the old state of it, and the path that it has in the new definition.
struct Judged<'a, 'b> {
    state: &'a State,
    scope: &'a Scope,
    moved: &'a Move<'b>,
    now_path: &'a str,
    against: &'a mut Vec<String>,
}

impl Judged<'_, '_> {
    fn was(&self, step: NodeIx) -> String {
        self.scope.name(self.moved.old, step)
    }

    fn is(&self, step: NodeIx) -> String {
        self.moved.new.path(self.now_path, step)
    }

    fn stands(&self, step: NodeIx) -> bool {
        self.scope.stands(self.moved.old, step)
    }

    fn judge(&mut self, used: &BTreeMap<Arc<str>, u32>) {
        let stand: Vec<NodeIx> = self
            .scope
            .steps()
            .filter(|&step| self.stands(step))
            .collect();
        for &step in &stand {
            let lost = self.loses_its_undo(step);
            self.against.extend(lost);
        }
        self.orders_that_are_lost(&stand);
        for step in self.scope.steps() {
            let Some(now) = self.moved.to(step) else {
                continue;
            };
            let late = self.comes_too_late(step, now);
            self.against.extend(late);
            let passed_over = self.was_passed_over(step, now);
            self.against.extend(passed_over);
        }
        for step in self.scope.steps() {
            if self.scope.seen(step).undoer.is_some() {
                self.against.push(format!(
                    "`{}` is, or has been, undone by a saga of its own, whose rounds would be lost",
                    self.was(step)
                ));
            }
        }
        if self.moved.old.is_saga() {
            let pivot = self.moves_the_pivot();
            self.against.extend(pivot);
        }
        for step in self.scope.steps() {
            let again = self.would_use_keys_again(used, step);
            self.against.extend(again);
        }
        for step in self.scope.steps() {
            let now = self.moved.to(step);
            let moved = now.and_then(|now| self.moved.inside(step, now));
            if let (Some(now), Some(moved), Some(child)) = (now, moved, self.scope.seen(step).child)
            {
                let now_path = self.is(now);
                let mut inside = Judged {
                    state: self.state,
                    scope: self.state.scope(child),
                    moved: &moved,
                    now_path: &now_path,
                    against: self.against,
                };
                inside.judge(used);
                let unfinished = inside.is_done_without(self.scope.seen(step), &now_path);
                self.against.extend(unfinished);
            }
        }
    }

    fn loses_its_undo(&self, step: NodeIx) -> Option<String> {
        let (was, node) = (self.moved.old.step(step), self.scope.seen(step));
        let (name, stands) = (self.was(step), in_words(node));
        let Some(now) = self.moved.to(step) else {
            let named = self.moved.moves.new_name(&name);
            let other = named.and_then(|path| {
                let last = path.rsplit('/').next()?.to_owned();
                self.moved.new.step_named(&last)
            });
            return Some(match other {
                Some(_) if !self.moved.is_fan_out() => {
                    format!("`{name}` {stands}, and is of another form now: nothing would undo it")
                }
                _ => format!("`{name}` {stands}, and has no counterpart: nothing would undo it"),
            });
        };
        let is = self.moved.new.step(now);
        let undone = match (was.kind, is.kind) {
            (_, StepKind::Compensatable) | (StepKind::Irreversible, StepKind::Irreversible) => true,
            (_, StepKind::ReadOnly | StepKind::Irreversible) => false,
        };
        if !undone {
            return Some(format!(
                "`{name}` {stands}, and `{}` is {}: nothing would undo it",
                self.is(now),
                is.kind
            ));
        }
        // What an operator wrote down comes from nowhere else.
        let same = node.edited.is_some() || self.moved.is_wired_as_before(step, now);
        (!same).then(|| {
            format!(
                "`{name}` {stands}, its input was ({}), and that of `{}` is ({}): it would not be undone, or called \
                 again, with what it was called with",
                was.wired.join(", "),
                self.is(now),
                is.wired.join(", ")
            )
        })
    }

    /// Effects are undone in the reverse of the order in which they depend on each other (rule U1): all of
    /// it has to be there in the new definition.
    fn orders_that_are_lost(&mut self, stand: &[NodeIx]) {
        if self.moved.is_fan_out() {
            // Items depend on nothing but the list.
            return;
        }
        for &before in stand {
            let Some(before_now) = self.moved.to(before) else {
                continue;
            };
            let was = descendants(self.moved.old, before);
            let is = descendants(self.moved.new, before_now);
            for &after in stand.iter().filter(|after| was.contains(after)) {
                let Some(after_now) = self.moved.to(after) else {
                    continue;
                };
                if !is.contains(&after_now) {
                    self.against.push(format!(
                        "`{}` came after `{}`, and `{}` doesn't come after `{}`: they would be undone in another order",
                        self.was(after),
                        self.was(before),
                        self.is(after_now),
                        self.is(before_now)
                    ));
                }
            }
        }
    }

    /// Nothing is executed under what was done after it (rule S3).
    fn comes_too_late(&self, step: NodeIx, now: NodeIx) -> Option<String> {
        let node = self.scope.seen(step);
        if node.status != Status::Done && !self.stands(step) {
            return None;
        }
        let done = |before: &NodeIx| {
            let was = self.moved.from(*before);
            was.is_some_and(|was| self.scope.seen(was).status == Status::Done)
        };
        // Where it was so before, while a run is being undone, it may be so after.
        let was_before = |before: &NodeIx| {
            let was = self.moved.from(*before);
            was.is_some_and(|was| self.moved.old.step(step).dependencies.contains(&was))
        };
        let mut before = self.moved.new.step(now).dependencies.iter();
        let missing = before.find(|before| !done(before) && !was_before(before))?;
        Some(format!(
            "`{}` {}, and `{}` comes after `{}`, which is not done",
            self.was(step),
            in_words(node),
            self.is(now),
            self.is(*missing)
        ))
    }

    /// What was spared gave nothing, which only those who expect that can read.
    fn was_passed_over(&self, step: NodeIx, now: NodeIx) -> Option<String> {
        let spared = self.scope.seen(step).passed_over && !self.moved.new.step(now).conditional;
        spared.then(|| {
            format!(
                "`{}` was spared by its condition, and `{}` has none: what depends on it would get no output",
                self.was(step),
                self.is(now)
            )
        })
    }

    /// What is done is not done again because there is more inside of it now.
    fn is_done_without(&self, around: &NodeState, now_path: &str) -> Option<String> {
        if around.status != Status::Done || self.moved.is_fan_out() || !self.moved.new.is_saga() {
            return None;
        }
        let mut steps = (0..self.moved.new.steps.len()).map(NodeIx::new);
        let new = steps.find(|&step| self.moved.from(step).is_none())?;
        Some(format!(
            "`{}` is done, and `{}` inside `{now_path}` is new",
            self.scope.path,
            self.is(new)
        ))
    }

    /// The point of no return stays where it is, once there is something on its other side (rule D4).
    fn moves_the_pivot(&self) -> Option<String> {
        let (old, new) = (self.moved.old, self.moved.new);
        let same = match (old.pivot, new.pivot) {
            (None, None) => true,
            (Some(was), is) => is.is_some() && self.moved.to(was) == is,
            (None, Some(_)) => false,
        };
        if same {
            return None;
        }
        if self.scope.is_past_pivot(old) {
            let or_none = |pivot: Option<String>| {
                pivot.map_or_else(|| "none".to_owned(), |pivot| format!("`{pivot}`"))
            };
            return Some(format!(
                "the run is past its pivot {}, and the pivot is {}",
                or_none(old.pivot.map(|pivot| self.was(pivot))),
                or_none(new.pivot.map(|pivot| self.is(pivot)))
            ));
        }
        let pivot = new.pivot?;
        let was = self.moved.from(pivot)?;
        let node = self.scope.seen(was);
        (node.effect != EffectNow::NotDone).then(|| {
            format!(
                "`{}` {}, and `{}` is the pivot: nothing could go back any more",
                self.was(was),
                in_words(node),
                self.is(pivot)
            )
        })
    }

    /// A key is made of the step's name and its round: a step that takes over a name must not come to a
    /// round in which another had it (rules K1, K2).
    fn would_use_keys_again(&self, used: &BTreeMap<Arc<str>, u32>, step: NodeIx) -> Option<String> {
        let now = self.is(self.moved.to(step)?);
        let node = self.scope.seen(step);
        if self.was(step) == now || node.key.is_none() {
            return None;
        }
        let used = *used.get(now.as_str())?;
        (used > node.round).then(|| {
            format!(
                "`{now}` was the name of another step, up to round {used}: the keys of `{}` would come to be the same",
                self.was(step)
            )
        })
    }
}

impl State {
    /// Why the run can't go on with the new definition: all that stands in the way, in words.
    pub(crate) fn against_migration(
        &self,
        old: &Graph,
        new: &Graph,
        moves: &StepMoves,
    ) -> Vec<String> {
        let between = Move::of_sagas(old, new, moves);
        let mut used = self.retired.clone();
        self.retire(ScopeIx::ROOT, old, Some((&between, "")), &mut used);
        let mut against = Vec::new();
        let mut judged = Judged {
            state: self,
            scope: self.root(),
            moved: &between,
            now_path: "",
            against: &mut against,
        };
        judged.judge(&used);
        against
    }

    /// Notes the last round of each name that belongs to no step any more, or to another one.
    fn retire(
        &self,
        ix: ScopeIx,
        old: &Graph,
        moved: Option<(&Move<'_>, &str)>,
        used: &mut BTreeMap<Arc<str>, u32>,
    ) {
        let scope = self.scope(ix);
        let items = scope.nodes.iter().chain(scope.spare.iter().rev());
        for (index, node) in items.enumerate() {
            let step = NodeIx::new(index);
            let name = scope.name(old, step);
            let now = moved.and_then(|(moved, path)| {
                let now = moved.to(step)?;
                Some((now, moved.new.path(path, now)))
            });
            if now.as_ref().map(|(_, path)| path) != Some(&name) {
                let begun = node.key.is_some() || node.round_attempts > 0;
                let last = if begun { node.round } else { node.round - 1 };
                if last > 0 {
                    let known = used.entry(Arc::from(name)).or_default();
                    *known = last.max(*known);
                }
            }
            if let (Some(child), Some(inside)) = (node.child, old.step(step).inside()) {
                let further = moved.zip(now);
                let further = further
                    .and_then(|((moved, _), (now, path))| Some((moved.inside(step, now)?, path)));
                let further = further.as_ref().map(|(moved, path)| (moved, path.as_str()));
                self.retire(child, inside, further, used);
            }
        }
    }

    /// The state under the new definition.
    pub(crate) fn migrated(mut self, old: &Graph, new: &Graph, migrated: &Migrated) -> State {
        let moved = Move::of_sagas(old, new, &migrated.steps);
        let mut retired = std::mem::take(&mut self.retired);
        self.retire(ScopeIx::ROOT, old, Some((&moved, "")), &mut retired);
        self.retired = retired;
        self.make_keys(old);
        let header = Arc::make_mut(&mut self.header);
        header.version = migrated.version;
        header.fingerprint = Arc::from(&*migrated.fingerprint);
        let scopes = std::mem::take(&mut self.scopes).into_iter().map(Some);
        let mut carried = Carried {
            left: scopes.collect(),
            scopes: Vec::new(),
            numbers: Vec::new(),
            whither: HashMap::new(),
        };
        carried.carry(ScopeIx::ROOT, &moved, None, &Arc::from(""));
        let Carried {
            scopes,
            numbers,
            whither,
            ..
        } = carried;
        self.scopes = scopes;
        self.number_all(new);
        let number = |(ix, step): (ScopeIx, NodeIx)| self.scope(ix).number(step);
        let numbers: HashMap<StepIx, StepIx> = numbers
            .into_iter()
            .map(|(before, now)| (before, number(now)))
            .collect();
        self.compensations.retain_mut(|compensation| {
            let now = numbers.get(&compensation.step);
            compensation.step = now.copied().unwrap_or(compensation.step);
            now.is_some()
        });
        for scope in &mut self.scopes {
            if let Some(decision) = scope.last_decision.as_mut().map(Arc::make_mut) {
                let failed = decision.failed.iter();
                decision.failed = failed
                    .filter_map(|step| numbers.get(step).copied())
                    .collect();
                decision.scope = decision.scope.and_then(|step| numbers.get(&step).copied());
            }
        }
        let decided_last = whither.get(&self.decided_last).copied();
        self.decided_last = decided_last.unwrap_or(ScopeIx::ROOT);
        self.alarms.clear();
        self.stirred.clear();
        self.signals.rename(&migrated.steps);
        for ix in (0..self.scopes.len()).map(scope_ix) {
            let inside = self.graph_of(new, ix);
            self.pass_retired_rounds(inside, ix);
            self.scopes[ix.at()].line_up(inside);
            self.line_up_answers(ix);
        }
        for ix in (0..self.scopes.len()).map(scope_ix).rev() {
            self.after(new, ix);
        }
        // Whoever lets the run go on answers for all of it.
        self.root_mut().park_wanted = None;
        self
    }

    /// A key is made once, with the name that it was made of (rule K1): of what was skipped, now at the latest.
    fn make_keys(&mut self, old: &Graph) {
        for ix in (0..self.scopes.len()).map(scope_ix) {
            let graph = self.graph_of(old, ix);
            for step in self.scope(ix).steps() {
                let scope = self.scope(ix);
                if scope.stands(graph, step) && scope.seen(step).key.is_none() {
                    let key = self.effect_key(old, scope.number(step));
                    self.scopes[ix.at()].node(step).key = Some(key);
                }
            }
        }
    }

    /// Gives numbers to all steps, in the order of their scopes.
    fn number_all(&mut self, new: &Graph) {
        self.table = new.table.of_run();
        self.places.clear();
        for ix in (1..self.scopes.len()).map(scope_ix) {
            let inside = self.graph_of(new, ix);
            let scope = self.scope(ix);
            let steps = (0..scope.nodes.len() + scope.spare.len()).map(NodeIx::new);
            let path = Arc::clone(&scope.path);
            let names = steps
                .clone()
                .map(|step| Arc::from(inside.path(&path, step)));
            let first = self.table.grow(names).0;
            self.places.extend(steps.clone().map(|step| (ix, step)));
            let numbers = steps.zip(first..).map(|(_, number)| StepIx(number));
            self.scopes[ix.at()].numbers = numbers.collect();
        }
    }

    /// Steps that wait, and whose signals have come already.
    fn line_up_answers(&mut self, ix: ScopeIx) {
        let scope = self.scope(ix);
        let waits = |step: &NodeIx| matches!(scope.seen(*step).status, Status::Awaiting { .. });
        let answered = scope.steps().filter(waits);
        let answered = answered.filter(|&step| self.signal_for(scope.number(step)).is_some());
        let answered = answered.collect();
        self.scopes[ix.at()].answered = answered;
    }

    /// A round that has not begun comes after all in which another step had its path (rule K2).
    pub(super) fn pass_retired_rounds(&mut self, inside: &Graph, ix: ScopeIx) {
        if self.retired.is_empty() {
            return;
        }
        let scope = &mut self.scopes[ix.at()];
        for step in scope.steps() {
            let name = scope.name(inside, step);
            let node = scope.node(step);
            if let (Some(used), None) = (self.retired.get(name.as_str()), &node.key) {
                node.round = node.round.max(used + 1);
            }
        }
    }
}

/// The scopes of a run on their way into another definition.
struct Carried {
    left: Vec<Option<Scope>>,
    scopes: Vec<Scope>,
    /// The number that each carried step had, and where it is.
    numbers: Vec<(StepIx, (ScopeIx, NodeIx))>,
    /// What each carried scope is now.
    whither: HashMap<ScopeIx, ScopeIx>,
}

impl Carried {
    fn carry(
        &mut self,
        was: ScopeIx,
        moved: &Move<'_>,
        inside: Option<(ScopeIx, NodeIx)>,
        path: &Arc<str>,
    ) -> Option<ScopeIx> {
        let mut old = self.left.get_mut(was.at())?.take()?;
        let ix = scope_ix(self.scopes.len());
        self.whither.insert(was, ix);
        let count = if moved.is_fan_out() {
            old.nodes.len()
        } else {
            moved.new.steps.len()
        };
        let mut scope = Scope::begin(moved.new, count, inside, Arc::clone(path));
        // What is ready is lined up once all is there.
        scope.ready.clear();
        scope.phase = old.phase;
        scope.round = old.round;
        scope.last_decision = old.last_decision.take();
        scope.unwind.then = old.unwind.then;
        scope.completions = old.completions;
        let to = |step: &NodeIx| moved.to(*step);
        scope.failures = old.failures.iter().filter_map(to).collect();
        // Where the steps are that were left, so that what is inside of them follows.
        let mut inner = Vec::new();
        let numbers = std::mem::take(&mut old.numbers);
        let number = |step: NodeIx| {
            let number = numbers.get(step.at()).copied();
            number.unwrap_or(StepIx(step.0))
        };
        let spare = std::mem::take(&mut old.spare);
        let known = old.nodes.len();
        for (index, mut node) in old.nodes.into_iter().enumerate() {
            let step = NodeIx::new(index);
            let Some(now) = moved.to(step) else { continue };
            let begun = node.effect == EffectNow::NotDone && node.key.is_some();
            if begun && node.edited.is_none() && !moved.is_wired_as_before(step, now) {
                // The same key must not come with another input, so this one opens a new round (rule K4).
                node.next_round();
            }
            inner.push((step, now, node.child.take()));
            // No run with one is migrated, and what a journal says otherwise must not lead astray.
            node.undoer = None;
            self.numbers.push((number(step), (ix, now)));
            scope.nodes[now.at()] = node;
        }
        // Items of earlier rounds; the last of them was put away first.
        let above = known + spare.len();
        for (index, mut node) in spare.into_iter().enumerate() {
            let step = NodeIx::new(above - 1 - index);
            inner.push((step, step, node.child.take()));
            self.numbers.push((number(step), (ix, step)));
            scope.spare.push(node);
        }
        self.scopes.push(scope);
        for (step, now, child) in inner {
            let Some((child, inside)) = child.zip(moved.inside(step, now)) else {
                continue;
            };
            let path = Arc::from(moved.new.path(path, now));
            let child = self.carry(child, &inside, Some((ix, now)), &path);
            let scope = &mut self.scopes[ix.at()];
            let at = now.at();
            let node = if at < scope.nodes.len() {
                &mut scope.nodes[at]
            } else {
                let last = scope.spare.len() - 1;
                let place = last - (at - scope.nodes.len());
                &mut scope.spare[place]
            };
            node.child = child;
        }
        Some(ix)
    }
}

fn scope_ix(index: usize) -> ScopeIx {
    ScopeIx(u32::try_from(index).unwrap_or(u32::MAX))
}

impl Scope {
    /// Makes the counts and queues anew, of a scope in which nothing is in flight.
    fn line_up(&mut self, graph: &Graph) {
        self.told = Told::default();
        self.below = Told::default();
        for step in self.steps() {
            let before = graph.step(step).dependencies.iter();
            let unmet = before.filter(|before| self.seen(**before).status != Status::Done);
            let unmet = u32::try_from(unmet.count()).unwrap_or(u32::MAX);
            let forward = matches!(self.phase, Phase::Forward { .. });
            let holds_steps = graph.step(step).inside().is_some();
            let node = self.node(step);
            node.unmet = unmet;
            node.blockers = 0;
            node.withheld = false;
            match node.status {
                Status::Done => {
                    self.passed_over += u32::from(node.passed_over);
                    self.done += 1;
                }
                Status::Absorbed => self.absorbed += 1,
                Status::Undone if unmet > 0 => {}
                Status::Running if holds_steps => self.open += 1,
                Status::Awaiting { until } if unmet == 0 => {
                    self.awaiting += 1;
                    self.timers.extend(until.map(|until| (until, step)));
                }
                _ if unmet > 0 => node.status = Status::Waiting,
                Status::Waiting | Status::Ready => {
                    node.status = Status::Ready;
                    self.in_doubt_again(graph, step);
                }
                Status::Sleeping { until } if forward => {
                    self.timers.insert((until, step));
                }
                Status::Running | Status::Sleeping { .. } | Status::Awaiting { .. } => {
                    self.set_idle(step, Status::Dropped);
                }
                status @ (Status::Dropped | Status::Failed | Status::Stopped | Status::Undone) => {
                    self.set_idle(step, status);
                }
            }
        }
        self.line_up_undos(graph);
    }

    /// The same of undos: what failed, sleeps or is under way inside a step stays so, as if nothing had been.
    fn line_up_undos(&mut self, graph: &Graph) {
        let before: Vec<UndoStatus> = self.nodes.iter().map(|node| node.undo).collect();
        let unwinds = self.phase == Phase::Unwinding;
        if unwinds {
            let then = self.unwind.then;
            self.unwind_region(graph, |scope, step| scope.seen(step).in_region, then);
        }
        for (step, undo) in self.steps().zip(before) {
            let holds_steps = graph.step(step).inside().is_some();
            let stays = match undo {
                UndoStatus::Failed => true,
                UndoStatus::Running => holds_steps,
                UndoStatus::Sleeping { .. } => unwinds,
                UndoStatus::Idle | UndoStatus::Ready => false,
            };
            if !stays {
                if !unwinds {
                    self.node(step).undo = UndoStatus::Idle;
                }
                continue;
            }
            self.unwind.ready.retain(|ready| *ready != step);
            self.unwind.latest.retain(|(_, ready)| *ready != step);
            self.node(step).undo = undo;
            match undo {
                UndoStatus::Sleeping { until } => {
                    self.timers.insert((until, step));
                }
                UndoStatus::Running => {
                    self.unwind.running += 1;
                    self.unwind.inside += 1;
                }
                UndoStatus::Idle | UndoStatus::Ready | UndoStatus::Failed => {}
            }
        }
    }
}
