//! Journals in PostgreSQL, for any number of workers.
//!
//! The way of an append: encoded on the caller's thread (`store::record`), queued (`queue`), written with
//! whatever else is queued there in one statement (`lanes`, `rows`), answered when the server has committed. What an
//! error says about what was written is judged in one place (`harm`). Reads are one statement each (`reader`, `scan`).
//! No statement needs anything of a session (`connect`), so a pooler may stand between.
//!
//! The tables are in `migrations` and `schema`, and in `docs/format.md` for everybody.

mod census;
mod checksum;
mod commands;
mod connect;
mod definitions;
mod examine;
mod fleet;
mod harm;
mod inside;
mod lanes;
mod options;
mod outbox;
mod prune;
mod queue;
mod reader;
mod rows;
mod scan;
mod schema;
mod shared;
mod tls;

pub use examine::{PostgresHold, PostgresHolder, PostgresReport, PostgresTable};
pub use options::PostgresOptions;
pub use schema::Migration;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::{Client, Config};

use crate::ids::RunId;
use crate::journal::{Command, CommandAnswer, Journal};
use crate::saga::Outline;
use crate::store::record::NewRecord;
use crate::store::{
    Append, AppendError, Appending, CommandEntry, Counts, Fleet, KnownDefinition, LoadError,
    Outbox, PruneFilter, Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError,
    TroubleChange,
};

use commands::Mailbox;
use connect::{Connections, Connector};
use lanes::Written;
use queue::Queue;
use rows::Record;
use shared::Shared;

/// A store in PostgreSQL 13 or later, or what speaks its protocol and keeps its guarantees.
///
/// Any number of workers may share it, in any number of processes. An append that was acknowledged is committed, as
/// durable as the server makes its commits; a server or role with `synchronous_commit = off` is refused.
/// With a synchronous standby it is on the standby, too. Appends that are in flight together share a commit.
///
/// It needs nothing of a session: no `LISTEN`, no advisory lock but the one that a migration holds for its own
/// transaction, no temporary table, and no prepared statement unless [told to](PostgresOptions::prepare_statements). So it
/// works through `PgBouncer` with `pool_mode = transaction`.
///
/// Its connections live in the tokio runtime in which it was connected, and end with it.
///
/// ```no_run
/// use amends::store::{PostgresStore, RunFilter, Store as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://sagas@localhost/shop").await?;
/// assert!(store.scan(&RunFilter::open(), None, 10).await?.is_empty());
/// store.close().await;
/// # Ok(())
/// # }
/// ```
pub struct PostgresStore {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    mailbox: Mailbox,
    kept: inside::Kept,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the way to the server: it may hold a password.
        f.debug_struct("PostgresStore")
            .field("schema", &self.shared.options.schema)
            .field("lanes", &self.shared.options.lanes)
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects to a server, with all [defaults](PostgresOptions), and makes the tables that are missing.
    ///
    /// `config` is a connection string of libpq's form, `host=.. user=.. dbname=..` or `postgres://..`. With
    /// several hosts, `target_session_attrs=read-write` finds the one that is primary now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] where the schema is of a newer version, or the server will not do: older than 13,
    /// another encoding than UTF8, `synchronous_commit = off`, a standby. [`StoreError::Failed`] where it can't be reached,
    /// or the role may not make tables that are missing.
    pub async fn connect(config: &str) -> Result<Self, StoreError> {
        PostgresStore::options().connect(config).await
    }

    /// Connects otherwise than by default.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// The migrations of the default schema, oldest first, for whoever runs them elsewhere: printed, each is a script.
    ///
    /// ```
    /// use amends::store::PostgresStore;
    ///
    /// let first = &PostgresStore::migrations()[0];
    /// assert_eq!((first.number, first.name), (1, "journals"));
    /// assert!(first.to_string().starts_with("-- Migration 1: journals\nBEGIN;\n"));
    /// ```
    #[must_use]
    pub fn migrations() -> Vec<Migration> {
        PostgresStore::options().migrations()
    }

    async fn connect_with(config: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        schema::check_name(&options.schema)?;
        let way = Way::to(config, &options)?;
        way.once(async |client| {
            schema::check_server(client).await?;
            schema::prepare(client, &options.schema, options.migrate).await
        })
        .await?;

        let schema = schema::quoted(&options.schema);
        let shared = Arc::new(Shared {
            append: rows::APPEND.replace("{schema}", &schema),
            schema,
            connections: Connections::new(&way.config, &way.connector, &options)?,
            written: Written::default(),
            options,
        });
        let lanes = shared.options.lanes;
        let queue = Arc::new(Queue::new(lanes, shared.options.limits()));
        for lane in 0..lanes {
            tokio::spawn(lanes::run(lane, Arc::clone(&queue), Arc::clone(&shared)));
        }
        Ok(PostgresStore {
            mailbox: Mailbox::default(),
            kept: inside::Kept::default(),
            shared,
            queue,
        })
    }

    /// The schema in which the tables are.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.shared.options.schema
    }

    /// How many commits of this store have written records.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.written.commits.load(Ordering::Relaxed)
    }

    /// How many records this store has written in them.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.shared.written.appends.load(Ordering::Relaxed)
    }
}

/// The way to a server.
struct Way {
    config: Config,
    connector: Connector,
}

impl Way {
    /// What isn't said is set to what is good for a store.
    fn to(config: &str, options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut config: Config = config.parse().map_err(unreachable)?;
        if config.get_application_name().is_none() {
            config.application_name("amends");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        let connector = Connector::new(&config, options)?;
        Ok(Way { config, connector })
    }

    /// Does something with a connection of its own, which is closed afterwards.
    async fn once<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = self.connector.clone().open(&self.config).await;
        let (mut client, driving) = opened.map_err(unreachable)?;
        let done = work(&mut client).await;
        drop(client);
        // It says goodbye to the server, and can fail only where nobody listens.
        let _ = driving.await;
        done
    }
}

fn unreachable(error: tokio_postgres::Error) -> StoreError {
    StoreError::failed("connecting to the server", error)
}

/// Refuses what the server would refuse a whole batch for.
fn check(record: &Record, most: usize) -> Result<(), String> {
    if record.events.len() > most {
        return Err(format!(
            "the record has {} bytes, and {most} are allowed",
            record.events.len()
        ));
    }
    let mut texts = vec![record.run.as_str(), &record.events];
    texts.extend(record.owner.as_deref());
    if let Some(begins) = &record.begins {
        texts.push(&begins.saga);
        texts.extend(
            begins
                .labels
                .iter()
                .flat_map(|(key, value)| [&**key, value]),
        );
    }
    if let TroubleChange::Now(trouble) = &record.trouble {
        texts.extend([&*trouble.step, &*trouble.mode]);
    }
    if texts.iter().any(|text| text.contains('\0')) {
        return Err("PostgreSQL keeps no text with a NUL character".to_owned());
    }
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    fn append(&self, append: Append) -> Appending {
        let record = match NewRecord::encode(append, checksum::of_record) {
            Ok(record) => record,
            Err(error) => return Appending::ready(Err(AppendError::not_written(error))),
        };
        check(&record, self.shared.options.max_record_bytes)
            .map_err(AppendError::not_written)
            .and_then(|()| self.queue.push(record).map(Appending::channel))
            .unwrap_or_else(|error| Appending::ready(Err(error)))
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.load_after(run, 0).await
    }

    async fn load_after(&self, run: &RunId, seq: u64) -> Result<Option<Journal>, LoadError> {
        reader::load(&self.shared, run, seq).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        let found = scan::find(&self.shared, std::slice::from_ref(run)).await?;
        Ok(found.into_iter().next())
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        scan::scan(&self.shared, filter, after, limit).await
    }

    async fn scan_journals(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(RunEntry, Result<Option<Journal>, LoadError>)>, StoreError> {
        reader::scan_journals(&self.shared, filter, after, limit).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        census::counts(&self.shared).await
    }

    async fn oddities(&self) -> Result<Vec<String>, StoreError> {
        census::oddities(&self.shared).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        definitions::remember(&self.shared, outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        definitions::recall(&self.shared, saga, version, fingerprint).await
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        definitions::register(&self.shared, definitions).await
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        definitions::all(&self.shared).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        commands::submit(&self.shared, command).await?;
        self.mailbox.tell();
        Ok(())
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        commands::open(&self.shared, after, limit).await
    }

    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        commands::open_of(&self.shared, run).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        commands::answer(&self.shared, token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        commands::find(&self.shared, token).await
    }

    async fn commands_arrived(&self) {
        self.mailbox.arrived(&self.shared).await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        prune::prune(&self.shared, filter, after, limit).await
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }

    fn outbox(&self) -> Option<&dyn Outbox> {
        Some(self)
    }

    /// Writes what is queued, and closes all connections. Afterwards the store neither appends nor reads.
    async fn close(&self) {
        self.queue.close();
        self.queue.wait_gone().await;
        self.shared.connections.close();
    }
}

/// What is queued is still written, as long as the runtime lasts; [`close`](Store::close) waits for it.
impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}
