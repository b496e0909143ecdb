//! `amends list`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Lists runs, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
    /// So many at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, conflicts_with = "all")]
    pub(crate) limit: usize,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`list` is not written yet"))
}
