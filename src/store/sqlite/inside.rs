//! The first record of a run, written inside somebody else's transaction.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::journal::{Event, RunStarted};
use crate::saga::Outline;
use crate::store::record::NewRecord;
use crate::store::{Append, LoadError, SqliteStore, StoreError};

use super::queue::Write;
use super::rows::{Rows, Verdict};
use super::{checksum, reader, schema};

const DOING: &str = "starting a run inside a transaction";

/// `PRAGMA synchronous = FULL`.
const FULL: i64 = 2;

impl SqliteStore {
    /// Writes a run's first record, and keeps its definition. Where there is a run with its id, nothing is written and
    /// that run's start is handed back.
    pub(crate) fn begin_inside(
        conn: &Connection,
        append: Append,
        outline: &Outline,
    ) -> Result<Option<Arc<RunStarted>>, LoadError> {
        check(conn)?;
        let run = append.run.clone();
        let record = NewRecord::encode(append, checksum::of_record)
            .map_err(|error| StoreError::failed(DOING, error))?;
        let json =
            serde_json::to_string(outline).map_err(|error| StoreError::failed(DOING, error))?;
        let of = outline.clone();
        let writes = [Write::Record(record), Write::Outline { of, json }];
        if write(conn, &writes).map_err(|error| StoreError::failed(DOING, error))? {
            return Ok(None);
        }
        let journal = reader::load(conn, &run, 0)?;
        let first = journal.and_then(|journal| {
            let mut events = journal.records.into_iter().flat_map(|record| record.events);
            events.next()
        });
        match first {
            Some(Event::RunStarted(started)) => Ok(Some(started)),
            _ => Err(StoreError::failed(DOING, "the run with this id has no start").into()),
        }
    }
}

/// Refuses a connection that would write where nobody looks, or promise what it doesn't keep.
fn check(conn: &Connection) -> Result<(), StoreError> {
    let path = Path::new(conn.path().unwrap_or_default());
    schema::must_be_current(schema::identify(conn, path)?, path)?;
    let synchronous: i64 = conn
        .query_row("PRAGMA main.synchronous", [], |row| row.get(0))
        .map_err(|error| StoreError::failed(DOING, error))?;
    if synchronous < FULL {
        let what = "the connection does not wait for the disk when it commits, so a start that was reported could be \
                    lost with the power: set `PRAGMA synchronous = FULL`"
            .to_owned();
        return Err(StoreError::Foreign { what });
    }
    Ok(())
}

/// All or nothing, whatever becomes of the transaction. Says no where the run is there.
fn write(conn: &Connection, writes: &[Write]) -> rusqlite::Result<bool> {
    conn.execute_batch("SAVEPOINT amends_start")?;
    let written = || {
        let mut rows = Rows::prepare(conn)?;
        for write in writes {
            if rows.write(write)? == Verdict::Conflict {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let written = written();
    if matches!(written, Ok(true)) {
        conn.execute_batch("RELEASE amends_start")?;
    } else if !conn.is_autocommit() {
        // After some errors SQLite has rolled the whole transaction back already.
        conn.execute_batch("ROLLBACK TO amends_start; RELEASE amends_start")?;
    }
    written
}
