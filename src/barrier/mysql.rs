//! The barrier in MySQL and MariaDB, in a transaction of `mysql_async`. Its tables are of InnoDB.
//!
//! Any isolation level will do. No statement of it opens a snapshot, so what you read afterwards is what
//! there is once the barrier has let you in, also at `REPEATABLE READ`: call it first.
//!
//! InnoDB may choose one of several calls that wait for each other, mostly where the first of three with
//! one key is rolled back, and end it with error 1213. Its transaction is rolled back then, and the call
//! may be made again.
//!
//! # Cancel safety
//!
//! A future of this module that is dropped leaves the transaction where it was or one statement further:
//! roll it back.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, IsolationLevel, Row, Transaction, TxOpts};
use serde::Serialize;

use super::answer::{Entered, Entry, unrecorded};
use super::{Asked, BarrierError, Call, Compensate, Execute, Fresh, Request, Stored, Undo};
use crate::step::Probed;

/// The tables, as SQL: statements that end in `;`. It may be run again.
pub const SCHEMA: &str = include_str!("sql/mysql/schema.sql");
const ANNOUNCE: &str = include_str!("sql/mysql/announce.sql");
const RAISE: &str = include_str!("sql/mysql/raise.sql");
const HOLD: &str = include_str!("sql/mysql/hold.sql");
const ENTER: &str = include_str!("sql/mysql/enter.sql");
const ENTERED: &str = include_str!("sql/mysql/entered.sql");
const RECORD: &str = include_str!("sql/mysql/record.sql");
const RECORD_UNDO: &str = include_str!("sql/mysql/record_undo.sql");
const OLD: &str = include_str!("sql/mysql/old.sql");
const FORGET_FENCES: &str = include_str!("sql/mysql/forget_fences.sql");
const FORGET_RUN: &str = include_str!("sql/mysql/forget_run.sql");
const FORGET_KEYS: &str = include_str!("sql/mysql/forget_keys.sql");

/// Makes the tables where they are missing, in the connection's database.
///
/// # Errors
///
/// [`BarrierError::Database`].
pub async fn create(connection: &mut Conn) -> Result<(), BarrierError> {
    for statement in SCHEMA.split_terminator(";\n") {
        connection
            .query_drop(statement)
            .await
            .map_err(BarrierError::database)?;
    }
    Ok(())
}

/// Decides about an execute. Call it first in the transaction that is to do the work.
///
/// It waits for a call with the same key that is under way.
///
/// # Errors
///
/// [`BarrierError`]; whatever it is, roll the transaction back.
pub async fn execute(
    tx: &mut Transaction<'_>,
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
    tx: &mut Transaction<'_>,
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
pub async fn probe(tx: &mut Transaction<'_>, call: &Call) -> Result<Probed<Stored>, BarrierError> {
    let entered = enter(tx, call, Asked::Probe, Entry::probe()).await?;
    entered.probe(call)
}

/// Records what came of the work, for those who ask again. Then commit.
///
/// # Errors
///
/// [`BarrierError::Result`] where it can't be written as JSON, [`BarrierError::Unrecorded`] where this is
/// not the transaction that the right was given in, [`BarrierError::Database`]. Roll the transaction back.
pub async fn record<T: Serialize + Sync + ?Sized>(
    tx: &mut Transaction<'_>,
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
    tx: &mut Transaction<'_>,
    undo: Undo,
    result: &T,
) -> Result<(), BarrierError> {
    store(tx, RECORD_UNDO, &undo.key, result).await
}

/// Forgets up to `most` runs that nobody has touched for so long, each in a transaction of its own, and
/// says how many there were. Call it again until there are none.
///
/// See [the module above](super) for how long keys have to be kept. Whole seconds count.
///
/// # Errors
///
/// [`BarrierError::Database`]; what was forgotten before stays so.
pub async fn prune(
    connection: &mut Conn,
    untouched_for: Duration,
    most: u32,
) -> Result<u64, BarrierError> {
    // A longer time than the database has existed would only overflow its arithmetic.
    let seconds = i64::try_from(untouched_for.as_secs()).map_or(1 << 40, |it| it.min(1 << 40));
    let pruned = async {
        let old: Vec<String> = connection.exec(OLD, (seconds, seconds, most)).await?;
        let mut forgotten = 0;
        for run in old {
            // No gaps are locked at this level: runs that begin don't wait.
            let options = TxOpts::default()
                .with_isolation_level(IsolationLevel::ReadCommitted)
                .clone();
            let mut tx = connection.start_transaction(options).await?;
            // In the order in which a call takes its locks. It may have come in between.
            tx.exec_drop(FORGET_FENCES, (&run,)).await?;
            tx.exec_drop(FORGET_RUN, (&run, seconds, seconds)).await?;
            if tx.affected_rows() == 0 {
                tx.rollback().await?;
                continue;
            }
            tx.exec_drop(FORGET_KEYS, (&run,)).await?;
            tx.commit().await?;
            forgotten += 1;
        }
        Ok(forgotten)
    };
    pruned
        .await
        .map_err(|error: mysql_async::Error| BarrierError::database(error))
}

async fn enter(
    tx: &mut Transaction<'_>,
    call: &Call,
    asked: Asked,
    entry: Entry<'_>,
) -> Result<Entered, BarrierError> {
    call.must_be(asked)?;
    pass(tx, call).await?;
    let (run, key) = (call.run(), call.effect_key());
    let values = (
        run,
        key,
        entry.state,
        entry.request,
        entry.undo_request,
        call.attempt_column(),
        entry.unrecorded,
    );
    let row = async {
        tx.exec_drop(ENTER, values).await?;
        tx.exec_first::<Row, _, _>(ENTERED, (run, key)).await
    };
    let row = row.await.map_err(BarrierError::database)?;
    row.and_then(entered).ok_or_else(|| unrecorded(key))
}

fn entered(row: Row) -> Option<Entered> {
    let (state, request, result, undo_request, undo_result) =
        mysql_async::from_row_opt(row).ok()?;
    Some(Entered {
        state,
        request,
        result,
        undo_request,
        undo_result,
    })
}

/// Lets a call pass whose fence is the highest, and keeps it so until the transaction ends: a higher
/// fence waits for it, and those of the same fence don't wait for each other.
///
/// InnoDB can't raise what two of them hold, so only the first call of a fence raises it, and who is
/// first is told by a row that each fence has for itself.
async fn pass(tx: &mut Transaction<'_>, call: &Call) -> Result<(), BarrierError> {
    let (run, fence) = (call.run(), call.fence_column());
    let seen = async {
        tx.exec_drop(ANNOUNCE, (run, fence)).await?;
        if tx.affected_rows() > 0 {
            tx.exec_drop(RAISE, (run, fence)).await?;
        }
        tx.exec_first::<i64, _, _>(HOLD, (run,)).await
    };
    match seen.await.map_err(BarrierError::database)? {
        Some(seen) if seen > fence => Err(BarrierError::Stale {
            run: run.to_owned(),
            fence: call.fence(),
            seen: seen.unsigned_abs(),
        }),
        _ => Ok(()),
    }
}

async fn store<T: Serialize + Sync + ?Sized>(
    tx: &mut Transaction<'_>,
    statement: &str,
    key: &str,
    result: &T,
) -> Result<(), BarrierError> {
    let run = key.split('/').next().unwrap_or_default();
    let json = serde_json::to_string(result).map_err(BarrierError::Result)?;
    tx.exec_drop(statement, (json, run, key))
        .await
        .map_err(BarrierError::database)?;
    match tx.affected_rows() {
        1 => Ok(()),
        _ => Err(unrecorded(key)),
    }
}
