//! The subcommands, one module each.

pub(crate) mod completions;
pub(crate) mod definitions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod graph;
pub(crate) mod import;
pub(crate) mod journal;
pub(crate) mod list;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod tables;
pub(crate) mod verbs;
pub(crate) mod verify;
pub(crate) mod watch;
pub(crate) mod why;
pub(crate) mod workers;

use amends::operator::ArchiveError;

use crate::args::Command;
use crate::error::{CliError, Exit, with_causes};
use crate::session::Session;

/// Carries out what was asked for.
pub(crate) async fn run(command: &Command, session: &Session) -> Result<Exit, CliError> {
    match command {
        Command::List(args) => list::run(args, session).await,
        Command::Show(args) => show::run(args, session).await,
        Command::Why(args) => why::run(args, session).await,
        Command::Journal(args) => journal::run(args, session).await,
        Command::Graph(args) => graph::run(args, session).await,
        Command::Watch(args) => watch::run(args, session).await,
        Command::Retry(args) => verbs::retry::run(args, session).await,
        Command::Compensate(args) => verbs::compensate::run(args, session).await,
        Command::Cancel(args) => verbs::cancel::run(args, session).await,
        Command::Skip(args) => verbs::skip::run(args, session).await,
        Command::MarkCompensated(args) => verbs::mark_compensated::run(args, session).await,
        Command::Resolve(args) => verbs::resolve::run(args, session).await,
        Command::Signal(args) => verbs::signal::run(args, session).await,
        Command::Approve(args) => verbs::approve::run(args, session).await,
        Command::Deny(args) => verbs::deny::run(args, session).await,
        Command::Pause(args) => verbs::pause::run(args, session).await,
        Command::Resume(args) => verbs::resume::run(args, session).await,
        Command::Abandon(args) => verbs::abandon::run(args, session).await,
        Command::Migrate(args) => verbs::migrate::run(args, session).await,
        Command::Definitions(args) => definitions::run(args, session).await,
        Command::Workers(args) => workers::run(args, session).await,
        Command::Policy(command) => policy::run(command, session).await,
        Command::Verify(args) => verify::run(args, session).await,
        Command::Stats(args) => stats::run(args, session).await,
        Command::Export(args) => export::run(args, session).await,
        Command::Import(args) => import::run(args, session).await,
        Command::Prune(args) => prune::run(args, session).await,
        Command::Doctor(args) => doctor::run(args, session).await,
        Command::Completions(args) => completions::run(args, session),
    }
}

/// An export or an import could not go on.
fn archive_error(error: ArchiveError) -> CliError {
    match error {
        ArchiveError::Store(error) => error.into(),
        error @ ArchiveError::Line { .. } => CliError::new(Exit::Failed, with_causes(&error))
            .hint("what came before that line was taken; the same import again goes on there"),
        ArchiveError::Io(error) => error.into(),
        error => CliError::new(Exit::Failed, with_causes(&error)),
    }
}
