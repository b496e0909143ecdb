//! `amends skip`.

use amends::journal::{SkippedEffect, Verb};
use clap::ValueEnum;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;
use crate::value;

/// Takes a step of a parked run as done, without calling it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The step
    #[arg(value_name = "STEP")]
    step: String,
    /// What its dependents get: JSON, or `@FILE`
    #[arg(long, value_name = "JSON")]
    with_output: String,
    /// What the run's undo has to do about the step: nothing, or undo what somebody did by hand
    #[arg(long, value_name = "EFFECT")]
    effect: Left,
    #[command(flatten)]
    asking: Asking,
}

/// What a skipped step has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Left {
    None,
    Done,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let verb = Verb::Skip {
        step: args.step.clone(),
        effect: match args.effect {
            Left::None => SkippedEffect::None,
            Left::Done => SkippedEffect::Done,
        },
        output: value::read(&args.with_output)?,
    };
    ask(verb, &args.asking, session).await
}
