//! What can be asked for.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    completions, definitions, doctor, export, graph, import, journal, list, policy, prune, show,
    stats, verbs, verify, watch, why, workers,
};

/// What every `--help` of the whole program ends with.
const AFTER: &str = "\
Exit codes:
  0  done
  1  failed: reading or writing went wrong, or a file can't be read
  2  the arguments are wrong
  3  there is no such run, step or saga
  4  refused: the run doesn't take this verb now
  5  the store can't be opened: not there, in use, or not a store
  6  problems were found (`verify`, `doctor`, `definitions`, `policy check`)
  7  handed in, and nobody has carried it out yet

Runs can be looked at and steered while their coordinator runs, and also while it doesn't:
then a command waits for the next start.";

/// Looks at the runs of a store, and steers them.
#[derive(Debug, Parser)]
#[command(name = "amends", version, after_help = AFTER, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The store: `sqlite:PATH`, a path that ends in `.db`, or `postgres://USER@HOST/DB`
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "AMENDS_STORE",
        hide_env_values = true,
        help_heading = "General"
    )]
    pub(crate) store: Option<String>,
    /// The schema of a store in PostgreSQL
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "AMENDS_SCHEMA",
        hide_env_values = true,
        default_value = "amends",
        help_heading = "General"
    )]
    pub(crate) schema: String,
    /// Write JSON: one document, or one line for each thing of a list
    #[arg(long, global = true, help_heading = "General")]
    pub(crate) json: bool,
    /// When to use colours; `auto` minds `NO_COLOR` and whether a terminal reads
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "General"
    )]
    pub(crate) color: Colour,
}

/// When colours are used.
// Words that speak for themselves have no help of their own: with it, clap spreads every argument of the
// page over three lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
    Why(why::Args),
    Journal(journal::Args),
    Graph(graph::Args),
    Watch(watch::Args),
    Retry(verbs::retry::Args),
    Compensate(verbs::compensate::Args),
    Cancel(verbs::cancel::Args),
    Skip(verbs::skip::Args),
    MarkCompensated(verbs::mark_compensated::Args),
    Resolve(verbs::resolve::Args),
    Signal(verbs::signal::Args),
    Approve(verbs::approve::Args),
    Deny(verbs::deny::Args),
    Pause(verbs::pause::Args),
    Resume(verbs::resume::Args),
    Abandon(verbs::abandon::Args),
    Migrate(verbs::migrate::Args),
    Definitions(definitions::Args),
    Workers(workers::Args),
    /// Checks, explains and tries recovery policies
    #[command(subcommand)]
    Policy(policy::Command),
    Verify(verify::Args),
    Stats(stats::Args),
    Export(export::Args),
    Import(import::Args),
    Prune(prune::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}
