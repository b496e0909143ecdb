//! `amends approve`.

use amends::ApprovalVerdict;
use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Approves what a run waits for somebody to approve
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step that waits for it
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    answer(ApprovalVerdict::Approved, &args.step, &args.asking, session).await
}

/// Both words have to say why, also where nobody is there to refuse them.
pub(super) async fn answer(
    verdict: ApprovalVerdict,
    name: &str,
    asking: &Asking,
    session: &Session,
) -> Result<Exit, CliError> {
    let missing = [("--by", &asking.how.by), ("--reason", &asking.how.reason)];
    if let Some((flag, _)) = missing.iter().find(|(_, said)| said.trim().is_empty()) {
        let why = format!("`{flag}` is missing: who answers, and why, is journalled");
        return Err(CliError::new(Exit::Usage, why));
    }
    ask(Verb::signal(name, verdict), asking, session).await
}
