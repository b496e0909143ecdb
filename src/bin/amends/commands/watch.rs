//! `amends watch`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Follows a run until it ends, or a list of runs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run; left out, the runs that match are listed again and again
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
    /// Show payloads: inputs and outputs may hold what not everybody may see
    #[arg(long)]
    pub(crate) payloads: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`watch` is not written yet"))
}
