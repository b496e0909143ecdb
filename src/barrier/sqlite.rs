//! The barrier in SQLite, in a transaction of `rusqlite`.
//!
//! Begin it with [`TransactionBehavior::Immediate`]. A deferred one works too where the barrier comes first:
//! its first statement writes, and takes the lock. One that has read before can't take it any more once
//! another connection has written: that is `SQLITE_BUSY`, nothing is done, and only a new transaction helps.
//!
//! A file has one writer at a time, so all calls wait for each other; the connection's busy time-out says
//! for how long.

use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::answer::{Entered, Entry, unrecorded};
use super::{Asked, BarrierError, Call, Compensate, Execute, Fresh, Request, Stored, Undo};
use crate::step::Probed;

/// The tables, as SQL. It may be run again.
pub const SCHEMA: &str = include_str!("sql/sqlite/schema.sql");
const SEE: &str = include_str!("sql/sqlite/see.sql");
const ENTER: &str = include_str!("sql/sqlite/enter.sql");
const RECORD: &str = include_str!("sql/sqlite/record.sql");
const RECORD_UNDO: &str = include_str!("sql/sqlite/record_undo.sql");
const OLD: &str = include_str!("sql/sqlite/old.sql");
const FORGET_RUN: &str = include_str!("sql/sqlite/forget_run.sql");
const FORGET_KEYS: &str = include_str!("sql/sqlite/forget_keys.sql");

/// Makes the tables where they are missing.
///
/// # Errors
///
/// [`BarrierError::Database`].
pub fn create(connection: &Connection) -> Result<(), BarrierError> {
    connection
        .execute_batch(SCHEMA)
        .map_err(BarrierError::database)
}

/// Decides about an execute. Call it first in the transaction that is to do the work.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub fn execute(
    tx: &Transaction<'_>,
    call: &Call,
    request: &Request,
) -> Result<Execute, BarrierError> {
    enter(tx, call, Asked::Execute, &Entry::execute(request))?.execute(call, request)
}

/// Decides about a compensate. Call it first in the transaction that is to undo.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub fn compensate(
    tx: &Transaction<'_>,
    call: &Call,
    request: &Request,
) -> Result<Compensate, BarrierError> {
    enter(tx, call, Asked::Compensate, &Entry::compensate(request))?.compensate(call, request)
}

/// What became of an execute: its result, or never; then the key is closed, which is so once the
/// transaction is committed. It is never [`Unknown`](Probed::Unknown).
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub fn probe(tx: &Transaction<'_>, call: &Call) -> Result<Probed<Stored>, BarrierError> {
    enter(tx, call, Asked::Probe, &Entry::probe())?.probe(call)
}

/// Records what came of the work, for those who ask again. Then commit.
///
/// # Errors
///
/// [`BarrierError::Result`] where it can't be written as JSON, [`BarrierError::Unrecorded`] where this is
/// not the transaction that the right was given in, [`BarrierError::Database`]. Roll the transaction back.
pub fn record<T: Serialize + ?Sized>(
    tx: &Transaction<'_>,
    fresh: Fresh,
    result: &T,
) -> Result<(), BarrierError> {
    let Fresh { key } = fresh;
    store(tx, RECORD, &key, result)
}

/// Records that the effect is undone. Then commit.
///
/// # Errors
///
/// As [`record`].
pub fn record_undo<T: Serialize + ?Sized>(
    tx: &Transaction<'_>,
    undo: Undo,
    result: &T,
) -> Result<(), BarrierError> {
    let Undo { key, .. } = undo;
    store(tx, RECORD_UNDO, &key, result)
}

/// Forgets up to `most` runs that nobody has touched for so long, in a transaction of its own, and says
/// how many there were. Call it again until there are none.
///
/// See [the module above](super) for how long keys have to be kept. Whole seconds count.
///
/// # Errors
///
/// [`BarrierError::Database`]; nothing is forgotten then.
pub fn prune(
    connection: &mut Connection,
    untouched_for: Duration,
    most: u32,
) -> Result<u64, BarrierError> {
    let mut pruned = || {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let seconds = i64::try_from(untouched_for.as_secs()).unwrap_or(i64::MAX);
        let old: Vec<String> = tx
            .prepare_cached(OLD)?
            .query_map(params![seconds, most], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for run in &old {
            tx.prepare_cached(FORGET_KEYS)?.execute([run])?;
            tx.prepare_cached(FORGET_RUN)?.execute([run])?;
        }
        tx.commit()?;
        Ok(old.len() as u64)
    };
    pruned().map_err(|error: rusqlite::Error| BarrierError::database(error))
}

fn enter(
    tx: &Transaction<'_>,
    call: &Call,
    asked: Asked,
    entry: &Entry<'_>,
) -> Result<Entered, BarrierError> {
    call.must_be(asked)?;
    let (run, fence) = (call.run(), call.fence_column());
    let seen: i64 = tx
        .prepare_cached(SEE)
        .and_then(|mut see| see.query_row(params![run, fence], |row| row.get(0)))
        .map_err(BarrierError::database)?;
    if seen > fence {
        return Err(BarrierError::Stale {
            run: run.to_owned(),
            fence: call.fence(),
            seen: seen.unsigned_abs(),
        });
    }
    let values = params![
        run,
        call.effect_key(),
        entry.state,
        entry.request,
        entry.undo_request,
        call.attempt_column(),
        entry.unrecorded,
    ];
    tx.prepare_cached(ENTER)
        .and_then(|mut enter| {
            enter.query_row(values, |row| {
                Ok(Entered {
                    state: row.get(0)?,
                    request: row.get(1)?,
                    result: row.get(2)?,
                    undo_request: row.get(3)?,
                    undo_result: row.get(4)?,
                })
            })
        })
        .map_err(BarrierError::database)
}

fn store<T: Serialize + ?Sized>(
    tx: &Transaction<'_>,
    statement: &str,
    key: &str,
    result: &T,
) -> Result<(), BarrierError> {
    let run = key.split('/').next().unwrap_or_default();
    let json = serde_json::to_string(result).map_err(BarrierError::Result)?;
    let stored = tx
        .prepare_cached(statement)
        .and_then(|mut store| store.execute(params![run, key, json]));
    match stored.map_err(BarrierError::database)? {
        1 => Ok(()),
        _ => Err(unrecorded(key)),
    }
}
