//! How a store in PostgreSQL is opened.

use std::time::Duration;

use crate::store::{FleetTerms, PostgresStore, StoreError};

use super::queue::Limits;
use super::schema::{self, Migration};

/// How a store in PostgreSQL is opened. What isn't set has a default that is good for a server nearby.
///
/// ```no_run
/// use std::time::Duration;
///
/// use amends::store::PostgresStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::options()
///     .schema("billing_sagas")
///     .lease(Duration::from_secs(10))
///     .connect("host=db.internal user=billing dbname=billing")
///     .await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until `connect` is called"]
pub struct PostgresOptions {
    pub(super) schema: String,
    pub(super) pool_size: usize,
    pub(super) lanes: usize,
    pub(super) max_batch: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) max_record_bytes: usize,
    pub(super) statement_timeout: Duration,
    pub(super) prepare_statements: bool,
    pub(super) migrate: bool,
    pub(super) poll_interval: Duration,
    pub(super) terms: FleetTerms,
    #[cfg(feature = "postgres-tls")]
    pub(super) root_certificates: Option<Vec<u8>>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions {
            schema: "amends".to_owned(),
            pool_size: 4,
            lanes: 2,
            max_batch: 512,
            max_batch_bytes: 16 << 20,
            max_record_bytes: 256 << 20,
            statement_timeout: Duration::from_secs(30),
            prepare_statements: false,
            migrate: true,
            poll_interval: Duration::from_millis(250),
            terms: FleetTerms::new(Duration::from_secs(15), Duration::from_millis(500)),
            #[cfg(feature = "postgres-tls")]
            root_certificates: None,
        }
    }
}

impl PostgresOptions {
    /// How much one batch takes at most.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            appends: self.max_batch,
            bytes: self.max_batch_bytes,
        }
    }

    /// The schema in which the tables are: stores in different schemas of one database have nothing to do with
    /// one another. Default `amends`.
    ///
    /// It is taken as it is, capitals too; at most 63 bytes.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// How many connections there are for everything but appends. Default 4; at least 1.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections.clamp(1, 1_000);
        self
    }

    /// How many batches of appends are on their way at once at most, each with a connection of its own. Default 2; at
    /// least 1. Of a run there is never more than one, so that its appends stay in order.
    ///
    /// A further batch sets out only when it is worth a commit of its own, with 64 appends or 256 KiB: few appends
    /// share few commits, however many lanes there are. More of them hide a longer way to the server.
    pub fn lanes(mut self, connections: usize) -> Self {
        self.lanes = connections.clamp(1, 1_000);
        self
    }

    /// How many appends are committed together at most. Default 512; at least 1.
    pub fn max_batch(mut self, appends: usize) -> Self {
        self.max_batch = appends.clamp(1, 100_000);
        self
    }

    /// With how many bytes of events a batch is full: the append that reaches it is the last of its commit.
    /// Default 16 MiB.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes.clamp(1, 256 << 20);
        self
    }

    /// How large one record may be, in bytes of its written form. An append that is larger is answered
    /// [`NotWritten`](crate::store::AppendError::NotWritten). Default and most: 256 MiB.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes.clamp(1_000, 256 << 20);
        self
    }

    /// How long an answer to one statement, and a free connection, is waited for. Default 30 s.
    ///
    /// What became of an append that had no answer by then is [not known](crate::store::AppendError::Unknown), and it
    /// is sent again over another connection. The server's own `statement_timeout` is left as it is.
    pub fn statement_timeout(mut self, at_most: Duration) -> Self {
        self.statement_timeout = at_most;
        self
    }

    /// Whether each connection prepares its statements once, by name. Default no.
    ///
    /// It spares the server from planning each anew; appends, which are calls of a function, gain little. It must not be
    /// used behind a pooler that gives each transaction another session (`PgBouncer` with `pool_mode = transaction`),
    /// unless that pooler keeps track of prepared statements: there a name may be another process's statement.
    pub fn prepare_statements(mut self, yes: bool) -> Self {
        self.prepare_statements = yes;
        self
    }

    /// Whether tables that are missing or older are made and brought up to date on connecting. Default yes.
    ///
    /// Where it is no, connecting fails as long as that has to be done: by [`upgrade`](Self::upgrade), which is
    /// `amends migrate --apply`, or by whoever may, with what [`migrations`](Self::migrations) gives.
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// How often commands from other processes are looked for, give or take a fifth. Default 250 ms; between
    /// 10 ms and 800 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(Duration::from_millis(10), Duration::from_millis(800));
        self
    }

    /// How long a worker's lease lasts: after so long without a sign of life its runs go to others. Default 15 s;
    /// at least 100 ms. All workers of a fleet should have the same.
    pub fn lease(mut self, lasts: Duration) -> Self {
        self.terms.lease = lasts.max(Duration::from_millis(100));
        self
    }

    /// How often a worker looks for runs that belong to nobody, give or take a fifth. Default 500 ms.
    pub fn look(mut self, interval: Duration) -> Self {
        self.terms.look = interval.max(Duration::from_millis(10));
        self
    }

    /// The certificates, in PEM, by which the server's is trusted. Default: those that the operating system trusts.
    ///
    /// The server's certificate has to be for the host of the connection string, which needs `sslmode=require` for TLS to
    /// be insisted upon: by default it is used where the server offers it.
    #[cfg(feature = "postgres-tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// The migrations of this schema, oldest first, as [`PostgresStore::migrations`] gives them for the default one.
    #[must_use]
    pub fn migrations(&self) -> Vec<Migration> {
        schema::migrations(&self.schema)
    }

    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`].
    pub async fn connect(&self, config: &str) -> Result<PostgresStore, StoreError> {
        PostgresStore::connect_with(config, self.clone()).await
    }
}
