//! The outbox: notes of what was appended, and the positions that they get when they are committed.
//!
//! Appends know nothing of it: once it is turned on, a trigger of the journal leaves a note of each record, by whichever
//! way it was written. A read gives positions to the notes that are there, and then reads; so whoever reads
//! is the sequencer, one at a time, and nobody else has to run.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ids::{RunId, Timestamp};
use crate::store::record::Covered;
use crate::store::{Outbox, PostgresStore, Published, StoreError, outbox};

use super::checksum;
use super::connect::Param;

/// So many notes get their positions in one go at most.
const NOTES: i32 = 1_000;

impl PostgresStore {
    /// Turns the outbox on, for all workers and for ever: what is appended from now on gets a position. What was appended
    /// before has none. Where it is on already, nothing happens.
    ///
    /// It waits for transactions that have appended and are open, and appends wait for it meanwhile. The role must own the
    /// table `journal`; otherwise have whoever does run `SELECT amends.turn_outbox_on()`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`] where the server refuses it, or can't be reached.
    pub async fn turn_outbox_on(&self) -> Result<(), StoreError> {
        let sql = "SELECT {schema}.turn_outbox_on()::text";
        let doing = "turning the outbox on";
        self.shared.ask(doing, sql, &[]).await.map(drop)
    }
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn published(&self, after: u64, limit: usize) -> Result<Vec<Published>, StoreError> {
        let doing = "reading the outbox";
        let sql = "SELECT {schema}.sequence_outbox($1)";
        let notes: [Param<'_>; 1] = [(&NOTES, Type::INT4)];
        self.shared.ask(doing, sql, &notes).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params: [Param<'_>; 2] = [(&after, Type::INT8), (&limit, Type::INT8)];
        let sql = "
            SELECT o.position, r.id, r.saga, j.seq, j.at, j.form, j.append_id, j.events, j.checksum
            FROM {schema}.outbox o
            JOIN {schema}.runs r ON r.number = o.run
            JOIN {schema}.journal j ON j.run = o.run AND j.seq = o.seq
            WHERE o.position > $1 ORDER BY o.position LIMIT $2";
        let rows = self.shared.ask(doing, sql, &params).await?;
        Ok(rows.iter().map(record).collect())
    }

    async fn cursor(&self, name: &str) -> Result<u64, StoreError> {
        let params: [Param<'_>; 1] = [(&name, Type::TEXT)];
        let sql = "SELECT position FROM {schema}.cursors WHERE name = $1";
        let rows = self.shared.ask("reading a cursor", sql, &params).await?;
        let position = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(position.unsigned_abs())
    }

    async fn advance(&self, name: &str, to: u64) -> Result<(), StoreError> {
        let doing = "keeping a cursor";
        let to = i64::try_from(to).map_err(|error| StoreError::failed(doing, error))?;
        let params: [Param<'_>; 2] = [(&name, Type::TEXT), (&to, Type::INT8)];
        let sql = "INSERT INTO {schema}.cursors AS c (name, position) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET position = excluded.position WHERE c.position < excluded.position";
        self.shared.ask(doing, sql, &params).await.map(drop)
    }
}

fn record(row: &Row) -> Published {
    let (position, seq, at): (i64, i64, i64) = (row.get(0), row.get(3), row.get(4));
    let (run, saga): (&str, &str) = (row.get(1), row.get(2));
    let sum: &[u8] = row.get(8);
    let covered = Covered {
        run,
        seq,
        form: row.get::<_, i32>(5).cast_unsigned(),
        append_id: row.get(6),
        at,
        events: row.get::<_, &str>(7).as_bytes(),
    };
    Published {
        position: position.unsigned_abs(),
        run: RunId::new(run),
        saga: saga.to_owned(),
        seq: seq.unsigned_abs(),
        at: Timestamp::from_micros(at),
        events: outbox::events(covered, |covered| checksum::of_record(covered) == sum),
    }
}
