use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use ::durare::{
    DurableContext, DurableEngine, Error, ErrorCode, InMemoryProvider, SqliteProvider,
    StateProvider, WorkflowOptions,
};
use measure::{Call, Contender, Failed, OUTPUT, Order, called};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

#[durare::step]
async fn one(ctx: &DurableContext, number: u64) -> ::durare::Result<u64> {
    called(Call::Do(1));
    Ok(number + 1)
}

#[durare::step]
async fn two(ctx: &DurableContext, number: u64) -> ::durare::Result<u64> {
    called(Call::Do(2));
    Ok(number + 1)
}

#[durare::step]
async fn three(ctx: &DurableContext, number: u64, fails: bool) -> ::durare::Result<u64> {
    called(Call::Do(3));
    match fails {
        true => Err(Error::app("no")),
        false => Ok(number + 1),
    }
}

#[durare::step]
async fn undo_one(ctx: &DurableContext, _done: u64) -> ::durare::Result<()> {
    called(Call::Undo(1));
    Ok(())
}

#[durare::step]
async fn undo_two(ctx: &DurableContext, _done: u64) -> ::durare::Result<()> {
    called(Call::Undo(2));
    Ok(())
}

/// The form of durare's own example of a saga.
#[durare::workflow]
async fn w3(ctx: DurableContext, input: (u64, bool)) -> ::durare::Result<u64> {
    let (number, fails) = input;
    let one = one(&ctx, number).await?;
    let two = two(&ctx, one).await?;
    match three(&ctx, two, fails).await {
        Ok(three) => Ok(three),
        Err(error) => {
            undo_two(&ctx, two).await?;
            undo_one(&ctx, one).await?;
            Err(error)
        }
    }
}

pub(super) struct Durare {
    engine: DurableEngine,
    fails: bool,
}

/// As `SqliteProvider::connect` opens it, but synced at each commit.
async fn synced(url: &str) -> Result<SqliteProvider, Failed> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(5);
    Ok(SqliteProvider::from_pool(pool.connect_with(options).await?))
}

pub(super) async fn open(order: Order) -> Result<Durare, Failed> {
    let url = format!("sqlite://{}/sagas.db", order.folder.display());
    let provider: Arc<dyn StateProvider> = match (&*order.store, &*order.setting) {
        ("memory", _) => Arc::new(InMemoryProvider::new()),
        ("SQLite", "default") => Arc::new(SqliteProvider::connect(&url).await?),
        ("SQLite", "FULL") => Arc::new(synced(&url).await?),
        #[cfg(feature = "postgres")]
        ("PostgreSQL", _) => {
            let server = order.postgres.as_deref().ok_or("no server")?;
            let provider = ::durare::PostgresProvider::connect_with_schema(server, &order.schema);
            Arc::new(provider.await?)
        }
        _ => return Err(super::unknown(&order)),
    };
    Ok(Durare {
        engine: DurableEngine::new(provider).await?,
        fails: order.fails,
    })
}

impl Contender for Durare {
    async fn saga(&self, number: u64) -> Result<(), Failed> {
        let options = WorkflowOptions::with_id(format!("saga-{number}"));
        let started = self.engine.start_with(W3, (1, self.fails), options);
        match started.await?.await {
            Ok(OUTPUT) if !self.fails => Ok(()),
            Err(error) if self.fails && error.code() == ErrorCode::Application => Ok(()),
            other => Err(format!("it ended as {other:?}").into()),
        }
    }
}
