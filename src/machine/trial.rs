//! What other policies would have decided about a run: its journal is folded, and asked again.

use std::fmt;

use crate::ids::Timestamp;
use crate::journal::{Cause, Decision, Event, Journal};
use crate::machine::{ReplayError, State};
use crate::policy::{Explanation, PolicySet, RecoveryStrategy};
use crate::saga::{Graph, Outline};
use crate::step::StepIx;

/// What a set of policies would have decided at each failure of a stored run.
///
/// The journal is folded up to each decision that a policy made, and there the machine is asked as it is
/// when the run is driven: with what is done and in doubt, past the pivot, with recoveries and time used
/// up. So each answer is exact for the situation in which the decision was made. What is not:
///
/// * From the first decision that differs on, the run would have gone another way; later answers are
///   about what really happened. They are marked, as [`after_a_difference`](Tried::after_a_difference).
/// * Retries are not tried: a set that retries more might not have come to a decision at all.
/// * With an [`Outline`] instead of the definition, which a store has for every run, it is not known
///   which steps run at most once; an answer that repeats one would be overruled.
///
/// ```
/// use amends::journal::Journal;
/// use amends::machine::{Trial, TrialError};
/// use amends::policy::PolicySet;
/// use amends::{Outline, RecoveryPolicy};
///
/// fn differs(journal: &Journal, outline: &Outline) -> Result<bool, TrialError> {
///     let set = PolicySet::new().recovery(RecoveryPolicy::by_progress());
///     Ok(Trial::with_outline(journal, outline, &set)?.differs())
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trial {
    /// The decisions that a policy was asked for, in order.
    pub decisions: Vec<Tried>,
    /// Decisions that no policy is asked for: a cancel, a stop, an operator's word.
    pub not_asked: u32,
}

/// One decision, as it was made and as it would have been.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tried {
    /// The record that holds the decision.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The steps that failed; none where only the run's time was up.
    pub failed: Vec<String>,
    /// What was decided.
    pub recorded: RecoveryStrategy,
    /// Why.
    pub recorded_why: Vec<Explanation>,
    /// What would have been decided.
    pub would: RecoveryStrategy,
    /// Why.
    pub would_why: Vec<Explanation>,
    /// Whether an earlier decision of the run would have been another, so that the run might never have
    /// come here.
    pub after_a_difference: bool,
}

/// A journal can't be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// It can't be folded.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It is the journal of another definition.
    #[error("the run is of saga `{found}`, and the definition is of `{wanted}`")]
    OtherSaga {
        /// The run's saga.
        found: String,
        /// The definition's.
        wanted: String,
    },
}

impl Tried {
    /// Whether something else would have been decided.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.recorded != self.would
    }
}

impl Trial {
    /// Tries these policies on a run whose definition is at hand.
    ///
    /// # Errors
    ///
    /// Where the journal and the definition don't fit.
    pub fn with_graph(
        journal: &Journal,
        graph: &Graph,
        policies: &PolicySet,
    ) -> Result<Self, TrialError> {
        if let Some(found) = saga_of(journal)
            && found != &*graph.saga
        {
            return Err(TrialError::OtherSaga {
                found: found.to_owned(),
                wanted: graph.saga.to_string(),
            });
        }
        let graph = graph.under(policies);
        let mut trial = Trial {
            decisions: Vec::new(),
            not_asked: 0,
        };
        State::replay_with(&graph, journal.clone(), |state, graph, event, seq, at| {
            if let Event::Decided(decision) = event {
                trial.ask(state, graph, decision, seq, at);
            }
        })?;
        Ok(trial)
    }

    /// Tries these policies on a run of which only the store knows the definition.
    ///
    /// # Errors
    ///
    /// As [`with_graph`](Self::with_graph).
    pub fn with_outline(
        journal: &Journal,
        outline: &Outline,
        policies: &PolicySet,
    ) -> Result<Self, TrialError> {
        Trial::with_graph(journal, &outline.to_graph(), policies)
    }

    fn ask(
        &mut self,
        state: &State,
        graph: &Graph,
        decision: &Decision<StepIx>,
        seq: u64,
        at: Timestamp,
    ) {
        if decision.cause != Cause::Failures {
            self.not_asked += 1;
            return;
        }
        // The record has the time of its first event, and the policy may have seen a later one.
        let saw = decision.why.first().map(|why| why.saw.elapsed);
        let asked_at = match saw.filter(|elapsed| !elapsed.is_zero() && !state.is_paused()) {
            Some(elapsed) => state.started_at.after(elapsed + state.stood),
            None => at,
        };
        let ix = state.scope_of(decision);
        let would = state.ask_policy(graph, ix, asked_at);
        let names = decision.failed.iter().map(|&step| state.table.name(step));
        self.decisions.push(Tried {
            seq,
            at,
            failed: names.map(|name| name.to_string()).collect(),
            recorded: decision.strategy,
            recorded_why: decision.why.clone(),
            would: would.strategy,
            would_why: would.why,
            after_a_difference: self.differs(),
        });
    }

    /// Whether any decision would have been another.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.decisions.iter().any(Tried::differs)
    }
}

fn saga_of(journal: &Journal) -> Option<&str> {
    let first = journal.records.first()?.events.first()?;
    match first {
        Event::RunStarted(started) => Some(&started.saga),
        _ => None,
    }
}

/// One line per decision, for people.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tried in &self.decisions {
            writeln!(f, "{tried}")?;
        }
        match self.not_asked {
            0 => Ok(()),
            1 => writeln!(f, "1 decision is made without a policy"),
            more => writeln!(f, "{more} decisions are made without a policy"),
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = if self.failed.is_empty() {
            "the run's time was up".to_owned()
        } else {
            format!("`{}` failed", self.failed.join("` and `"))
        };
        let rule = |why: &[Explanation], strategy: RecoveryStrategy| {
            let decided = why
                .iter()
                .find(|why| why.says == strategy || why.overruled.is_some());
            match decided {
                Some(why) if why.overruled.is_some() => {
                    format!("{strategy} (`{}` overruled)", why.rule)
                }
                Some(why) => format!("{strategy} (`{}`)", why.rule),
                None => strategy.to_string(),
            }
        };
        let recorded = rule(&self.recorded_why, self.recorded);
        let would = rule(&self.would_why, self.would);
        write!(f, "{} record {}: {failed}: ", self.at, self.seq)?;
        if self.differs() {
            write!(f, "was {recorded}, would be {would}")?;
        } else {
            write!(f, "was {recorded}, stays {would}")?;
        }
        if self.after_a_difference {
            f.write_str(", had the run come here")?;
        }
        Ok(())
    }
}
