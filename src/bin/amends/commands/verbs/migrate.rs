//! `amends migrate`.

use amends::journal::Verb;

use super::{Asking, ask};
use crate::commands::tables;
use crate::error::{CliError, Exit};
use crate::session::Session;

/// What has no meaning for tables: one by one, so that a refusal names what was said. Who asks is not among it, because
/// that may come from the environment.
const OF_RUNS: [&str; 18] = [
    "runs",
    "to",
    "status",
    "parked",
    "open",
    "saga",
    "trouble_step",
    "mode",
    "older_than",
    "newer_than",
    "prefix",
    "label",
    "reason",
    "token",
    "wait",
    "rate",
    "dry_run",
    "yes",
];

/// Moves a run, whose definition its owner hasn't, to another version; or brings tables up to date
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
amends migrate [OPTIONS] <RUN>...
       amends migrate [OPTIONS] <flags of `amends list`>
       amends migrate --print [--schema NAME]
       amends migrate --apply",
    mut_arg("runs", |runs| {
        runs.required_unless_present_any(["Which", "print", "apply"])
    }),
    after_help = "\
Of runs: the owner's code declares how: `Migration`, in its builder. The run is parked then, and
`retry` lets it go on. `amends definitions` says for which runs a migration is declared.

Of tables: `--print` is for whoever may make them, with `psql` for example; it needs no server.
Coordinators bring tables up to date when they open a store, unless they are told not to."
)]
pub(crate) struct Args {
    /// To this version; left out, the newest that the owner has declared
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// Print the numbered SQL that makes the tables in PostgreSQL, and do nothing
    #[arg(
        long,
        help_heading = "Tables",
        conflicts_with = "apply",
        conflicts_with_all = OF_RUNS
    )]
    print: bool,
    /// Bring the tables of the store up to date, and say what that took
    #[arg(
        long,
        help_heading = "Tables",
        conflicts_with_all = OF_RUNS
    )]
    apply: bool,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: &Args, session: &Session) -> Result<Exit, CliError> {
    if args.print {
        tables::print(session)?;
        return Ok(Exit::Done);
    }
    if args.apply {
        tables::apply(session).await?;
        return Ok(Exit::Done);
    }
    ask(Verb::Migrate { to: args.to }, &args.asking, session).await
}
