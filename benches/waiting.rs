//! What runs cost that only wait: a million of them in one process, on SQLite.
//!
//! `cargo bench --bench waiting [-- --runs N] [FOLDER]`: starts so many runs that wait for a signal, without a
//! limit and with one of a day; prints how many start per second, how far the process has grown per run, and how
//! long a signal takes until it is durable, and until its run has ended. Then another process opens the file, and
//! prints how long it takes until it is up, until the first signal is durable, and until it knows all runs, how far
//! it has grown, and signals again. The folder needs 1 GB for a million runs; what is made there is removed.
//! Memory is `VmRSS`, from `/proc`.
#![allow(clippy::cast_possible_truncation, reason = "it reads as it is meant")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // A bench, with numbers far below 2^52.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amends::store::SqliteStore;
use amends::{Coordinator, RunId, Saga, wait_for};

const DAY: Duration = Duration::from_secs(86_400);

/// So many runs are started side by side.
const IN_FLIGHT: usize = 256;

/// So many get their signal.
const SIGNALS: usize = 1_000;

fn saga(limited: bool) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("order");
    let paid = wait_for::<u64>("paid");
    let paid = if limited { paid.within(DAY) } else { paid };
    let paid = saga.add(paid, ());
    saga.returns(paid).unwrap()
}

fn id(run: u64) -> RunId {
    RunId::new(format!("order-{run:08}"))
}

async fn open(file: &Path, saga: &Saga<u64, u64>) -> Coordinator {
    Coordinator::builder(SqliteStore::open(file).unwrap())
        .register(saga)
        .build()
        .await
        .unwrap()
}

/// From `/proc`, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1_024)
}

/// Says how far the process has grown since.
fn grown(since: Option<u64>, runs: u64) -> String {
    match (resident(), since) {
        (Some(now), Some(since)) => {
            let grown = now.saturating_sub(since);
            format!("{} bytes a run", grown / runs)
        }
        _ => "nobody knows how much memory".to_owned(),
    }
}

/// Signals runs one after another; says what the middle one took, and the slowest but one in a hundred.
async fn signals(
    coordinator: &Coordinator,
    saga: &Saga<u64, u64>,
    runs: impl Iterator<Item = u64>,
) {
    let (mut durable, mut ended) = (Vec::new(), Vec::new());
    for run in runs {
        let run = coordinator.attach(saga, &id(run)).await.unwrap().unwrap();
        let began = Instant::now();
        coordinator.signal(run.id(), "paid", 1_u64).await.unwrap();
        durable.push(began.elapsed());
        run.outcome().await.unwrap();
        ended.push(began.elapsed());
    }
    let quantiles = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100].as_micros();
        format!("p50 {} us, p99 {} us", at(50), at(99))
    };
    println!("  a signal is durable: {}", quantiles(durable));
    println!("  its run has ended:   {}", quantiles(ended));
}

/// The first process.
async fn fill(file: &Path, runs: u64, limited: bool) {
    let saga = saga(limited);
    let coordinator = open(file, &saga).await;
    start(&coordinator, &saga, runs..runs + 2_000).await;
    let before = resident();
    let began = Instant::now();
    start(&coordinator, &saga, 0..runs).await;
    let took = began.elapsed();
    while coordinator.driving() > 0 {
        tokio::task::yield_now().await;
    }
    println!(
        "  {:.0} runs a second begin to wait; {}",
        runs as f64 / took.as_secs_f64(),
        grown(before, runs)
    );
    signals(&coordinator, &saga, spread(runs, 0)).await;
    coordinator.shutdown().await;
}

async fn start(coordinator: &Coordinator, saga: &Saga<u64, u64>, runs: std::ops::Range<u64>) {
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|first| {
            let (coordinator, saga, runs) = (coordinator.clone(), saga.clone(), runs.clone());
            tokio::spawn(async move {
                for run in runs.skip(first).step_by(IN_FLIGHT) {
                    coordinator.start(&saga, id(run), run).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// So many runs, as far apart as may be.
fn spread(runs: u64, from: u64) -> impl Iterator<Item = u64> {
    let apart = usize::try_from(runs).unwrap() / SIGNALS;
    (from..runs).step_by(apart.max(2))
}

/// The second process.
async fn again(file: &Path, runs: u64, limited: bool) {
    let saga = saga(limited);
    let before = resident();
    let began = Instant::now();
    let coordinator = open(file, &saga).await;
    println!("  up again after {:?}", began.elapsed());
    coordinator
        .signal(&id(runs - 1), "paid", 1_u64)
        .await
        .unwrap();
    println!("  the first signal is durable after {:?}", began.elapsed());
    let known = coordinator.all_resumed().await;
    println!(
        "  {known} runs are known after {:?}; {}",
        began.elapsed(),
        grown(before, runs)
    );
    signals(&coordinator, &saga, spread(runs, 1)).await;
    coordinator.shutdown().await;
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, with `--test`: the behaviour is asserted in the test suite instead.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    if let [process, file, runs, limited] = &words[..]
        && !process.starts_with("--")
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (runs, limited) = (runs.parse().unwrap(), limited == "limited");
        return runtime.block_on(async {
            match process.as_str() {
                "fill" => fill(Path::new(file), runs, limited).await,
                _ => again(Path::new(file), runs, limited).await,
            }
        });
    }
    let runs = words.iter().position(|word| word == "--runs");
    let count: u64 = runs.map_or(1_000_000, |at| words[at + 1].parse().unwrap());
    let folder = words.iter().enumerate().find(|(at, word)| {
        let of_runs = runs.is_some_and(|runs| *at == runs + 1);
        !word.starts_with("--") && !of_runs
    });
    let folder = folder.map_or_else(std::env::temp_dir, |(_, folder)| folder.into());
    for limited in ["unlimited", "limited"] {
        let dir = tempfile::tempdir_in(&folder).unwrap();
        let file = dir.path().join("sagas.db");
        for process in ["fill", "again"] {
            println!("{count} runs, {limited}, {process}");
            let status = Command::new(std::env::current_exe().unwrap())
                .arg(process)
                .arg(&file)
                .args([&count.to_string(), limited])
                .status()
                .unwrap();
            assert!(status.success());
        }
    }
}
