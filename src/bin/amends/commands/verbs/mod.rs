//! The verbs: commands to runs, handed in for the owner of the run to carry out.

pub(crate) mod abandon;
pub(crate) mod cancel;
pub(crate) mod compensate;
pub(crate) mod mark_compensated;
pub(crate) mod pause;
pub(crate) mod resolve;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod signal;
pub(crate) mod skip;

use std::num::NonZeroU32;
use std::time::Duration;

use amends::journal::Verb;

use crate::error::{CliError, Exit};
use crate::select::Which;
use crate::session::Session;
use crate::span;

/// To which runs, and how: what all verbs share.
#[derive(Debug, clap::Args)]
pub(crate) struct Asking {
    /// The runs; left out, all runs that match the flags below
    #[arg(
        value_name = "RUN",
        required_unless_present = "Which",
        conflicts_with = "Which"
    )]
    pub(crate) runs: Vec<String>,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How commands are handed in.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How")]
pub(crate) struct How {
    /// Who asks
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) by: String,
    /// Why, for those who read the journal later
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// A name for this command: repeated with the same one, it is carried out once
    #[arg(long, value_name = "TEXT")]
    pub(crate) token: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = span::parse, default_value = "5s")]
    pub(crate) wait: Duration,
    /// So many runs per second at most
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<NonZeroU32>,
    /// Say which runs would take it, and hand nothing in
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask before steering runs by flags
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Hands a verb in to all runs that are meant.
pub(crate) async fn ask(verb: Verb, asking: &Asking, session: &Session) -> Result<Exit, CliError> {
    let _ = (verb, asking, session);
    Err(CliError::new(Exit::Failed, "verbs are not written yet"))
}
