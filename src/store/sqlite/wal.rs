//! The write-ahead log: kept at one size, so that commits write to blocks that exist.
//!
//! A commit that lets the file grow costs about twice as much as one that overwrites, because the file
//! system has to journal the new length. So the log is brought to its size once, when the store is opened,
//! and copied into the database (a checkpoint) whenever it has reached that size, after which SQLite
//! begins it anew from the front.

use std::ffi::OsString;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::harm::{self, Harm};

/// A page and the header of its frame in the log.
const FRAME: u64 = 4096 + 24;

/// How many pages a write of so many bytes may change, in all tables and indices together: rather too many.
pub(super) fn frames(bytes: usize) -> i64 {
    let pages = i64::try_from(bytes / 4096).unwrap_or(i64::MAX);
    pages.saturating_add(16)
}

/// When the log is copied into the database.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The log's size, in frames.
    size: i64,
    /// The length at which the next one is made.
    due: i64,
    /// The length at the last look, in frames, and how many may have been written since.
    seen: i64,
    since: i64,
}

impl Checkpoints {
    pub(super) fn at_bytes(bytes: u64) -> Self {
        let size = i64::try_from(bytes / FRAME).unwrap_or(i64::MAX).max(1);
        Checkpoints {
            size,
            due: size,
            seen: 0,
            since: 0,
        }
    }

    /// Makes a checkpoint if the log has reached its size. To be called between transactions, with how many
    /// frames they may have written at most: a look at the log costs a fifth of a commit of one row, and is
    /// taken only where the log may be due.
    pub(super) fn keep_size(&mut self, conn: &Connection, written: i64) -> rusqlite::Result<()> {
        self.since = self.since.saturating_add(written);
        if self.since < self.due - self.seen {
            return Ok(());
        }
        let (length, _) = checkpoint(conn, "NOOP")?;
        (self.seen, self.since) = (length, 0);
        if length < self.size {
            self.due = self.size;
        } else if length >= self.due {
            // A reader may hold the log where it is; then it grows on, and is not tried at each commit.
            self.due = length + self.size / 4 + 1;
            passive(conn)?;
        }
        Ok(())
    }
}

/// Copies what it can into the database, waiting for nobody. An error is one that stops the store.
pub(super) fn passive(conn: &Connection) -> rusqlite::Result<()> {
    match checkpoint(conn, "PASSIVE") {
        Err(error) if harm::of_checkpoint(&error) == Harm::Store => Err(error),
        _ => Ok(()),
    }
}

/// Lets the log be what it is when the connection is closed. SQLite would copy it into the database and
/// sync both, which must not be tried again once a sync has failed.
pub(super) fn leave(conn: &Connection) {
    let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// The log's length and how much of it is in the database, in frames.
fn checkpoint(conn: &Connection, how: &str) -> rusqlite::Result<(i64, i64)> {
    conn.prepare_cached(&format!("PRAGMA wal_checkpoint({how})"))?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Brings the log to its size, unless it has it.
///
/// A transaction that is larger than the page cache writes frames before it commits. Rolled back, it
/// leaves them behind in the log's file, where the next commits overwrite them, and nothing at all in the
/// database. Where the disk is too full for it, nothing is lost but time.
pub(super) fn grow(conn: &Connection, database: &Path, bytes: u64) -> rusqlite::Result<()> {
    if std::fs::metadata(beside(database)).is_ok_and(|log| log.len() >= bytes) {
        return Ok(());
    }
    let pages = bytes / FRAME;
    let cache: i64 = conn.query_row("PRAGMA cache_size", [], |row| row.get(0))?;
    let grown = conn.execute_batch(&format!(
        "PRAGMA cache_size = 16;
         BEGIN IMMEDIATE;
         CREATE TABLE filler (page BLOB);
         WITH RECURSIVE pages (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM pages WHERE n < {pages})
         INSERT INTO filler SELECT zeroblob(4000) FROM pages;"
    ));
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    conn.execute_batch(&format!("PRAGMA cache_size = {cache}"))?;
    match grown {
        Err(error) if harm::of_statement(&error) == Harm::Store => Err(error),
        _ => Ok(()),
    }
}

/// The log's file.
pub(super) fn beside(database: &Path) -> OsString {
    let mut name = OsString::from(database);
    name.push("-wal");
    name
}

#[cfg(test)]
mod tests {
    use super::super::{connect, schema};
    use super::*;

    #[test]
    fn the_log_is_grown_and_the_database_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = connect::writer(&path, std::time::Duration::ZERO).unwrap();
        connect::make_durable(&conn).unwrap();
        schema::migrate(&conn, schema::Found::Nothing).unwrap();
        let tables = |conn: &Connection| -> i64 {
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .unwrap()
        };
        let before = tables(&conn);
        grow(&conn, &path, 1 << 20).unwrap();
        let log = std::fs::metadata(beside(&path)).unwrap().len();
        assert!(log >= (1 << 20) - 20 * FRAME, "{log} bytes");
        assert_eq!(tables(&conn), before);
        passive(&conn).unwrap();
        let (length, copied) = checkpoint(&conn, "NOOP").unwrap();
        assert_eq!(length, copied);
        assert!(length < 40, "{length} frames are only those of the tables");
    }

    #[test]
    fn the_log_is_looked_at_only_where_it_may_be_due() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = connect::writer(&path, std::time::Duration::ZERO).unwrap();
        connect::make_durable(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        let mut checkpoints = Checkpoints::at_bytes(64 * FRAME);
        let copied = |conn: &Connection| checkpoint(conn, "NOOP").unwrap().1;
        // Somebody wrote more than the log is to have, and the writer knows of a little.
        conn.execute_batch("INSERT INTO t VALUES (zeroblob(400000))")
            .unwrap();
        checkpoints.keep_size(&conn, 63).unwrap();
        assert_eq!(copied(&conn), 0);
        checkpoints.keep_size(&conn, 1).unwrap();
        assert!(copied(&conn) > 64);
        // And where nobody knows what was written, it is looked at.
        conn.execute_batch("INSERT INTO t VALUES (zeroblob(400000))")
            .unwrap();
        let mut others = Checkpoints::at_bytes(64 * FRAME);
        others.keep_size(&conn, i64::MAX).unwrap();
        let (length, copied) = checkpoint(&conn, "NOOP").unwrap();
        assert!(length > 64);
        assert_eq!(copied, length);
    }

    #[test]
    fn the_log_begins_anew_when_it_has_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = connect::writer(&path, std::time::Duration::ZERO).unwrap();
        connect::make_durable(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        let mut checkpoints = Checkpoints::at_bytes(64 * FRAME);
        for _ in 0..100 {
            conn.execute_batch("INSERT INTO t VALUES (zeroblob(20000))")
                .unwrap();
            checkpoints.keep_size(&conn, 8).unwrap();
        }
        let log = std::fs::metadata(beside(&path)).unwrap().len();
        assert!(log < 80 * FRAME, "{log} bytes");
    }
}
