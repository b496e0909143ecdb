//! `amends policy`: recovery policies as files.

pub(crate) mod attempt;
pub(crate) mod check;
pub(crate) mod explain;

use std::path::Path;

use amends::policy::{PolicyFileError, PolicySet};

use crate::error::{CliError, Exit};
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Check(check::Args),
    Explain(explain::Args),
    Try(attempt::Args),
}

pub(crate) async fn run(command: &Command, session: &Session) -> Result<Exit, CliError> {
    match command {
        Command::Check(args) => check::run(args, session),
        Command::Explain(args) => explain::run(args, session),
        Command::Try(args) => attempt::run(args, session).await,
    }
}

/// What a file holds, or all that is wrong with it.
fn read(file: &Path) -> Result<Result<PolicySet, PolicyFileError>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::failed(&format!("reading `{}`", file.display()), &error))?;
    Ok(PolicySet::from_toml(&text))
}

/// What a file holds, for subcommands that can't go on without it.
fn read_good(file: &Path) -> Result<PolicySet, CliError> {
    read(file)?.map_err(|wrong| {
        let count = wrong.faults.len();
        let text = format!("`{}` has faults: {count}", file.display());
        wrong
            .faults
            .iter()
            .fold(CliError::new(Exit::Problems, text), |error, fault| {
                error.hint(fault.to_string())
            })
    })
}
