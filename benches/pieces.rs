//! The pieces that a run is made of, each by itself.
//!
//! `cargo bench --bench pieces --features testkit [-- FILTER]`: an event of the machine, a definition with its
//! wiring, a record to and from JSON, and an append by itself to each store. SQLite's file is in `target/pieces`; what
//! an append costs there is what a sync costs. Appends to PostgreSQL are measured with the feature `postgres`.
#![allow(clippy::unwrap_used, missing_docs)] // A bench.

#[path = "../tests/costs/machine.rs"]
mod machine;
#[cfg(feature = "postgres")]
#[path = "../tests/common/postgres.rs"]
mod postgres;

use std::hint::black_box;
use std::sync::Arc;

use amends::Coordinator;
use amends::journal::{Interner, Standing, decode_events, encode_events};
use amends::store::{MemoryStore, Store};
use amends::testkit::conformance::Sample;
use criterion::{BatchSize, Criterion, Throughput};
use tokio::runtime::Runtime;

fn machine_events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine event");
    for (steps, fails, name) in [
        (3, false, "three steps"),
        (3, true, "three steps, two undone"),
        (100, false, "a hundred steps"),
        (100, true, "a hundred steps, undone"),
    ] {
        let saga = machine::chain(steps);
        let started = machine::started(saga.graph());
        group.throughput(Throughput::Elements(machine::drive(
            saga.graph(),
            &started,
            fails,
        )));
        group.bench_function(name, |bench| {
            bench.iter(|| machine::drive(saga.graph(), black_box(&started), fails));
        });
    }
}

fn wiring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wiring");
    for steps in [3, 100, 1_000] {
        group.throughput(Throughput::Elements(steps));
        let steps = usize::try_from(steps).unwrap();
        group.bench_function(format!("define a chain of {steps}"), |bench| {
            bench.iter(|| machine::chain(black_box(steps)));
        });
    }
}

/// The records of a run of three steps, as a store gets them.
fn json(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let journal = runtime.block_on(async {
        let (store, saga) = (Arc::new(MemoryStore::new()), machine::chain(3));
        let coordinator = Coordinator::builder_shared(store.clone())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "run", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        store.load(run.id()).await.unwrap().unwrap()
    });
    let mut group = criterion.benchmark_group("JSON of a record");
    for (index, name) in [(0, "start"), (1, "a step done, the next begins")] {
        let events = &journal.records[index].events;
        let text = encode_events(events, &journal.steps).unwrap();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("write: {name}"), |bench| {
            bench.iter(|| encode_events(black_box(events), &journal.steps).unwrap());
        });
        group.bench_function(format!("read: {name}"), |bench| {
            bench.iter(|| decode_events(3, black_box(&text), &mut Interner::default()).unwrap());
        });
    }
}

fn appends(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(3));
    let mut measure = |name: &str, store: &dyn Store| {
        let mut number = 0;
        group.bench_function(format!("{name}: start, step, end"), |bench| {
            let appends = || {
                number += 1;
                let mut sample = Sample::new(format!("run-{number:09}"));
                [
                    sample.start(),
                    sample.step("some output"),
                    sample.stand(Standing::Completed),
                ]
            };
            let write = |appends| {
                runtime.block_on(async {
                    for append in appends {
                        store.append(append).await.unwrap();
                    }
                });
            };
            bench.iter_batched(appends, write, BatchSize::SmallInput);
        });
    };
    measure("memory", &MemoryStore::new());
    #[cfg(feature = "sqlite")]
    {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pieces");
        std::fs::create_dir_all(folder).unwrap();
        let folder = tempfile::tempdir_in(folder).unwrap();
        let store = amends::store::SqliteStore::open(folder.path().join("sagas.db")).unwrap();
        measure("SQLite", &store);
        runtime.block_on(store.close());
    }
    #[cfg(feature = "postgres")]
    {
        let server = runtime.block_on(postgres::Server::own(&[("fsync", "on")]));
        let address = server.address_by(server.port());
        let store = runtime.block_on(amends::store::PostgresStore::connect(&address));
        let store = store.unwrap();
        measure("PostgreSQL", &store);
        runtime.block_on(store.close());
    }
}

fn main() {
    // `cargo test` runs benches too, with `--test`: behaviour is asserted in the test suite instead.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    machine_events(&mut criterion);
    wiring(&mut criterion);
    json(&mut criterion);
    appends(&mut criterion);
    criterion.final_summary();
}
