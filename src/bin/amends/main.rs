//! The program `amends`: looks at the runs of a store and steers them, from another process.
//!
//! `args` says what can be asked, one module per subcommand does it. All text goes through `output`, all
//! failures through `error`, which knows the exit codes. A subcommand gets a [`Session`](session::Session),
//! with which it opens the store that was meant.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod confirm;
mod error;
mod forms;
mod glyphs;
mod happenings;
mod host;
mod instants;
mod near;
mod output;
mod paragraph;
mod place;
mod progress;
mod secret;
mod select;
mod session;
mod span;
mod value;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;
use error::{CliError, Exit};
use session::Session;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        // What is said about wrong arguments repeats them: read again without passwords, they fail alike.
        let arguments = std::env::args_os().map(|argument| match argument.to_str() {
            Some(text) => OsString::from(secret::hidden(text)),
            None => argument,
        });
        Cli::try_parse_from(arguments).err().unwrap_or(error).exit()
    });
    let session = Session::new(&cli);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("the runtime can't be started", &error));
    let ended = runtime.and_then(|runtime| runtime.block_on(commands::run(&cli.command, &session)));
    let exit = match ended {
        Ok(exit) => exit,
        // Whoever read our output has enough of it, as `head` does.
        Err(error) if error.is_closed_pipe() => Exit::Done,
        Err(error) => {
            session.out.error(&error);
            error.exit()
        }
    };
    ExitCode::from(exit)
}
