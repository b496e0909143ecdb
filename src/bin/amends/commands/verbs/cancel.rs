//! `amends cancel`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Ends a run: nothing new starts, and what is done is undone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    ask(Verb::Cancel, &args.asking, session).await
}
