//! `amends verify`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Checks every journal of the store
#[derive(Debug, clap::Args)]
#[command(after_help = "Reads each record, its checksum and its meaning. Nothing is changed.")]
pub(crate) struct Args {
    /// Only these runs
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`verify` is not written yet"))
}
