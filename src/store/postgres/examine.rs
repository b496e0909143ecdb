//! Looking at a server and the tables there without opening them as a store, and bringing them up to date.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::ids::Timestamp;
use crate::store::{PostgresOptions, PostgresStore, StoreError};

use super::Way;
use super::schema::{self, Migration};

/// What a look at a server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresReport {
    /// The server's version, as it says it itself.
    pub server: String,
    /// Why the server will not do for a store, in a sentence that says what to change; nothing where it will.
    pub unfit: Option<String>,
    /// The version of the tables; nothing where there are none yet.
    pub schema: Option<i32>,
    /// The version that this build makes.
    pub newest_schema: i32,
    /// The setting `synchronous_commit`: what a commit waits for.
    pub synchronous_commit: String,
    /// The setting `synchronous_standby_names`: whom it waits for. Empty where there is no such standby.
    pub synchronous_standby_names: String,
    /// The setting `fsync`. Without it a crash of the machine loses what was committed.
    pub fsync: bool,
    /// The setting `full_page_writes`. Without it such a crash may tear pages.
    pub full_page_writes: bool,
    /// The setting `autovacuum`.
    pub autovacuum: bool,
    /// The tables of the schema, the largest first.
    pub tables: Vec<PostgresTable>,
    /// What keeps vacuum from removing dead rows, the oldest first; ten at most.
    pub holds: Vec<PostgresHold>,
}

/// A table of a store, by the server's own statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresTable {
    /// Its name, without its schema.
    pub name: String,
    /// How large it is, with its indexes.
    pub bytes: u64,
    /// About how many rows it has.
    pub live: u64,
    /// About how many dead rows it has, which vacuum has yet to remove.
    pub dead: u64,
    /// When it was last vacuumed, if it was.
    pub vacuumed_at: Option<Timestamp>,
}

/// Something that may still see rows which are dead to everybody else, so that they stay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresHold {
    /// Who holds them.
    pub holder: PostgresHolder,
    /// For how long; nothing where the server doesn't say, as of sessions of other roles.
    pub held_for: Option<Duration>,
    /// How many transactions of the whole server were begun meanwhile.
    pub transactions: u64,
}

/// Who keeps vacuum from removing rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostgresHolder {
    /// A session with an open transaction.
    Session {
        /// The process that serves it: `pg_terminate_backend` takes this number.
        pid: i32,
        /// What it calls itself.
        application: String,
        /// How it stands, such as `idle in transaction`; nothing where this role may not see it.
        state: Option<String>,
    },
    /// A transaction that was prepared for a commit in two phases, by its name.
    Prepared(String),
    /// A standby that reports what its readers need, by its name.
    Standby(String),
    /// A replication slot, by its name.
    Slot(String),
}

impl PostgresTable {
    /// A table that was never vacuumed.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: u64, live: u64, dead: u64) -> Self {
        PostgresTable {
            name: name.into(),
            bytes,
            live,
            dead,
            vacuumed_at: None,
        }
    }
}

impl PostgresHold {
    /// Something that keeps rows.
    #[must_use]
    pub fn new(holder: PostgresHolder, held_for: Option<Duration>, transactions: u64) -> Self {
        PostgresHold {
            holder,
            held_for,
            transactions,
        }
    }
}

const SETTINGS: &str = "
SELECT current_setting('server_version'), current_setting('synchronous_commit'),
       current_setting('synchronous_standby_names'), current_setting('fsync')::bool,
       current_setting('full_page_writes')::bool, current_setting('autovacuum')::bool";

const TABLES: &str = "
SELECT c.relname::text, pg_total_relation_size(c.oid), coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
       (extract(epoch FROM greatest(s.last_vacuum, s.last_autovacuum)) * 1000000)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 2 DESC, 1";

/// Sessions of other databases see nothing of this one's tables, and vacuum itself is no hindrance to vacuum.
const HOLDS: &str = "
SELECT * FROM (
    SELECT 'session' AS kind, a.application_name::text AS name, a.pid, a.state::text,
           (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000000)::bigint AS micros,
           greatest(age(a.backend_xmin), age(a.backend_xid))::bigint AS transactions
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
      AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
      AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
    UNION ALL
    SELECT 'prepared', p.gid, NULL, NULL, (extract(epoch FROM clock_timestamp() - p.prepared) * 1000000)::bigint,
           age(p.transaction)::bigint
    FROM pg_prepared_xacts p WHERE p.database = current_database()
    UNION ALL
    SELECT 'standby', r.application_name::text, NULL, NULL, NULL, age(r.backend_xmin)::bigint
    FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
    UNION ALL
    SELECT 'slot', s.slot_name::text, NULL, NULL, NULL, age(s.xmin)::bigint
    FROM pg_replication_slots s WHERE s.xmin IS NOT NULL
) h ORDER BY transactions DESC, micros DESC NULLS LAST LIMIT 10";

impl PostgresStore {
    /// Looks at a server and the default schema there, without opening it as a store.
    ///
    /// ```no_run
    /// use amends::store::PostgresStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let report = PostgresStore::examine("postgres://sagas@localhost/shop").await?;
    /// assert_eq!(report.unfit, None);
    /// assert_eq!(report.schema, Some(report.newest_schema));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`PostgresOptions::examine`].
    pub async fn examine(config: &str) -> Result<PostgresReport, StoreError> {
        PostgresStore::options().examine(config).await
    }
}

impl PostgresOptions {
    /// Looks at a server and the tables there without opening them as a store: also where that is refused, because the
    /// tables are of another version, or commits promise nothing. It changes nothing, and takes one connection for as
    /// long as it looks.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`] where the server can't be reached or does not answer.
    pub async fn examine(&self, config: &str) -> Result<PostgresReport, StoreError> {
        schema::check_name(&self.schema)?;
        Way::to(config, self)?
            .once(async |client| examine(client, &self.schema).await)
            .await
    }

    /// Makes the tables that are missing, brings older ones up to date, and says which migrations that took, oldest
    /// first: none where there was nothing to do, also because somebody else did it at the same time.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`].
    pub async fn upgrade(&self, config: &str) -> Result<Vec<Migration>, StoreError> {
        schema::check_name(&self.schema)?;
        Way::to(config, self)?
            .once(async |client| {
                schema::check_server(client).await?;
                schema::prepare(client, &self.schema, true).await
            })
            .await
    }
}

async fn examine(client: &Client, schema: &str) -> Result<PostgresReport, StoreError> {
    let failed = |error| StoreError::failed("looking what the server is like", error);
    let unfit = schema::fault_of_server(client).await?;
    let version = schema::version(client, schema).await.map_err(failed)?;
    let of_schema = [(
        &schema as &(dyn tokio_postgres::types::ToSql + Sync),
        Type::TEXT,
    )];
    let settings = client
        .query_typed_one(SETTINGS, &[])
        .await
        .map_err(failed)?;
    let tables = client
        .query_typed(TABLES, &of_schema)
        .await
        .map_err(failed)?;
    let holds = client.query_typed(HOLDS, &[]).await.map_err(failed)?;
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(PostgresReport {
        server: settings.get(0),
        unfit,
        schema: version,
        newest_schema: schema::VERSION,
        synchronous_commit: settings.get(1),
        synchronous_standby_names: settings.get(2),
        fsync: settings.get(3),
        full_page_writes: settings.get(4),
        autovacuum: settings.get(5),
        tables: tables
            .iter()
            .map(|row| PostgresTable {
                name: row.get(0),
                bytes: count(row.get(1)),
                live: count(row.get(2)),
                dead: count(row.get(3)),
                vacuumed_at: row.get::<_, Option<i64>>(4).map(Timestamp::from_micros),
            })
            .collect(),
        holds: holds
            .iter()
            .map(|row| {
                let name: String = row.get(1);
                PostgresHold {
                    holder: match row.get(0) {
                        "prepared" => PostgresHolder::Prepared(name),
                        "standby" => PostgresHolder::Standby(name),
                        "slot" => PostgresHolder::Slot(name),
                        _ => PostgresHolder::Session {
                            pid: row.get(2),
                            application: name,
                            state: row.get(3),
                        },
                    },
                    held_for: row
                        .get::<_, Option<i64>>(4)
                        .map(|micros| Duration::from_micros(count(micros))),
                    transactions: count(row.get(5)),
                }
            })
            .collect(),
    })
}
