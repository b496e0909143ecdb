//! `amends prune`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Forgets, for ever, runs that ended long ago
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Works in small pieces, so that a coordinator on the same store is not held up."
)]
pub(crate) struct Args {
    /// Runs that ended longer ago than this, such as `30d`
    #[arg(long, value_name = "AGE", value_parser = crate::span::parse)]
    pub(crate) older_than: std::time::Duration,
    /// Only runs that ended so; several words, with commas between
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) status: Vec<crate::select::Status>,
    /// Write the runs to this file first, as `amends export` does
    #[arg(long, value_name = "FILE")]
    pub(crate) export_first: Option<std::path::PathBuf>,
    /// Say how many runs would be forgotten, and forget none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`prune` is not written yet"))
}
