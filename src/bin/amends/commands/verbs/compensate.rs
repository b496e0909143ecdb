//! `amends compensate`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Undoes a parked run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    ask(Verb::Compensate, &args.asking, session).await
}
