//! The barrier in PostgreSQL, in a transaction of `tokio_postgres`.
//!
//! Each function is a few statements of `docs/barrier.md`, sent unnamed and with their types, so that they
//! work behind a pooler in transaction mode. `READ COMMITTED` and the stricter levels will do; at the
//! stricter ones a race ends in a serialization failure, which may be tried again.
//!
//! # Cancel safety
//!
//! A future of this module that is dropped leaves the transaction where it was or one statement further:
//! roll it back.

use std::time::Duration;

use futures_util::future::try_join3;
use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use super::answer::{Entered, Entry, unrecorded};
use super::{Asked, BarrierError, Call, Compensate, Execute, Fresh, Request, Stored, Undo};
use crate::step::Probed;

/// The tables, as SQL. It may be run again.
pub const SCHEMA: &str = include_str!("sql/postgres/schema.sql");
const SEE: &str = include_str!("sql/postgres/see.sql");
const RAISE: &str = include_str!("sql/postgres/raise.sql");
const HOLD: &str = include_str!("sql/postgres/hold.sql");
const ENTER: &str = include_str!("sql/postgres/enter.sql");
const RECORD: &str = include_str!("sql/postgres/record.sql");
const RECORD_UNDO: &str = include_str!("sql/postgres/record_undo.sql");
const OLD: &str = include_str!("sql/postgres/old.sql");
const FORGET_RUNS: &str = include_str!("sql/postgres/forget_runs.sql");
const FORGET_KEYS: &str = include_str!("sql/postgres/forget_keys.sql");

/// Makes the tables where they are missing, in the schema that comes first on the search path.
///
/// Do it where your service makes its own tables, not at each start of each process.
///
/// # Errors
///
/// [`BarrierError::Database`].
pub async fn create(client: &Client) -> Result<(), BarrierError> {
    client
        .batch_execute(SCHEMA)
        .await
        .map_err(BarrierError::database)
}

/// Decides about an execute. Call it first in the transaction that is to do the work.
///
/// It waits for a call with the same key that is under way.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub async fn execute(
    tx: &Transaction<'_>,
    call: &Call,
    request: &Request,
) -> Result<Execute, BarrierError> {
    let entered = enter(tx, call, Asked::Execute, Entry::execute(request)).await?;
    entered.execute(call, request)
}

/// Decides about a compensate. Call it first in the transaction that is to undo.
///
/// It waits for a call with the same key that is under way.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub async fn compensate(
    tx: &Transaction<'_>,
    call: &Call,
    request: &Request,
) -> Result<Compensate, BarrierError> {
    let entered = enter(tx, call, Asked::Compensate, Entry::compensate(request)).await?;
    entered.compensate(call, request)
}

/// What became of an execute: its result, or never; then the key is closed, which is so once the
/// transaction is committed. It is never [`Unknown`](Probed::Unknown).
///
/// It waits for a call with the same key that is under way.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub async fn probe(tx: &Transaction<'_>, call: &Call) -> Result<Probed<Stored>, BarrierError> {
    enter(tx, call, Asked::Probe, Entry::probe())
        .await?
        .probe(call)
}

/// Records what came of the work, for those who ask again. Then commit.
///
/// # Errors
///
/// [`BarrierError::Result`] where it can't be written as JSON, [`BarrierError::Unrecorded`] where this is
/// not the transaction that the right was given in, [`BarrierError::Database`]. Roll the transaction back.
pub async fn record<T: Serialize + Sync + ?Sized>(
    tx: &Transaction<'_>,
    fresh: Fresh,
    result: &T,
) -> Result<(), BarrierError> {
    store(tx, RECORD, &fresh.key, result).await
}

/// Records that the effect is undone. Then commit.
///
/// # Errors
///
/// As [`record`].
pub async fn record_undo<T: Serialize + Sync + ?Sized>(
    tx: &Transaction<'_>,
    undo: Undo,
    result: &T,
) -> Result<(), BarrierError> {
    store(tx, RECORD_UNDO, &undo.key, result).await
}

/// Forgets up to `most` runs that nobody has touched for so long, in a transaction of its own, and says
/// how many there were. Call it again until there are none.
///
/// See [the module above](super) for how long keys have to be kept.
///
/// # Errors
///
/// [`BarrierError::Database`]; nothing is forgotten then.
pub async fn prune(
    client: &mut Client,
    untouched_for: Duration,
    most: u32,
) -> Result<u64, BarrierError> {
    let seconds = untouched_for.as_secs_f64();
    let pruned = async {
        let tx = client.transaction().await?;
        let old = typed(
            &tx,
            OLD,
            &[(&seconds, Type::FLOAT8), (&i64::from(most), Type::INT8)],
        )
        .await?;
        let old = texts(&old)?;
        // Whoever came in between has let go of its lock by now, and this statement sees what it did.
        let gone = typed(
            &tx,
            FORGET_RUNS,
            &[(&old, Type::TEXT_ARRAY), (&seconds, Type::FLOAT8)],
        )
        .await?;
        let gone = texts(&gone)?;
        typed(&tx, FORGET_KEYS, &[(&gone, Type::TEXT_ARRAY)]).await?;
        tx.commit().await?;
        Ok::<_, tokio_postgres::Error>(gone.len() as u64)
    };
    pruned.await.map_err(BarrierError::database)
}

async fn enter(
    tx: &Transaction<'_>,
    call: &Call,
    asked: Asked,
    entry: Entry<'_>,
) -> Result<Entered, BarrierError> {
    call.must_be(asked)?;
    pass(tx, call).await?;
    let row = tx
        .query_typed(
            ENTER,
            &[
                (&call.run(), Type::TEXT),
                (&call.effect_key(), Type::TEXT),
                (&entry.state, Type::TEXT),
                (&entry.request, Type::TEXT),
                (&entry.undo_request, Type::TEXT),
                (&call.attempt_column(), Type::INT8),
                (&entry.unrecorded, Type::INT4),
            ],
        )
        .await
        .and_then(|rows| {
            let row = rows.first();
            row.map(|row| {
                Ok(Entered {
                    state: row.try_get(0)?,
                    request: row.try_get(1)?,
                    result: row.try_get(2)?,
                    undo_request: row.try_get(3)?,
                    undo_result: row.try_get(4)?,
                })
            })
            .transpose()
        });
    let row = row.map_err(BarrierError::database)?;
    row.ok_or_else(|| unrecorded(call.effect_key()))
}

/// Lets a call pass whose fence is the highest, and keeps it so until the transaction ends: a higher
/// fence waits for it, and those of the same fence don't wait for each other.
async fn pass(tx: &Transaction<'_>, call: &Call) -> Result<(), BarrierError> {
    let (run, fence) = (call.run(), call.fence_column());
    let both: [(&(dyn ToSql + Sync), Type); 2] = [(&run, Type::TEXT), (&fence, Type::INT8)];
    let only: [(&(dyn ToSql + Sync), Type); 1] = [(&run, Type::TEXT)];
    // In this order, and in one round trip. Raising comes before holding: two that both held the row
    // could not raise it.
    let sent = async || {
        let (_, _, held) = try_join3(
            typed(tx, SEE, &both),
            typed(tx, RAISE, &both),
            typed(tx, HOLD, &only),
        )
        .await?;
        held.first().map(|row| row.try_get::<_, i64>(0)).transpose()
    };
    // Between the first and the last statement the run may be forgotten; it is there at the second try.
    let mut seen = None;
    while seen.is_none() {
        seen = sent().await.map_err(BarrierError::database)?;
    }
    match seen {
        Some(seen) if seen > fence => Err(BarrierError::Stale {
            run: run.to_owned(),
            fence: call.fence(),
            seen: seen.unsigned_abs(),
        }),
        _ => Ok(()),
    }
}

async fn store<T: Serialize + Sync + ?Sized>(
    tx: &Transaction<'_>,
    statement: &str,
    key: &str,
    result: &T,
) -> Result<(), BarrierError> {
    let run = key.split('/').next().unwrap_or_default();
    let json = serde_json::to_string(result).map_err(BarrierError::Result)?;
    let values: [(&(dyn ToSql + Sync), Type); 3] =
        [(&run, Type::TEXT), (&key, Type::TEXT), (&json, Type::TEXT)];
    let stored = typed(tx, statement, &values).await;
    match stored.map_err(BarrierError::database)?.len() {
        1 => Ok(()),
        _ => Err(unrecorded(key)),
    }
}

async fn typed(
    tx: &Transaction<'_>,
    statement: &str,
    values: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    tx.query_typed(statement, values).await
}

fn texts(rows: &[Row]) -> Result<Vec<String>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}
