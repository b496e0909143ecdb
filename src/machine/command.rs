//! Commands from outside: what is answered, and which events they become.

use std::sync::Arc;

use crate::journal::{
    CancelTold, Cause, Decision, End, Event, InputEdit, ResolvedEffect, SkippedEffect, Verb,
    VerbName,
};
use crate::machine::decide::UNSETTLED_STOP;
use crate::machine::recovery::AskedBy;
use crate::machine::state::{Direction, EffectNow, Phase, State, Status};
use crate::machine::verbs::{Stage, Verdict, verdict};
use crate::policy::RecoveryStrategy;
use crate::saga::{Graph, StepKind};
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
    /// The new input is not one of the step's.
    #[error("the new input of `{step}` can't be read: {why}")]
    BadInput {
        /// The step.
        step: String,
        /// What serde said.
        why: String,
    },
}

/// Why a run is not migrated whose definition is there.
const NOTHING_TO_MIGRATE: &str =
    "its definition is registered with its owner, so it goes on as it is: nothing is to be migrated";

/// Who asks, and why.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
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
        if token.is_some_and(|token| self.knows(token)) {
            return Ok(Vec::new());
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
                if let Some(why) = self.unavailable(graph, back, AskedBy::Operator) {
                    return Err(Refused::Unavailable(why));
                }
                events.push(self.plain_decision(asked.cause(), back, false));
            }
            Verb::Skip {
                step,
                effect,
                output,
            } => {
                let step = self.skippable(graph, step)?;
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
                    round: self.seen(step).round,
                    by,
                    reason,
                });
            }
            Verb::Resolve { step, effect } => {
                let answer = self.resolvable(graph, stage, step, effect)?;
                let step = named(graph, step)?;
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
            // Whoever has no code for the run carries it out, without asking the machine of one definition.
            Verb::Migrate { .. } => return Err(Refused::Unavailable(NOTHING_TO_MIGRATE.to_owned())),
            // The table takes no signal at any stage.
            Verb::Signal { .. } => {}
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
                let nobody = Asked { by: "", reason: "" };
                ways.into_iter()
                    .any(|way| self.retry_event(graph, stage, way, nobody).is_ok())
            }
            VerbName::Compensate => self
                .unavailable(graph, RecoveryStrategy::Compensate, AskedBy::Operator)
                .is_none(),
            VerbName::Skip => graph
                .steps
                .iter()
                .any(|step| self.skippable(graph, &step.name).is_ok()),
            // Of all that stand one is the last, on which nothing else that stands depends.
            VerbName::MarkCompensated => {
                let mut steps = (0..self.nodes.len()).map(StepIx::new);
                steps.any(|step| self.stands(graph, step))
            }
            VerbName::Resolve => {
                let mut nodes = self.nodes.iter();
                nodes.any(|node| node.effect == EffectNow::InDoubt)
            }
            VerbName::Cancel
            | VerbName::Signal
            | VerbName::Pause
            | VerbName::Resume
            | VerbName::Abandon => true,
            // Only the owner knows whether it has the run's code.
            VerbName::Migrate => false,
        }
    }

    /// What a cancel is told now (rule C1).
    fn cancel_event(&self, graph: &Graph, asked: Asked<'_>) -> Event<StepIx> {
        let mut no_return = self.no_return(graph);
        let told = match self.pivot_effect(graph) {
            _ if self.phase == Phase::Unwinding && self.unwind.then == Direction::Compensated => {
                CancelTold::Accepted
            }
            EffectNow::Done => CancelTold::TooLate,
            EffectNow::InDoubt => CancelTold::Pending,
            EffectNow::NotDone if no_return.any(|node| node.status == Status::Running) => {
                CancelTold::Pending
            }
            EffectNow::NotDone => CancelTold::Accepted,
        };
        let (by, reason) = asked.into_owned();
        Event::CancelRequested { by, reason, told }
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
                        .unavailable(graph, Compensate, AskedBy::Operator)
                        .is_none() =>
            {
                (Compensate, false)
            }
            // The undoing goes on to where it was going.
            (None, true) => match &self.last_decision {
                Some(last) => (last.strategy, last.stop),
                None => (Compensate, false),
            },
        };
        let goes_to = match self.unwind.then {
            _ if stage != Stage::Undoing => None,
            Direction::Compensated => None,
            Direction::Stopped => Some("ends, as a step asked,"),
            Direction::Forward { .. } => Some("goes forward again"),
        };
        if let Some(goes_to) = goes_to {
            return unavailable(format!(
                "{strategy} is not available: the run {goes_to} once this is undone"
            ));
        }
        // Whoever stops executes nothing again.
        let unavailable_now = self.unavailable(graph, strategy, AskedBy::Operator);
        if let Some(why) = unavailable_now.filter(|_| !stop) {
            return unavailable(why);
        }
        Ok(Event::Decided(Box::new(Decision {
            cause: asked.cause(),
            strategy,
            stop,
            failed: self.failures.clone(),
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
        let step = named(graph, &edit.step)?;
        let node = self.seen(step);
        self.must_be_settled(graph, step)?;
        if node.status == Status::Done {
            return Err(Refused::OutOfOrder {
                step: edit.step.clone(),
                why: "it is done, and is not called again".to_owned(),
            });
        }
        if self.wants_undo(graph, step) {
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

    fn must_be_settled(&self, graph: &Graph, step: StepIx) -> Result<(), Refused> {
        if graph.step(step).kind == StepKind::ReadOnly {
            return Ok(());
        }
        let (effect, help) = match self.seen(step).effect {
            EffectNow::NotDone => return Ok(()),
            EffectNow::InDoubt => (
                "in doubt",
                "`resolve` says what became of it, `mark-compensated` that it was undone",
            ),
            EffectNow::Done => ("done", "it has to be undone first"),
        };
        let step = graph.step(step).name.to_string();
        Err(Refused::NotSettled { step, effect, help })
    }

    fn skippable(&self, graph: &Graph, name: &str) -> Result<StepIx, Refused> {
        let step = named(graph, name)?;
        self.must_be_settled(graph, step)?;
        let out_of_order = |why: String| Refused::OutOfOrder {
            step: name.to_owned(),
            why,
        };
        if self.seen(step).status == Status::Done {
            return Err(out_of_order("it is done".to_owned()));
        }
        let waits_for = graph
            .step(step)
            .dependencies
            .iter()
            .find(|&&before| self.seen(before).status != Status::Done);
        match waits_for {
            // Nothing may be done whose ancestors are still to be called (rule S3).
            Some(&before) => Err(out_of_order(format!(
                "it waits for `{}`, which is not done",
                graph.step(before).name
            ))),
            None => Ok(step),
        }
    }

    /// Nothing is undone before what depended on it, by hand neither (rule U1).
    fn markable(&self, graph: &Graph, name: &str) -> Result<StepIx, Refused> {
        let step = named(graph, name)?;
        let out_of_order = |why: String| Refused::OutOfOrder {
            step: name.to_owned(),
            why,
        };
        if !self.stands(graph, step) {
            return Err(out_of_order("there is nothing to undo".to_owned()));
        }
        let mut after = self.descendants(graph, step).into_iter();
        let stands = after.find(|&after| self.stands(graph, after));
        match stands {
            Some(after) => Err(out_of_order(format!(
                "`{}` depends on it, and has to be undone first",
                graph.step(after).name
            ))),
            None => Ok(step),
        }
    }

    /// Whether the step has, or may have, left something, or is to be undone whatever its calls said.
    pub(super) fn stands(&self, graph: &Graph, step: StepIx) -> bool {
        graph.step(step).kind != StepKind::ReadOnly
            && (self.seen(step).effect != EffectNow::NotDone || self.wants_undo(graph, step))
    }

    fn resolvable(
        &self,
        graph: &Graph,
        stage: Stage,
        name: &str,
        effect: &ResolvedEffect,
    ) -> Result<Probed<Value>, Refused> {
        let step = named(graph, name)?;
        if self.seen(step).effect != EffectNow::InDoubt {
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

    /// All steps that depend on this one, by data or by order, directly or not.
    pub(super) fn descendants(&self, graph: &Graph, step: StepIx) -> Vec<StepIx> {
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
    pub(super) fn input_edited(&mut self, step: StepIx, round: u32, input: &Value) {
        let node = self.node(step);
        node.next_round();
        node.round = round;
        node.edited = Some(input.clone());
    }

    /// Folds a skip: done, with or without an effect.
    pub(super) fn skipped(
        &mut self,
        graph: &Graph,
        step: StepIx,
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

fn named(graph: &Graph, step: &str) -> Result<StepIx, Refused> {
    graph
        .step_named(step)
        .ok_or_else(|| Refused::NoSuchStep(step.to_owned()))
}
