//! What every subcommand gets: where its output goes, and how to open the store that was meant.

use std::sync::Arc;

use amends::RunId;
use amends::operator::{Operator, RunView};
use amends::store::{RunEntry, Store};

use crate::args::Cli;
use crate::error::{CliError, Exit};
use crate::near;
use crate::output::Output;
use crate::place::Place;

pub(crate) struct Session {
    pub(crate) out: Output,
    url: Option<String>,
    schema: String,
}

impl Session {
    pub(crate) fn new(cli: &Cli) -> Self {
        Session {
            out: Output::new(&cli.global),
            url: cli.global.store.clone(),
            schema: cli.global.schema.clone(),
        }
    }

    /// Which store was meant.
    pub(crate) fn place(&self) -> Result<Place, CliError> {
        Place::parse(self.url.as_deref(), &self.schema)
    }

    /// The schema of stores in PostgreSQL, whichever store was meant.
    #[cfg(feature = "postgres")]
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Opens the store to read and to hand in commands; others may own it, or work on it.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>, CliError> {
        self.place()?.open_reader().await
    }

    /// The operator over the store that was meant.
    pub(crate) async fn operator(&self) -> Result<Operator, CliError> {
        Ok(Operator::new(self.store().await?))
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
