//! `amends deny`.

use amends::ApprovalVerdict;

use super::{Asking, approve};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Denies what a run waits for somebody to approve
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step that waits for it
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    approve::answer(ApprovalVerdict::Denied, &args.step, &args.asking, session).await
}
