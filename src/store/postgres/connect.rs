//! Connections to the server, and statements on them.
//!
//! Two pools: one for appends, a connection for each lane, and one for all else, so that a slow listing holds
//! up no append. A statement is one message to the server and back, without a transaction that stays open, and
//! nothing is kept in a session: so it works behind a pooler that gives each transaction another session, and
//! a caller that goes away half-way leaves a connection that is as good as before.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::task::JoinHandle;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row};

use crate::store::StoreError;

use super::harm::{self, Harm};
use super::options::PostgresOptions;
use super::rows;
use super::tls::{self, Tls};

/// A parameter and its type: said here, so that the server need not be asked.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// How many warnings of the kind came that may say that a commit was not waited for as it should have been.
///
/// Where somebody cancels the wait for a synchronous standby, the server commits all the same, reports success, and
/// gives only a warning beside it. It is not told from other warnings by its code, and its words are in
/// the server's language, so each warning of that code counts; and of all connections, since what comes of
/// it is only that an append is sent again.
#[derive(Debug, Default)]
pub(super) struct Warnings(AtomicU64);

impl Warnings {
    pub(super) fn so_far(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// How connections are made: as always, and their notices are read.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Tls,
    warnings: Arc<Warnings>,
}

impl Connector {
    pub(super) fn new(config: &Config, options: &PostgresOptions) -> Result<Self, StoreError> {
        Ok(Connector {
            tls: tls::connector(config, options)?,
            warnings: Arc::default(),
        })
    }

    /// A connection, and the task that drives it.
    pub(super) async fn open(self, config: &Config) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, mut connection) = config.connect(self.tls).await?;
        // What the server has to say when somebody connects is about no commit.
        poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(_))) = connection.poll_message(cx) {}
            Poll::Ready(())
        })
        .await;
        let warnings = self.warnings;
        let driving = async move {
            // A notice is met here before the answer that comes after it is handed on.
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        let warns = notice.parsed_severity() == Some(Severity::Warning);
                        if warns && *notice.code() == SqlState::WARNING {
                            warnings.0.fetch_add(1, Ordering::Release);
                            tracing::warn!(%notice, "the server warns");
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the server was lost");
                        break;
                    }
                }
            }
        };
        Ok((client, tokio::spawn(driving)))
    }
}

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move { self.clone().open(&config).await })
    }
}

/// All connections of a store.
pub(super) struct Connections {
    lanes: Pool,
    others: Pool,
    warnings: Arc<Warnings>,
    at_most: Duration,
    named: bool,
}

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It was never sent.
    #[error("no connection to the server")]
    NotSent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused it, or went away.
    #[error("{}", said(.0))]
    Server(#[from] Error),
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// An answer came, and a warning with it that a commit may not be as durable as it should be.
    #[error("the server warned while a commit was awaited: it may not have waited for its standby")]
    Warned,
    /// An answer came, and the server does not wait for its disk any more.
    #[error(
        "`synchronous_commit` is off by now, so the commit may be lost with the server: set it to `on` for this role \
         or database"
    )]
    Careless,
}

/// What the server says, in one line; the client's own error says only that it is one of the server.
fn said(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!(
            "the server says {} ({})",
            said.message(),
            said.code().code()
        ),
        None => "the connection to the server failed".to_owned(),
    }
}

impl Connections {
    pub(super) fn new(
        config: &Config,
        connector: &Connector,
        options: &PostgresOptions,
    ) -> Result<Self, StoreError> {
        let pool = |size: usize| {
            let manager = Manager::from_connect(
                config.clone(),
                connector.clone(),
                ManagerConfig {
                    // Anything else would send a statement of its own each time.
                    recycling_method: RecyclingMethod::Fast,
                },
            );
            let timeouts = Timeouts {
                wait: Some(options.statement_timeout),
                create: Some(options.statement_timeout),
                recycle: Some(options.statement_timeout),
            };
            Pool::builder(manager)
                .max_size(size)
                .timeouts(timeouts)
                .runtime(Runtime::Tokio1)
                .build()
                .map_err(|error| StoreError::failed("making a pool of connections", error))
        };
        Ok(Connections {
            lanes: pool(options.lanes)?,
            others: pool(options.pool_size)?,
            at_most: options.statement_timeout,
            named: options.prepare_statements,
            warnings: Arc::clone(&connector.warnings),
        })
    }

    /// Sends one statement of a lane, once, and waits for all of its answer, and for no warning.
    pub(super) async fn write(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failed> {
        let warned = self.warnings.so_far();
        let rows = self.run(&self.lanes, sql, params).await?;
        self.unwarned_since(warned).map(|()| rows)
    }

    /// Sends one statement that may be sent twice, again where the server says that it got in the way of another.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut tries = harm::Tries::default();
        loop {
            match self.run(&self.others, sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(failed) if failed.harm() == Harm::Again => {
                    let Some(pause) = tries.next() else {
                        return Err(self.error(doing, failed));
                    };
                    tokio::time::sleep(pause).await;
                }
                Err(failed) => return Err(self.error(doing, failed)),
            }
        }
    }

    /// The same of a statement whose commit has to be as durable as that of an append.
    pub(super) async fn ask_durably(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let warned = self.warnings.so_far();
        let rows = self.ask(doing, sql, params).await?;
        self.unwarned_since(warned)
            .map_err(|failed| self.error(doing, failed))?;
        Ok(rows)
    }

    fn unwarned_since(&self, warned: u64) -> Result<(), Failed> {
        if self.warnings.so_far() == warned {
            Ok(())
        } else {
            Err(Failed::Warned)
        }
    }

    fn error(&self, doing: &'static str, failed: Failed) -> StoreError {
        if self.others.is_closed() {
            let what = "it was closed".to_owned();
            return StoreError::Dead { what };
        }
        StoreError::failed(doing, failed)
    }

    async fn run(&self, pool: &Pool, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failed> {
        let client = pool
            .get()
            .await
            .map_err(|error| Failed::NotSent(error.into()))?;
        let answer = async {
            if self.named {
                let types: Vec<Type> = params.iter().map(|(_, ty)| ty.clone()).collect();
                let statement = client.prepare_typed_cached(sql, &types).await?;
                let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
                client.query(&statement, &values).await
            } else {
                client.query_typed(sql, params).await
            }
        };
        let answer = tokio::time::timeout(self.at_most, answer).await;
        let failed = match answer {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => Failed::Server(error),
            Err(_) => Failed::Late(self.at_most),
        };
        if failed.spoils_the_connection() {
            drop(Object::take(client));
        }
        Err(failed)
    }

    /// Closes the connections of lanes that are idle.
    pub(super) fn renew_lanes(&self) {
        self.lanes.retain(|_, _| false);
    }

    /// Closes all connections, those in use when they come back.
    pub(super) fn close(&self) {
        self.lanes.close();
        self.others.close();
    }
}

impl Failed {
    pub(super) fn harm(&self) -> Harm {
        match self {
            Failed::NotSent(_) => Harm::Batch,
            Failed::Server(error) => harm::of(error),
            Failed::Late(_) | Failed::Warned | Failed::Careless => Harm::Unknown,
        }
    }

    /// Whether a batch met others at its places, and nothing of it was written.
    pub(super) fn is_collision(&self) -> bool {
        let Failed::Server(error) = self else {
            return false;
        };
        let state = error.code().map(SqlState::code);
        harm::of(error) == Harm::Append && state.is_some_and(rows::is_collision)
    }

    /// Whether the connection may be in the middle of something, or leads to a server that takes no writes.
    fn spoils_the_connection(&self) -> bool {
        match self {
            Failed::NotSent(_) | Failed::Warned => false,
            Failed::Late(_) | Failed::Careless => true,
            Failed::Server(error) => {
                harm::of(error) == Harm::Unknown
                    || matches!(error.code(), Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION)
            }
        }
    }
}
