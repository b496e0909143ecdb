//! `amends export`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Writes runs as JSON lines, payloads included
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The lines can be read again by `amends import`. They hold the payloads of the runs."
)]
pub(crate) struct Args {
    /// Only these runs
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    pub(crate) runs: Vec<String>,
    /// The file to write; the standard output where it is left out
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`export` is not written yet"))
}
