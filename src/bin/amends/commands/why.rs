//! `amends why`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Explains why a run went the way it did: each decision, its rule, and what it saw
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`why` is not written yet"))
}
