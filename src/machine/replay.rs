//! From a journal to a state: the very function that running uses (promise 8).

use crate::ids::Timestamp;
use crate::journal::{Event, Journal};
use crate::machine::State;
use crate::saga::Graph;
use crate::step::StepIx;

/// Why a journal has no state under a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It doesn't begin with a start.
    #[error("the journal doesn't begin with its start")]
    NoStart,
    /// It names a step that the graph doesn't have.
    #[error("the journal names step `{0}`, which its definition doesn't have")]
    NoSuchStep(String),
}

impl State {
    /// Folds a whole journal, whose steps are matched to the graph's by name (promise 9).
    ///
    /// # Errors
    ///
    /// [`ReplayError`], where the journal is not one of a run of this graph.
    pub fn replay(graph: &Graph, journal: Journal) -> Result<State, ReplayError> {
        State::replay_with(graph, journal, |_, _, _, _| {})
    }

    /// The same, with a look at the state before each event but the first: the record's number and time
    /// come with it.
    pub(super) fn replay_with(
        graph: &Graph,
        journal: Journal,
        mut look: impl FnMut(&State, &Event<StepIx>, u64, Timestamp),
    ) -> Result<State, ReplayError> {
        // Numbers are given in the order in which steps come into being, so a table that was made for this
        // very graph has the same ones. Another one is matched by names, as the steps come up.
        let same = journal.steps.begins_as(&graph.table);
        let names = if same {
            Vec::new()
        } else {
            journal.steps.names()
        };
        let mut numbers: Vec<Option<StepIx>> = vec![None; names.len()];
        let mut state: Option<State> = None;
        for record in journal.records {
            for event in record.events {
                let event = match &state {
                    Some(state) if !same => {
                        let mut unknown = None;
                        let event = event.map_step(|step| {
                            let known = numbers.get(step.at()).copied().flatten();
                            known
                                .or_else(|| state.step_named(graph, names.get(step.at())?))
                                .inspect(|&found| numbers[step.at()] = Some(found))
                                .unwrap_or_else(|| {
                                    unknown = Some(
                                        names.get(step.at()).map_or("?", |name| name).to_owned(),
                                    );
                                    step
                                })
                        });
                        if let Some(name) = unknown {
                            return Err(ReplayError::NoSuchStep(name));
                        }
                        event
                    }
                    _ => event,
                };
                match (&mut state, &event) {
                    (Some(state), event) => {
                        look(state, event, record.seq, record.at);
                        state.apply(graph, event, record.at);
                    }
                    (None, Event::RunStarted(started)) => {
                        state = Some(State::begin(graph, started, record.at));
                    }
                    (None, _) => return Err(ReplayError::NoStart),
                }
            }
        }
        state.ok_or(ReplayError::NoStart)
    }
}
