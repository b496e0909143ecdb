//! Workers on one database: their leases, by the database's clock, and who drives what.
//!
//! A worker whose lease has run out is first marked dead, and only what belongs to the dead is given to others. The
//! mark and a renewal are updates of the same row, so one of them comes first: either the renewal finds itself
//! dead, or the lease lasts again and nothing of it is given away. Comparing the clock alone would not do: a renewal
//! that was begun in time may be committed late.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::ids::{RunId, Timestamp};
use crate::store::{
    Claim, Fleet, FleetTerms, PostgresStore, Renewal, RunEntry, StoreError, Worker, WorkerEntry,
};

use super::connect::Param;
use super::{Shared, scan};

/// Marks those dead whose leases have run out.
const BURY: &str =
    "UPDATE {schema}.workers SET dead = true WHERE NOT dead AND until <= clock_timestamp()";

/// Runs that are due, of nobody or of the dead. Found by one index, owner by owner: however many runs are open, those
/// of the living are not looked at.
///
/// Rows that another worker is about to reserve are passed over, which spares a wait and no more: what decides is
/// that the owner is looked at again under the row's lock.
const CLAIM_DUE: &str = "
WITH me AS (
    SELECT number FROM {schema}.workers WHERE id = $1 AND NOT dead AND until > clock_timestamp()
), free AS (
    SELECT 0::bigint AS number UNION ALL SELECT number FROM {schema}.workers WHERE dead
), mine AS (
    SELECT k.number FROM unnest($2, $3) AS d (saga, version)
    JOIN {schema}.kinds k ON k.saga = d.saga AND k.version = d.version
), due AS MATERIALIZED (
    SELECT o.run FROM me, mine, free, LATERAL (
        SELECT run, coalesce(wake_at, 0) AS due FROM {schema}.open_runs
        WHERE kind = mine.number AND owner = free.number AND standing IN ('running', 'waiting')
          AND coalesce(wake_at, 0) <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        ORDER BY coalesce(wake_at, 0) LIMIT $4
    ) o ORDER BY o.due LIMIT $4
), locked AS MATERIALIZED (
    SELECT o.run FROM {schema}.open_runs o JOIN due d ON d.run = o.run
    WHERE o.owner IN (SELECT number FROM free) FOR UPDATE OF o SKIP LOCKED
), reserved AS (
    UPDATE {schema}.open_runs o SET owner = me.number FROM locked l, me WHERE o.run = l.run RETURNING o.run
)
SELECT r.id FROM reserved v JOIN {schema}.runs r ON r.number = v.run";

/// One run, whoever had it, unless that worker lives.
const CLAIM: &str = "
WITH me AS (
    SELECT number FROM {schema}.workers WHERE id = $1
), reserved AS (
    UPDATE {schema}.open_runs o SET owner = coalesce((SELECT number FROM me), 0)
    WHERE o.run = (SELECT number FROM {schema}.runs WHERE id = $2)
      AND NOT EXISTS (SELECT 1 FROM {schema}.workers w
                      WHERE w.number = o.owner AND w.id <> $1 AND NOT w.dead)
    RETURNING o.run
)
SELECT EXISTS (SELECT 1 FROM reserved), w.id
FROM {schema}.runs r JOIN {schema}.open_runs o ON o.run = r.number LEFT JOIN {schema}.workers w ON w.number = o.owner
WHERE r.id = $2";

/// Permits without a holder, or of the dead.
const TAKE_PERMITS: &str = "
WITH me AS (
    SELECT number FROM {schema}.workers WHERE id = $1 AND NOT dead AND until > clock_timestamp()
), free AS (
    SELECT n AS permit FROM me, generate_series(1, $3) n
    WHERE NOT EXISTS (
        SELECT 1 FROM {schema}.permits p JOIN {schema}.workers w ON w.number = p.worker
        WHERE p.limited = $2 AND p.permit = n AND NOT w.dead
    ) ORDER BY n LIMIT $4
)
INSERT INTO {schema}.permits AS p (limited, permit, worker) SELECT $2, f.permit, me.number FROM free f, me ORDER BY 2
ON CONFLICT (limited, permit) DO UPDATE SET worker = excluded.worker
WHERE NOT EXISTS (SELECT 1 FROM {schema}.workers w WHERE w.number = p.worker AND NOT w.dead)
RETURNING permit";

/// How long workers that are gone stay in the list.
const REMEMBERED: &str = "interval '1 hour'";

impl Shared {
    async fn bury(&self) -> Result<(), StoreError> {
        self.ask("looking for dead workers", BURY, &[])
            .await
            .map(drop)
    }
}

#[async_trait]
impl Fleet for PostgresStore {
    fn terms(&self) -> FleetTerms {
        self.shared.options.terms
    }

    async fn join(&self, worker: &Worker) -> Result<(), StoreError> {
        let doing = "joining the fleet";
        let json = |error| StoreError::failed(doing, error);
        let labels = serde_json::to_string(&worker.labels).map_err(json)?;
        let definitions = serde_json::to_string(&worker.definitions).map_err(json)?;
        // The dead of whom nothing is left, not even in the list, go when somebody comes.
        let sql = format!(
            "DELETE FROM {{schema}}.workers w WHERE dead AND until < clock_timestamp() - {REMEMBERED}
               AND NOT EXISTS (SELECT 1 FROM {{schema}}.open_runs o WHERE o.owner = w.number)
               AND NOT EXISTS (SELECT 1 FROM {{schema}}.permits p WHERE p.worker = w.number)"
        );
        self.shared.ask(doing, &sql, &[]).await?;
        let lease = self.shared.options.terms.lease.as_secs_f64();
        let params: [Param<'_>; 5] = [
            (&worker.id, Type::TEXT),
            (&worker.name, Type::TEXT),
            (&labels, Type::TEXT),
            (&definitions, Type::TEXT),
            (&lease, Type::FLOAT8),
        ];
        // Sent again after its answer was lost, it finds itself.
        let sql = "
            INSERT INTO {schema}.workers (id, name, labels, definitions, joined_at, renewed_at, until)
            SELECT $1, $2, $3, $4, now, now, now + make_interval(secs => $5) FROM clock_timestamp() now
            ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE NOT workers.dead
            RETURNING number";
        let rows = self.shared.ask(doing, sql, &params).await?;
        if rows.is_empty() {
            return Err(StoreError::failed(
                doing,
                "a worker with this id was here before",
            ));
        }
        Ok(())
    }

    async fn renew(&self, worker: &str) -> Result<Renewal, StoreError> {
        let lease = self.shared.options.terms.lease.as_secs_f64();
        let sql = "
            UPDATE {schema}.workers SET renewed_at = now, until = now + make_interval(secs => $2)
            FROM clock_timestamp() now WHERE id = $1 AND NOT dead AND until > clock_timestamp() RETURNING number";
        let params: [Param<'_>; 2] = [(&worker, Type::TEXT), (&lease, Type::FLOAT8)];
        let rows = self.shared.ask("renewing a lease", sql, &params).await?;
        Ok(if rows.is_empty() {
            Renewal::Lost
        } else {
            Renewal::Renewed
        })
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        let sql = "
            WITH gone AS (
                UPDATE {schema}.workers SET dead = true, has_left = true WHERE id = $1 RETURNING number
            )
            DELETE FROM {schema}.permits p USING gone g WHERE p.worker = g.number";
        let params: [Param<'_>; 1] = [(&worker, Type::TEXT)];
        self.shared
            .ask("leaving the fleet", sql, &params)
            .await
            .map(drop)
    }

    async fn claim_due(
        &self,
        worker: &str,
        definitions: &[(String, u32)],
        limit: usize,
    ) -> Result<Vec<RunId>, StoreError> {
        self.shared.bury().await?;
        let sagas: Vec<&str> = definitions.iter().map(|(saga, _)| &**saga).collect();
        let versions: Vec<i64> = definitions.iter().map(|it| i64::from(it.1)).collect();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params: [Param<'_>; 4] = [
            (&worker, Type::TEXT),
            (&sagas, Type::TEXT_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&limit, Type::INT8),
        ];
        let rows = self.shared.ask("claiming runs", CLAIM_DUE, &params).await?;
        Ok(rows
            .iter()
            .map(|row| RunId::new(row.get::<_, &str>(0)))
            .collect())
    }

    async fn claim(&self, worker: &str, run: &RunId) -> Result<Claim, StoreError> {
        self.shared.bury().await?;
        let id = run.as_str();
        if id.contains('\0') {
            return Ok(Claim::Over);
        }
        let params: [Param<'_>; 2] = [(&worker, Type::TEXT), (&id, Type::TEXT)];
        let rows = self.shared.ask("claiming a run", CLAIM, &params).await?;
        Ok(match rows.first() {
            None => Claim::Over,
            Some(row) if row.get(0) => Claim::Mine,
            // Nobody's by now, where the owner has no name: whoever claims it next gets it.
            Some(row) => Claim::Theirs(row.get::<_, Option<String>>(1).unwrap_or_default()),
        })
    }

    async fn find_many(&self, runs: &[RunId]) -> Result<Vec<RunEntry>, StoreError> {
        scan::find(&self.shared, runs).await
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        let micros = |column| format!("(extract(epoch FROM {column}) * 1000000)::bigint");
        let sql = format!(
            "SELECT w.id, w.name, w.labels, w.definitions, {}, {}, {}, NOT w.dead AND w.until > clock_timestamp(),
                    coalesce(o.runs, 0)
             FROM {{schema}}.workers w
             LEFT JOIN (SELECT owner, count(*) AS runs FROM {{schema}}.open_runs GROUP BY owner) o ON o.owner = w.number
             WHERE NOT w.has_left AND w.until > clock_timestamp() - {REMEMBERED}
             ORDER BY w.name, w.joined_at",
            micros("w.joined_at"),
            micros("w.renewed_at"),
            micros("w.until"),
        );
        let doing = "listing workers";
        let rows = self.shared.ask(doing, &sql, &[]).await?;
        let entries: Result<_, serde_json::Error> = rows.iter().map(entry).collect();
        entries.map_err(|error| StoreError::failed(doing, error))
    }

    async fn take_permits(
        &self,
        worker: &str,
        limit: &str,
        most: u32,
        wanted: u32,
    ) -> Result<Vec<u32>, StoreError> {
        self.shared.bury().await?;
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let wanted = i64::from(wanted);
        let params: [Param<'_>; 4] = [
            (&worker, Type::TEXT),
            (&limit, Type::TEXT),
            (&most, Type::INT4),
            (&wanted, Type::INT8),
        ];
        let rows = self
            .shared
            .ask("taking permits", TAKE_PERMITS, &params)
            .await?;
        Ok(rows
            .iter()
            .map(|row| row.get::<_, i32>(0).unsigned_abs())
            .collect())
    }

    async fn give_back(
        &self,
        worker: &str,
        limit: &str,
        permits: &[u32],
    ) -> Result<(), StoreError> {
        let permits: Vec<i32> = permits.iter().map(|permit| permit.cast_signed()).collect();
        let params: [Param<'_>; 3] = [
            (&worker, Type::TEXT),
            (&limit, Type::TEXT),
            (&permits, Type::INT4_ARRAY),
        ];
        let sql = "
            DELETE FROM {schema}.permits WHERE limited = $2 AND permit = ANY($3)
              AND worker = (SELECT number FROM {schema}.workers WHERE id = $1)";
        self.shared
            .ask("giving permits back", sql, &params)
            .await
            .map(drop)
    }
}

fn entry(row: &Row) -> Result<WorkerEntry, serde_json::Error> {
    let mut worker = Worker::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
    worker.labels = serde_json::from_str(row.get(2))?;
    worker.definitions = serde_json::from_str(row.get(3))?;
    let at = |column: usize| Timestamp::from_micros(row.get(column));
    let mut entry = WorkerEntry::new(worker, at(4), at(6));
    entry.renewed_at = at(5);
    entry.live = row.get(7);
    entry.runs = row.get::<_, i64>(8).unsigned_abs();
    Ok(entry)
}
