//! A run's journal on its way to a state, also where a record of it can't be read.

use crate::coordinator::GetError;
use crate::ids::RunId;
use crate::journal::{Event, Journal, ParkReason, Parking};
use crate::machine::{ReplayError, State};
use crate::saga::Graph;
use crate::store::{LoadError, Store};

/// What could be read of a journal: all of it, or what comes before the damage.
pub(crate) struct Reading {
    pub(crate) journal: Journal,
    pub(crate) damage: Option<String>,
}

impl Reading {
    /// Reads a run's journal; nothing where there is no such run.
    pub(crate) async fn of(store: &dyn Store, run: &RunId) -> Result<Option<Self>, GetError> {
        let (journal, damage) = match store.load(run).await {
            Ok(Some(journal)) => (journal, None),
            Ok(None) => return Ok(None),
            // What comes before the damage still tells what the run has achieved.
            Err(LoadError::Unreadable {
                run,
                seq,
                what,
                before,
            }) if !before.records.is_empty() => {
                let journal = (*before).clone();
                let error = LoadError::Unreadable {
                    run,
                    seq,
                    what,
                    before,
                };
                (journal, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Reading { journal, damage }))
    }

    /// The saga, version and fingerprint that the run goes on with.
    pub(crate) fn definition(&self) -> Result<(&str, u32, &str), GetError> {
        self.journal.definition().ok_or_else(|| self.no_start())
    }

    fn no_start(&self) -> GetError {
        GetError::NoStart {
            run: self.journal.run.clone(),
        }
    }

    /// The place of the last record that could be read.
    pub(crate) fn last_seq(&self) -> u64 {
        self.journal.records.last().map_or(0, |record| record.seq)
    }

    /// The state that the journal means. A run whose journal is damaged is taken for parked.
    pub(crate) fn fold(self, graph: &Graph) -> Result<State, GetError> {
        let run = self.journal.run.clone();
        let no_start = self.no_start();
        let at = self.journal.records.last().map(|record| record.at);
        let mut state = State::replay(graph, self.journal).map_err(|error| match error {
            ReplayError::NoStart => no_start,
            ReplayError::NoSuchStep(step) => GetError::NoSuchStep { run, step },
        })?;
        if let Some(why) = self.damage {
            let parking = Parking::new(ParkReason::Unreadable, why);
            let at = at.unwrap_or_default();
            state.apply(graph, &Event::Parked(Box::new(parking)), at);
        }
        Ok(state)
    }
}
