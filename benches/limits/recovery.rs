//! A process with many runs in flight is gone at once; another one opens its file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amends::{Coordinator, Saga, StepError, step_fn};

use crate::{Options, child, coordinator, runtime, spread, sqlite, status, text};

/// Whether the second step waits for ever.
static HOLDS: AtomicBool = AtomicBool::new(false);
/// How often the second step was called.
static CALLED: AtomicU64 = AtomicU64::new(0);

/// W3, whose second step can be held.
fn saga() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("w3");
    let input = saga.input();
    let step = |name: &str| {
        step_fn(
            name,
            async |_cx, number: &u64| Ok::<u64, StepError>(number + 1),
            async |_cx, _number, _effect| Ok(()),
        )
    };
    let first = saga.add(step("first"), input);
    let second = step_fn(
        "second",
        async |_cx, number: &u64| {
            CALLED.fetch_add(1, Ordering::Relaxed);
            if HOLDS.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok::<u64, StepError>(number + 1)
        },
        async |_cx, _number, _effect| Ok(()),
    );
    // A run that waits so long for its step doesn't fail by that.
    let second = saga.add(second.timeout(Duration::from_secs(86_400)), first);
    let third = saga.add(step("third"), second);
    saga.returns(third).unwrap()
}

pub(crate) fn table(options: &Options) {
    let runs = options.number("--runs", 100_000).to_string();
    let mut all: [Vec<f64>; 5] = Default::default();
    for repeat in 0..options.repeats() {
        eprintln!("repeat {}", repeat + 1);
        let folder = options.folder();
        let file = folder.path().join("sagas.db");
        let file = file.to_str().unwrap();
        child(&["interrupt", file, &runs]);
        let told = child(&["recover", file, &runs]);
        for (values, value) in all.iter_mut().zip(told.split_whitespace()) {
            values.push(value.parse().unwrap());
        }
    }
    let [open, first, ended, cpu, peak] = all.map(|values| text(spread(values), 1));
    println!("| {runs} interrupted runs on SQLite | median (least to most) |");
    println!("|---|--:|");
    println!("| the coordinator is up, ms | {open} |");
    println!("| the first run is resumed, ms | {first} |");
    println!("| all have ended, ms | {ended} |");
    println!("| processor time until then, ms | {cpu} |");
    println!("| peak memory, MiB | {peak} |");
}

/// The first process: begins runs, and is gone while the second step of each is under way.
pub(crate) fn interrupt(options: &Options) {
    HOLDS.store(true, Ordering::Relaxed);
    let runs: u64 = options.words[3].parse().unwrap();
    let saga = saga();
    runtime().block_on(async {
        let coordinator = coordinator(sqlite(Path::new(&options.words[2])), &saga).await;
        let begin = |first: u64| {
            let (coordinator, saga) = (coordinator.clone(), saga.clone());
            tokio::spawn(async move {
                for run in (first..runs).step_by(256) {
                    let id = format!("run-{run:08}");
                    coordinator.start(&saga, id, run).await.unwrap();
                }
            })
        };
        for task in (0..256).map(begin).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        while CALLED.load(Ordering::Relaxed) < runs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Nothing is shut down or written any more.
        std::process::exit(0);
    });
}

/// The second process: prints the milliseconds until it is up, until the first run is resumed and until all have ended,
/// those that the processors worked meanwhile, and the MiB at its peak.
pub(crate) fn recover(options: &Options) {
    let runs: u64 = options.words[3].parse().unwrap();
    let saga = saga();
    let runtime = runtime();
    let (began, worked) = (Instant::now(), cpu());
    runtime.block_on(async {
        let watch = tokio::spawn(async move {
            while CALLED.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            began.elapsed()
        });
        // With its default settings.
        let coordinator = Coordinator::builder_shared(sqlite(Path::new(&options.words[2])))
            .register(&saga)
            .build()
            .await
            .unwrap();
        let open = began.elapsed();
        assert_eq!(coordinator.all_resumed().await, runs);
        while coordinator.driving() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ended = began.elapsed();
        assert_eq!(CALLED.load(Ordering::Relaxed), runs);
        let first = watch.await.unwrap();
        let millis =
            [open, first, ended, cpu().saturating_sub(worked)].map(|time| time.as_secs_f64() * 1e3);
        let peak = status("VmHWM:") as f64 / 1_048_576.0;
        let [open, first, ended, cpu] = millis;
        println!("{open} {first} {ended} {cpu} {peak}");
        coordinator.shutdown().await;
    });
}

/// How long processors have worked for this process, in steps of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may have spaces.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.filter_map(|it| it.parse::<u64>().ok()).sum::<u64>() * 10)
}
