//! The main example: a shop's order saga over three real HTTP services, with everything that goes
//! wrong in real life, and an audit at the end.
//!
//! ```text
//! cargo run --example orders
//! cargo run --example orders -- --orders orders.jsonl --stock stock.jsonl --kills 20
//! cargo run --example orders --features postgres -- --store postgres --workers 4 --kills 40
//! ```
//!
//! An order reserves stock, charges the card, books the parcel (the point of no return) and sends
//! the confirmation. The parent process starts the services `stock`, `payments` and `parcels`, each
//! a process of its own on 127.0.0.1 with a database of its own, and a coordinator with its journal.
//! Answers get lost after the effect, connections are reset, services are slow, busy, or down; cards
//! are declined, goods sell out; and the coordinator is killed with SIGKILL again and again. At the
//! end the parent reads the three databases, without a look at the journal, and checks that every
//! order is wholly there or wholly undone, to the cent.
//!
//! With `--store postgres` there is a fleet of workers over a private PostgreSQL instead of the one
//! coordinator. They are killed, or frozen beyond their lease and woken again; PostgreSQL is restarted,
//! and connections are cut in the middle of commits.
//!
//! Where to read on:
//!
//! * `saga` and `coordinator`: all that touches `amends`; with `client`, this is what you would write;
//! * `service/`: the participants, and what they owe to a saga (keys, tombstones);
//! * `fleet/`: several workers, and what befalls them;
//! * `audit`: how we know;
//! * `parent`, `plan`, `services`, `child`: who starts and kills whom; `generate` and `model`: the
//!   orders; `screen` and `report`: what you see.
//!
//! The last line on standard output is a JSON object for scripts. The exit code is 0 only if the
//! audit found nothing.

mod api;
mod audit;
mod child;
mod client;
mod coordinator;
#[cfg(feature = "postgres")]
mod fleet;
mod generate;
mod model;
mod parent;
mod plan;
#[cfg(feature = "postgres")]
#[path = "../../tests/common/postgres.rs"]
mod postgres;
#[cfg(feature = "postgres")]
#[path = "../../tests/common/proxy.rs"]
mod proxy;
mod report;
mod saga;
mod screen;
mod service;
mod services;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Whatever ends a process of this example early. It goes to a person, as text.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Orders over three services that fail, under a coordinator that is killed: and an audit.
#[derive(Debug, Parser)]
#[command(name = "orders", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    day: Day,
}

/// What the parent is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Day {
    /// Orders as JSON lines; made up if not given.
    #[arg(long, requires = "stock", value_name = "FILE")]
    pub(crate) orders: Option<PathBuf>,
    /// Stock as JSON lines.
    #[arg(long, requires = "orders", value_name = "FILE")]
    pub(crate) stock: Option<PathBuf>,
    /// How many orders: 500 if made up, else all that are in the file.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<usize>,
    /// How often the coordinator, or one of the workers, is killed on the way.
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub(crate) kills: usize,
    /// What is drawn by lot is drawn from this.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the journal is kept. Memory does not outlive a kill, so there is none.
    #[arg(long, value_enum, default_value_t = StoreKind::Sqlite)]
    pub(crate) store: StoreKind,
    /// How many workers there are over PostgreSQL.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) workers: u8,
    /// How long the lease of a worker lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) lease: f64,
    /// Falsifies an entry before the audit, which then has to find it.
    #[arg(long, hide = true)]
    pub(crate) sabotage: bool,
}

impl Day {
    /// How long the lease of a worker lasts.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease)
    }

    /// How long a request is under way that arrives after its sender gave up. In a fleet another worker may have
    /// the run by then.
    pub(crate) fn late(&self) -> Duration {
        let late = Duration::from_millis(1_100);
        match self.store {
            StoreKind::Postgres => self.lease() + late,
            StoreKind::Sqlite | StoreKind::Memory => late,
        }
    }
}

/// The store of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    Sqlite,
    Memory,
    /// Takes `--features postgres`.
    Postgres,
}

/// The children's parts in the play.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Service(service::Options),
    #[command(hide = true)]
    Coordinator(coordinator::Options),
    #[cfg(feature = "postgres")]
    #[command(hide = true)]
    Worker(fleet::worker::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let role = match &cli.role {
        None => "orders",
        Some(Role::Service(_)) => "service",
        Some(Role::Coordinator(_)) => "coordinator",
        #[cfg(feature = "postgres")]
        Some(Role::Worker(_)) => "worker",
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            let story = causes.fold(error.to_string(), |story, cause| {
                format!("{story}: {cause}")
            });
            eprintln!("{role}: {story}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli.role {
        None => parent::run(cli.day).await,
        Some(Role::Service(options)) => {
            service::serve(options).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::Coordinator(options)) => {
            coordinator::run(options).await?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "postgres")]
        Some(Role::Worker(options)) => {
            fleet::worker::run(options).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
