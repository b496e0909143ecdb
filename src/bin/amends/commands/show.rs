//! `amends show`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Shows how a run stands: its steps, what was undone, what is outstanding, what it takes now
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Show when each attempt ran, too
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    pub(crate) payloads: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`show` is not written yet"))
}
