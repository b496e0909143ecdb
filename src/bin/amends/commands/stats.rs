//! `amends stats`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Counts runs by saga, status and trouble
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`stats` is not written yet"))
}
