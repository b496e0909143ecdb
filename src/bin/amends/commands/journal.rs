//! `amends journal`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Shows a run's journal, record by record
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    pub(crate) payloads: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`journal` is not written yet"))
}
