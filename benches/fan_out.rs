//! What a step inside a step costs, and that it costs no more where there are many.
//!
//! `cargo bench --bench fan_out [-- --most N] [--folder FOLDER]`: for each shape and store, microseconds per step
//! to run, to run and be undone, and to be taken up by a new coordinator just before the end, with 100, 1,000 and
//! 10,000 items; the ratio of the last to the first; and how far the process grew per step while the most were run
//! and undone. On SQLite a run has a few syncs whatever its size, which is what the ratio says there; in a FOLDER
//! that is in memory they cost nothing. Times are the best of several, and a shared machine changes its mind within
//! seconds: compare what stands in one line. Memory is `VmHWM`, from `/proc`, after the same with 100 items.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // A bench, with numbers far below 2^52.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::store::{MemoryStore, SqliteStore, Store};
use amends::{
    Coordinator, Mapped, Node, Saga, SagaBuilder, StepContext, StepError, StepSpec, read_only_fn,
    step, step_with,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// How many items, and what the last step does.
type Input = (u64, u64);

const COMPLETE: u64 = 0;
const REFUSE: u64 = 1;
const HOLD: u64 = 2;

/// A definition for so many items, and how many steps they make.
type Shape = fn(u64, Told) -> (Saga<Input, u64>, u64);

/// The last step tells that it was called, and waits for ever.
type Told = mpsc::UnboundedSender<()>;

const SHAPES: [(&str, Shape); 6] = [
    ("items", |items, told| {
        let saga = around(told, |saga, list| {
            let all = saga.add(item("item", false).for_each(), list);
            all.map(|all| all.len() as u64)
        });
        (saga, items)
    }),
    ("eight at a time", |items, told| {
        let saga = around(told, |saga, list| {
            let all = saga.add(item("item", false).for_each().parallel(8), list);
            all.map(|all| all.len() as u64)
        });
        (saga, items)
    }),
    ("a tenth fails", |items, told| {
        let saga = around(told, |saga, list| {
            let item = item("item", true).for_each().tolerate_ratio(0.1);
            saga.add(item, list).map(|all| all.len() as u64)
        });
        (saga, items)
    }),
    ("sub-sagas of three", |items, told| {
        let child = chain("child", 3, |name| item(name, false));
        let saga = around(told, |saga, list| {
            let all = saga.add(step("order", &child).for_each(), list);
            all.map(|all| all.len() as u64)
        });
        (saga, 4 * items)
    }),
    ("in three layers", |items, told| {
        let side = (1..=items).find(|side| side * side * side >= items);
        let side = side.unwrap_or(1);
        let few = usize::try_from(side).unwrap();
        let inner = times("inner", side, item("item", false));
        let middle = times("middle", side, step("of", &inner));
        let saga = around(told, |saga, list| {
            let list = list.map(move |list| list.iter().take(few).copied().collect::<Vec<u64>>());
            let all = saga.add(step("of", &middle).for_each(), list);
            all.map(|all| all.len() as u64)
        });
        (saga, side * side * side)
    }),
    ("a chain of sub-sagas", |items, told| {
        let child = chain("child", 1, |name| item(name, false));
        let children = chain("children", items, |name| step(name, &child));
        let saga = around(told, |saga, list| {
            let all = saga.add(step("all", &children), list.map(|_| 1));
            all.map(|last| *last)
        });
        (saga, 2 * items)
    }),
];

/// A step that adds one; a picky one refuses each tenth number.
fn item(name: impl Into<String>, picky: bool) -> StepSpec<u64, u64> {
    step_with(
        name,
        picky,
        async |picky: &bool, _cx: &StepContext, number: &u64| match number % 10 {
            9 if *picky => Err(StepError::rejected("no")),
            _ => Ok(number + 1),
        },
        async |_, _cx, _number, _effect| Ok(()),
    )
}

fn chain(name: &str, steps: u64, step: impl Fn(String) -> StepSpec<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name);
    let mut node = saga.input();
    for number in 0..steps {
        node = saga.add(step(format!("s{number}")), node);
    }
    saga.returns(node).unwrap()
}

/// A saga that does something so many times.
fn times(name: &str, times: u64, item: StepSpec<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>(name);
    let list = saga.input().map(move |_| (0..times).collect::<Vec<u64>>());
    let all = saga.add(item.for_each(), list);
    saga.returns(all.map(|all| all.len() as u64)).unwrap()
}

/// A saga with a step before that makes the items, and one after that decides what becomes of the run.
fn around(
    told: Told,
    inside: impl FnOnce(&mut SagaBuilder<Input>, Node<Vec<u64>>) -> Mapped<u64>,
) -> Saga<Input, u64> {
    let mut saga = Saga::builder::<Input>("fan-out");
    let input = saga.input();
    let count = read_only_fn("list", async |_cx, input: &Input| {
        Ok::<Vec<u64>, StepError>((0..input.0).collect())
    });
    let count = saga.add(count, input);
    let made = inside(&mut saga, count);
    let last = step_with(
        "last",
        told,
        async |told: &Told, _cx: &StepContext, (made, (_, then)): &(u64, Input)| match *then {
            COMPLETE => Ok(*made),
            REFUSE => Err(StepError::rejected("no")),
            _ => {
                told.send(()).unwrap();
                std::future::pending().await
            }
        },
        async |_, _cx, _input, _effect| Ok(()),
    );
    let last = saga.add(last, (made, input));
    saga.returns(last).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn store(folder: Option<&Path>) -> Arc<dyn Store> {
    match folder {
        Some(folder) => Arc::new(SqliteStore::open(folder.join("sagas.db")).unwrap()),
        None => Arc::new(MemoryStore::new()),
    }
}

/// How long one run takes in a store of its own, and how many steps it has.
fn took(shape: Shape, items: u64, then: u64, sqlite: bool) -> (Duration, u64) {
    let words: Vec<String> = std::env::args().collect();
    let folder = words.iter().position(|word| word == "--folder");
    let folder = folder.map_or_else(std::env::temp_dir, |at| words[at + 1].as_str().into());
    let folder = tempfile::tempdir_in(folder).unwrap();
    let file = sqlite.then_some(folder.path());
    let (told, mut tells) = mpsc::unbounded_channel();
    let (saga, steps) = shape(items, told);
    let first = store(file);
    let held = Arc::clone(&first);
    let runtime_of_first = runtime();
    let took = runtime_of_first.block_on(async {
        let coordinator = build(held, &saga).await;
        let began = Instant::now();
        let run = coordinator
            .start(&saga, "run", (items, then))
            .await
            .unwrap();
        if then == HOLD {
            tells.recv().await.unwrap();
            return Duration::ZERO;
        }
        let outcome = run.outcome().await.unwrap();
        let word = ["completed", "compensated"][usize::from(then == REFUSE)];
        assert_eq!(outcome.word(), word);
        began.elapsed()
    });
    if then != HOLD {
        return (took, steps);
    }
    // All of the first process is gone but its store; a file is opened again.
    drop(runtime_of_first);
    let second = if sqlite {
        drop(first);
        store(file)
    } else {
        first
    };
    let began = Instant::now();
    runtime().block_on(async {
        let _coordinator = build(second, &saga).await;
        tells.recv().await.unwrap();
    });
    (began.elapsed(), steps)
}

async fn build(store: Arc<dyn Store>, saga: &Saga<Input, u64>) -> Coordinator {
    Coordinator::builder_shared(store)
        .register(saga)
        .build()
        .await
        .unwrap()
}

/// Microseconds per step, at best.
fn per_step(shape: Shape, items: u64, then: u64, sqlite: bool) -> f64 {
    let most = if items > 1_000 { 3 } else { 7 };
    let times = (0..most).map(|_| took(shape, items, then, sqlite));
    let (best, steps) = times.min().unwrap();
    best.as_secs_f64() * 1e6 / steps as f64
}

/// From `/proc`, in kilobytes.
fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Bytes per step that a run adds to the process at its peak.
fn grows(shape: Shape, items: u64, sqlite: bool) -> Option<u64> {
    took(shape, 100, REFUSE, sqlite);
    // The peak is counted from here on.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = memory("VmRSS:")?;
    let (_, steps) = took(shape, items, REFUSE, sqlite);
    Some((memory("VmHWM:")? - before) * 1_024 / steps)
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    // `cargo test` runs benches too, with `--test`: the counts are asserted in the test suite instead.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    if let [_, name, sqlite, items, ..] = &words[..]
        && let Some((_, shape)) = SHAPES.iter().find(|shape| shape.0 == name)
    {
        // A process of its own, whose memory nobody used before.
        let grown = grows(*shape, items.parse().unwrap(), sqlite == "sqlite");
        return println!(
            "{}",
            grown.map_or("?".to_owned(), |grown| grown.to_string())
        );
    }
    let most = words.iter().position(|word| word == "--most");
    let most = most.map_or(10_000, |at| words[at + 1].parse().unwrap());
    let sizes: Vec<u64> = [100, 1_000, 10_000]
        .into_iter()
        .filter(|size| *size <= most)
        .collect();
    println!(
        "us per step          {:>7}  with {sizes:?} items, last : first, bytes a step",
        ""
    );
    for sqlite in [false, true] {
        let kind = if sqlite { "sqlite" } else { "memory" };
        for (name, shape) in SHAPES {
            for (word, then) in [("runs", COMPLETE), ("undone", REFUSE), ("again", HOLD)] {
                print!("{kind} {name:20} {word:7}");
                let times: Vec<f64> = sizes
                    .iter()
                    .map(|items| per_step(shape, *items, then, sqlite))
                    .collect();
                for time in &times {
                    print!(" {time:9.3}");
                }
                print!("  {:6.2}", times[times.len() - 1] / times[0]);
                if then == REFUSE {
                    let output = std::process::Command::new(std::env::current_exe().unwrap())
                        .args([name, kind, &sizes[sizes.len() - 1].to_string()])
                        .output()
                        .unwrap();
                    let grown = String::from_utf8_lossy(&output.stdout);
                    print!("  {:>6}", grown.trim());
                }
                println!();
            }
        }
    }
}
