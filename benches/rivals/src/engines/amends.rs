use std::sync::Arc;

use ::amends::store::{MemoryStore, SqliteStore, Store};
use ::amends::{Coordinator, Outcome, Saga, SagaError, StepError, StepSpec, step_fn};
use measure::{Call, Contender, Failed, OUTPUT, Order, called};

pub(super) struct Amends {
    coordinator: Coordinator,
    saga: Saga<u64, u64>,
    fails: bool,
}

fn step<const STEP: u8>() -> StepSpec<u64, u64> {
    step_fn(
        ["one", "two", "three"][usize::from(STEP - 1)],
        async |_cx, number: &u64| {
            called(Call::Do(STEP));
            Ok(number + 1)
        },
        async |_cx, _number, _effect| {
            called(Call::Undo(STEP));
            Ok(())
        },
    )
}

fn refuses() -> StepSpec<u64, u64> {
    step_fn(
        "three",
        async |_cx, _number: &u64| {
            called(Call::Do(3));
            Err(StepError::rejected("no"))
        },
        async |_cx, _number, _effect| {
            called(Call::Undo(3));
            Ok(())
        },
    )
}

fn saga(fails: bool) -> Result<Saga<u64, u64>, SagaError> {
    let mut saga = Saga::builder::<u64>("w3");
    let input = saga.input();
    let one = saga.add(step::<1>(), input);
    let two = saga.add(step::<2>(), one);
    let three = saga.add(if fails { refuses() } else { step::<3>() }, two);
    saga.returns(three)
}

pub(super) async fn open(order: Order) -> Result<Amends, Failed> {
    let store: Arc<dyn Store> = match order.store.as_str() {
        "memory" => Arc::new(MemoryStore::new()),
        "SQLite" => Arc::new(SqliteStore::open(order.folder.join("sagas.db"))?),
        #[cfg(feature = "postgres")]
        "PostgreSQL" => {
            let server = order.postgres.as_deref().ok_or("no server")?;
            let options = ::amends::store::PostgresStore::options().schema(order.schema);
            Arc::new(options.connect(server).await?)
        }
        _ => return Err(super::unknown(&order)),
    };
    let saga = saga(order.fails)?;
    let coordinator = Coordinator::builder_shared(store)
        .register(&saga)
        .build()
        .await?;
    Ok(Amends {
        coordinator,
        saga,
        fails: order.fails,
    })
}

impl Contender for Amends {
    async fn saga(&self, number: u64) -> Result<(), Failed> {
        let id = format!("saga-{number}");
        let run = self.coordinator.start(&self.saga, id, 1).await?;
        match run.outcome().await? {
            Outcome::Completed(done) if !self.fails && done.output == OUTPUT => Ok(()),
            Outcome::Compensated(_) if self.fails => Ok(()),
            other => Err(format!("it ended as {}", other.word()).into()),
        }
    }
}
