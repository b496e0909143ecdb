//! What a step costs in a large saga, and what a run costs in a file that has many.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::store::{MemoryStore, Store};
use amends::{Coordinator, Saga, SomeNode, StepError, StepSpec, step_fn};
use rusqlite::Connection;

use crate::load::{Load, Loops, Place};
use crate::w3::{self, Ids, Runs};
use crate::{Options, coordinator, runtime, spread, sqlite, text};

fn plain<I: amends::Payload>(name: String) -> StepSpec<I, u64> {
    step_fn(
        name,
        async |_cx, _input: &I| Ok::<u64, StepError>(1),
        async |_cx, _input, _effect| Ok(()),
    )
}

fn chain(steps: usize) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("chain");
    let mut node = saga.input();
    for step in 0..steps {
        node = saga.add(plain(format!("s{step}")), node);
    }
    saga.returns(node).unwrap()
}

/// So many layers of so many steps, of which each waits for all of the layer before.
fn layers(side: usize) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("layers");
    let mut last: Vec<SomeNode> = Vec::new();
    let mut end = saga.input();
    for layer in 0..side {
        let before = std::mem::take(&mut last);
        for number in 0..side {
            let step = before
                .iter()
                .fold(plain::<()>(format!("s{layer}-{number}")), |step, node| {
                    step.after(*node)
                });
            end = saga.add(step, ());
            last.push(end.into());
        }
    }
    saga.returns(end).unwrap()
}

/// One step for each of so many items.
fn fan_out(items: usize) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("fan-out");
    let list = saga
        .input()
        .map(move |_| (0..items as u64).collect::<Vec<u64>>());
    let all = saga.add(plain::<u64>("item".to_owned()).for_each(), list);
    saga.returns(all.map(|all| all.len() as u64)).unwrap()
}

/// A kind of saga, its sizes, and how many steps it has at each.
type Shape = (
    &'static str,
    fn(usize) -> Saga<u64, u64>,
    &'static [usize],
    fn(usize) -> usize,
);

const SHAPES: [Shape; 3] = [
    ("chain", chain, &[10, 100, 1_000, 10_000], |steps| steps),
    (
        "layers, each step after all of the layer before",
        layers,
        &[10, 30, 100],
        |side| side * side,
    ),
    ("fan-out", fan_out, &[10, 100, 1_000, 10_000], |items| {
        items + 1
    }),
];

pub(crate) fn table(options: &Options) {
    println!("| store | saga | steps | µs per step | to the smallest |");
    println!("|---|---|--:|--:|--:|");
    for kind in ["memory", "SQLite"] {
        for (name, saga, sizes, steps) in SHAPES {
            // Sizes take turns, so that what the machine does meanwhile it does to all.
            let mut times = vec![Vec::new(); sizes.len()];
            for repeat in 0..options.repeats() {
                eprintln!("repeat {}: {kind}, {name}", repeat + 1);
                for (at, size) in sizes.iter().enumerate() {
                    times[at].push(per_step(options, kind, &saga(*size), steps(*size)));
                }
            }
            for (at, size) in sizes.iter().enumerate() {
                let ratios = times[at]
                    .iter()
                    .zip(&times[0])
                    .map(|(time, least)| time / least);
                let ratios = spread(ratios.collect());
                println!(
                    "| {kind} | {name} | {} | {} | {} |",
                    steps(*size),
                    text(spread(times[at].clone()), 2),
                    text(ratios, 2)
                );
            }
        }
    }
    println!();
    full(options);
}

/// Microseconds per step of runs one after another: as many as give twenty thousand steps, or three hundred commits.
fn per_step(options: &Options, kind: &str, saga: &Saga<u64, u64>, steps: usize) -> f64 {
    let folder = options.folder();
    let (store, all): (Arc<dyn Store>, usize) = match kind {
        "memory" => (Arc::new(MemoryStore::new()), 20_000),
        _ => (sqlite(&folder.path().join("sagas.db")), 300),
    };
    let runs = (all / steps).max(1);
    runtime().block_on(async {
        let coordinator = coordinator(store, saga).await;
        let run = async |run: usize| {
            let id = format!("run-{run:08}");
            let run = coordinator.start(saga, id, 1).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().word(), "completed");
        };
        run(0).await;
        let began = Instant::now();
        for number in 1..=runs {
            run(number).await;
        }
        let took = began.elapsed();
        coordinator.shutdown().await;
        took.as_secs_f64() * 1e6 / (runs * steps) as f64
    })
}

/// W3 in a file with few ended runs, and in one with many.
fn full(options: &Options) {
    let many = options.number("--runs", 1_000_000);
    let runtime = runtime();
    let folder = options.folder();
    let saga = w3::saga();
    let mut files: Vec<(usize, Coordinator)> = Vec::new();
    for runs in [1_000.min(many), many] {
        let file = folder.path().join(format!("{runs}.db"));
        files.push(runtime.block_on(async {
            let first = coordinator(sqlite(&file), &saga).await;
            let run = first.start(&saga, "template", 2).await.unwrap();
            drop(run.outcome().await.unwrap());
            first.shutdown().await;
            drop((run, first));
            fill(&file, runs);
            (runs, coordinator(sqlite(&file), &saga).await)
        }));
    }
    println!(
        "| ended runs in the file | in flight | runs/s | p50 µs | rate, to the smallest file | time, to the smallest file |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    for in_flight in [1, 256] {
        let loops: Vec<Loops<'_>> = files
            .iter()
            .map(|_| Loops::new(&runtime, Place::Task, in_flight))
            .collect();
        let mut measured: Vec<Vec<Load>> = files.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.repeats() {
            let mut repeat: Vec<Load> = files.iter().map(|_| Load::default()).collect();
            for _ in 0..4 {
                for (at, (_, coordinator)) in files.iter().enumerate() {
                    let ids = if in_flight == 1 {
                        Ids::Ordered
                    } else {
                        Ids::Random
                    };
                    let work = [Runs::new(coordinator, &saga, ids, 0)];
                    let load = loops[at].drive(Duration::from_millis(500), &work);
                    repeat[at] = std::mem::take(&mut repeat[at]).and(load);
                }
            }
            for (all, load) in measured.iter_mut().zip(repeat) {
                all.push(load);
            }
        }
        let p50 = |load: &Load| load.quantile(500).as_secs_f64() * 1e6;
        for (at, (runs, _)) in files.iter().enumerate() {
            let of =
                |value: &dyn Fn(&Load) -> f64| spread(measured[at].iter().map(value).collect());
            let to = |value: &dyn Fn(&Load) -> f64| {
                let pairs = measured[at].iter().zip(&measured[0]);
                spread(
                    pairs
                        .map(|(ours, first)| value(ours) / value(first))
                        .collect(),
                )
            };
            println!(
                "| {runs} | {in_flight} | {} | {} | {} | {} |",
                text(of(&|load| load.rate()), 0),
                text(of(&p50), 0),
                text(to(&|load| load.rate()), 2),
                text(to(&p50), 2)
            );
        }
    }
    runtime.block_on(async {
        for (_, coordinator) in &files {
            coordinator.shutdown().await;
        }
    });
}

/// Copies the ended run in this file so often, under ids that sort before those of the load.
fn fill(file: &Path, runs: usize) {
    let conn = Connection::open(file).unwrap();
    let sql = format!(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; BEGIN IMMEDIATE;
         CREATE TEMP TABLE numbers (n INTEGER PRIMARY KEY);
         WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < {runs} + 1)
         INSERT INTO numbers SELECT n FROM n;
         INSERT INTO runs (run, id, saga, version, started_at)
         SELECT n, printf('%032d', n), saga, version, started_at + n FROM numbers, runs WHERE run = 1;
         INSERT INTO journal (run, seq, form, append_id, at, events, checksum)
         SELECT n, seq, form, append_id, at + n, events, checksum FROM numbers, journal WHERE run = 1 ORDER BY n, seq;
         INSERT INTO ended_runs (run, standing, ended_at)
         SELECT n, standing, ended_at + n FROM numbers, ended_runs WHERE run = 1;
         COMMIT;"
    );
    conn.execute_batch(&sql).unwrap();
}
