//! The tables of a journal file, and how such a file is told from others.
//!
//! `docs/format.md` describes them for readers without this crate. The layout was measured: what a commit
//! costs is the number of pages it touches. So records lie in the order of their arrival, found by one
//! index; what changes (how a run stands) is in a table that holds open runs only; nothing is updated in a
//! table that grows.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::store::StoreError;

/// `PRAGMA application_id` of a journal file: "amnd" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x616d_6e64;

/// `PRAGMA user_version`: the version of these tables.
pub(super) const SCHEMA_VERSION: i32 = 3;

/// What each version added, oldest first. A file is brought to the last one by its owner when it is opened.
const MIGRATIONS: [&str; 3] = [VERSION_1, VERSION_2, VERSION_3];

const VERSION_1: &str = "
CREATE TABLE journal (
    pos       INTEGER PRIMARY KEY,
    run       INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    form      INTEGER NOT NULL,
    append_id BLOB    NOT NULL,
    at        INTEGER NOT NULL,
    events    TEXT    NOT NULL,
    checksum  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX journal_by_run ON journal (run, seq);

CREATE TABLE runs (
    run        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    saga       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;

CREATE TABLE open_runs (
    run      INTEGER PRIMARY KEY,
    standing TEXT NOT NULL,
    wake_at  INTEGER
) STRICT;

CREATE TABLE ended_runs (
    run      INTEGER PRIMARY KEY,
    standing TEXT NOT NULL,
    ended_at INTEGER NOT NULL
) STRICT;

CREATE TABLE definitions (
    saga        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    outline     TEXT NOT NULL,
    PRIMARY KEY (saga, version, fingerprint)
) STRICT;

CREATE VIEW run_list AS
SELECT r.run AS number, r.id, r.saga, r.version,
       coalesce(o.standing, e.standing) AS standing,
       strftime('%Y-%m-%dT%H:%M:%S', r.started_at / 1000000, 'unixepoch') || printf('.%06dZ', r.started_at % 1000000) AS started_at,
       strftime('%Y-%m-%dT%H:%M:%S', o.wake_at / 1000000, 'unixepoch') || printf('.%06dZ', o.wake_at % 1000000) AS wake_at,
       strftime('%Y-%m-%dT%H:%M:%S', e.ended_at / 1000000, 'unixepoch') || printf('.%06dZ', e.ended_at % 1000000) AS ended_at
FROM runs r LEFT JOIN open_runs o ON o.run = r.run LEFT JOIN ended_runs e ON e.run = r.run;
";

/// Commands, and what runs are found by. A command's number is never given again, also once it is forgotten
/// with its run: the owner looks only for higher ones than it has seen. Old runs get their labels from their first records, and what went
/// wrong with them with their next.
const VERSION_2: &str = "
CREATE TABLE commands (
    pos         INTEGER PRIMARY KEY AUTOINCREMENT,
    token       TEXT NOT NULL UNIQUE,
    run         INTEGER NOT NULL,
    command     TEXT NOT NULL,
    answer      TEXT
) STRICT;
CREATE INDEX open_commands ON commands (pos) WHERE answer IS NULL;
CREATE INDEX commands_by_run ON commands (run);

CREATE TABLE labels (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    run   INTEGER NOT NULL,
    PRIMARY KEY (key, value, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_by_run ON labels (run);

CREATE TABLE troubles (
    run  INTEGER PRIMARY KEY,
    step TEXT NOT NULL,
    mode TEXT NOT NULL
) STRICT;
CREATE INDEX troubles_by_step ON troubles (step, run);
CREATE INDEX troubles_by_mode ON troubles (mode, run);

CREATE INDEX parked_runs ON open_runs (run) WHERE standing = 'parked';
CREATE INDEX ended_otherwise ON ended_runs (standing, run) WHERE standing <> 'completed';
CREATE INDEX runs_by_saga ON runs (saga, run);
CREATE INDEX runs_by_start ON runs (started_at, run);

INSERT INTO labels (key, value, run)
SELECT l.key, l.value, j.run
FROM journal j, json_each(j.events, '$[0].run_started.labels') l
WHERE j.seq = 1 AND json_valid(j.events);
";

/// The order of records as readers of it know it: the highest place that a forgotten record had, so that it
/// is never given again, and how far each reader has come.
const VERSION_3: &str = "
CREATE TABLE positions (given INTEGER NOT NULL) STRICT;
INSERT INTO positions VALUES (0);

CREATE TABLE cursors (
    name     TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a database file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet.
    Nothing,
    /// Journals, in the tables of this version, or of an older one.
    Journals { version: i32 },
}

/// Looks what a database holds, without changing it.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<Found, StoreError> {
    let path = path.display();
    let foreign = |what: String| Err(StoreError::Foreign { what });
    let header = conn.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i32>(1)?, row.get::<_, i64>(2)?)),
    );
    match header {
        Ok((APPLICATION_ID, version @ 1..=SCHEMA_VERSION, _)) => Ok(Found::Journals { version }),
        Ok((APPLICATION_ID, found, _)) => foreign(format!(
            "`{path}` holds journals in schema version {found}, and this build knows version {SCHEMA_VERSION} at most: \
             use the version of `amends` that wrote it, or a later one"
        )),
        Ok((0, 0, 0)) => Ok(Found::Nothing),
        Ok((id, _, tables)) => foreign(format!(
            "`{path}` is the database of another program (application id {id:#x}, {tables} tables and indices), \
             and was left as it is: use another file"
        )),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => foreign(
            format!("`{path}` is not a SQLite database, and was left as it is: use another file"),
        ),
        Err(error) => Err(StoreError::failed(
            "looking what the journal file holds",
            error,
        )),
    }
}

/// Whether a reader could not look because something has to be put right first (`SQLITE_READONLY_ROLLBACK`
/// and its like).
pub(super) fn needs_a_writer(error: &StoreError) -> bool {
    let StoreError::Failed { cause, .. } = error else {
        return false;
    };
    let cause = cause.downcast_ref::<rusqlite::Error>();
    cause.and_then(rusqlite::Error::sqlite_error_code) == Some(ErrorCode::ReadOnly)
}

/// Makes the tables that a database lacks, all or none.
pub(super) fn migrate(conn: &Connection, found: Found) -> Result<(), StoreError> {
    let from = match found {
        Found::Nothing => 0,
        Found::Journals { version } => usize::try_from(version).unwrap_or(usize::MAX),
    };
    let missing = MIGRATIONS.get(from..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;",
        missing.concat()
    );
    conn.execute_batch(&sql).map_err(|error| {
        // The connection is dropped with this error; an open transaction goes with it.
        StoreError::failed("making the tables of the journal file", error)
    })
}

/// Refuses a file whose tables have to be brought up to date first.
pub(super) fn must_be_current(found: Found, path: &Path) -> Result<(), StoreError> {
    let path = path.display();
    let what = match found {
        Found::Journals { version } if version == SCHEMA_VERSION => return Ok(()),
        Found::Journals { version } => format!(
            "`{path}` holds journals in schema version {version}: let its owner, or `amends doctor`, open it once, \
             which brings it to version {SCHEMA_VERSION}"
        ),
        Found::Nothing => format!("`{path}` is empty: it holds no journals"),
    };
    Err(StoreError::Foreign { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sql: &str) -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("x.db")).unwrap();
        conn.execute_batch(sql).unwrap();
        (dir, conn)
    }

    fn refusal(sql: &str) -> String {
        let (_dir, conn) = file(sql);
        match identify(&conn, Path::new("x.db")) {
            Err(StoreError::Foreign { what }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_nothing_then_ours() {
        let (_dir, conn) = file("");
        assert_eq!(identify(&conn, Path::new("x.db")).unwrap(), Found::Nothing);
        migrate(&conn, Found::Nothing).unwrap();
        let version = SCHEMA_VERSION;
        assert_eq!(
            identify(&conn, Path::new("x.db")).unwrap(),
            Found::Journals { version }
        );
    }

    #[test]
    fn what_is_not_ours_is_refused_by_what_it_is() {
        assert!(
            refusal("CREATE TABLE t (x)").contains("another program (application id 0x0, 1 tables")
        );
        assert!(refusal("PRAGMA application_id = 7").contains("application id 0x7"));
        let newer = refusal("PRAGMA application_id = 0x616d6e64; PRAGMA user_version = 4");
        assert!(
            newer.contains("schema version 4") && newer.contains("knows version 3 at most"),
            "{newer}"
        );
    }
}
