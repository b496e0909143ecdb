//! Large outputs: how many bytes a second, beside a bare writer of the same; and how often one is written as JSON,
//! cloned, and asked for in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amends::store::{MemoryStore, SqliteStore, Store};
use amends::{Coordinator, Saga, StepError, read_only_fn, step_fn};
use rusqlite::Connection;
use serde::{Deserialize, Serialize, Serializer};

use crate::counting::asked;
use crate::{Options, coordinator, runtime, spread, text};

static SERIALISED: AtomicU64 = AtomicU64::new(0);
static CLONED: AtomicU64 = AtomicU64::new(0);

/// A text that counts what is done with it.
#[derive(Debug, Deserialize)]
struct Blob(String);

impl Clone for Blob {
    fn clone(&self) -> Self {
        CLONED.fetch_add(1, Ordering::Relaxed);
        Blob(self.0.clone())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SERIALISED.fetch_add(1, Ordering::Relaxed);
        self.0.serialize(serializer)
    }
}

/// Three steps of which each gives as many bytes as the input says. Where `read` says so, each reads what the one before gave; else nobody
/// reads any of it.
fn saga(read: bool) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("payloads");
    let input = saga.input();
    let make = move |name: &str| {
        step_fn(
            name,
            async |_cx, bytes: &u64| {
                Ok::<_, StepError>(Blob("x".repeat(usize::try_from(*bytes).unwrap())))
            },
            async |_cx, _input, _effect| Ok(()),
        )
    };
    let turn = |name: &str| {
        step_fn(
            name,
            async |_cx, before: &Blob| Ok::<_, StepError>(Blob("x".repeat(before.0.len()))),
            async |_cx, _input, _effect| Ok(()),
        )
    };
    let last = read_only_fn("last", async |_cx: &amends::StepContext, bytes: &u64| {
        Ok::<u64, StepError>(*bytes)
    });
    let first = saga.add(make("first"), input);
    let third = if read {
        let second = saga.add(turn("second"), first);
        saga.add(turn("third"), second)
    } else {
        let second = saga.add(make("second").after(first), input);
        saga.add(make("third").after(second), input)
    };
    let last = saga.add(last.after(third), input);
    saga.returns(last).unwrap()
}

pub(crate) fn table(options: &Options) {
    println!(
        "| store | three outputs of | read by the next step | MiB/s | bare, MiB/s | to the bare | written as JSON, per output | cloned, per output | bytes asked for, per byte |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|");
    for kind in ["memory", "SQLite"] {
        for (bytes, name) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
            for read in [false, true] {
                let all = (0..options.repeats()).map(|_| measure(options, kind, bytes, read));
                let all: Vec<Measured> = all.collect();
                let of = |value: fn(&Measured) -> f64| spread(all.iter().map(value).collect());
                let bare = if kind == "memory" {
                    "-".to_owned()
                } else {
                    text(of(|it| it.bare), 1)
                };
                let ratio = if kind == "memory" {
                    "-".to_owned()
                } else {
                    text(of(|it| it.rate / it.bare), 2)
                };
                println!(
                    "| {kind} | {name} | {} | {} | {bare} | {ratio} | {:.2} | {:.2} | {:.2} |",
                    if read { "yes" } else { "no" },
                    text(of(|it| it.rate), 1),
                    of(|it| it.serialised).0,
                    of(|it| it.cloned).0,
                    of(|it| it.asked).0,
                );
            }
        }
    }
}

struct Measured {
    /// MiB of outputs a second, and those of the bare writer.
    rate: f64,
    bare: f64,
    serialised: f64,
    cloned: f64,
    asked: f64,
}

const SLICE: Duration = Duration::from_millis(500);

/// Runs one after another, by turns with commits of one row of the same size one after another.
fn measure(options: &Options, kind: &str, bytes: u64, read: bool) -> Measured {
    let folder = options.folder();
    let saga = saga(read);
    let runtime = runtime();
    let store: Arc<dyn Store> = match kind {
        "memory" => Arc::new(MemoryStore::new().keep_ended(10)),
        _ => Arc::new(SqliteStore::open(folder.path().join("sagas.db")).unwrap()),
    };
    let bare = (kind != "memory").then(|| Bare::in_folder(folder.path()));
    let coordinator: Coordinator = runtime.block_on(coordinator(store, &saga));
    let mut number = 0_u64;
    let mut runs = |lasts: Duration| {
        let began = Instant::now();
        let mut runs = 0_u64;
        while began.elapsed() < lasts || runs == 0 {
            number += 1;
            runs += 1;
            runtime.block_on(async {
                let id = format!("run-{number:08}");
                let run = coordinator.start(&saga, id, bytes).await.unwrap();
                assert_eq!(run.outcome().await.unwrap().word(), "completed");
            });
        }
        (runs, began.elapsed())
    };
    runs(SLICE / 5);
    let counts = || [&SERIALISED, &CLONED].map(|count| count.load(Ordering::Relaxed));
    let (mut done, mut took, mut counted, mut memory) = (0, Duration::ZERO, [0, 0], 0);
    let (mut rows, mut took_bare) = (0, Duration::ZERO);
    for _ in 0..2 {
        let (before, asked_before) = (counts(), asked());
        let (runs, time) = runs(SLICE);
        memory += asked() - asked_before;
        for (sum, (now, before)) in counted.iter_mut().zip(counts().into_iter().zip(before)) {
            *sum += now - before;
        }
        done += runs;
        took += time;
        if let Some(bare) = &bare {
            let (more, time) = bare.write(usize::try_from(bytes).unwrap());
            rows += more;
            took_bare += time;
        }
    }
    runtime.block_on(coordinator.shutdown());
    let outputs = (done * 3) as f64;
    let mib = |rows: f64, took: Duration| rows * bytes as f64 / 1_048_576.0 / took.as_secs_f64();
    Measured {
        rate: mib(outputs, took),
        bare: mib(rows as f64, took_bare),
        serialised: counted[0] as f64 / outputs,
        cloned: counted[1] as f64 / outputs,
        asked: memory as f64 / outputs / bytes as f64,
    }
}

/// One-row commits of a text, by a log that has its size.
struct Bare(Connection);

impl Bare {
    fn in_folder(folder: &Path) -> Self {
        let file = folder.join("bare.db");
        let store = SqliteStore::open(&file).unwrap();
        let conn = Connection::open(&file).unwrap();
        drop(store);
        conn.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1018;
             CREATE TABLE bare (at INTEGER PRIMARY KEY, events TEXT NOT NULL)",
        )
        .unwrap();
        Bare(conn)
    }

    fn write(&self, bytes: usize) -> (u64, Duration) {
        let text = "x".repeat(bytes);
        let mut insert = self
            .0
            .prepare_cached("INSERT INTO bare (events) VALUES (?)")
            .unwrap();
        let began = Instant::now();
        let mut rows = 0;
        while began.elapsed() < SLICE || rows == 0 {
            insert.execute([&text]).unwrap();
            rows += 1;
        }
        (rows, began.elapsed())
    }
}
