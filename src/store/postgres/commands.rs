//! Commands: handed in by any process, found by whoever drives their run.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer};
use crate::store::{CommandEntry, StoreError, SubmitError};

use super::Shared;
use super::connect::Param;

/// Where it is seen that there are new commands.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// The highest number of a command that was open at the last look.
    seen: AtomicI64,
    /// When to look next: kept here, so that a call that is dropped and made anew goes on waiting.
    next_look: Mutex<Instant>,
    /// Told of commands that are handed in here.
    told: Notify,
}

impl Default for Mailbox {
    fn default() -> Self {
        Mailbox {
            seen: AtomicI64::new(0),
            next_look: Mutex::new(Instant::now()),
            told: Notify::new(),
        }
    }
}

impl Mailbox {
    /// A command was handed in here.
    pub(super) fn tell(&self) {
        self.told.notify_one();
    }

    /// Waits until there are commands with higher numbers than any before.
    pub(super) async fn arrived(&self, shared: &Shared) {
        loop {
            let at = *self.lock();
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            }
            *self.lock() = Instant::now() + jittered(shared.options.poll_interval);
            let newest = shared
                .ask(
                    "looking for commands",
                    "SELECT max(number) FROM {schema}.commands WHERE answer IS NULL",
                    &[],
                )
                .await;
            // Trouble with the server is no command: the next look may go well.
            let newest = newest
                .ok()
                .and_then(|rows| rows.first()?.get::<_, Option<i64>>(0));
            // Numbers are given in the order of commits, so none below this one comes later.
            if newest.is_some_and(|newest| newest > self.seen.fetch_max(newest, Ordering::AcqRel)) {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// So long, give or take a fifth: workers that were started together don't ask together for ever.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Keeps a command, which gets the next number and the server's time.
pub(super) async fn submit(shared: &Shared, command: &Command) -> Result<(), SubmitError> {
    let doing = "keeping a command";
    let json = serde_json::to_string(command).map_err(|error| StoreError::failed(doing, error))?;
    let (token, run) = (command.token.as_str(), command.run.as_str());
    if run.contains('\0') {
        let run = command.run.clone();
        return Err(SubmitError::NoSuchRun { run });
    }
    let params: [Param<'_>; 3] = [
        (&token, Type::TEXT),
        (&run, Type::TEXT),
        (&json, Type::TEXT),
    ];
    // The counter's row is locked before the time is taken, so times and numbers have one order. A command that
    // is there already takes a number too: the answer to it is that of a commit that writes.
    let rows = shared
        .ask_durably(
            doing,
            "WITH target AS (SELECT number FROM {schema}.runs WHERE id = $2),
             next AS (
                 UPDATE {schema}.counters SET value = value + 1
                 WHERE name = 'commands' AND EXISTS (SELECT 1 FROM target) RETURNING value
             ), kept AS (
                 INSERT INTO {schema}.commands (number, token, run, at, command)
                 SELECT next.value, $1, target.number, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $3
                 FROM next, target
                 ON CONFLICT (token) DO NOTHING
             )
             SELECT value FROM next",
            &params,
        )
        .await?;
    if rows.is_empty() {
        let run = command.run.clone();
        return Err(SubmitError::NoSuchRun { run });
    }
    // It may have been there before, under the same token.
    let kept = find(shared, token).await?;
    if kept.is_some_and(|kept| kept.command.asks_the_same_as(command)) {
        Ok(())
    } else {
        let token = command.token.clone();
        Err(SubmitError::TokenTaken { token })
    }
}

/// The next commands without an answer.
pub(super) async fn open(
    shared: &Shared,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<CommandEntry>, StoreError> {
    let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let params: [Param<'_>; 2] = [(&after, Type::INT8), (&limit, Type::INT8)];
    let sql = "SELECT number, at, command, answer FROM {schema}.commands
               WHERE answer IS NULL AND number > $1 ORDER BY number LIMIT $2";
    let rows = shared.ask("reading commands", sql, &params).await?;
    // A command that can't be read holds up no other: it stays where it is, for whoever can.
    Ok(rows.iter().filter_map(entry).collect())
}

/// All commands of a run without an answer.
pub(super) async fn open_of(shared: &Shared, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
    let run = run.as_str();
    if run.contains('\0') {
        return Ok(Vec::new());
    }
    let sql = "SELECT c.number, c.at, c.command, c.answer FROM {schema}.commands c
               JOIN {schema}.runs r ON r.number = c.run
               WHERE r.id = $1 AND c.answer IS NULL ORDER BY c.number";
    let rows = shared
        .ask("reading commands", sql, &[(&run, Type::TEXT)])
        .await?;
    Ok(rows.iter().filter_map(entry).collect())
}

/// The command with this token.
pub(super) async fn find(shared: &Shared, token: &str) -> Result<Option<CommandEntry>, StoreError> {
    if token.contains('\0') {
        return Ok(None);
    }
    let sql = "SELECT number, at, command, answer FROM {schema}.commands WHERE token = $1";
    let rows = shared
        .ask("reading a command", sql, &[(&token, Type::TEXT)])
        .await?;
    Ok(rows.first().and_then(entry))
}

/// Keeps what became of a command, unless there is an answer already.
pub(super) async fn answer(
    shared: &Shared,
    token: &str,
    answer: &CommandAnswer,
) -> Result<(), StoreError> {
    let doing = "keeping the answer to a command";
    let json = serde_json::to_string(answer).map_err(|error| StoreError::failed(doing, error))?;
    let params: [Param<'_>; 2] = [(&token, Type::TEXT), (&json, Type::TEXT)];
    let sql = "UPDATE {schema}.commands SET answer = $2 WHERE token = $1 AND answer IS NULL";
    shared.ask(doing, sql, &params).await.map(drop)
}

fn entry(row: &Row) -> Option<CommandEntry> {
    let mut command: Command = serde_json::from_str(row.get(2)).ok()?;
    // What counts is when it was accepted, not when somebody made it (rule I5).
    command.at = Timestamp::from_micros(row.get(1));
    let mut entry = CommandEntry::new(row.get::<_, i64>(0).unsigned_abs(), command);
    let answer: Option<&str> = row.get(3);
    entry.answer = answer.and_then(|answer| serde_json::from_str(answer).ok());
    Some(entry)
}
