//! The day in figures: how the orders ended, what the services lived through, what the audit found.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::Error;
use crate::audit::{Books, Findings};
use crate::model::{Order, money};
use crate::screen::tell;
use crate::service::weather::Weather;
use crate::words::{End, Ended};

/// The day in figures.
pub(crate) struct Summary<'a> {
    pub(crate) orders: &'a [Order],
    pub(crate) words: &'a HashMap<String, Ended>,
    pub(crate) kills: usize,
    pub(crate) resumed: u64,
    pub(crate) took: Duration,
    pub(crate) findings: &'a Findings,
}

impl Summary<'_> {
    fn count(&self, end: End) -> usize {
        self.words.values().filter(|word| word.end == end).count()
    }

    /// Prints the tables, the deviations (on standard error), and the line for scripts.
    pub(crate) fn print(&self, books: &Books<'_>) -> Result<(), Error> {
        tell(format_args!("\n{}\n\n{}\n", self.ends(), weather(books)?));
        let found = self.findings;
        let in_doubt: usize = self.words.values().map(|word| word.in_doubt).sum();
        tell(format_args!(
            "{} kills, {} runs resumed, {in_doubt} effects in doubt on the way; {:.1} s",
            self.kills,
            self.resumed,
            self.took.as_secs_f64()
        ));
        tell(format_args!(
            "audit: {} orders wholly there, {} wholly undone; {} pieces sold; earned {}, banked {}",
            found.there,
            found.undone,
            found.pieces,
            money(found.earned_cents),
            money(found.banked_cents)
        ));
        for violation in &found.violations {
            eprintln!("violation: {violation}");
        }
        tell(format_args!("audit: {} violations", found.violations.len()));
        let line = Line {
            orders: self.orders.len(),
            completed: self.count(End::Completed),
            compensated: self.count(End::Compensated),
            stopped: self.count(End::Stopped),
            parked: self.count(End::Parked),
            kills: self.kills,
            resumed_runs: self.resumed,
            effects_in_doubt: in_doubt,
            violations: found.violations.len(),
        };
        tell(serde_json::to_string(&line)?);
        Ok(())
    }

    /// How the orders ended, why, and what they were worth.
    fn ends(&self) -> Table {
        let mut rows: BTreeMap<(End, &str), (usize, i64)> = BTreeMap::new();
        for order in self.orders {
            if let Some(word) = self.words.get(&order.id) {
                let (count, worth) = rows.entry((word.end, &word.why)).or_default();
                *count += 1;
                *worth += order.total_cents();
            }
        }
        let mut table = table(&["end", "because", "orders", "worth"]);
        let mut last = None;
        for ((end, why), (count, worth)) in rows {
            // An end that spans several rows is named in the first.
            let name = if last == Some(end) { "" } else { end.name() };
            last = Some(end);
            table.add_row(vec![
                Cell::new(name),
                Cell::new(why),
                number(count),
                number(money(worth)),
            ]);
        }
        table
    }
}

/// The last line, for scripts.
#[derive(Serialize)]
struct Line {
    orders: usize,
    completed: usize,
    compensated: usize,
    stopped: usize,
    parked: usize,
    kills: usize,
    resumed_runs: u64,
    effects_in_doubt: usize,
    violations: usize,
}

/// What the services lived through, from their own records.
fn weather(books: &Books<'_>) -> Result<Table, Error> {
    let paths = [books.stock, books.payments, books.parcels];
    let mut table = table(&["what the services saw", "stock", "payments", "parcels"]);
    let mut row = |label: &str, sql: &str, argument: &str| -> Result<(), Error> {
        let mut cells = vec![Cell::new(label)];
        for path in paths {
            cells.push(number(count(path, sql, argument)?));
        }
        table.add_row(cells);
        Ok(())
    };
    row("requests", "SELECT count(*) FROM visit WHERE ?1 = ''", "")?;
    for bad in Weather::BAD {
        row(
            bad.label(),
            "SELECT count(*) FROM visit WHERE weather = ?1",
            bad.label(),
        )?;
    }
    let by_state = "SELECT count(*) FROM effect WHERE state = ?1";
    row("effects that stand", by_state, "standing")?;
    row("effects undone", by_state, "undone")?;
    row("keys voided before their request came", by_state, "void")?;
    row(
        "… and requests that came afterwards",
        "SELECT count(*) FROM visit WHERE status = ?1",
        "410",
    )?;
    Ok(table)
}

fn count(path: &Path, sql: &str, argument: &str) -> Result<u32, Error> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(db.query_row(sql, [argument], |row| row.get(0))?)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.iter().copied());
    table
}

fn number(number: impl Display) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}
