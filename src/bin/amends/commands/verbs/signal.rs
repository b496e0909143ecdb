//! `amends signal`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::error::{CliError, Exit};
use crate::session::Session;
use crate::value;

/// Hands a signal to a run that waits for one of this name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The signal's name: the path of the step that waits for it
    #[arg(value_name = "NAME")]
    name: String,
    /// What it carries: JSON, or `@FILE`
    #[arg(long, value_name = "JSON", default_value = "null")]
    payload: String,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let verb = Verb::Signal {
        name: args.name.clone(),
        payload: value::read(&args.payload)?,
    };
    ask(verb, &args.asking, session).await
}
