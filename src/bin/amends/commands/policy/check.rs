//! `amends policy check`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Reads a policy file, and lists all that is wrong with it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(
        Exit::Failed,
        "`policy check` is not written yet",
    ))
}
