//! Definitions in a journal file: their outlines, and which of them the file's owner has.
//!
//! Who handles a definition is a member of its outline's JSON, and no column: so an older build opens the
//! file as before when a deploy is taken back.

use rusqlite::{Connection, params};

use crate::store::{AppendError, Handling, KnownDefinition, SqliteStore, StoreError};

use super::queue::{NewDefinition, Write};
use super::rows::Verdict;

impl SqliteStore {
    pub(super) async fn keep_definitions(
        &self,
        definitions: &[KnownDefinition],
    ) -> Result<(), StoreError> {
        let doing = "keeping definitions";
        let encode = |known: &KnownDefinition| {
            Ok(NewDefinition {
                json: serde_json::to_string(&known.outline)?,
                handling: known
                    .handling
                    .as_ref()
                    .map(serde_json::to_string)
                    .transpose()?,
                of: known.outline.clone(),
            })
        };
        let encoded: Result<Vec<NewDefinition>, serde_json::Error> =
            definitions.iter().map(encode).collect();
        let all = encoded.map_err(|error| StoreError::failed(doing, error))?;
        let written = match self.push(Write::Definitions(all)) {
            Ok(written) => written.await,
            Err(why) => Err(why.into()),
        };
        written.map_err(|error| match error {
            AppendError::Dead(why) => StoreError::Dead {
                what: why.to_string(),
            },
            error => StoreError::failed(doing, error),
        })
    }
}

/// Writes what has changed, and no row that is as it should be: most starts change nothing.
pub(super) fn register(conn: &Connection, all: &[NewDefinition]) -> rusqlite::Result<Verdict> {
    let mut changed = 0;
    let mut insert = conn.prepare_cached(
        "INSERT INTO definitions (saga, version, fingerprint, outline) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    for one in all {
        let of = &one.of;
        changed += insert.execute(params![of.saga, of.version, of.fingerprint, one.json])?;
    }
    // What is damaged stays as it is: whoever reads it says so.
    let kept: Vec<(String, u32, String, Option<String>)> = conn
        .prepare_cached(
            "SELECT saga, version, fingerprint, outline -> '$.handling' FROM definitions
             WHERE json_valid(outline)",
        )?
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut set = conn.prepare_cached(
        "UPDATE definitions SET outline = iif(?4 IS NULL, json_remove(outline, '$.handling'),
                                              json_set(outline, '$.handling', json(?4)))
         WHERE saga = ?1 AND version = ?2 AND fingerprint = ?3",
    )?;
    for (saga, version, fingerprint, before) in kept {
        let now = all
            .iter()
            .find(|one| {
                (&one.of.saga, one.of.version, &one.of.fingerprint)
                    == (&saga, version, &fingerprint)
            })
            .and_then(|one| one.handling.clone());
        if now != before {
            changed += set.execute(params![saga, version, fingerprint, now])?;
        }
    }
    Ok(if changed == 0 {
        Verdict::Known
    } else {
        Verdict::Written
    })
}

/// All definitions of a file.
pub(super) fn all(conn: &Connection) -> Result<Vec<KnownDefinition>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Row {
        handling: Option<Handling>,
    }
    let doing = "reading definitions";
    let read = || -> rusqlite::Result<Vec<String>> {
        conn.prepare_cached("SELECT outline FROM definitions ORDER BY saga, version, fingerprint")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    let rows = read().map_err(|error| StoreError::failed(doing, error))?;
    let decode = |json: String| {
        let row: Row = serde_json::from_str(&json)?;
        let outline = serde_json::from_str(&json)?;
        Ok(KnownDefinition::new(outline, row.handling))
    };
    let decoded: Result<_, serde_json::Error> = rows.into_iter().map(decode).collect();
    decoded.map_err(|error| StoreError::failed(doing, error))
}
