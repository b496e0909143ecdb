//! What runs cost, by counts and not by the clock: allocations of a run and of a step, in memory and on SQLite, and
//! instructions of the machine for an event. None may be a tenth above what `tests/snapshots/costs.txt` says.
//!
//! `AMENDS_UPDATE=1 cargo test --all-features --test costs_stay_as_recorded` writes the record anew. Instructions are
//! counted by callgrind, where `valgrind` is installed, of the unoptimised build for x86-64 that the record is of.
//! Allocations are those of the Rust side: SQLite's own are not seen.

// Functions beside the tests aren't test functions, and an allocator that counts is unsafe by its nature.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unsafe_code,
    missing_docs
)]
#![allow(clippy::cast_precision_loss, reason = "far below 2^52")]

#[path = "costs/machine.rs"]
mod machine;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amends::store::{MemoryStore, Store};
use amends::{Coordinator, Outcome, Saga, StepError, step_fn};

/// The system's allocator, with a count of how often it is asked for memory.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is the system's allocator's work; a counter is touched beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RECORD: &str = "tests/snapshots/costs.txt";

/// What the child process is asked to do, so many times.
const WORK: &str = "AMENDS_COSTS_WORK";

/// Figures by their names.
type Figures = BTreeMap<String, f64>;

/// All in one test: others beside it would allocate meanwhile.
#[test]
fn costs_stay_as_recorded() {
    if let Ok(work) = std::env::var(WORK) {
        return child(&work);
    }
    let mut now = Figures::new();
    allocations("memory", 400, &mut now, |_| Arc::new(MemoryStore::new()));
    // Few, since each waits for the disk, and there is nothing that needs more.
    #[cfg(feature = "sqlite")]
    allocations("SQLite", 40, &mut now, |folder| {
        Arc::new(amends::store::SqliteStore::open(folder.join("sagas.db")).unwrap())
    });
    instructions(&mut now);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let recorded = read(&std::fs::read_to_string(&path).unwrap_or_default());
    if std::env::var_os("AMENDS_UPDATE").is_some_and(|it| it == "1") {
        // What couldn't be counted here stays as it was.
        let mut all = recorded;
        all.append(&mut now);
        return std::fs::write(&path, written(&all)).unwrap();
    }
    let faults: Vec<String> = now
        .iter()
        .filter_map(|(name, now)| match recorded.get(name) {
            None => Some(format!("{name}: {now:.2}, which is not recorded")),
            Some(then) if *now > then * 1.1 => {
                Some(format!("{name}: {now:.2}, and {then:.2} are recorded"))
            }
            Some(_) => None,
        })
        .collect();
    assert!(
        faults.is_empty(),
        "costs are a tenth above what {RECORD} says:\n  {}\n\
         Find what has become dearer. Where it is worth its price, write the record anew in the same commit:\n  \
         AMENDS_UPDATE=1 cargo test --all-features --test costs_stay_as_recorded\n\
         All figures now:\n{}",
        faults.join("\n  "),
        written(&now),
    );
}

fn read(record: &str) -> Figures {
    let lines = record.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, figure) = line.split_once(": ")?;
            Some((name.to_owned(), figure.parse().ok()?))
        })
        .collect()
}

fn written(figures: &Figures) -> String {
    let mut text = String::from(
        "# What runs cost, counted by tests/costs_stay_as_recorded.rs, which says how this is written anew.\n",
    );
    for (name, figure) in figures {
        writeln!(text, "{name}: {figure:.2}").unwrap();
    }
    text
}

/// Three steps, of which the third reads what both others made, and refuses an input of one.
fn w3() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("w3");
    let input = saga.input();
    let step = |name: &str| {
        step_fn(
            name,
            async |_cx, number: &u64| Ok::<u64, StepError>(*number),
            async |_cx, _number, _effect| Ok(()),
        )
    };
    let first = saga.add(step("first"), input);
    let second = saga.add(step("second"), first);
    let third = step_fn(
        "third",
        async |_cx, (first, second): &(u64, u64)| match *first {
            1 => Err(StepError::rejected("no")),
            _ => Ok(first + second),
        },
        async |_cx, _input, _effect| Ok(()),
    );
    let third = saga.add(third, (first, second));
    saga.returns(third).unwrap()
}

/// A coordinator of these sagas, on a thread of its own.
struct Bench {
    runtime: tokio::runtime::Runtime,
    coordinator: Coordinator,
    runs: u64,
}

impl Bench {
    fn new(store: Arc<dyn Store>, sagas: &[&Saga<u64, u64>]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let coordinator = runtime.block_on(async {
            let mut builder = Coordinator::builder_shared(store);
            for saga in sagas {
                builder = builder.register(saga);
            }
            builder.build().await.unwrap()
        });
        Bench {
            runtime,
            coordinator,
            runs: 0,
        }
    }

    /// So many runs, one after another.
    fn run(&mut self, saga: &Saga<u64, u64>, input: u64, times: u64) {
        for _ in 0..times {
            self.runs += 1;
            let id = format!("run-{:08}", self.runs);
            let ended = self.runtime.block_on(async {
                let run = self.coordinator.start(saga, id, input).await.unwrap();
                run.outcome().await.unwrap()
            });
            let word = if input == 1 {
                "compensated"
            } else {
                "completed"
            };
            assert_eq!(ended.word(), word);
            drop::<Outcome<u64>>(ended);
        }
    }

    /// Allocations per run: the least of several, since threads in the background allocate now and then.
    fn allocations(&mut self, saga: &Saga<u64, u64>, input: u64, times: u64) -> f64 {
        let mut counts = (0..4).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            self.run(saga, input, times);
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        // The first one fills what is kept.
        counts.next();
        counts.min().unwrap() as f64 / times as f64
    }
}

fn allocations(
    name: &str,
    times: u64,
    figures: &mut Figures,
    store: impl Fn(&Path) -> Arc<dyn Store>,
) {
    let folder = tempfile::tempdir().unwrap();
    let (w3, short, long) = (w3(), machine::chain(10), machine::chain(60));
    // Chains have one name, so each has a store of its own.
    let per_run = |place: &str, saga: &Saga<u64, u64>, input, times| {
        let folder = folder.path().join(place);
        std::fs::create_dir_all(&folder).unwrap();
        Bench::new(store(&folder), &[saga]).allocations(saga, input, times)
    };
    let mut note = |what: &str, figure| figures.insert(format!("{name}, {what}"), figure);
    note("allocations of W3", per_run("w3", &w3, 2, times));
    note(
        "allocations of W3 that fails",
        per_run("failing", &w3, 1, times),
    );
    let (short, long) = (
        per_run("short", &short, 2, times / 4),
        per_run("long", &long, 2, times / 10),
    );
    note("allocations of one more step", (long - short) / 50.0);
}

/// How many events the child's machine has for one run.
const CHAIN: usize = 50;

/// Does what is to be counted.
fn child(work: &str) {
    let (what, times) = work.split_once(' ').unwrap();
    let times: u64 = times.parse().unwrap();
    match what {
        "machine" | "undoing" => {
            let saga = machine::chain(CHAIN);
            let started = machine::started(saga.graph());
            for _ in 0..times {
                machine::drive(saga.graph(), &started, what == "undoing");
            }
        }
        "run" => {
            let w3 = w3();
            Bench::new(Arc::new(MemoryStore::new()), &[&w3]).run(&w3, 2, times);
        }
        _ => panic!("{what}"),
    }
}

/// Instructions, where they can be counted.
fn instructions(figures: &mut Figures) {
    if !cfg!(all(
        debug_assertions,
        target_arch = "x86_64",
        target_os = "linux"
    )) {
        eprintln!("instructions are not counted: the record is of unoptimised builds for x86-64");
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("instructions are not counted: `valgrind` is not installed; ./test installs it");
        return;
    }
    let saga = machine::chain(CHAIN);
    let started = machine::started(saga.graph());
    for (what, fails) in [("machine", false), ("undoing", true)] {
        let events = machine::drive(saga.graph(), &started, fails);
        let name = format!("{what}, instructions of an event");
        figures.insert(name, per_time(what, 10, 60) / events as f64);
    }
    let name = "memory, instructions of W3".to_owned();
    figures.insert(name, per_time("run", 20, 120));
}

/// What doing it once more costs: what the process needs around it falls out of the difference.
fn per_time(what: &str, few: u64, many: u64) -> f64 {
    let [few_cost, many_cost] = [few, many].map(|times| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "costs_stay_as_recorded"])
            .env(WORK, format!("{what} {times}"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let line = told.lines().find(|line| line.contains("Collected : "));
        let line = line.unwrap_or_else(|| panic!("callgrind says no total: {told}"));
        let total = line.rsplit(' ').next().unwrap();
        total.parse::<u64>().unwrap()
    });
    (many_cost - few_cost) as f64 / (many - few) as f64
}
