//! The day in figures: how the orders ended, what the services lived through, what the audit found.

use std::collections::BTreeMap;
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
use crate::parent::Worked;
use crate::screen::tell;
use crate::service::weather::Weather;
use crate::words::End;

/// The day in figures.
pub(crate) struct Summary<'a> {
    pub(crate) orders: &'a [Order],
    pub(crate) worked: &'a Worked,
    pub(crate) took: Duration,
    pub(crate) findings: &'a Findings,
}

impl Summary<'_> {
    fn count(&self, end: End) -> usize {
        self.worked
            .ended
            .values()
            .filter(|word| word.end == end)
            .count()
    }

    /// Prints the tables, the deviations (on standard error), and the line for scripts.
    pub(crate) fn print(&self, books: &Books<'_>) -> Result<(), Error> {
        tell(format_args!("\n{}\n\n{}\n", self.ends(), weather(books)?));
        let found = self.findings;
        let worked = self.worked;
        let in_doubt: usize = worked.ended.values().map(|word| word.in_doubt).sum();
        tell(format_args!(
            "{} kills, {} runs resumed, {in_doubt} effects in doubt on the way; {:.1} s",
            worked.kills,
            worked.resumed,
            self.took.as_secs_f64()
        ));
        let by_word = "SELECT count(*) FROM visit WHERE barrier = ?1";
        let mut stale_calls = 0;
        for path in [books.stock, books.payments, books.parcels] {
            stale_calls += count(path, by_word, "stale")?;
        }
        if let Some(fleet) = &worked.hardships {
            tell(format_args!(
                "{} workers, {} freezes, {} restarts of PostgreSQL, {} commits cut",
                fleet.workers, fleet.freezes, fleet.restarts, fleet.cut_commits
            ));
            tell(format_args!(
                "{} take-overs of open runs; stale writes refused: {} appends and {} calls; {} commits unknown at first",
                fleet.take_overs, fleet.stale_appends, stale_calls, fleet.unknown_commits
            ));
        }
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
            kills: worked.kills,
            resumed_runs: worked.resumed,
            effects_in_doubt: in_doubt,
            violations: found.violations.len(),
            fleet: worked.hardships.map(|fleet| Hardships {
                stale_calls,
                ..fleet
            }),
        };
        tell(serde_json::to_string(&line)?);
        Ok(())
    }

    /// How the orders ended, why, and what they were worth.
    fn ends(&self) -> Table {
        let mut rows: BTreeMap<(End, &str), (usize, i64)> = BTreeMap::new();
        for order in self.orders {
            if let Some(word) = self.worked.ended.get(&order.id) {
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

/// What befell a fleet, beyond kills.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Hardships {
    pub(crate) workers: u8,
    /// SIGSTOP beyond the lease, and SIGCONT.
    pub(crate) freezes: usize,
    /// Restarts of PostgreSQL, in order or as by a crash.
    pub(crate) restarts: usize,
    /// Connections that were cut where a commit waited for its answer.
    pub(crate) cut_commits: usize,
    /// How often another worker took up an open run.
    pub(crate) take_overs: usize,
    /// Appends of workers that had lost the run, refused by its journal.
    pub(crate) stale_appends: usize,
    /// Calls of workers that had lost the run, refused by a service's barrier.
    pub(crate) stale_calls: u32,
    /// Appends of which nobody knew at first whether they were durable.
    pub(crate) unknown_commits: usize,
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
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fleet: Option<Hardships>,
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
    let by_state = "SELECT count(*) FROM amends_barrier WHERE state = ?1";
    row("effects that stand", by_state, "done")?;
    row("effects undone", by_state, "undone")?;
    row("undone before their request came", by_state, "void")?;
    row("closed by a look before it came", by_state, "never")?;
    let by_word = "SELECT count(*) FROM visit WHERE barrier = ?1";
    row("requests that came too late", by_word, "closed")?;
    row("requests of a stale fence", by_word, "stale")?;
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
