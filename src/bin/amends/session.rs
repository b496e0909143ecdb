//! What every subcommand gets: where its output goes, and how to open the store that was meant.

use std::sync::Arc;

use amends::RunId;
use amends::operator::{Operator, RunView};
use amends::store::{RunEntry, SqliteStore};

use crate::args::Cli;
use crate::error::{CliError, Exit};
use crate::near;
use crate::output::Output;
use crate::place::Place;

pub(crate) struct Session {
    pub(crate) out: Output,
    url: Option<String>,
}

impl Session {
    pub(crate) fn new(cli: &Cli) -> Self {
        Session {
            out: Output::new(&cli.global),
            url: cli.global.store.clone(),
        }
    }

    /// Which store was meant.
    pub(crate) fn place(&self) -> Result<Place, CliError> {
        Place::parse(self.url.as_deref())
    }

    /// Opens the store to read and to hand in commands; somebody else may own it.
    pub(crate) fn store(&self) -> Result<Arc<SqliteStore>, CliError> {
        Ok(Arc::new(self.place()?.open_reader()?))
    }

    /// The operator over the store that was meant.
    pub(crate) fn operator(&self) -> Result<Operator, CliError> {
        Ok(Operator::new(self.store()?))
    }
}

/// All about a run, or an error that says which one was meant perhaps.
pub(crate) async fn view(operator: &Operator, run: &str) -> Result<RunView, CliError> {
    match operator.view(&RunId::new(run)).await? {
        Some(view) => Ok(view),
        None => Err(no_such_run(operator, run).await),
    }
}

/// A run's entry in the list, or an error that says which one was meant perhaps.
pub(crate) async fn entry(operator: &Operator, run: &str) -> Result<RunEntry, CliError> {
    match operator.store().find(&RunId::new(run)).await? {
        Some(entry) => Ok(entry),
        None => Err(no_such_run(operator, run).await),
    }
}

/// There is no such run, but perhaps ones with similar names.
pub(crate) async fn no_such_run(operator: &Operator, run: &str) -> CliError {
    let error = CliError::new(
        Exit::NotFound,
        format!("there is no run `{run}` in this store"),
    );
    match near::runs(operator, run).await {
        Ok(near) if !near.is_empty() => {
            error.hint(format!("did you mean {}?", near::either(&near)))
        }
        // The suggestion is a courtesy: where it fails, the error still says what was asked.
        _ => error.hint(
            "`amends list` shows the newest runs, `amends list --prefix P` those that begin so",
        ),
    }
}
