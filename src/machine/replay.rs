//! From a journal to a state: the very function that running uses (promise 8).

use std::sync::Arc;

use crate::ids::Timestamp;
use crate::journal::{Event, Journal, Migrated, Record};
use crate::machine::State;
use crate::machine::migrate::graph_before;
use crate::saga::Graph;
use crate::step::{StepIx, StepTable};

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

/// The numbers in the run of the steps that a journal names.
struct Numbers {
    /// Nothing where they are the same: numbers are given in the order in which steps come into being, so
    /// a table that was made for this very graph has the same ones. Another one is matched by names, as
    /// the steps come up.
    names: Option<Vec<Arc<str>>>,
    known: Vec<Option<StepIx>>,
}

impl Numbers {
    fn of(graph: &Graph, journal: &StepTable) -> Self {
        let same = journal.begins_as(&graph.table);
        let names = (!same).then(|| journal.names());
        Numbers {
            known: vec![None; names.as_ref().map_or(0, Vec::len)],
            names,
        }
    }

    fn translate(
        &mut self,
        event: Event<StepIx>,
        state: &State,
        graph: &Graph,
    ) -> Result<Event<StepIx>, ReplayError> {
        let Some(names) = &self.names else {
            return Ok(event);
        };
        let mut missing = None;
        let event = event.map_step(|step| {
            let known = self.known.get(step.at()).copied().flatten();
            known
                .or_else(|| state.step_named(graph, names.get(step.at())?))
                .inspect(|&found| self.known[step.at()] = Some(found))
                .unwrap_or_else(|| {
                    missing = Some(names.get(step.at()).map_or("?", |name| name).to_owned());
                    step
                })
        });
        match missing {
            None => Ok(event),
            Some(step) => Err(ReplayError::NoSuchStep(step)),
        }
    }
}

/// The graphs that a run had before the one that it has now, oldest first.
fn graphs_before(graph: &Graph, records: &[Record]) -> Vec<Graph> {
    let events = records.iter().flat_map(|record| &record.events);
    let migrations: Vec<&Migrated> = events
        .filter_map(|event| match event {
            Event::Migrated(migrated) => Some(&**migrated),
            _ => None,
        })
        .collect();
    let mut graphs: Vec<Graph> = Vec::new();
    for migrated in migrations.into_iter().rev() {
        let before = graph_before(migrated, graphs.last().unwrap_or(graph));
        graphs.push(before);
    }
    graphs.reverse();
    graphs
}

impl State {
    /// Folds a whole journal, whose steps are matched to the graph's by name (promise 9). What comes before
    /// a migration is folded with the definition that the run had then.
    ///
    /// # Errors
    ///
    /// [`ReplayError`], where the journal is not one of a run of this graph.
    pub fn replay(graph: &Graph, journal: Journal) -> Result<State, ReplayError> {
        State::replay_with(graph, journal, |_, _, _, _, _| {})
    }

    /// The same, with a look at the state before each event but the first: the graph of that state, and the
    /// record's number and time come with it.
    pub(super) fn replay_with(
        graph: &Graph,
        journal: Journal,
        mut look: impl FnMut(&State, &Graph, &Event<StepIx>, u64, Timestamp),
    ) -> Result<State, ReplayError> {
        let before = graphs_before(graph, &journal.records);
        let mut graphs = before.iter().chain([graph]);
        let mut current = graphs.next().unwrap_or(graph);
        let mut numbers = Numbers::of(current, &journal.steps);
        let mut state: Option<State> = None;
        for record in journal.records {
            for event in record.events {
                state = Some(match (state.take(), event) {
                    (Some(mut state), event) => {
                        let event = numbers.translate(event, &state, current)?;
                        look(&state, current, &event, record.seq, record.at);
                        if let Event::Migrated(migrated) = &event {
                            let next = graphs.next().unwrap_or(graph);
                            state = state.migrated(current, next, migrated);
                            current = next;
                            numbers = Numbers::of(current, &journal.steps);
                        }
                        state.apply(current, &event, record.at);
                        state
                    }
                    (None, Event::RunStarted(started)) => {
                        State::begin(current, &started, record.at)
                    }
                    (None, _) => return Err(ReplayError::NoStart),
                });
            }
        }
        state.ok_or(ReplayError::NoStart)
    }
}
