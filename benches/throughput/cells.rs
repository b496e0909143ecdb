//! What is measured: a store, a variant of W3 and how many runs are in flight; and what a repeat gave.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::time::Duration;

use crate::load::{Load, Place};
use crate::w3::Ids;

/// Where the journals are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Store {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Store::Memory => "memory",
            #[cfg(feature = "sqlite")]
            Store::Sqlite => "SQLite",
            #[cfg(feature = "postgres")]
            Store::Postgres => "PostgreSQL",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) store: Store,
    pub(crate) variant: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) place: Place,
    /// How many of a hundred runs fail.
    pub(crate) failing: u64,
    pub(crate) ids: Ids,
    /// How many coordinators share the runs.
    pub(crate) workers: usize,
}

impl Cell {
    /// What `--only` looks at.
    pub(crate) fn name(&self) -> String {
        let workers = match self.workers {
            1 => String::new(),
            many => format!(", {many} workers"),
        };
        format!(
            "{} {}{workers} {}",
            self.store.word(),
            self.variant,
            self.in_flight
        )
    }

    /// How many durable writes one run needs, one after another: a turn of the machine is one write, so N steps in
    /// a row are N + 1; with two undos after the failure they are two more.
    pub(crate) fn writes(&self) -> u32 {
        if self.failing == 100 { 6 } else { 4 }
    }
}

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) lasts: Duration,
    pub(crate) repeats: usize,
    pub(crate) only: Vec<String>,
    pub(crate) json: bool,
    /// Where files are made: on the disk that is measured.
    #[cfg(feature = "sqlite")]
    pub(crate) folder: PathBuf,
    /// A server to measure, instead of a private one.
    #[cfg(feature = "postgres")]
    pub(crate) postgres: Option<String>,
}

impl Options {
    /// A cell and its limit take turns in these, so that what the machine does meanwhile it does to both.
    pub(crate) fn slices(&self) -> impl Iterator<Item = Duration> {
        const SLICES: u32 = 4;
        std::iter::repeat_n(self.lasts / SLICES, SLICES as usize)
    }
}

/// What one repeat of a cell did.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) load: Load,
    /// Records, as the store counts them.
    pub(crate) appends: Option<u64>,
    /// Transactions that wrote, as the store counts them.
    pub(crate) commits: Option<u64>,
    /// Syncs that whoever made them counted.
    pub(crate) syncs: Option<u64>,
    /// The most memory that the process had, in bytes.
    pub(crate) peak: Option<u64>,
}

impl Counted {
    pub(crate) fn of(load: Load) -> Self {
        Counted {
            load,
            appends: None,
            commits: None,
            syncs: None,
            peak: None,
        }
    }
}

/// What could be had at most, measured beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// So many runs a second that journal nothing, of which the middle one took so long.
    Runs(f64, Duration),
    /// So many rows a second.
    Rows(f64),
    /// How long the middle one of commits of one row took.
    Commit(Duration),
}

impl Limit {
    /// Ours to that: what is to be high is ours by the limit, and so is what is to be low.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn ratio(self, cell: &Cell, counted: &Counted) -> f64 {
        match self {
            Limit::Runs(rate, _) => counted.load.rate() / rate,
            Limit::Rows(rate) => {
                let rows = counted.appends.unwrap_or_default() as f64;
                rows / counted.load.took.as_secs_f64() / rate
            }
            Limit::Commit(p50) => {
                counted.load.quantile(500).as_secs_f64()
                    / (f64::from(cell.writes()) * p50.as_secs_f64())
            }
        }
    }

    /// The limit itself, for people.
    pub(crate) fn text(self) -> String {
        match self {
            Limit::Runs(rate, p50) => {
                format!("{rate:.0} runs/s, p50 {:.2} µs", micros(p50))
            }
            Limit::Rows(rate) => format!("{rate:.0} rows/s"),
            Limit::Commit(p50) => format!("a commit {:.1} µs", micros(p50)),
        }
    }

    /// The limit's own number.
    pub(crate) fn value(self) -> f64 {
        match self {
            Limit::Runs(value, _) | Limit::Rows(value) => value,
            Limit::Commit(p50) => micros(p50),
        }
    }

    /// What the number is of, and what ours is divided by.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Limit::Runs(..) => "runs/s",
            Limit::Rows(_) => "rows/s",
            Limit::Commit(_) => "µs per one-row commit, times the durable writes of a run",
        }
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// From `/proc`, in bytes.
pub(crate) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1_024)
}

/// The peak is counted from here on, where the system can do that.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
