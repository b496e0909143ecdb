//! `amends retry`.

use amends::RecoveryStrategy;
use amends::journal::{InputEdit, Verb};
use clap::ValueEnum;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;
use crate::value;

/// Lets a parked run go on, or has undos tried again
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to go on; left out, what was open is tried again
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<Strategy>,
    /// Give a step another input first: JSON, or `@FILE`; may be repeated
    #[arg(long, value_name = "STEP=JSON", value_parser = edit)]
    edit: Vec<(String, String)>,
    #[command(flatten)]
    asking: Asking,
}

// Named as the strategies are.
#[allow(clippy::enum_variant_names)]
/// A strategy, as an argument: those that retry. `compensate` is a verb of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Strategy {
    RetryFailed,
    RetryFromCheckpoint,
    RetryAll,
}

impl From<Strategy> for RecoveryStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::RetryFailed => RecoveryStrategy::RetryFailed,
            Strategy::RetryFromCheckpoint => RecoveryStrategy::RetryFromCheckpoint,
            Strategy::RetryAll => RecoveryStrategy::RetryAll,
        }
    }
}

fn edit(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((step, json)) if !step.is_empty() => Ok((step.to_owned(), json.to_owned())),
        _ => Err("an edit is written as `STEP=JSON` or `STEP=@FILE`".to_owned()),
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let edits = args.edit.iter().map(|(step, text)| {
        let input = value::read(text)?;
        let step = step.clone();
        Ok(InputEdit { step, input })
    });
    let verb = Verb::Retry {
        strategy: args.strategy.map(Into::into),
        edits: edits.collect::<Result<_, CliError>>()?,
    };
    ask(verb, &args.asking, session).await
}
