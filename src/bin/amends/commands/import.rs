//! `amends import`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Reads runs that `amends export` wrote into a store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs the store for itself, and makes it where there is none. Runs that are there already are left alone."
)]
pub(crate) struct Args {
    /// The file to read; `-` is the standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// Say what would be read, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`import` is not written yet"))
}
