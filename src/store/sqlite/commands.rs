//! Commands in a journal file, and forgetting: what somebody may write who doesn't own it.
//!
//! The owner writes them with its appends. Anybody else has a writer of their own, which SQLite's lock
//! keeps apart from the owner's for the time of one small commit; it never touches a run that is open.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer};
use crate::store::{
    AppendError, CommandEntry, PruneFilter, Pruned, SqliteStore, StoreError, SubmitError,
};

use super::queue::{NewCommand, Queue, Write};
use super::{connect, scan, wal};

impl SqliteStore {
    pub(super) async fn hand_in(&self, command: &Command) -> Result<(), SubmitError> {
        let doing = "keeping a command";
        // What counts is when it was accepted, not when somebody made it (rule I5).
        let mut accepted = command.clone();
        accepted.at = Timestamp::now();
        let json =
            serde_json::to_string(&accepted).map_err(|error| StoreError::failed(doing, error))?;
        let new = NewCommand {
            token: command.token.clone(),
            run: command.run.clone(),
            json,
        };
        match self.write(Write::Command(new), doing).await {
            Ok(true) => {}
            Ok(false) => {
                let run = command.run.clone();
                return Err(SubmitError::NoSuchRun { run });
            }
            Err(error) => return Err(error.into()),
        }
        // It may have been there before, under the same token.
        let token = command.token.clone();
        let read = move |conn: &_| find(conn, &token);
        let kept: Option<CommandEntry> = self.readers.read("reading a command", read).await?;
        if kept.is_some_and(|kept| kept.command.asks_the_same_as(command)) {
            Ok(())
        } else {
            let token = command.token.clone();
            Err(SubmitError::TokenTaken { token })
        }
    }

    pub(super) async fn keep_answer(
        &self,
        token: &str,
        answer: &CommandAnswer,
    ) -> Result<(), StoreError> {
        let doing = "keeping the answer to a command";
        let json =
            serde_json::to_string(answer).map_err(|error| StoreError::failed(doing, error))?;
        let token = token.to_owned();
        self.write(Write::Answer { token, json }, doing)
            .await
            .map(drop)
    }

    pub(super) async fn forget(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        let filter = filter.clone();
        let (runs, next) = self
            .readers
            .read("looking for runs to forget", move |conn| {
                scan::to_forget(conn, &filter, after, limit)
            })
            .await?;
        let pruned = Pruned::new(runs.len() as u64, next);
        if !runs.is_empty() {
            self.write(Write::Forget(runs), "forgetting runs").await?;
        }
        Ok(pruned)
    }

    /// Has something written by whichever writer this store has. Says no where its place was taken.
    pub(super) async fn write(
        &self,
        write: Write,
        doing: &'static str,
    ) -> Result<bool, StoreError> {
        let queue = match &self.queue {
            Some(queue) => queue,
            None => self.outside()?,
        };
        let dead = |what: &dyn std::fmt::Display| StoreError::Dead {
            what: what.to_string(),
        };
        let answer = queue.push(write).map_err(|why| dead(&why))?;
        match answer.await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(AppendError::Conflict)) => Ok(false),
            Ok(Err(AppendError::Dead(why))) => Err(dead(&why)),
            Ok(Err(error)) => Err(StoreError::failed(doing, error)),
            Err(_) => Err(StoreError::failed(doing, "the writer went away")),
        }
    }

    /// The writer of somebody who doesn't own the file.
    fn outside(&self) -> Result<&Arc<Queue>, StoreError> {
        if let Some(queue) = self.outside.get() {
            return Ok(queue);
        }
        let conn = connect::writer(&self.path, self.options.busy_timeout)?;
        connect::make_durable(&conn)?;
        // The log is the owner's to copy and to remove.
        wal::leave(&conn);
        let queue = self.begin_writing(conn, None)?;
        let mut spare = Some(queue);
        let kept = self
            .outside
            .get_or_init(|| spare.take().unwrap_or_default());
        if let Some(spare) = spare {
            // Another call was faster.
            spare.close();
        }
        Ok(kept)
    }
}

/// The next commands without an answer.
pub(super) fn open(
    conn: &Connection,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<CommandEntry>, StoreError> {
    let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = || {
        conn.prepare_cached(
            "SELECT pos, command, answer FROM commands WHERE answer IS NULL AND pos > ? ORDER BY pos LIMIT ?",
        )?
        .query_map([after, limit], entry)?
        .collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = read().map_err(|error| StoreError::failed("reading commands", error))?;
    // A command that can't be read holds up no other: it stays where it is, for whoever can.
    Ok(found.into_iter().flatten().collect())
}

/// All commands of a run without an answer.
pub(super) fn open_of(conn: &Connection, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
    let read = || {
        conn.prepare_cached(
            "SELECT pos, command, answer FROM commands WHERE answer IS NULL
             AND run = (SELECT run FROM runs WHERE id = ?) ORDER BY pos",
        )?
        .query_map([run.as_str()], entry)?
        .collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = read().map_err(|error| StoreError::failed("reading commands", error))?;
    Ok(found.into_iter().flatten().collect())
}

/// The command with this token.
pub(super) fn find(conn: &Connection, token: &str) -> Result<Option<CommandEntry>, StoreError> {
    let read = || {
        conn.prepare_cached("SELECT pos, command, answer FROM commands WHERE token = ?")?
            .query_row([token], entry)
            .optional()
    };
    let found = read().map_err(|error| StoreError::failed("reading a command", error))?;
    Ok(found.flatten())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Option<CommandEntry>> {
    let (number, command): (i64, String) = (row.get(0)?, row.get(1)?);
    let answer: Option<String> = row.get(2)?;
    let Ok(command) = serde_json::from_str(&command) else {
        return Ok(None);
    };
    let mut entry = CommandEntry::new(number.unsigned_abs(), command);
    entry.answer = answer.and_then(|answer| serde_json::from_str(&answer).ok());
    Ok(Some(entry))
}
