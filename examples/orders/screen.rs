//! What people see while the day lasts: a progress bar, and the blows as they fall.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::{Order, money};
use crate::plan::Outage;
use crate::service::Kind;
use crate::words::{End, Ended};
use crate::{Day, StoreKind};

/// Prints a line. Whoever reads it may have gone (`| head`); the day goes on, and the exit code tells.
pub(crate) fn tell(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The screen while the day lasts. Where there is no terminal the bar is hidden, and the lines stay.
pub(crate) struct Screen {
    bar: ProgressBar,
    counts: HashMap<End, usize>,
    started: bool,
}

impl Screen {
    /// Shows what is about to happen.
    pub(crate) fn new(picture: &str, day: &Day, orders: &[Order]) -> Self {
        let kills = if day.store == StoreKind::Memory {
            0
        } else {
            day.kills
        };
        let worth: i64 = orders.iter().map(Order::total_cents).sum();
        let (orders_count, worth, seed) = (orders.len(), money(worth), day.seed);
        let who = match (day.store, day.workers) {
            (StoreKind::Postgres, 1) => "the worker".to_owned(),
            (StoreKind::Postgres, workers) => format!("one of {workers} workers"),
            _ => "the coordinator".to_owned(),
        };
        tell(format_args!(
            "{picture}\n\n{orders_count} orders worth {worth}, seed {seed}; {who} will be killed {kills} times"
        ));
        if day.store == StoreKind::Memory && day.kills > 0 {
            tell("(a journal in memory dies with its process, so there are no kills)");
        }
        tell("");
        let bar = ProgressBar::new(orders.len() as u64);
        let style = "{elapsed:>4} {bar:40.green/black.bright} {pos}/{len} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            counts: HashMap::new(),
            started: false,
        }
    }

    /// Says something while the bar is there.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| tell(line));
    }

    /// An order has ended.
    pub(crate) fn ended(&mut self, word: &Ended) {
        *self.counts.entry(word.end).or_default() += 1;
        let count = |end| self.counts.get(&end).copied().unwrap_or_default();
        self.bar.set_message(format!(
            "{} completed, {} compensated, {} stopped",
            count(End::Completed),
            count(End::Compensated),
            count(End::Stopped)
        ));
        self.bar.inc(1);
    }

    /// The coordinator has been killed.
    pub(crate) fn killed(&mut self, times: usize, ended: usize) {
        self.say(&format!("{ended:>6}  SIGKILL {times} to the coordinator"));
    }

    /// The coordinator is there, for the first time or again.
    pub(crate) fn ready(&mut self, resumed: u64) {
        if self.started {
            self.say(&format!(
                "        … it is back, and goes on with {resumed} open runs"
            ));
        }
        self.started = true;
    }

    /// A service has been killed.
    pub(crate) fn outage(&self, outage: Outage) {
        let at = self.bar.position();
        let (name, lasts) = (outage.kind.name(), outage.lasts.as_millis());
        self.say(&format!("{at:>6}  {name} goes down for {lasts} ms"));
    }

    /// A service is up again.
    pub(crate) fn back(&self, kind: Kind) {
        self.say(&format!("        … {} is back", kind.name()));
    }

    /// All orders have ended.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
