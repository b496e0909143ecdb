//! `amends resolve`.

use amends::journal::{ResolvedEffect, Verb};

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;
use crate::value;

/// Says what became of an effect in doubt
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step
    #[arg(value_name = "STEP")]
    step: String,
    /// It happened
    #[arg(
        long,
        required_unless_present = "not_done",
        conflicts_with = "not_done"
    )]
    done: bool,
    /// What it gave: JSON, or `@FILE`; needed where the run may still go forward
    #[arg(long, value_name = "JSON", requires = "done")]
    output: Option<String>,
    /// It did not happen, and will be refused if it still arrives
    #[arg(long)]
    not_done: bool,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let verb = Verb::Resolve {
        step: args.step.clone(),
        effect: if args.not_done {
            ResolvedEffect::NotDone
        } else {
            ResolvedEffect::Done(args.output.as_deref().map(value::read).transpose()?)
        },
    };
    ask(verb, &args.asking, session).await
}
