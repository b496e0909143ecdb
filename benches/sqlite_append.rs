//! What an append to the SQLite store costs, beside a bare writer of the same rows.
//!
//! `cargo bench --features testkit --bench sqlite_append [-- <folder>]`: runs of four appends, of which each
//! carries 200 bytes, with 1, 16 and 256 runs in flight. The bare writer is one thread that inserts the same
//! rows into the same tables, as many to a commit as the store had on average just before. Cells take
//! turns, because a shared disk changes its mind within seconds: compare ratios in one line.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // A bench, with numbers far below 2^52.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::RunId;
use amends::journal::{Standing, encode_events};
use amends::store::{SqliteStore, Store as _};
use amends::testkit::conformance::Sample;
use rusqlite::{Connection, params};

const CELL: Duration = Duration::from_secs(2);
const REPEATS: usize = 3;

/// What a cell measured.
struct Measured {
    appends: u64,
    commits: u64,
    appends_per_second: f64,
    median: Duration,
    late: Duration,
}

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with("--"));
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().to_string_lossy().into_owned());
    println!("in flight | store/s | p50 us | p99 us | appends a commit | bare/s | store : bare");
    for in_flight in [1, 16, 256] {
        for _ in 0..REPEATS {
            let dir = tempfile::tempdir_in(&folder).unwrap();
            let store = store(&dir.path().join("store.db"), in_flight);
            let batch = usize::try_from(store.appends / store.commits)
                .unwrap()
                .max(1);
            let bare = bare(&dir.path().join("bare.db"), batch);
            println!(
                "{in_flight:9} | {:7.0} | {:6} | {:6} | {:16.1} | {bare:6.0} | {:.2}",
                store.appends_per_second,
                store.median.as_micros(),
                store.late.as_micros(),
                store.appends as f64 / store.commits as f64,
                store.appends_per_second / bare,
            );
        }
    }
}

/// The store, with so many runs in flight.
fn store(file: &Path, in_flight: usize) -> Measured {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(file).unwrap());
        let begun = Instant::now();
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while begun.elapsed() < CELL {
                        for append in run() {
                            let asked = Instant::now();
                            store.append(append).await.unwrap();
                            took.push(asked.elapsed());
                        }
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.unwrap());
        }
        let seconds = begun.elapsed().as_secs_f64();
        took.sort_unstable();
        Measured {
            appends: store.appends(),
            commits: store.commits(),
            appends_per_second: store.appends() as f64 / seconds,
            median: took[took.len() / 2],
            late: took[took.len() * 99 / 100],
        }
    })
}

/// The appends of one run.
fn run() -> [amends::store::Append; 4] {
    let mut sample = Sample::new(RunId::random());
    let output = "x".repeat(100);
    [
        sample.start(),
        sample.step(&output),
        sample.step(&output),
        sample.stand(Standing::Completed),
    ]
}

/// Appends a second of one thread that inserts the same rows, so many to a commit.
fn bare(file: &Path, batch: usize) -> f64 {
    // The store makes the tables, and grows the log.
    let store = SqliteStore::open(file).unwrap();
    let conn = Connection::open(file).unwrap();
    drop(store);
    conn.execute_batch("PRAGMA synchronous = FULL").unwrap();
    let rows: Vec<(i64, i64, String)> = run()
        .into_iter()
        .map(|append| {
            let events = encode_events(&append.record.events, &append.steps).unwrap();
            (
                append.record.seq.cast_signed(),
                append.record.at.as_micros(),
                events,
            )
        })
        .collect();
    let mut record = conn
        .prepare("INSERT INTO journal (run, seq, form, append_id, at, events, checksum) VALUES (?, ?, 1, ?, ?, ?, ?)")
        .unwrap();
    let mut start = conn
        .prepare("INSERT INTO runs (id, saga, version, started_at) VALUES (?, 'sample', 1, ?)")
        .unwrap();
    let mut open = conn
        .prepare("INSERT INTO open_runs (run, standing) VALUES (?, 'running')")
        .unwrap();
    let mut close = conn.prepare("DELETE FROM open_runs WHERE run = ?").unwrap();
    let mut end = conn
        .prepare("INSERT INTO ended_runs (run, standing, ended_at) VALUES (?, 'completed', ?)")
        .unwrap();
    // As many runs are interleaved as a commit has rows.
    let mut runs: Vec<(i64, usize)> = vec![(0, 0); batch];
    let begun = Instant::now();
    let mut appends = 0_u64;
    while begun.elapsed() < CELL {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for (number, next) in &mut runs {
            let (seq, at, events) = &rows[*next];
            if *next == 0 {
                start
                    .execute(params![RunId::random().as_str(), at])
                    .unwrap();
                *number = conn.last_insert_rowid();
            }
            record
                .execute(params![*number, seq, [7_u8; 16], at, events, 7_i64])
                .unwrap();
            if *next == 0 {
                open.execute([*number]).unwrap();
            } else if *next == 3 {
                close.execute([*number]).unwrap();
                end.execute(params![*number, at]).unwrap();
            }
            *next = (*next + 1) % 4;
            appends += 1;
        }
        conn.execute_batch("COMMIT").unwrap();
    }
    appends as f64 / begun.elapsed().as_secs_f64()
}
