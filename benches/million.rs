//! What looking at a large store costs: a million runs, the real `amends`.
//!
//! `cargo bench --features cli,testkit --bench million -- [--runs N] [--keep] [FOLDER]`: writes so many runs of three
//! steps through the store's own append, 1 % of them parked, then measures `amends list` from the start of the
//! process to its end under each filter, `amends verify`, and `amends prune` of half of them. The folder needs 2 GB
//! for a million runs; what is made there is removed. Peaks are `VmHWM` of the process, from `/proc`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // A bench, with numbers far below 2^52.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amends::journal::{AppendId, Event, Journal, RunStarted, Standing, Timestamp};
use amends::store::{Append, MemoryStore, RunEntry, SqliteStore, Store, TroubleChange};
use amends::{
    Coordinator, FailureMode, Outline, RecoveryPolicy, RecoveryStrategy, Retry, Saga, StartOptions,
    StepContext, StepError, step_fn,
};

/// The oldest run was started so long ago, the newest now.
const YEAR: i64 = 365 * 86_400 * 1_000_000;

/// What the second of three steps does.
async fn charge(_: &StepContext, kind: &u64) -> Result<u64, StepError> {
    let failed = |mode| Err(StepError::not_done("no").with_mode(mode).retryable(false));
    match *kind {
        1 => failed(FailureMode::SystemNetwork),
        2 => failed(FailureMode::StepValidation),
        3 => failed(FailureMode::SystemTimeout),
        4 => Err(StepError::stop("sold out")),
        5 => Err(StepError::not_done("later")
            .with_mode(FailureMode::SystemTimeout)
            .retryable(true)),
        _ => Ok(*kind),
    }
}

fn saga(name: &str, fails: RecoveryStrategy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name).policy(RecoveryPolicy::new("bench", fails));
    let kind = saga.input();
    let wait = Retry::constant()
        .initial(Duration::from_secs(3_000_000))
        .cap(Duration::from_secs(3_000_000))
        .max_attempts(2);
    let one = saga.add(
        step_fn(
            "reserve-stock",
            async |_cx, kind: &u64| Ok(*kind),
            async |_cx, _kind, _effect| Ok(()),
        ),
        kind,
    );
    let two = saga.add(
        step_fn("charge-card", charge, async |_cx, _kind, _effect| Ok(())).retry(wait),
        one,
    );
    let three = saga.add(
        step_fn(
            "ship",
            async |_cx, kind: &u64| Ok(*kind),
            async |_cx, _kind, _effect| Ok(()),
        ),
        two,
    );
    saga.returns(three).unwrap()
}

/// A run that was really driven, to be written again under other names.
struct Template {
    journal: Journal,
    entry: RunEntry,
}

const SAGAS: [&str; 3] = ["place-order", "book-trip", "close-account"];

/// For each saga: a run of each kind.
async fn templates() -> (Vec<Vec<Template>>, Vec<Outline>) {
    let store = Arc::new(MemoryStore::new());
    let (mut templates, mut outlines) = (Vec::new(), Vec::new());
    for name in SAGAS {
        let fails = if name == "book-trip" {
            RecoveryStrategy::Compensate
        } else {
            RecoveryStrategy::Manual
        };
        let saga = saga(name, fails);
        let coordinator = Coordinator::builder_shared(store.clone())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let mut of_saga = Vec::new();
        for kind in 0..6 {
            let options = StartOptions::new()
                .label("customer", "0")
                .label("region", "eu");
            let id = format!("{name}-{kind}");
            let run = coordinator
                .start_with(&saga, id.as_str(), kind, options)
                .await
                .unwrap();
            let waits = |standing| matches!(standing, Standing::Waiting { .. });
            if kind == 5 {
                while !waits(store.find(run.id()).await.unwrap().unwrap().standing) {
                    tokio::task::yield_now().await;
                }
            } else {
                drop(run.outcome().await.unwrap());
            }
            of_saga.push(Template {
                journal: store.load(run.id()).await.unwrap().unwrap(),
                entry: store.find(run.id()).await.unwrap().unwrap(),
            });
        }
        coordinator.shutdown().await;
        outlines.push(Outline::of(saga.graph()));
        templates.push(of_saga);
    }
    (templates, outlines)
}

/// Which saga, and which kind of run: 1 % parked of two modes and steps, a few of each other kind.
fn kind_of(number: u64) -> (usize, usize) {
    let saga = match number {
        // A saga that is rare, and long out of use.
        1..=100 => 2,
        _ if number.is_multiple_of(10) => 1,
        _ => 0,
    };
    let kind = match number % 1_000 {
        1..=6 | 50 | 60 | 70 | 80 => 1,
        11..=13 => 2,
        21 => 3,
        30..=39 => 4,
        41..=43 => 5,
        _ => 0,
    };
    (saga, kind)
}

/// The appends of a run that was started so long after the first.
fn appends(template: &Template, number: u64, started_at: i64) -> Vec<Append> {
    let uid = format!("{number:032x}");
    let shift = started_at - template.entry.started_at.as_micros();
    let later = |at: Timestamp| Timestamp::from_micros(at.as_micros() + shift);
    let key = |key: &Arc<str>| -> Arc<str> {
        let rest = key.split_once('/').map_or("", |(_, rest)| rest);
        format!("{uid}/{rest}").into()
    };
    let event = |event: &Event| match event.clone() {
        Event::RunStarted(started) => {
            let mut started: RunStarted = (*started).clone();
            started.uid = uid.as_str().into();
            started
                .labels
                .insert("customer".to_owned(), (number % 50_000).to_string());
            Event::RunStarted(Arc::new(started))
        }
        Event::StepStarted {
            step,
            round,
            attempt,
            key: old,
            fed_by,
            mapped,
            items,
        } => Event::StepStarted {
            step,
            round,
            attempt,
            key: key(&old),
            fed_by,
            mapped,
            items,
        },
        Event::UndoStarted {
            step,
            round,
            attempt,
            key: old,
        } => Event::UndoStarted {
            step,
            round,
            attempt,
            key: key(&old),
        },
        event => event,
    };
    let records = &template.journal.records;
    let mut id = AppendId::random();
    records
        .iter()
        .enumerate()
        .map(|(index, record)| {
            id = id.next();
            let last = index + 1 == records.len();
            let mut record = record.clone();
            record.append_id = id;
            record.at = later(record.at);
            record.events = record.events.iter().map(event).collect();
            let standing = if last {
                template.entry.standing
            } else {
                Standing::Running
            };
            let run = format!("order-{number:07}").into();
            let mut append = Append::new(run, record, template.journal.steps.clone(), standing);
            append.standing_changed = index == 0 || last;
            if let (true, Some(trouble)) = (last, &template.entry.trouble) {
                append.trouble = TroubleChange::Now(trouble.clone());
            }
            append
        })
        .collect()
}

fn fill(file: &Path, runs: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (templates, outlines) = templates().await;
        let store = Arc::new(SqliteStore::open(file).unwrap());
        for outline in &outlines {
            store.remember(outline).await.unwrap();
        }
        let templates = Arc::new(templates);
        let next = Arc::new(AtomicU64::new(1));
        let now = Timestamp::now().as_micros();
        let begun = Instant::now();
        let tasks: Vec<_> = (0..256)
            .map(|_| {
                let (store, templates, next) = (store.clone(), templates.clone(), next.clone());
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number > runs {
                            return;
                        }
                        let (saga, kind) = kind_of(number);
                        let age = i128::from(YEAR) * i128::from(runs - number) / i128::from(runs);
                        let started_at = now - i64::try_from(age).unwrap() - 60_000_000;
                        let appends = appends(&templates[saga][kind], number, started_at);
                        let answers: Vec<_> = appends
                            .into_iter()
                            .map(|append| store.append(append))
                            .collect();
                        for answer in answers {
                            answer.await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!(
            "wrote {runs} runs, {} appends in {} commits: {:.0} s, {:.0} appends/s",
            store.appends(),
            store.commits(),
            begun.elapsed().as_secs_f64(),
            store.appends() as f64 / begun.elapsed().as_secs_f64(),
        );
        store.close().await;
    });
}

/// Runs `amends`, and gives its time, its peak in MiB, the number of lines it printed, and the last of them.
fn amends(file: &Path, words: &[&str]) -> (Duration, u64, usize, String) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_amends"))
        .arg("--store")
        .arg(format!("sqlite:{}", file.display()))
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watching = std::thread::spawn(move || {
        let mut peak = 0;
        while let Some(now) = peak_of(&status) {
            peak = now.max(peak);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let mut text = String::new();
    let mut out = child.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut out, &mut text).unwrap();
    let ended = child.wait_with_output().unwrap();
    let took = begun.elapsed();
    assert!(
        ended.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let last = text.lines().last().unwrap_or_default().to_owned();
    (
        took,
        watching.join().unwrap() / 1024,
        text.lines().count(),
        last,
    )
}

/// In KiB; nothing once the process is gone.
fn peak_of(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).cloned()
    };
    let runs: u64 = after("--runs").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = words.last().filter(|word| Path::new(word).is_dir());
    let folder = folder
        .cloned()
        .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let mut dir = tempfile::tempdir_in(folder).unwrap();
    dir.disable_cleanup(words.iter().any(|word| word == "--keep"));
    let file = after("--use").map_or_else(|| dir.path().join("million.db"), Into::into);
    if !file.exists() {
        fill(&file, runs);
    }
    let size = std::fs::metadata(&file).unwrap().len();
    println!("{}: {} MiB", file.display(), size >> 20);

    println!("median ms | worst ms | lines | amends list ..");
    let lists: [&[&str]; 19] = [
        &[],
        &["--parked"],
        &["--open"],
        &["--status", "completed"],
        &["--status", "waiting"],
        &["--status", "stopped"],
        &["--status", "abandoned"],
        &["--saga", "place-order"],
        &["--saga", "close-account"],
        &["--saga", "no-such-saga"],
        &["--step", "charge-card"],
        &["--mode", "system_timeout"],
        &["--mode", "system_oom"],
        &["--label", "customer=4711"],
        &["--label", "region=eu"],
        &["--prefix", "order-09"],
        &["--prefix", "order-"],
        &["--older-than", "180d"],
        &["--newer-than", "180d"],
    ];
    let older: [&[&str]; 4] = [
        &["--older-than", "364d"],
        &["--older-than", "400d"],
        &["--newer-than", "1h"],
        &["--parked", "--saga", "close-account", "--older-than", "30d"],
    ];
    for filter in lists.iter().chain(&older) {
        let list: Vec<&str> = [&["list"], *filter].concat();
        let mut runs: Vec<_> = (0..5).map(|_| amends(&file, &list)).collect();
        runs.sort_by_key(|run| run.0);
        println!(
            "{:9.1} | {:8.1} | {:5} | {}",
            runs[2].0.as_secs_f64() * 1e3,
            runs[4].0.as_secs_f64() * 1e3,
            runs[2].2,
            filter.join(" "),
        );
    }
    let old = ["prune", "--older-than", "182d", "--yes"];
    let dry = ["prune", "--older-than", "182d", "--dry-run"];
    for words in [&["stats"][..], &["verify"], &dry, &old] {
        let (took, peak, _, last) = amends(&file, words);
        println!(
            "{:9.1} s | peak {peak} MiB | amends {}: {last}",
            took.as_secs_f64(),
            words.join(" ")
        );
    }
}
