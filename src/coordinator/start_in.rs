//! Starting a run inside somebody's own transaction, so that it begins to exist with their rows, or not at all.
//!
//! Whoever does so drives nothing: the run belongs to nobody when it is committed, and whoever serves the
//! store takes it up.

use std::sync::Arc;

use crate::coordinator::error::StartError;
use crate::coordinator::start::{Opening, StartOptions, check_id, is_same};
use crate::ids::{RunId, Timestamp, derived, random_u128};
use crate::journal::{AppendId, Event, Record, RunStarted, Standing, digest};
use crate::saga::{Outline, Saga};
use crate::step::{Payload, StepTable, Value};
use crate::store::{Append, LoadError};

/// What a start inside a transaction found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedIn {
    /// The run begins to exist when the transaction is committed.
    New,
    /// It was there already, started with the same saga and the same input: nothing was written.
    Same,
}

/// A start, ready to be written.
struct Start {
    append: Append,
    outline: Outline,
    digest: String,
}

impl Start {
    fn new<I: Payload, O>(
        saga: &Saga<I, O>,
        run: RunId,
        input: I,
        options: StartOptions,
    ) -> Result<Self, StartError> {
        check_id(&run)?;
        let payload = |cause| StartError::Payload {
            run: run.clone(),
            cause,
        };
        let mut input = Value::typed(Arc::new(input));
        input.encode().map_err(payload)?;
        let digest = digest(&input).map_err(payload)?;
        let now = Timestamp::now();
        let bits = random_u128();
        let opening = Opening {
            input,
            bits,
            input_digest: Some(digest.clone()),
            now,
            worker: "".into(),
        };
        let record = Record {
            seq: 1,
            append_id: AppendId::of(derived(bits)),
            at: now,
            events: vec![Event::RunStarted(Arc::new(
                opening.of(&saga.definition, options),
            ))],
        };
        Ok(Start {
            append: Append::new(run, record, StepTable::new(Vec::new()), Standing::Running),
            outline: Outline::of(&saga.definition.graph),
            digest,
        })
    }

    /// Whether the run that was found under the id is the one that this would have started.
    fn compare(&self, found: Option<&RunStarted>) -> Result<StartedIn, StartError> {
        let Some(found) = found else {
            return Ok(StartedIn::New);
        };
        let ours = || Ok(self.digest.clone());
        is_same(&self.append.run, found, &self.outline.saga, ours)?;
        Ok(StartedIn::Same)
    }
}

fn failed(error: LoadError) -> StartError {
    match error {
        LoadError::Store(error) => error.into(),
        error => error.into(),
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::{Start, StartedIn, failed};
    use crate::coordinator::error::StartError;
    use crate::coordinator::start::StartOptions;
    use crate::ids::RunId;
    use crate::saga::Saga;
    use crate::step::Payload;
    use crate::store::SqliteStore;

    impl SqliteStore {
        /// Starts a run inside a transaction of your own, on any connection to the journal file, in any process: the
        /// run begins to exist when you commit, with your own rows, or never. The file's owner takes it up within
        /// half a second; [`Coordinator::get`](crate::Coordinator::get) and its handles know it from then on.
        ///
        /// Your tables have to be in the journal file itself: SQLite commits two files that are attached to each other
        /// one after the other, and a power cut may come between. The transaction should be an `IMMEDIATE` one and
        /// short, since all appends wait for it. Of two starts with one id the second gives the first
        /// one's run, as [`Coordinator::start`](crate::Coordinator::start) does.
        ///
        /// ```
        /// use amends::store::{SqliteStore, Store as _};
        /// use amends::{Coordinator, Outcome, RunId, Saga, StartOptions, StartedIn, step_fn};
        /// use rusqlite::TransactionBehavior;
        ///
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let dir = tempfile::tempdir()?;
        /// # let path = dir.path().join("shop.db");
        /// let mut saga = Saga::builder::<u32>("order");
        /// let amount = saga.input();
        /// let paid = saga.add(step_fn("pay", async |_, amount: &u32| Ok(*amount), async |_, _, _| Ok(())), amount);
        /// let saga = saga.returns(paid)?;
        /// let coordinator = Coordinator::builder(SqliteStore::open(&path)?).register(&saga).build().await?;
        ///
        /// let mut mine = rusqlite::Connection::open(&path)?;
        /// mine.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, amount INTEGER NOT NULL)")?;
        /// let transaction = mine.transaction_with_behavior(TransactionBehavior::Immediate)?;
        /// transaction.execute("INSERT INTO orders VALUES ('4711', 100)", [])?;
        /// let started = SqliteStore::start_in(&transaction, &saga, "order-4711", 100, StartOptions::new())?;
        /// assert_eq!(started, StartedIn::New);
        /// transaction.commit()?;
        ///
        /// let run = coordinator.start(&saga, RunId::new("order-4711"), 100).await?;
        /// assert!(matches!(run.outcome().await?, Outcome::Completed(done) if done.output == 100));
        /// # coordinator.shutdown().await;
        /// # Ok(())
        /// # }
        /// ```
        ///
        /// # Errors
        ///
        /// [`StartError::OtherInput`] and [`StartError::OtherSaga`] where the id belongs to another run,
        /// [`StartError::BadId`], [`StartError::Payload`]; [`StartError::Store`] where the file holds no journals of this
        /// version, where the connection doesn't wait for the disk (`PRAGMA synchronous` below `FULL`), or SQLite
        /// fails. After an error the transaction is as it was before the call.
        pub fn start_in<I: Payload, O>(
            transaction: &rusqlite::Transaction<'_>,
            saga: &Saga<I, O>,
            run: impl Into<RunId>,
            input: I,
            options: StartOptions,
        ) -> Result<StartedIn, StartError> {
            let start = Start::new(saga, run.into(), input, options)?;
            let found =
                SqliteStore::begin_inside(transaction, start.append.clone(), &start.outline)
                    .map_err(failed)?;
            start.compare(found.as_deref())
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::{Start, StartedIn, failed};
    use crate::coordinator::error::StartError;
    use crate::coordinator::start::StartOptions;
    use crate::ids::RunId;
    use crate::saga::Saga;
    use crate::step::Payload;
    use crate::store::PostgresStore;

    impl PostgresStore {
        /// Starts a run inside a transaction of your own, on a connection of your own to the store's database: the
        /// run begins to exist when you commit, with your own rows, or never. Any worker that has the
        /// definition takes it up then, within its look for work. SQL has the same as a function: `amends.start`.
        ///
        /// A second start with the same id waits for the first one's transaction, and gives that run if it was
        /// committed, as [`Coordinator::start`](crate::Coordinator::start) does.
        ///
        /// # Errors
        ///
        /// [`StartError::OtherInput`] and [`StartError::OtherSaga`] where the id belongs to another run,
        /// [`StartError::BadId`], [`StartError::Payload`]; [`StartError::Store`] where the server fails (the transaction is
        /// aborted then), where its commits don't wait for its disk, or where the transaction can't see the run that
        /// has the id, because it began before that was committed.
        ///
        /// # Cancel safety
        ///
        /// Dropped half-way, it may have written the start into the transaction: roll that back.
        pub async fn start_in<I: Payload, O>(
            &self,
            transaction: &tokio_postgres::Transaction<'_>,
            saga: &Saga<I, O>,
            run: impl Into<RunId>,
            input: I,
            options: StartOptions,
        ) -> Result<StartedIn, StartError> {
            let start = Start::new(saga, run.into(), input, options)?;
            let append = start.append.clone();
            let found = self
                .begin_inside(transaction, append, &start.outline)
                .await
                .map_err(failed)?;
            start.compare(found.as_deref())
        }
    }
}
