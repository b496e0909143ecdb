//! A run that goes on with another definition: which ones may, and what becomes of the state.
//!
//! Steps keep all that is known of them, under their new names: rounds, keys, outputs, calls. What the
//! fold needs beyond that (which steps are ready, which are left to be taken up) is made anew from the new
//! graph. All of it is derived from the two definitions and the event, so a replay comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::journal::{Migrated, StepMoves};
use crate::machine::state::{EffectNow, NodeState, State, Status, UndoStatus};
use crate::saga::{Graph, StepKind, escape, unwired_name, wired_name};
use crate::step::StepIx;

/// The graph of the definition before, with what outlines don't tell (retries, probes, the order of undos)
/// as the definition after has it: as it would be if only that had been changed.
pub(crate) fn graph_before(migrated: &Migrated, after: &Graph) -> Graph {
    let mut graph = migrated.from.to_graph();
    for step in &mut graph.steps {
        step.escaped = escape(&step.name);
        let now = migrated.steps.new_name(&step.name);
        let Some(now) = now.and_then(|name| after.step_named(&name)) else {
            continue;
        };
        let now = after.step(now);
        step.atomic = now.atomic;
        step.at_most_once = now.at_most_once;
        step.undo_rule = now.undo_rule;
        step.probed = now.probed;
        step.retry = now.retry.clone();
        step.undo_retry = now.undo_retry.clone();
        step.timeout = now.timeout;
        step.undo_timeout = now.undo_timeout;
        step.max_in_flight = now.max_in_flight;
    }
    graph.siblings = after.siblings;
    graph.undo_order = after.undo_order;
    graph.on_stop = after.on_stop;
    graph.policy = after.policy.clone();
    graph
}

/// How an input would be described if the steps that it comes from had their new names.
fn rewired(wired: &str, moves: &StepMoves) -> Option<String> {
    let (mapped, name) = match wired
        .strip_prefix("map(")
        .and_then(|of| of.strip_suffix(')'))
    {
        Some(name) => (true, name),
        None => (false, wired),
    };
    let name = match name {
        "input" => "input".to_owned(),
        name => wired_name(&moves.new_name(&unwired_name(name))?),
    };
    Some(if mapped { format!("map({name})") } else { name })
}

/// Two definitions of one run, and where the steps of the first went.
struct Move<'a> {
    old: &'a Graph,
    new: &'a Graph,
    moves: &'a StepMoves,
    /// The new number of each old step.
    to: Vec<Option<StepIx>>,
    /// The old number of each new step.
    from: Vec<Option<StepIx>>,
}

impl<'a> Move<'a> {
    fn new(old: &'a Graph, new: &'a Graph, moves: &'a StepMoves) -> Self {
        let to: Vec<Option<StepIx>> = old
            .steps
            .iter()
            .map(|step| new.step_named(&moves.new_name(&step.name)?))
            .collect();
        let mut from = vec![None; new.steps.len()];
        for (index, to) in to.iter().enumerate() {
            if let Some(to) = to {
                from[to.at()] = Some(StepIx::new(index));
            }
        }
        Move {
            old,
            new,
            moves,
            to,
            from,
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (StepIx, StepIx)> {
        let pairs = self.to.iter().enumerate();
        pairs.filter_map(|(index, to)| Some((StepIx::new(index), (*to)?)))
    }

    /// Whether a step's input comes from where it came from.
    fn is_wired_as_before(&self, old: StepIx, new: StepIx) -> bool {
        let (old, new) = (&self.old.step(old).wired, &self.new.step(new).wired);
        let as_now = old.iter().map(|wired| rewired(wired, self.moves));
        as_now.eq(new.iter().map(|wired| Some(wired.clone())))
    }
}

/// All steps that depend on this one, directly or not.
fn descendants(graph: &Graph, step: StepIx) -> BTreeSet<StepIx> {
    let (mut found, mut open) = (BTreeSet::new(), vec![step]);
    while let Some(step) = open.pop() {
        let dependents = graph.step(step).dependents.iter();
        open.extend(dependents.copied().filter(|after| found.insert(*after)));
    }
    found
}

impl State {
    /// Why the run can't go on with the new definition: all that stands in the way, in words.
    pub(crate) fn against_migration(
        &self,
        old: &Graph,
        new: &Graph,
        moves: &StepMoves,
    ) -> Vec<String> {
        let moved = Move::new(old, new, moves);
        let stand: Vec<StepIx> = (0..self.nodes.len())
            .map(StepIx::new)
            .filter(|&step| self.stands(old, step))
            .collect();
        let mut against = Vec::new();
        for &step in &stand {
            against.extend(self.loses_its_undo(&moved, step));
        }
        self.orders_that_are_lost(&moved, &stand, &mut against);
        for (step, now) in moved.pairs() {
            if self.seen(step).status == Status::Done || stand.contains(&step) {
                against.extend(self.comes_too_late(&moved, step, now));
            }
        }
        against.extend(self.moves_the_pivot(&moved));
        let used = self.rounds_used(&moved);
        for (step, now) in moved.pairs() {
            against.extend(self.would_use_keys_again(&moved, &used, step, now));
        }
        against
    }

    /// How a step stands, in words.
    fn effect_in_words(&self, step: StepIx) -> &'static str {
        match self.seen(step).effect {
            EffectNow::Done => "is done",
            EffectNow::InDoubt => "is in doubt",
            EffectNow::NotDone => "was called and is to be undone whatever it said",
        }
    }

    fn loses_its_undo(&self, moved: &Move, step: StepIx) -> Option<String> {
        let was = moved.old.step(step);
        let (name, stands) = (&was.name, self.effect_in_words(step));
        let Some(now) = moved.to[step.at()] else {
            return Some(format!(
                "`{name}` {stands}, and has no counterpart: nothing would undo it"
            ));
        };
        let is = moved.new.step(now);
        let undone = match (was.kind, is.kind) {
            (_, StepKind::Compensatable) | (StepKind::Irreversible, StepKind::Irreversible) => true,
            (_, StepKind::ReadOnly | StepKind::Irreversible) => false,
        };
        if !undone {
            return Some(format!(
                "`{name}` {stands}, and `{}` is {}: nothing would undo it",
                is.name, is.kind
            ));
        }
        // What an operator wrote down comes from nowhere else.
        let same = self.seen(step).edited.is_some() || moved.is_wired_as_before(step, now);
        (!same).then(|| {
            format!(
                "`{name}` {stands}, its input was ({}), and that of `{}` is ({}): it would not be undone, or called \
                 again, with what it was called with",
                was.wired.join(", "),
                is.name,
                is.wired.join(", ")
            )
        })
    }

    /// Effects are undone in the reverse of the order in which they depend on each other (rule U1): all of
    /// it has to be there in the new definition.
    fn orders_that_are_lost(&self, moved: &Move, stand: &[StepIx], against: &mut Vec<String>) {
        for &before in stand {
            let Some(before_now) = moved.to[before.at()] else {
                continue;
            };
            let was = descendants(moved.old, before);
            let is = descendants(moved.new, before_now);
            for after in stand.iter().filter(|after| was.contains(after)) {
                let Some(after_now) = moved.to[after.at()] else {
                    continue;
                };
                if is.contains(&after_now) {
                    continue;
                }
                let new = |step: StepIx| &moved.new.step(step).name;
                let (before_now, after_now) = (new(before_now), new(after_now));
                against.push(format!(
                    "`{}` came after `{}`, and `{after_now}` doesn't come after `{before_now}`: they would be undone \
                     in another order",
                    moved.old.step(*after).name,
                    moved.old.step(before).name,
                ));
            }
        }
    }

    /// Nothing is executed under what was done after it (rule S3).
    fn comes_too_late(&self, moved: &Move, step: StepIx, now: StepIx) -> Option<String> {
        let done = |before: &StepIx| {
            let was = moved.from[before.at()];
            was.is_some_and(|was| self.seen(was).status == Status::Done)
        };
        // Where it was so before, while a run is being undone, it may be so after.
        let was_before = |before: &StepIx| {
            let was = moved.from[before.at()];
            was.is_some_and(|was| moved.old.step(step).dependencies.contains(&was))
        };
        let mut before = moved.new.step(now).dependencies.iter();
        let missing = before.find(|before| !done(before) && !was_before(before))?;
        let stands = match self.seen(step).status {
            Status::Done => "is done",
            _ => self.effect_in_words(step),
        };
        Some(format!(
            "`{}` {stands}, and `{}` comes after `{}`, which is not done",
            moved.old.step(step).name,
            moved.new.step(now).name,
            moved.new.step(*missing).name
        ))
    }

    /// The point of no return stays where it is, once there is something on its other side (rule D4).
    fn moves_the_pivot(&self, moved: &Move) -> Option<String> {
        let name = |pivot: Option<StepIx>, graph: &Graph| {
            pivot.map_or_else(
                || "none".to_owned(),
                |pivot| format!("`{}`", graph.step(pivot).name),
            )
        };
        let same = match (moved.old.pivot, moved.new.pivot) {
            (None, None) => true,
            (Some(was), is) => is.is_some() && moved.to[was.at()] == is,
            (None, Some(_)) => false,
        };
        if self.is_past_pivot(moved.old) {
            return (!same).then(|| {
                format!(
                    "the run is past its pivot {}, and the pivot is {}",
                    name(moved.old.pivot, moved.old),
                    name(moved.new.pivot, moved.new)
                )
            });
        }
        let pivot = moved.new.pivot.filter(|_| !same)?;
        let was = moved.from[pivot.at()]?;
        (self.seen(was).effect != EffectNow::NotDone).then(|| {
            format!(
                "`{}` {}, and {} is the pivot: nothing could go back any more",
                moved.old.step(was).name,
                self.effect_in_words(was),
                name(Some(pivot), moved.new)
            )
        })
    }

    /// A key is made of the step's name and its round: a step that takes over a name must not come to a
    /// round in which another had it (rules K1, K2).
    fn would_use_keys_again(
        &self,
        moved: &Move,
        used: &BTreeMap<Arc<str>, u32>,
        step: StepIx,
        now: StepIx,
    ) -> Option<String> {
        let name = &moved.new.step(now).name;
        if moved.old.step(step).name == *name || self.seen(step).key.is_none() {
            return None;
        }
        let used = *used.get(name)?;
        (used > self.seen(step).round).then(|| {
            format!(
                "`{name}` was the name of another step, up to round {used}: the keys of `{}` would come to be the \
                 same",
                moved.old.step(step).name
            )
        })
    }

    /// The last round of each name that belongs to no step any more, or to another one.
    fn rounds_used(&self, moved: &Move) -> BTreeMap<Arc<str>, u32> {
        let mut used = self.retired.clone();
        for (index, (step, node)) in moved.old.steps.iter().zip(&self.nodes).enumerate() {
            let now = moved.to[index].map(|now| &moved.new.step(now).name);
            if now == Some(&step.name) {
                continue;
            }
            let begun = node.key.is_some() || node.round_attempts > 0;
            let last = if begun { node.round } else { node.round - 1 };
            if last > 0 {
                let known = used.entry(Arc::clone(&step.name)).or_default();
                *known = last.max(*known);
            }
        }
        used
    }

    /// The state under the new definition.
    pub(crate) fn migrated(mut self, old: &Graph, new: &Graph, migrated: &Migrated) -> State {
        let moved = Move::new(old, new, &migrated.steps);
        let retired = self.rounds_used(&moved);
        // Made once with the name that it was made of (rule K1): a step that was skipped has it too.
        for step in (0..self.nodes.len()).map(StepIx::new) {
            if self.stands(old, step) && self.seen(step).key.is_none() {
                self.node(step).key = Some(self.effect_key(old, step));
            }
        }
        self.header.version = migrated.version;
        self.header.fingerprint.clone_from(&migrated.fingerprint);
        let fresh = State::begin(new, &self.header, self.started_at);
        let left = std::mem::take(&mut self.nodes).into_iter();
        let mut left: Vec<Option<NodeState>> = left.map(Some).collect();
        for (index, mut node) in fresh.nodes.into_iter().enumerate() {
            let now = StepIx::new(index);
            let was = moved.from[index];
            if let Some((was, known)) = was.and_then(|was| Some((was, left[was.at()].take()?))) {
                node = known;
                let begun = node.effect == EffectNow::NotDone && node.key.is_some();
                if begun && node.edited.is_none() && !moved.is_wired_as_before(was, now) {
                    // The same key must not come with another input, so this one opens a new round (rule K4).
                    node.next_round();
                }
            }
            if let Some(used) = retired.get(&new.step(now).name)
                && node.key.is_none()
            {
                node.round = node.round.max(used + 1);
            }
            self.nodes.push(node);
        }
        self.retired = retired;
        let to = |step: &StepIx| moved.to.get(step.at()).copied().flatten();
        self.failures = self.failures.iter().filter_map(to).collect();
        self.compensations.retain_mut(|compensation| {
            let now = to(&compensation.step);
            compensation.step = now.unwrap_or(compensation.step);
            now.is_some()
        });
        if let Some(decision) = &mut self.last_decision {
            decision.failed = decision.failed.iter().filter_map(to).collect();
        }
        self.line_up(new);
        self
    }

    /// Makes the queues anew, of a run in which nothing is in flight.
    fn line_up(&mut self, graph: &Graph) {
        self.ready.clear();
        self.to_probe.clear();
        self.timers.clear();
        self.idle.clear();
        self.unwind.ready.clear();
        self.unwind.latest.clear();
        self.unwind.remaining = 0;
        let done = |node: &&NodeState| node.status == Status::Done;
        self.done = u32::try_from(self.nodes.iter().filter(done).count()).unwrap_or(u32::MAX);
        for step in (0..self.nodes.len()).map(StepIx::new) {
            let before = graph.step(step).dependencies.iter();
            let unmet = before.filter(|before| self.seen(**before).status != Status::Done);
            let unmet = u32::try_from(unmet.count()).unwrap_or(u32::MAX);
            let node = self.node(step);
            node.unmet = unmet;
            node.blockers = 0;
            node.withheld = false;
            if node.undo != UndoStatus::Failed {
                node.undo = UndoStatus::Idle;
            }
            match node.status {
                Status::Done => {}
                Status::Undone if unmet > 0 => {}
                _ if unmet > 0 => node.status = Status::Waiting,
                Status::Waiting | Status::Ready => {
                    node.status = Status::Ready;
                    self.in_doubt_again(graph, step);
                }
                Status::Running | Status::Sleeping { .. } => self.set_idle(step, Status::Dropped),
                status @ (Status::Dropped | Status::Failed | Status::Stopped | Status::Undone) => {
                    self.set_idle(step, status);
                }
            }
        }
    }
}
