//! Runs in the memory store, and the least that anything like them could do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amends::Coordinator;
use amends::store::MemoryStore;
use dashmap::DashMap;
use tokio::runtime::Runtime;

use crate::cells::{Cell, Counted, Limit, Options, Store};
use crate::load::{Place, Work, drive};
use crate::w3::{self, Ids, Runs};

pub(crate) fn cells() -> Vec<Cell> {
    let cell = |variant, in_flight, place, failing| Cell {
        store: Store::Memory,
        variant,
        in_flight,
        place,
        failing,
        ids: Ids::Ordered,
        workers: 1,
    };
    vec![
        cell("successful", 1, Place::Task, 0),
        cell("successful, from main", 1, Place::Main, 0),
        cell("successful", 16, Place::Task, 0),
        cell("successful", 256, Place::Task, 0),
        cell("successful", 1_024, Place::Task, 0),
        cell("10 % failing", 256, Place::Task, 10),
        cell("failing", 1, Place::Task, 100),
        cell("failing", 256, Place::Task, 100),
    ]
}

pub(crate) fn measure(runtime: &Runtime, cell: &Cell, options: &Options) -> Counted {
    let saga = w3::saga();
    let coordinator = runtime.block_on(async {
        Coordinator::builder(MemoryStore::new())
            .register(&saga)
            .build()
            .await
            .expect("a coordinator")
    });
    let work = Runs::new(&coordinator, &saga, cell.ids, cell.failing);
    let load = drive(runtime, cell.place, cell.in_flight, options.lasts, &work);
    runtime.block_on(coordinator.shutdown());
    Counted::of(load)
}

/// Runs a second of the bare limit, from the same place with as many in flight.
pub(crate) fn limit(runtime: &Runtime, cell: &Cell, options: &Options) -> Limit {
    let load = drive(
        runtime,
        cell.place,
        cell.in_flight,
        options.lasts,
        &Bare::new(),
    );
    Limit::Runs(load.rate(), load.latency.p50)
}

type Boxed<'a> = Pin<Box<dyn Future<Output = u64> + Send + 'a>>;

trait BareStep: Send + Sync {
    fn execute<'a>(&'a self, input: &'a u64) -> Boxed<'a>;
}

struct AddOne;

impl BareStep for AddOne {
    fn execute<'a>(&'a self, input: &'a u64) -> Boxed<'a> {
        Box::pin(async move { input + 1 })
    }
}

/// Spawn a task, insert into a map, await three boxed futures, serialise their outputs, remove.
#[derive(Clone)]
struct Bare(Arc<Inside>);

struct Inside {
    steps: [Box<dyn BareStep>; 3],
    runs: DashMap<u64, u64>,
    /// So that nothing of it is optimised away.
    bytes: AtomicU64,
}

impl Bare {
    fn new() -> Self {
        Bare(Arc::new(Inside {
            steps: [Box::new(AddOne), Box::new(AddOne), Box::new(AddOne)],
            runs: DashMap::new(),
            bytes: AtomicU64::new(0),
        }))
    }
}

impl Work for Bare {
    async fn once(&self, number: u64) {
        let inside = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            inside.runs.insert(number, number);
            let (mut value, mut bytes) = (number, 0);
            for step in &inside.steps {
                value = step.execute(&value).await;
                bytes += serde_json::to_vec(&value).expect("a number").len();
            }
            inside.runs.remove(&number);
            if bytes == 0 {
                inside.bytes.fetch_add(1, Ordering::Relaxed);
            }
            value
        });
        assert_eq!(task.await.expect("a bare run"), number + 3);
    }
}
