//! `amends policy`: recovery policies as files.

pub(crate) mod attempt;
pub(crate) mod check;
pub(crate) mod explain;

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
        Command::Check(args) => check::run(args, session).await,
        Command::Explain(args) => explain::run(args, session).await,
        Command::Try(args) => attempt::run(args, session).await,
    }
}
