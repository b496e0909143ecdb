//! Counts over the lists of a journal file, and what is wrong with the lists themselves.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::ids::Timestamp;
use crate::journal::Standing;
use crate::store::{Counts, StoreError, Trouble};

/// How many runs stand how.
pub(super) fn counts(conn: &Connection) -> Result<Counts, StoreError> {
    let read = || -> rusqlite::Result<_> {
        let mut counts = Counts::default();
        // CROSS JOIN walks the list and looks the saga up, and not the other way round.
        for list in ["open_runs", "ended_runs"] {
            let mut select = conn.prepare(&format!(
                "SELECT r.saga, l.standing, count(*), r.version FROM {list} l CROSS JOIN runs r ON r.run = l.run GROUP BY 1, 2, 4"
            ))?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (saga, word): (String, String) = (row.get(0)?, row.get(1)?);
                // As the list has it: a word that is damaged must not hide the run.
                let standing = Standing::from_word(&word, Timestamp::default());
                let standing = standing.unwrap_or(Standing::Running);
                let runs = row.get::<_, i64>(2)?.unsigned_abs();
                counts.add_runs(&saga, standing, runs);
                counts.add_versions(&saga, row.get(3)?, standing, runs);
            }
        }
        let mut select = conn.prepare(
            "SELECT t.step, t.mode, count(*) FROM open_runs o LEFT JOIN troubles t ON t.run = o.run
             WHERE o.standing = 'parked' GROUP BY 1, 2",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let step: Option<String> = row.get(0)?;
            let mode: Option<String> = row.get(1)?;
            let trouble = step.zip(mode).map(|(step, mode)| Trouble { step, mode });
            counts.add_parked(trouble, row.get::<_, i64>(2)?.unsigned_abs());
        }
        let open = "SELECT count(*) FROM commands WHERE answer IS NULL";
        let open: i64 = conn.query_row(open, [], |row| row.get(0))?;
        counts.open_commands = open.unsigned_abs();
        Ok(counts)
    };
    read().map_err(|error| StoreError::failed("counting runs", error))
}

/// Of each kind of oddity, so many are told.
const TOLD: i64 = 100;

/// Rows that nothing leads to, runs that no list has, and what SQLite itself finds damaged.
const LOOKS: [(&str, &str); 6] = [
    (
        "records of a run that is not in the list: number",
        "SELECT run FROM (SELECT DISTINCT run FROM journal) WHERE run NOT IN (SELECT run FROM runs)",
    ),
    (
        "a run that is neither open nor ended:",
        "SELECT r.id FROM runs r WHERE r.run NOT IN (SELECT run FROM open_runs) AND r.run NOT IN (SELECT run FROM ended_runs)",
    ),
    (
        "a run that is both open and ended:",
        "SELECT r.id FROM open_runs o CROSS JOIN ended_runs e ON e.run = o.run CROSS JOIN runs r ON r.run = o.run",
    ),
    (
        "a standing without a run: number",
        "SELECT run FROM (SELECT run FROM open_runs UNION ALL SELECT run FROM ended_runs)
         WHERE run NOT IN (SELECT run FROM runs)",
    ),
    (
        "what can be searched for without a run: number",
        "SELECT run FROM (SELECT run FROM labels UNION SELECT run FROM troubles UNION SELECT run FROM commands)
         WHERE run NOT IN (SELECT run FROM runs)",
    ),
    (
        "SQLite's own check:",
        "SELECT quick_check FROM pragma_quick_check WHERE quick_check <> 'ok'",
    ),
];

/// What is wrong with the file beyond its journals.
pub(super) fn oddities(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let look = |(what, sql): &(&str, &str)| -> rusqlite::Result<Vec<String>> {
        conn.prepare(&format!("{sql} LIMIT {TOLD}"))?
            .query_map([], |row| {
                Ok(match row.get(0)? {
                    Value::Integer(number) => format!("{what} {number}"),
                    Value::Text(text) => format!("{what} {text}"),
                    other => format!("{what} {other:?}"),
                })
            })?
            .collect()
    };
    let mut found = Vec::new();
    for one in &LOOKS {
        found.extend(
            look(one).map_err(|error| StoreError::failed("checking the journal file", error))?,
        );
    }
    Ok(found)
}
