//! `amends doctor`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Examines a store, and says what to do about what it finds
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bring an older store up to date; needs it for itself
    #[arg(long)]
    pub(crate) upgrade: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`doctor` is not written yet"))
}
