//! `amends policy check`.

use serde::Serialize;

use super::read;
use crate::error::{CliError, Exit};
use crate::output::Hue;
use crate::session::Session;

/// Reads a policy file, and lists all that is wrong with it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
}

#[derive(Serialize)]
struct FaultForm<'a> {
    line: usize,
    column: usize,
    message: &'a str,
}

pub(crate) fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    let out = &session.out;
    match read(&args.file)? {
        Ok(_) => {
            if !out.is_json() {
                out.line(format_args!(
                    "{}: {}",
                    args.file.display(),
                    out.paint(Hue::Green, "nothing is wrong")
                ))?;
            }
            Ok(Exit::Done)
        }
        Err(wrong) => {
            for fault in &wrong.faults {
                if out.is_json() {
                    out.record(&FaultForm {
                        line: fault.line,
                        column: fault.column,
                        message: &fault.message,
                    })?;
                } else {
                    // As compilers do it, so that editors find the place.
                    out.line(format_args!("{}:{fault}", args.file.display()))?;
                }
            }
            Ok(Exit::Problems)
        }
    }
}
