//! Definitions: their outlines, and who has them.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use crate::saga::Outline;
use crate::store::{Handling, KnownDefinition, StoreError, key_of};

use super::Shared;
use super::connect::Param;

/// Keeps an outline.
pub(super) async fn remember(shared: &Shared, outline: &Outline) -> Result<(), StoreError> {
    let doing = "keeping a definition";
    let json = serde_json::to_string(outline).map_err(|error| StoreError::failed(doing, error))?;
    let version = i64::from(outline.version);
    let params: [Param<'_>; 4] = [
        (&outline.saga, Type::TEXT),
        (&version, Type::INT8),
        (&outline.fingerprint, Type::TEXT),
        (&json, Type::TEXT),
    ];
    let sql = "INSERT INTO {schema}.definitions (saga, version, fingerprint, outline) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING";
    shared.ask(doing, sql, &params).await.map(drop)
}

/// Keeps all definitions of a coordinator, and what it does with their runs. It writes no row that is as it should be:
/// most starts change nothing.
pub(super) async fn register(
    shared: &Shared,
    definitions: &[KnownDefinition],
) -> Result<(), StoreError> {
    let doing = "keeping definitions";
    let (mut sagas, mut versions, mut fingerprints) = (Vec::new(), Vec::new(), Vec::new());
    let (mut outlines, mut handlings) = (Vec::new(), Vec::new());
    let json = |error| StoreError::failed(doing, error);
    for KnownDefinition { outline, handling } in definitions {
        sagas.push(outline.saga.as_str());
        versions.push(i64::from(outline.version));
        fingerprints.push(outline.fingerprint.as_str());
        outlines.push(serde_json::to_string(outline).map_err(json)?);
        let handling = handling.as_ref().map(serde_json::to_string);
        handlings.push(handling.transpose().map_err(json)?);
    }
    let params: [Param<'_>; 5] = [
        (&sagas, Type::TEXT_ARRAY),
        (&versions, Type::INT8_ARRAY),
        (&fingerprints, Type::TEXT_ARRAY),
        (&outlines, Type::TEXT_ARRAY),
        (&handlings, Type::TEXT_ARRAY),
    ];
    let sql = "
        WITH had AS (SELECT * FROM unnest($1, $2, $3, $4, $5) AS h (saga, version, fingerprint, outline, handling)),
        made AS (
            INSERT INTO {schema}.definitions (saga, version, fingerprint, outline, handling)
            SELECT * FROM had ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING
        )
        UPDATE {schema}.definitions d SET handling = now.handling
        FROM {schema}.definitions old LEFT JOIN had now USING (saga, version, fingerprint)
        WHERE (d.saga, d.version, d.fingerprint) = (old.saga, old.version, old.fingerprint)
          AND d.handling IS DISTINCT FROM now.handling";
    shared.ask(doing, sql, &params).await.map(drop)
}

/// All definitions that were kept. Workers whose leases last handle theirs, whoever registered last.
pub(super) async fn all(shared: &Shared) -> Result<Vec<KnownDefinition>, StoreError> {
    let doing = "reading definitions";
    let sql = "
        SELECT outline, handling, NULL FROM {schema}.definitions
        UNION ALL
        SELECT NULL, NULL, definitions FROM {schema}.workers WHERE NOT dead AND until > clock_timestamp()";
    let rows = shared.ask(doing, sql, &[]).await?;
    let failed = |error: serde_json::Error| StoreError::failed(doing, error);
    let mut known = BTreeMap::new();
    let mut driven: Vec<(String, u32)> = Vec::new();
    for row in rows {
        if let Some(of_worker) = row.get::<_, Option<&str>>(2) {
            driven.extend(serde_json::from_str::<Vec<_>>(of_worker).map_err(failed)?);
        }
        if let Some(outline) = row.get::<_, Option<&str>>(0) {
            let outline: Outline = serde_json::from_str(outline).map_err(failed)?;
            let handling = row.get::<_, Option<&str>>(1).map(serde_json::from_str);
            let handling: Option<Handling> = handling.transpose().map_err(failed)?;
            known.insert(key_of(&outline), KnownDefinition::new(outline, handling));
        }
    }
    let driven = |(saga, version, _): &(String, u32, String)| {
        driven.iter().any(|of| (&of.0, of.1) == (saga, *version))
    };
    for (key, definition) in &mut known {
        if driven(key) {
            definition.handling = Some(Handling::Runs);
        }
    }
    Ok(known.into_values().collect())
}

/// The outline that was kept of a definition.
pub(super) async fn recall(
    shared: &Shared,
    saga: &str,
    version: u32,
    fingerprint: &str,
) -> Result<Option<Outline>, StoreError> {
    let doing = "reading a definition";
    let version = i64::from(version);
    let params: [Param<'_>; 3] = [
        (&saga, Type::TEXT),
        (&version, Type::INT8),
        (&fingerprint, Type::TEXT),
    ];
    let sql = "SELECT outline FROM {schema}.definitions WHERE saga = $1 AND version = $2 AND fingerprint = $3";
    let rows = shared.ask(doing, sql, &params).await?;
    rows.first()
        .map(|row| serde_json::from_str(row.get(0)))
        .transpose()
        .map_err(|error| StoreError::failed(doing, error))
}
