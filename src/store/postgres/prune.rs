//! Forgetting runs that have ended.

use tokio_postgres::types::Type;

use crate::store::{PruneFilter, Pruned, StoreError};

use super::Shared;
use super::connect::Param;

/// So many entries are looked at in one go at most, however few of them match.
const LOOKED_AT: i64 = 10_000;

/// One statement chooses and deletes, so that only what has ended is forgotten, whatever else is going on; and never
/// the newest run, as with the other stores.
const FORGET: &str = "
WITH looked AS MATERIALIZED (
    SELECT run, standing, ended_at FROM {schema}.ended_runs
    WHERE run > $1 AND run < (SELECT max(number) FROM {schema}.runs) AND ($4::bigint[] IS NULL OR run = ANY($4))
    ORDER BY run LIMIT $6
), chosen AS MATERIALIZED (
    SELECT run FROM looked WHERE ended_at < $2 AND ($3::text[] IS NULL OR standing = ANY($3))
    ORDER BY run LIMIT $5
), gone AS (
    DELETE FROM {schema}.ended_runs e USING chosen c WHERE e.run = c.run RETURNING e.run
), journals AS (DELETE FROM {schema}.journal j USING gone g WHERE j.run = g.run
), outbox AS (DELETE FROM {schema}.outbox o USING gone g WHERE o.run = g.run
), notes AS (DELETE FROM {schema}.unsequenced n USING gone g WHERE n.run = g.run
), labels AS (DELETE FROM {schema}.labels l USING gone g WHERE l.run = g.run
), troubles AS (DELETE FROM {schema}.troubles t USING gone g WHERE t.run = g.run
), commands AS (DELETE FROM {schema}.commands c USING gone g WHERE c.run = g.run
), runs AS (DELETE FROM {schema}.runs r USING gone g WHERE r.number = g.run
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM chosen), (SELECT max(run) FROM chosen),
       (SELECT max(run) FROM looked)";

pub(super) async fn prune(
    shared: &Shared,
    filter: &PruneFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Pruned, StoreError> {
    let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let before = filter.ended_before.as_micros();
    let words: Vec<&str> = filter.standings.iter().map(|it| it.as_str()).collect();
    let standings = (!words.is_empty()).then_some(words);
    let of = |numbers: &std::collections::BTreeSet<u64>| -> Vec<i64> {
        let number = |number: &u64| i64::try_from(*number).ok();
        numbers.iter().filter_map(number).collect()
    };
    let numbers = filter.numbers.as_ref().map(of);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let params: [Param<'_>; 6] = [
        (&after, Type::INT8),
        (&before, Type::INT8),
        (&standings, Type::TEXT_ARRAY),
        (&numbers, Type::INT8_ARRAY),
        (&most, Type::INT8),
        (&LOOKED_AT, Type::INT8),
    ];
    let rows = shared.ask("forgetting runs", FORGET, &params).await?;
    let Some(row) = rows.first() else {
        return Ok(Pruned::default());
    };
    let (gone, chosen): (i64, i64) = (row.get(0), row.get(1));
    // Where there were as many as wanted, what was looked at beyond them may match, too.
    let last: Option<i64> = if chosen >= most {
        row.get(2)
    } else {
        row.get(3)
    };
    Ok(Pruned::new(
        gone.unsigned_abs(),
        last.map(i64::unsigned_abs),
    ))
}
