//! `amends completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::{CliError, Exit};
use crate::session::Session;

/// Writes a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For bash, say: `amends completions bash > ~/.local/share/bash-completion/completions/amends`"
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "amends", &mut script);
    session.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
