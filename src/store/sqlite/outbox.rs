//! The outbox of a journal file: its journal in the order of `pos`.
//!
//! One transaction writes at a time, so records are committed in the order of their positions, and whoever sees one
//! sees all before it. A position is higher than all that were ever given, those of forgotten runs too.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::ids::{RunId, Timestamp};
use crate::store::record::Covered;
use crate::store::{Outbox, Published, SqliteStore, StoreError, outbox};

use super::checksum;
use super::queue::Write;

#[async_trait]
impl Outbox for SqliteStore {
    async fn published(&self, after: u64, limit: usize) -> Result<Vec<Published>, StoreError> {
        let read = move |conn: &Connection| published(conn, after, limit);
        self.readers.read("reading the outbox", read).await
    }

    async fn cursor(&self, name: &str) -> Result<u64, StoreError> {
        let doing = "reading a cursor";
        let name = name.to_owned();
        let read = move |conn: &Connection| {
            conn.prepare_cached("SELECT position FROM cursors WHERE name = ?")
                .and_then(|mut find| find.query_row([name], |row| row.get(0)).optional())
                .map(|position: Option<i64>| position.unwrap_or_default().unsigned_abs())
                .map_err(|error| StoreError::failed(doing, error))
        };
        self.readers.read(doing, read).await
    }

    async fn advance(&self, name: &str, to: u64) -> Result<(), StoreError> {
        let doing = "keeping a cursor";
        let position = i64::try_from(to).map_err(|error| StoreError::failed(doing, error))?;
        let name = name.to_owned();
        self.write(Write::Cursor { name, position }, doing)
            .await
            .map(drop)
    }
}

fn published(conn: &Connection, after: u64, limit: usize) -> Result<Vec<Published>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = || -> rusqlite::Result<Vec<Published>> {
        conn.prepare_cached(
            "SELECT j.pos, r.id, r.saga, j.seq, j.at, j.form, j.append_id, j.events, j.checksum
             FROM journal j JOIN runs r ON r.run = j.run WHERE j.pos > ? ORDER BY j.pos LIMIT ?",
        )?
        .query_map([after, limit], record)?
        .collect()
    };
    read().map_err(|error| StoreError::failed("reading the outbox", error))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Published> {
    let (position, seq, at): (i64, i64, i64) = (row.get(0)?, row.get(3)?, row.get(4)?);
    let run: String = row.get(1)?;
    let checksum: i64 = row.get(8)?;
    let covered = Covered {
        run: &run,
        seq,
        form: row.get(5)?,
        append_id: row.get_ref(6)?.as_bytes()?,
        at,
        events: row.get_ref(7)?.as_bytes()?,
    };
    let events = outbox::events(covered, |covered| checksum::of_record(covered) == checksum);
    Ok(Published {
        position: position.unsigned_abs(),
        saga: row.get(2)?,
        seq: seq.unsigned_abs(),
        at: Timestamp::from_micros(at),
        events,
        run: RunId::new(run),
    })
}
