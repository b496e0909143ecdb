//! `amends migrate`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Has a run, whose definition its owner hasn't, go on with another version
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The owner's code declares how: `Migration`, in its builder. The run is parked then, and `retry`
lets it go on. `amends definitions` says for which runs a migration is declared.")]
pub(crate) struct Args {
    /// To this version; left out, the newest that the owner has declared
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    ask(Verb::Migrate { to: args.to }, &args.asking, session).await
}
