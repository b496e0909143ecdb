//! `amends mark-compensated`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Says that a step of a parked run was undone by hand
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let step = args.step.clone();
    ask(Verb::MarkCompensated { step }, &args.asking, session).await
}
