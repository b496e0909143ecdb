//! Durable writes per run, counted, and how fast runs go.
//!
//! `cargo bench --bench writes` prints both tables. Counts are the store's own; to see the syncs that the
//! kernel sees, run it under `strace -f -c -e trace=fdatasync,fsync`.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::store::{MemoryStore, SqliteStore, Store};
use amends::{Coordinator, Node, Saga, StepError, StepSpec, step_fn};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A chain of `steps` steps that do nothing; the last one fails for good where `fails`.
fn chain(steps: usize, fails: bool) -> Result<Saga<u64, u64>, Failed> {
    let mut saga = Saga::builder::<u64>(if fails { "failing" } else { "chain" });
    let mut node: Node<u64> = saga.input();
    for index in 1..=steps {
        let step: StepSpec<u64, u64> = if fails && index == steps {
            step_fn(
                format!("step-{index}"),
                async |_cx, _n: &u64| Err(StepError::rejected("no")),
                async |_cx, _n, _effect| Ok(()),
            )
        } else {
            step_fn(
                format!("step-{index}"),
                async |_cx, n: &u64| Ok(n + 1),
                async |_cx, _n, _effect| Ok(()),
            )
        };
        node = saga.add(step, node);
    }
    Ok(saga.returns(node)?)
}

/// Runs `runs` runs, `in_flight` at a time, and says how long it took.
async fn run_many(
    coordinator: &Coordinator,
    saga: &Saga<u64, u64>,
    label: &str,
    runs: usize,
    in_flight: usize,
) -> Result<Duration, Failed> {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..in_flight {
        let (coordinator, saga, label) = (coordinator.clone(), saga.clone(), label.to_owned());
        tasks.push(tokio::spawn(async move {
            for run in (task..runs).step_by(in_flight) {
                coordinator
                    .start(&saga, format!("{label}-{run:08}"), 1)
                    .await?
                    .outcome()
                    .await?;
            }
            Ok::<(), Failed>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}

async fn on_sqlite<T, F: Future<Output = Result<T, Failed>>>(
    saga: &Saga<u64, u64>,
    work: impl FnOnce(Coordinator, Arc<SqliteStore>) -> F,
) -> Result<T, Failed> {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(SqliteStore::open(folder.path().join("sagas.db"))?);
    let shared: Arc<dyn Store> = store.clone();
    let coordinator = Coordinator::builder_shared(shared)
        .register(saga)
        .build()
        .await?;
    let done = work(coordinator.clone(), store).await?;
    coordinator.shutdown().await;
    Ok(done)
}

#[allow(clippy::cast_precision_loss, reason = "a table for people")]
fn per(count: u64, runs: usize) -> f64 {
    count as f64 / runs as f64
}

#[allow(clippy::cast_precision_loss, reason = "a table for people")]
fn rate(runs: usize, took: Duration) -> f64 {
    runs as f64 / took.as_secs_f64()
}

async fn measure() -> Result<(), Failed> {
    println!(
        "SQLite, synchronous=FULL: durable writes of a lone run (N sequential steps: N + 1)\n"
    );
    println!("{:>6} {:>14} {:>14}", "steps", "appends/run", "commits/run");
    for steps in [1, 3, 10, 100] {
        let (runs, saga) = (10, chain(steps, false)?);
        let (appends, commits) = on_sqlite(&saga, |coordinator, store| {
            let saga = saga.clone();
            async move {
                let before = (store.appends(), store.commits());
                run_many(&coordinator, &saga, "lone", runs, 1).await?;
                Ok((store.appends() - before.0, store.commits() - before.1))
            }
        })
        .await?;
        println!(
            "{steps:>6} {:>14.2} {:>14.2}",
            per(appends, runs),
            per(commits, runs)
        );
    }
    println!("\nthree steps, many runs in flight\n");
    println!(
        "{:>8} {:>9} {:>12} {:>12} {:>12} {:>12}",
        "store", "in flight", "outcome", "appends/run", "commits/run", "runs/s"
    );
    for (in_flight, runs, fails) in [
        (1, 500, false),
        (16, 4_000, false),
        (256, 20_000, false),
        (256, 20_000, true),
        (1_024, 40_000, false),
    ] {
        let saga = chain(3, fails)?;
        let (appends, commits, took) = on_sqlite(&saga, |coordinator, store| {
            let saga = saga.clone();
            async move {
                run_many(&coordinator, &saga, "warm", in_flight, in_flight).await?;
                let before = (store.appends(), store.commits());
                let took = run_many(&coordinator, &saga, "run", runs, in_flight).await?;
                Ok((store.appends() - before.0, store.commits() - before.1, took))
            }
        })
        .await?;
        let outcome = if fails { "compensated" } else { "completed" };
        println!(
            "{:>8} {in_flight:>9} {outcome:>12} {:>12.2} {:>12.4} {:>12.0}",
            "sqlite",
            per(appends, runs),
            per(commits, runs),
            rate(runs, took)
        );
    }
    for (in_flight, fails) in [(1, false), (256, false), (256, true)] {
        let (runs, saga) = (200_000, chain(3, fails)?);
        let coordinator = Coordinator::builder(MemoryStore::new())
            .register(&saga)
            .build()
            .await?;
        let took = run_many(&coordinator, &saga, "run", runs, in_flight).await?;
        let outcome = if fails { "compensated" } else { "completed" };
        println!(
            "{:>8} {in_flight:>9} {outcome:>12} {:>12} {:>12} {:>12.0}",
            "memory",
            "",
            "",
            rate(runs, took)
        );
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    // `cargo test` runs benches too, with `--test`: the counts are asserted in the test suite instead.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure())
}
