//! Journals, read by one statement each: so what is read is of one moment, and no transaction stays open.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ids::RunId;
use crate::journal::Journal;
use crate::store::assembly::{Assembly, Stored};
use crate::store::{LoadError, RunEntry, RunFilter, StoreError};

use super::connect::Param;
use super::{Shared, checksum, scan};

/// A run in the list, with its journal.
type Found = (RunEntry, Result<Option<Journal>, LoadError>);

/// One row without a record where the run has none after that place, and no row where there is no run.
pub(super) const LOAD: &str = "SELECT j.seq, j.form, j.append_id, j.at, j.events, j.checksum
    FROM {schema}.runs r LEFT JOIN {schema}.journal j ON j.run = r.number AND j.seq > $2
    WHERE r.id = $1 ORDER BY j.seq";

/// A run's journal after the record `after`, which is 0 for all of it.
pub(super) async fn load(
    shared: &Shared,
    run: &RunId,
    after: u64,
) -> Result<Option<Journal>, LoadError> {
    let (id, after_seq) = (run.as_str(), i64::try_from(after).unwrap_or(i64::MAX));
    if id.contains('\0') {
        return Ok(None);
    }
    let params: [Param<'_>; 2] = [(&id, Type::TEXT), (&after_seq, Type::INT8)];
    let rows = shared.ask("loading a journal", LOAD, &params).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut journal = Assembly::new(run, after);
    for row in &rows {
        if !push(&mut journal, row, 0) {
            break;
        }
    }
    journal.finish().map(Some)
}

/// The runs that match, each with its journal, as of one moment.
pub(super) async fn scan_journals(
    shared: &Shared,
    filter: &RunFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    if scan::has_nul(filter) {
        return Ok(Vec::new());
    }
    let query = scan::query(filter, after, limit);
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "WITH entries AS MATERIALIZED ({})
         SELECT e.*, j.seq, j.form, j.append_id, j.at, j.events, j.checksum
         FROM entries e LEFT JOIN {{schema}}.journal j ON j.run = e.number
         ORDER BY e.number {order}, j.seq",
        query.sql
    );
    let rows = shared
        .ask("reading journals", &sql, &query.params())
        .await?;
    let mut found: Vec<(RunEntry, Assembly)> = Vec::new();
    for row in &rows {
        let number = row.get::<_, i64>(0).unsigned_abs();
        if found.last().is_none_or(|(last, _)| last.number != number) {
            let entry = scan::entry(row);
            let journal = Assembly::new(&entry.run, 0);
            found.push((entry, journal));
        }
        if let Some((_, journal)) = found.last_mut() {
            push(journal, row, scan::COLUMNS);
        }
    }
    let whole = |(entry, journal): (RunEntry, Assembly)| (entry, journal.finish().map(Some));
    Ok(found.into_iter().map(whole).collect())
}

/// Hands on the row that begins at this column, if there is one; says no where it is damaged.
pub(super) fn push(journal: &mut Assembly, row: &Row, column: usize) -> bool {
    let Some(seq) = row.get(column) else {
        // A run without records after this place.
        return true;
    };
    let sum: &[u8] = row.get(column + 5);
    let stored = Stored {
        seq,
        form: row.get::<_, i32>(column + 1).into(),
        append_id: row.get(column + 2),
        at: row.get(column + 3),
        events: row.get::<_, &str>(column + 4).as_bytes(),
    };
    journal.push(&stored, |covered| checksum::of_record(covered) == sum)
}
