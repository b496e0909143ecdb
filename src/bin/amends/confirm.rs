//! Asking before something is done to many runs.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::error::{CliError, Exit};

/// Asks, unless `yes` was said. Where nobody can answer, it has to be said.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let not_done = |why: &str| {
        CliError::new(Exit::Usage, format!("nothing was done: {why}"))
            .hint("`--dry-run` shows what would be done, `--yes` does it without asking")
    };
    if !io::stdin().is_terminal() {
        return Err(not_done(
            "this needs a word of yours, and nobody is there to give it",
        ));
    }
    let mut ask = io::stderr();
    write!(ask, "{question} [y/N] ")?;
    ask.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(not_done("the answer was no")),
    }
}
