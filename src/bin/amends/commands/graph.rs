//! `amends graph`.

use crate::error::{CliError, Exit};
use crate::session::Session;

/// Draws a run, or the saga of one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN", required_unless_present = "saga", conflicts_with = "saga")]
    pub(crate) run: Option<String>,
    /// Draw this saga, as its newest run has it
    #[arg(long, value_name = "NAME")]
    pub(crate) saga: Option<String>,
    /// The form of the picture
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) format: Format,
}

/// The form of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For the terminal.
    Text,
    /// For pages.
    Svg,
    /// For documents that render Mermaid.
    Mermaid,
    /// For Graphviz.
    Dot,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let _ = (args, session);
    Err(CliError::new(Exit::Failed, "`graph` is not written yet"))
}
