//! Commands from outside: what is answered, and which events they become.

use std::sync::Arc;

use crate::ids::Timestamp;
use crate::journal::{
    CancelTold, Cause, Decision, End, Event, InputEdit, ResolvedEffect, SkippedEffect, Verb,
    VerbName,
};
use crate::machine::decide::UNSETTLED_STOP;
use crate::machine::recovery::AskedBy;
use crate::machine::scope::{Direction, EffectNow, Phase, Scope, ScopeIx, Status};
use crate::machine::state::{Place, State};
use crate::machine::verbs::{Stage, Verdict, verdict};
use crate::policy::RecoveryStrategy;
use crate::saga::{Gathering, Graph, GraphStep, NodeIx, StepKind};
use crate::step::{Probed, StepIx, Value};

/// Why a run's state does not allow a command. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The run is over (rule O3).
    #[error("the run has ended: start a new one instead")]
    Ended,
    /// The run is at a stage that doesn't take the verb (rule O1).
    #[error("`{verb}` is not taken while the run is {stage}: {why}")]
    NotNow {
        /// The verb.
        verb: VerbName,
        /// What the run is doing.
        stage: Stage,
        /// What stands in the way.
        why: &'static str,
    },
    /// The strategy is not available in this state.
    #[error("{0}")]
    Unavailable(String),
    /// The saga has no such step.
    #[error("the saga has no step `{0}`")]
    NoSuchStep(String),
    /// The saga waits for no signal of this name.
    #[error("the saga waits for no signal `{name}`{}", waits_for(.known))]
    NoSuchSignal {
        /// The name.
        name: String,
        /// The names of those that it waits for; `[]` stands for the place of an item.
        known: Vec<String>,
    },
    /// The wait doesn't take this signal.
    #[error("signal `{name}`: {why}")]
    BadSignal {
        /// The name.
        name: String,
        /// What it says.
        why: String,
    },
    /// Another signal, or another command, had this token.
    #[error("token `{0}` is taken by something else: take another one, or send the same again")]
    TokenTaken(String),
    /// Only an effect in doubt can be resolved.
    #[error("`{0}` is not in doubt")]
    NotInDoubt(String),
    /// The step's effect is in the world, or nobody knows: that has to be settled first.
    #[error("`{step}` is {effect}: {help}")]
    NotSettled {
        /// The step.
        step: String,
        /// How its effect stands.
        effect: &'static str,
        /// What to do first.
        help: &'static str,
    },
    /// Something else has to come first.
    #[error("`{step}`: {why}")]
    OutOfOrder {
        /// The step.
        step: String,
        /// What.
        why: String,
    },
    /// The output that was given is not one of the step's.
    #[error("the output given for `{step}` can't be read: {why}")]
    BadOutput {
        /// The step.
        step: String,
        /// What serde said.
        why: String,
    },
    /// The run can't go on with the other definition.
    #[error("it can't be migrated to version {to}: {}", reasons.join("; "))]
    Migration {
        /// The version.
        to: u32,
        /// All that stands in the way.
        reasons: Vec<String>,
    },
    /// Another worker, which drives the run, refused it.
    #[error("{0}")]
    Elsewhere(String),
    /// The new input is not one of the step's.
    #[error("the new input of `{step}` can't be read: {why}")]
    BadInput {
        /// The step.
        step: String,
        /// What serde said.
        why: String,
    },
}

fn waits_for(known: &[String]) -> String {
    match known {
        [] => String::new(),
        known => format!(": it waits for `{}`", known.join("`, `")),
    }
}

/// Why a run is not migrated whose definition is there.
const NOTHING_TO_MIGRATE: &str = "its definition is registered with its owner, so it goes on as it is: nothing is to be migrated";

/// Who asks, and why.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When it was accepted: what decides whether a signal came in time (rule I5).
    pub at: Timestamp,
}

impl Asked<'_> {
    fn cause(self) -> Cause {
        Cause::Operator {
            by: self.by.to_owned(),
            reason: self.reason.to_owned(),
        }
    }

    fn into_owned(self) -> (String, String) {
        (self.by.to_owned(), self.reason.to_owned())
    }
}

const NOT_REACHED: &str = "the step that it is inside of is not under way";

/// Whether a step has such a path inside it.
fn defines(step: &GraphStep, path: &str) -> bool {
    let Some(inside) = step.inside() else {
        return path.is_empty();
    };
    let of_items = matches!(inside.gathers, Gathering::Each { .. });
    if let (true, Some(path)) = (of_items, path.strip_prefix('[')) {
        let item = path.split_once(']');
        let item = item.filter(|(item, _)| item.parse::<u32>().is_ok());
        return item.is_some_and(|(_, rest)| defines(&inside.steps[0], rest));
    }
    if let (false, Some(path)) = (of_items, path.strip_prefix('/')) {
        let end = path.find(['/', '[']).unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        let step = inside.step_named(name);
        return step.is_some_and(|step| defines(inside.step(step), rest));
    }
    path.is_empty()
}

impl State {
    /// The events that a command becomes: to be appended as one record.
    ///
    /// With a token, the first of them notes it, and a command whose token is noted already becomes none.
    ///
    /// # Errors
    ///
    /// [`Refused`], and then nothing is to be done; [`legal`](Self::legal) says what would be taken.
    pub fn command(
        &self,
        graph: &Graph,
        verb: &Verb,
        asked: Asked<'_>,
        token: Option<&str>,
    ) -> Result<Vec<Event<StepIx>>, Refused> {
        if let Some(token) = token {
            let known = match verb {
                Verb::Signal { name, payload } => self.has_signal(name, payload, token)?,
                _ if self.signals.knows(token) => {
                    return Err(Refused::TokenTaken(token.to_owned()));
                }
                _ => self.knows(token),
            };
            if known {
                return Ok(Vec::new());
            }
        }
        let stage = self.stage(graph);
        match verdict(verb.name(), stage) {
            Verdict::Taken(_) => {}
            Verdict::Refused(_) if stage == Stage::Ended => return Err(Refused::Ended),
            Verdict::Refused(why) => {
                let verb = verb.name();
                return Err(Refused::NotNow { verb, stage, why });
            }
        }
        let mut events: Vec<Event<StepIx>> = Vec::with_capacity(2);
        events.extend(token.map(|token| Event::Commanded {
            token: Arc::from(token),
        }));
        let (by, reason) = asked.into_owned();
        match verb {
            Verb::Cancel => events.push(self.cancel_event(graph, asked)),
            Verb::Retry { strategy, edits } => {
                for (at, edit) in edits.iter().enumerate() {
                    if edits[..at].iter().any(|other| other.step == edit.step) {
                        return Err(Refused::OutOfOrder {
                            step: edit.step.clone(),
                            why: "it gets two new inputs at once".to_owned(),
                        });
                    }
                    events.push(self.edit_event(graph, edit, asked)?);
                }
                events.push(self.retry_event(graph, stage, *strategy, asked)?);
            }
            Verb::Compensate => {
                let back = RecoveryStrategy::Compensate;
                if let Some(why) = self.unavailable(graph, ScopeIx::ROOT, back, AskedBy::Operator) {
                    return Err(Refused::Unavailable(why));
                }
                events.push(self.plain_decision(asked.cause(), back, false));
            }
            Verb::Skip {
                step,
                effect,
                output,
            } => {
                let step = self.skippable(graph, step, *effect)?;
                let (effect, output) = (*effect, output.clone());
                events.push(Event::Skipped {
                    step,
                    effect,
                    output,
                    by,
                    reason,
                });
            }
            Verb::MarkCompensated { step } => {
                let step = self.markable(graph, step)?;
                events.push(Event::MarkedCompensated {
                    step,
                    round: self.node(step).round,
                    by,
                    reason,
                });
            }
            Verb::Resolve { step, effect } => {
                let answer = self.resolvable(graph, stage, step, effect)?;
                let step = self.named(graph, step)?;
                events.push(Event::Resolved {
                    step,
                    answer,
                    by,
                    reason,
                });
            }
            Verb::Pause => events.push(Event::Paused { by, reason }),
            Verb::Resume => events.push(Event::Resumed { by, reason }),
            Verb::Abandon if self.has_in_flight() => {
                events.push(Event::AbandonRequested { by, reason });
            }
            Verb::Abandon => events.push(Event::Ended(End::Abandoned { by, reason })),
            Verb::Signal { name, payload } => {
                // It carries its token itself.
                events.clear();
                events.push(self.signal_event(graph, name, payload, asked, token)?);
            }
            // Whoever has no code for the run carries it out, without asking the machine of one definition.
            Verb::Migrate { .. } => {
                return Err(Refused::Unavailable(NOTHING_TO_MIGRATE.to_owned()));
            }
        }
        Ok(events)
    }

    /// Whether a command with this token is in the journal.
    #[must_use]
    pub fn knows(&self, token: &str) -> bool {
        self.tokens.iter().any(|known| **known == *token)
    }

    /// Whether at least one step or strategy would let the verb be taken.
    pub(super) fn could(&self, graph: &Graph, verb: VerbName, stage: Stage) -> bool {
        match verb {
            VerbName::Retry => {
                let ways = [None, Some(RecoveryStrategy::RetryAll)];
                let nobody = Asked {
                    by: "",
                    reason: "",
                    at: Timestamp::default(),
                };
                ways.into_iter()
                    .any(|way| self.retry_event(graph, stage, way, nobody).is_ok())
            }
            VerbName::Compensate => {
                let back = RecoveryStrategy::Compensate;
                let unavailable = self.unavailable(graph, ScopeIx::ROOT, back, AskedBy::Operator);
                unavailable.is_none()
            }
            VerbName::Skip => self.any(graph, |place| self.skippable_at(place, "").is_ok()),
            // Of all that stand one is the last, on which nothing else that stands depends.
            VerbName::MarkCompensated => self.any(graph, |place| {
                let inside = place.graph.step(place.step).inside().is_some();
                !inside && self.scope(place.scope).stands(place.graph, place.step)
            }),
            VerbName::Resolve => self.any(graph, |place| self.is_in_doubt(place)),
            VerbName::Signal => !graph.signals().is_empty(),
            VerbName::Cancel | VerbName::Pause | VerbName::Resume | VerbName::Abandon => true,
            // Only the owner knows whether it has the run's code.
            VerbName::Migrate => false,
        }
    }

    /// Whether some step of the run, wherever it is, is one of these.
    fn any(&self, root: &Graph, wanted: impl Fn(Place<'_>) -> bool) -> bool {
        (0..self.scopes.len()).any(|index| {
            let scope = ScopeIx(u32::try_from(index).unwrap_or(u32::MAX));
            let graph = self.graph_of(root, scope);
            let mut steps = self.scopes[index].steps();
            steps.any(|step| wanted(Place { scope, step, graph }))
        })
    }

    /// Whether a call of the step left a doubt. What is inside a step has doubts of its own.
    fn is_in_doubt(&self, place: Place<'_>) -> bool {
        let node = self.scope(place.scope).seen(place.step);
        place.graph.step(place.step).inside().is_none() && node.effect == EffectNow::InDoubt
    }

    fn named(&self, graph: &Graph, path: &str) -> Result<StepIx, Refused> {
        self.step_named(graph, path).ok_or_else(|| {
            let step = path.to_owned();
            if !self.comes_later(graph, path) {
                return Refused::NoSuchStep(step);
            }
            let why = NOT_REACHED.to_owned();
            Refused::OutOfOrder { step, why }
        })
    }

    /// Whether the definition has the step, inside one that has not begun.
    fn comes_later(&self, root: &Graph, path: &str) -> bool {
        let cuts = path.rmatch_indices(['/', '[']).map(|(cut, _)| cut);
        let begun = cuts.map(|cut| path.split_at(cut));
        let mut begun = begun.filter_map(|(around, rest)| {
            let around = self.step_named(root, around)?;
            Some((self.place(root, around), rest))
        });
        begun.next().is_some_and(|(around, rest)| {
            let has_begun = self.scope(around.scope).seen(around.step).child.is_some();
            !has_begun && defines(around.graph.step(around.step), rest)
        })
    }

    /// What a cancel is told now (rule C1).
    fn cancel_event(&self, graph: &Graph, asked: Asked<'_>) -> Event<StepIx> {
        let root = self.root();
        let told = match root.pivot_effect(graph) {
            _ if root.phase == Phase::Unwinding && root.unwind.then == Direction::Compensated => {
                CancelTold::Accepted
            }
            EffectNow::Done => CancelTold::TooLate,
            EffectNow::InDoubt => CancelTold::Pending,
            EffectNow::NotDone if self.is_pivot_running(graph, ScopeIx::ROOT) => {
                CancelTold::Pending
            }
            EffectNow::NotDone => CancelTold::Accepted,
        };
        let (by, reason) = asked.into_owned();
        Event::CancelRequested { by, reason, told }
    }

    /// Whether a call is under way behind which nothing goes back.
    fn is_pivot_running(&self, root: &Graph, ix: ScopeIx) -> bool {
        let scope = self.scope(ix);
        let graph = self.graph_of(root, ix);
        let mut running = scope
            .no_return(graph)
            .filter(|node| node.status == Status::Running);
        running.any(|node| match node.child {
            Some(child) => self.is_pivot_running(root, child),
            None => true,
        })
    }

    /// What the last cancel was told, as far as it is known by now.
    #[must_use]
    pub fn cancel_told(&self) -> Option<CancelTold> {
        self.cancel.as_ref().map(|cancel| cancel.told)
    }

    /// An operator's retry (rules D6, O2).
    fn retry_event(
        &self,
        graph: &Graph,
        stage: Stage,
        strategy: Option<RecoveryStrategy>,
        asked: Asked<'_>,
    ) -> Result<Event<StepIx>, Refused> {
        use RecoveryStrategy::{Compensate, Manual, RetryFailed, RetryFromCheckpoint};

        let undoing = matches!(stage, Stage::Undoing | Stage::ParkedUndoing);
        let unavailable = |why: String| Err(Refused::Unavailable(why));
        let (strategy, stop) = match (strategy, undoing) {
            (Some(Manual), _) => {
                return unavailable(
                    "manual is not a way to retry: the run waits for an operator already"
                        .to_owned(),
                );
            }
            (Some(Compensate), _) => {
                return unavailable(
                    "compensate is not a way to retry: it is a verb of its own".to_owned(),
                );
            }
            (Some(strategy @ (RetryFailed | RetryFromCheckpoint)), true) => {
                return unavailable(format!(
                    "{strategy} is not available while the run is being undone: a plain retry goes on undoing, \
                     `retry_all` begins again after all is undone"
                ));
            }
            (Some(strategy), _) => (strategy, false),
            // A step asked to end the run, and only a strategy by name lets it go on instead.
            (None, false) if self.stop.is_some() => match self.way_to_stop(graph) {
                Some(way) => way,
                None => return unavailable(format!("{UNSETTLED_STOP}: `resolve` says it")),
            },
            (None, false) => (RetryFailed, false),
            (None, true) if stage == Stage::Undoing => {
                let (by, reason) = asked.into_owned();
                return Ok(Event::UndosRetried { by, reason });
            }
            // A cancel that came meanwhile is not taken back by having undos run again.
            (None, true)
                if self.is_cancelled()
                    && self
                        .unavailable(graph, ScopeIx::ROOT, Compensate, AskedBy::Operator)
                        .is_none() =>
            {
                (Compensate, false)
            }
            // The undoing goes on to where it was going.
            (None, true) => match &self.root().last_decision {
                Some(last) => (last.strategy, last.stop),
                None => (Compensate, false),
            },
        };
        let goes_to = match self.root().unwind.then {
            _ if stage != Stage::Undoing => None,
            Direction::Compensated => None,
            Direction::Stopped => Some("ends, as a step asked,"),
            Direction::Forward { .. } | Direction::Without => Some("goes forward again"),
        };
        if let Some(goes_to) = goes_to {
            return unavailable(format!(
                "{strategy} is not available: the run {goes_to} once this is undone"
            ));
        }
        // Whoever stops executes nothing again.
        let unavailable_now = self.unavailable(graph, ScopeIx::ROOT, strategy, AskedBy::Operator);
        if let Some(why) = unavailable_now.filter(|_| !stop) {
            return unavailable(why);
        }
        Ok(Event::Decided(Arc::new(Decision {
            cause: asked.cause(),
            scope: None,
            strategy,
            stop,
            failed: self.failed_in(ScopeIx::ROOT),
            why: Vec::new(),
            recovery: 0,
            resume_at: None,
        })))
    }

    /// A new input opens a new round, once the old one has left nothing (rule K4).
    fn edit_event(
        &self,
        graph: &Graph,
        edit: &InputEdit,
        asked: Asked<'_>,
    ) -> Result<Event<StepIx>, Refused> {
        let step = self.named(graph, &edit.step)?;
        let place = self.place(graph, step);
        let node = self.node(step);
        self.must_be_settled(place, &edit.step)?;
        self.must_be_reached(place, &edit.step)?;
        if node.status == Status::Done {
            return Err(Refused::OutOfOrder {
                step: edit.step.clone(),
                why: "it is done, and is not called again".to_owned(),
            });
        }
        if self.scope(place.scope).wants_undo(place.graph, place.step) {
            return Err(Refused::NotSettled {
                step: edit.step.clone(),
                effect: "to be undone whatever its calls said",
                help: "`mark-compensated` says that it was",
            });
        }
        let (by, reason) = asked.into_owned();
        Ok(Event::InputEdited {
            step,
            round: node.round + 1,
            input: edit.input.clone(),
            by,
            reason,
        })
    }

    fn must_be_settled(&self, place: Place<'_>, path: &str) -> Result<(), Refused> {
        let step = place.graph.step(place.step);
        if step.kind == StepKind::ReadOnly {
            return Ok(());
        }
        let (effect, help) = match self.scope(place.scope).seen(place.step).effect {
            EffectNow::NotDone => return Ok(()),
            EffectNow::InDoubt if step.inside().is_some() => {
                ("begun", "name the steps inside it, or have it undone first")
            }
            EffectNow::InDoubt => (
                "in doubt",
                "`resolve` says what became of it, `mark-compensated` that it was undone",
            ),
            EffectNow::Done => ("done", "it has to be undone first"),
        };
        let step = path.to_owned();
        Err(Refused::NotSettled { step, effect, help })
    }

    /// What is inside a step can be told about only while that step is under way.
    fn must_be_reached(&self, place: Place<'_>, path: &str) -> Result<(), Refused> {
        for (around, step) in self.around(place.scope) {
            let node = self.scope(around).seen(step);
            if !matches!(node.status, Status::Running | Status::Failed) {
                return Err(Refused::OutOfOrder {
                    step: path.to_owned(),
                    why: NOT_REACHED.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Whether a step around this scope has another round before it than the one that this scope was part of.
    fn begins_anew(&self, scope: ScopeIx) -> bool {
        let mut inner = scope;
        self.around(scope).any(|(around, step)| {
            let round = self.scope(inner).round;
            inner = around;
            self.scope(around).seen(step).round != round
        })
    }

    fn skippable(
        &self,
        graph: &Graph,
        path: &str,
        effect: SkippedEffect,
    ) -> Result<StepIx, Refused> {
        let step = self.named(graph, path)?;
        let place = self.place(graph, step);
        self.skippable_at(place, path)?;
        let inside = place.graph.step(place.step).inside().is_some();
        if inside && effect == SkippedEffect::Done {
            return Err(Refused::OutOfOrder {
                step: path.to_owned(),
                why: "it has no undo of its own: skip it without an effect, or skip the steps inside it"
                    .to_owned(),
            });
        }
        Ok(step)
    }

    fn skippable_at(&self, place: Place<'_>, path: &str) -> Result<(), Refused> {
        let (graph, scope) = (place.graph, self.scope(place.scope));
        self.must_be_settled(place, path)?;
        self.must_be_reached(place, path)?;
        let out_of_order = |why: String| Refused::OutOfOrder {
            step: path.to_owned(),
            why,
        };
        if scope.seen(place.step).status == Status::Done {
            return Err(out_of_order("it is done".to_owned()));
        }
        if self.begins_anew(place.scope) {
            // A skip holds until the run begins anew, and so it would be lost.
            let why = "the step that it is inside of begins anew, and would forget it";
            return Err(out_of_order(why.to_owned()));
        }
        let mut before = graph.step(place.step).dependencies.iter();
        match before.find(|&&before| scope.seen(before).status != Status::Done) {
            // Nothing may be done whose ancestors are still to be called (rule S3).
            Some(&before) => Err(out_of_order(format!(
                "it waits for `{}`, which is not done",
                scope.name(graph, before)
            ))),
            None => Ok(()),
        }
    }

    /// Nothing is undone before what depended on it, by hand neither (rule U1).
    fn markable(&self, root: &Graph, path: &str) -> Result<StepIx, Refused> {
        let step = self.named(root, path)?;
        let place = self.place(root, step);
        let out_of_order = |why: String| Refused::OutOfOrder {
            step: path.to_owned(),
            why,
        };
        if place.graph.step(place.step).inside().is_some() {
            return Err(out_of_order("name the steps inside it".to_owned()));
        }
        if !self.scope(place.scope).stands(place.graph, place.step) {
            return Err(out_of_order("there is nothing to undo".to_owned()));
        }
        let here = [(place.scope, place.step)].into_iter();
        for (ix, step) in here.chain(self.around(place.scope)) {
            let (graph, scope) = (self.graph_of(root, ix), self.scope(ix));
            let mut after = scope.descendants(graph, step).into_iter();
            if let Some(after) = after.find(|&after| scope.stands(graph, after)) {
                return Err(out_of_order(format!(
                    "`{}` depends on it, and has to be undone first",
                    scope.name(graph, after)
                )));
            }
        }
        Ok(step)
    }

    fn resolvable(
        &self,
        graph: &Graph,
        stage: Stage,
        name: &str,
        effect: &ResolvedEffect,
    ) -> Result<Probed<Value>, Refused> {
        let step = self.named(graph, name)?;
        let place = self.place(graph, step);
        if place.graph.step(place.step).inside().is_some() {
            return Err(Refused::OutOfOrder {
                step: name.to_owned(),
                why: "name the steps inside it".to_owned(),
            });
        }
        if !self.is_in_doubt(place) {
            return Err(Refused::NotInDoubt(name.to_owned()));
        }
        match effect {
            ResolvedEffect::NotDone => Ok(Probed::Never),
            ResolvedEffect::Done(Some(output)) => Ok(Probed::Done(output.clone())),
            // Its undo is called either way, and is told what is known: that the output isn't.
            ResolvedEffect::Done(None) if stage == Stage::ParkedUndoing => Ok(Probed::Unknown),
            ResolvedEffect::Done(None) => Err(Refused::Unavailable(format!(
                "`{name}` is done only with its output: the run may go forward, and its dependents need it"
            ))),
        }
    }
}

impl Scope {
    /// Whether the step has, or may have, left something, or is to be undone whatever its calls said.
    pub(super) fn stands(&self, graph: &Graph, step: NodeIx) -> bool {
        graph.step(step).kind != StepKind::ReadOnly
            && (self.seen(step).effect != EffectNow::NotDone || self.wants_undo(graph, step))
    }

    /// All steps that depend on this one, by data or by order, directly or not.
    pub(super) fn descendants(&self, graph: &Graph, step: NodeIx) -> Vec<NodeIx> {
        let mut seen = vec![false; self.nodes.len()];
        let mut found = Vec::new();
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            for &after in &graph.step(step).dependents {
                if !std::mem::replace(&mut seen[after.at()], true) {
                    found.push(after);
                    open.push(after);
                }
            }
        }
        found
    }

    /// Folds an edited input: the step's next call is in a new round (rules K2, K4).
    pub(super) fn input_edited(&mut self, step: NodeIx, round: u32, input: &Value) {
        let node = self.node(step);
        node.next_round();
        node.round = round;
        node.edited = Some(input.clone());
    }

    /// Folds a skip: done, with or without an effect.
    pub(super) fn skipped(
        &mut self,
        graph: &Graph,
        step: NodeIx,
        effect: SkippedEffect,
        output: &Value,
    ) {
        self.failures.retain(|&failed| failed != step);
        self.now_done(graph, step, output.clone());
        let node = self.node(step);
        node.skipped = true;
        if effect == SkippedEffect::None {
            node.effect = EffectNow::NotDone;
            // Rule `always` undoes what was called; this was not.
            node.round_attempts = 0;
        }
    }
}
