//! `amends policy explain`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Says what a policy would decide in a situation, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// The failure mode, such as `system_network`
    #[arg(long, value_name = "MODE", value_parser = crate::select::mode)]
    pub(crate) mode: String,
    /// The step that failed
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) step: String,
    /// How much was done, such as `3/4`
    #[arg(long, value_name = "DONE/ALL", default_value = "0/1")]
    pub(crate) completed: String,
    /// The pivot is done or in doubt
    #[arg(long)]
    pub(crate) past_pivot: bool,
    /// The failed step is in doubt
    #[arg(long)]
    pub(crate) in_doubt: bool,
    /// Recoveries that the run has had
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) recoveries: u32,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(
        Exit::Failed,
        "`policy explain` is not written yet",
    ))
}
