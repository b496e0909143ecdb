//! How much memory a run takes, by what it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::store::{MemoryStore, Store};
use amends::{RecoveryPolicy, RecoveryStrategy, Saga, StepError, step_fn, wait_for};

use crate::counting::held;
use crate::{Options, child, coordinator, runtime, sqlite, status};

/// What runs do, and which bound holds for them.
const STATES: [(&str, &str); 5] = [
    ("runs W3, in its second step", "4,096"),
    ("waits for a signal", "500"),
    ("waits for a signal or a time", "500"),
    ("is parked", "500"),
    ("has ended", "0"),
];

static CALLED: AtomicU64 = AtomicU64::new(0);

fn saga(state: &str) -> Saga<u64, u64> {
    // Where a step fails, an operator is asked.
    let policy = RecoveryPolicy::new("bench", RecoveryStrategy::Manual);
    let mut saga = Saga::builder::<u64>("order").policy(policy);
    let mut node = saga.input();
    let (holds, fails) = (state.starts_with("runs"), state == "is parked");
    for (name, second) in [("first", false), ("second", true), ("third", false)] {
        let step = amends::step_with(
            name,
            (second && holds, second && fails),
            async |(holds, fails): &(bool, bool), _cx: &amends::StepContext, number: &u64| {
                if *holds {
                    CALLED.fetch_add(1, Ordering::Relaxed);
                    std::future::pending::<()>().await;
                }
                if *fails {
                    return Err(StepError::rejected("no"));
                }
                Ok(*number)
            },
            async |_, _cx, _number, _effect| Ok(()),
        );
        node = saga.add(step.timeout(Duration::from_secs(86_400)), node);
        if second && state.starts_with("waits") {
            let paid = wait_for::<u64>("paid");
            let paid = if state.ends_with("time") {
                paid.within(Duration::from_secs(86_400))
            } else {
                paid
            };
            let paid = saga.add(paid.after(node), ());
            let add = step_fn(
                "add",
                async |_cx, number: &u64| Ok::<u64, StepError>(*number),
                async |_cx, _number, _effect| Ok(()),
            );
            node = saga.add(add, paid);
        }
    }
    saga.returns(node).unwrap()
}

pub(crate) fn table(options: &Options) {
    let runs = options.number("--runs", 100_000).to_string();
    println!(
        "| a run, of {runs} | store | bytes held by this crate and its store | bytes that the process grew | bound |"
    );
    println!("|---|---|--:|--:|--:|");
    for (state, bound) in STATES {
        for store in ["SQLite", "memory"] {
            let folder = options.folder();
            let file = folder.path().join("sagas.db");
            let told = child(&["memory", file.to_str().unwrap(), &runs, store, state]);
            let (held, grown) = told.trim().split_once(' ').unwrap();
            // What journals need is in the memory store itself.
            let bound = if store == "memory" { "" } else { bound };
            println!("| {state} | {store} | {held} | {grown} | {bound} |");
        }
    }
}

/// Prints how many bytes of the allocator's, and of the system's, each run has.
pub(crate) fn measure(options: &Options) {
    let runs: u64 = options.words[3].parse().unwrap();
    let (kind, state) = (options.words[4].as_str(), options.words[5].as_str());
    let saga = saga(state);
    let ends = state == "has ended" || state == "is parked";
    runtime().block_on(async {
        let store: Arc<dyn Store> = match kind {
            "memory" => Arc::new(MemoryStore::new()),
            _ => sqlite(options.words[2].as_ref()),
        };
        let coordinator = coordinator(store, &saga).await;
        let begin = |from: u64, to: u64| {
            let (coordinator, saga) = (&coordinator, &saga);
            async move {
                let tasks: Vec<_> = (0..256)
                    .map(|first| {
                        let (coordinator, saga) = (coordinator.clone(), saga.clone());
                        tokio::spawn(async move {
                            for run in (from + first..to).step_by(256) {
                                let id = format!("run-{run:08}");
                                let run = coordinator.start(&saga, id, run).await.unwrap();
                                if ends {
                                    drop(run.outcome().await.unwrap());
                                }
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
        };
        let rest = async |runs: u64| {
            if state.starts_with("runs") {
                while CALLED.load(Ordering::Relaxed) < runs {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                while coordinator.driving() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            // What is given back a moment later.
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        // What is kept however many runs there are, is there from here on.
        let before = 4_000;
        begin(0, before).await;
        rest(before).await;
        let (held_before, grown_before) = (held(), status("VmRSS:"));
        begin(before, before + runs).await;
        rest(before + runs).await;
        let per_run =
            |before: u64, now: u64| (now.cast_signed() - before.cast_signed()) as f64 / runs as f64;
        println!(
            "{:.1} {:.1}",
            per_run(held_before, held()),
            per_run(grown_before, status("VmRSS:"))
        );
        std::process::exit(0);
    });
}
