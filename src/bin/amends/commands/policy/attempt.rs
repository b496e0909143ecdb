//! `amends policy try`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Says what a policy would have decided about runs of the store, and changes nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// Only these runs
    #[arg(value_name = "RUN", conflicts_with = "Which")]
    pub(crate) runs: Vec<String>,
    #[command(flatten)]
    pub(crate) which: crate::select::Which,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(
        Exit::Failed,
        "`policy try` is not written yet",
    ))
}
