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
use crate::load::{Load, Loops, Place, Work};
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

pub(crate) fn measure(runtime: &Runtime, cell: &Cell, options: &Options) -> (Counted, Limit) {
    let saga = w3::saga();
    let coordinator = runtime.block_on(async {
        Coordinator::builder(MemoryStore::new())
            .register(&saga)
            .build()
            .await
            .expect("a coordinator")
    });
    let work = [Runs::new(&coordinator, &saga, cell.ids, cell.failing)];
    let bare = [Bare::new()];
    let ours = Loops::new(runtime, cell.place, cell.in_flight);
    let theirs = Loops::new(runtime, cell.place, cell.in_flight);
    let (mut load, mut limit) = (Load::default(), Load::default());
    for slice in options.slices() {
        load = load.and(ours.drive(slice, &work));
        limit = limit.and(theirs.drive(slice, &bare));
    }
    runtime.block_on(coordinator.shutdown());
    (
        Counted::of(load),
        Limit::Runs(limit.rate(), limit.quantile(500)),
    )
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
