//! A run whose steps are all renamed half-way does what it would have done under its old names: the same
//! calls with the same inputs, and its old keys for whatever was made before. Over random sagas, ends and
//! ways to go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use std::collections::BTreeSet;
use std::sync::Arc;

use amends::journal::{Command, Standing, Verb};
use amends::store::MemoryStore;
use amends::{Coordinator, Migration, Node, RecoveryStrategy, RunId, Saga, UndoOrder, step};
use evolving::{Code, Disk, Then, order};

const SEEDS: u64 = 400;
const CODES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const INNER: [[&str; 2]; 7] = [
    ["a1", "a2"],
    ["b1", "b2"],
    ["c1", "c2"],
    ["d1", "d2"],
    ["e1", "e2"],
    ["f1", "f2"],
    ["g1", "g2"],
];

/// What a step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Call,
    Read,
    /// Of a saga of two steps, the second of which ends as the step is drawn.
    Saga,
    /// Of two items, which both end so.
    Items,
}

/// One step of a random saga.
struct Drawn {
    made: Made,
    then: Then,
    /// What the undo of a sub-saga's first step comes to.
    undo: Then,
    /// The steps before it, by data if it is the first of them.
    before: Vec<usize>,
    checkpoint: bool,
}

struct Plan {
    steps: Vec<Drawn>,
    sequential: bool,
    strategy: Option<RecoveryStrategy>,
}

impl Plan {
    fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(2..=CODES.len());
        let steps = (0..count).map(|index| {
            let mut before: Vec<usize> = (0..index).filter(|_| rng.u8(..3) == 0).collect();
            rng.shuffle(&mut before);
            let made = match rng.u8(..8) {
                0 => Made::Read,
                1 | 2 => Made::Saga,
                3 => Made::Items,
                _ => Made::Call,
            };
            let then = match rng.u8(..6) {
                0 => Then::Refused,
                1 if made != Made::Read => Then::Doubt,
                _ => Then::Done,
            };
            Drawn {
                made,
                then,
                undo: [Then::Done, Then::Refused][rng.usize(..2)],
                before,
                checkpoint: rng.u8(..4) == 0,
            }
        });
        let mut steps: Vec<Drawn> = steps.collect();
        // So that it is parked for certain.
        steps[count - 1].then = Then::Refused;
        let ways = [
            None,
            Some(RecoveryStrategy::RetryFailed),
            Some(RecoveryStrategy::RetryFromCheckpoint),
            Some(RecoveryStrategy::RetryAll),
            Some(RecoveryStrategy::Compensate),
        ];
        Plan {
            steps,
            sequential: rng.bool(),
            strategy: ways[rng.usize(..ways.len())],
        }
    }

    /// The saga in this version, each step called `prefix` and its letter. Once mended, all steps succeed.
    fn saga(&self, code: &Code, version: u32, prefix: &str, mended: bool) -> Saga<String, String> {
        let mut saga = order(version);
        if self.sequential {
            saga = saga.undo_order(UndoOrder::Sequential);
        }
        let input = saga.input();
        let mut nodes: Vec<Node<String>> = Vec::new();
        for (index, drawn) in self.steps.iter().enumerate() {
            let name = format!("{prefix}{}", CODES[index]);
            let then = if mended { Then::Done } else { drawn.then };
            let mut part = match drawn.made {
                Made::Read => code.look(&name, CODES[index], then),
                Made::Call => code.step(&name, CODES[index], then),
                Made::Saga => {
                    let undo = if mended { Then::Done } else { drawn.undo };
                    step(name, &inner(code, prefix, index, then, undo))
                }
                Made::Items => step(name, &items(code, prefix, index, then)),
            };
            if drawn.checkpoint {
                part = part.checkpoint();
            }
            for &before in drawn.before.iter().skip(1) {
                part = part.after(nodes[before]);
            }
            let from = drawn.before.first().map_or(input, |&before| nodes[before]);
            nodes.push(saga.add(part, from));
        }
        saga.returns(*nodes.last().unwrap()).unwrap()
    }
}

/// A saga of two steps, one after the other.
fn inner(code: &Code, prefix: &str, index: usize, then: Then, undo: Then) -> Saga<String, String> {
    let [first, second] = INNER[index];
    let mut child = Saga::builder::<String>("child");
    let input = child.input();
    let one = child.add(code.stuck(&format!("{prefix}{first}"), first, undo), input);
    let two = child.add(code.step(&format!("{prefix}{second}"), second, then), one);
    child.returns(two).unwrap()
}

/// A saga of a fan-out over two items.
fn items(code: &Code, prefix: &str, index: usize, then: Then) -> Saga<String, String> {
    let [first, _] = INNER[index];
    let mut child = Saga::builder::<String>("items");
    let list = child
        .input()
        .map(|of: &String| vec![format!("{of}-0"), format!("{of}-1")]);
    let each = code.step::<String>(&format!("{prefix}{first}"), first, then);
    let all = child.add(each.for_each(), list);
    child
        .returns(all.map(|all: &Vec<String>| all.join("+")))
        .unwrap()
}

fn run() -> RunId {
    RunId::new("order-1")
}

async fn at_rest(coordinator: &Coordinator) {
    loop {
        let partial = coordinator.get(&run()).await.unwrap().unwrap();
        if partial.standing.is_end() || partial.standing == Standing::Parked {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// What was called before the second binary came and after it, how the run stands in the end, and what stands.
async fn told(plan: &Plan, renamed: bool) -> (Vec<String>, Vec<String>, String, usize) {
    let disk = Disk::Memory(Arc::new(MemoryStore::new()));
    let code = Code::default();
    let old = plan.saga(&code, 1, "old-", false);
    let first = disk.binary().register(&old).build().await.unwrap();
    first.start(&old, run(), "x".to_owned()).await.unwrap();
    at_rest(&first).await;
    first.shutdown().await;
    let before = code.calls.take();

    let second = if renamed {
        let new = plan.saga(&code, 2, "new-", true);
        let mut migration = Migration::from_version(1).to(&new);
        for (index, drawn) in plan.steps.iter().enumerate() {
            let code = CODES[index];
            let inside: &[&str] = match drawn.made {
                Made::Call | Made::Read => &[],
                Made::Saga => &INNER[index],
                Made::Items => &INNER[index][..1],
            };
            migration = migration.rename(format!("old-{code}"), format!("new-{code}"));
            for name in inside {
                let (old, new) = (
                    format!("old-{code}/old-{name}"),
                    format!("new-{code}/new-{name}"),
                );
                migration = migration.rename(old, new);
            }
        }
        let second = disk.binary().register(&new).migrate(migration);
        let second = second.build().await.unwrap();
        second.migrate(&run(), "ann", "").await.unwrap();
        second
    } else {
        let mended = plan.saga(&code, 1, "old-", true);
        disk.binary().register(&mended).build().await.unwrap()
    };
    let verb = match plan.strategy {
        Some(RecoveryStrategy::Compensate) => Verb::Compensate,
        strategy => Verb::Retry {
            strategy,
            edits: Vec::new(),
        },
    };
    let on = Command::new(run(), verb);
    second.command(&on).await.unwrap();
    at_rest(&second).await;
    let partial = second.get(&run()).await.unwrap().unwrap();
    second.shutdown().await;
    let standing = partial.standing.to_string();
    (
        before,
        code.calls.take(),
        standing,
        partial.outstanding.len(),
    )
}

#[tokio::test(start_paused = true)]
async fn the_same_calls_come_to_the_same_end() {
    let (mut undone, mut went_on, mut half) = (0, 0, 0);
    for seed in 0..SEEDS {
        let plan = Plan::draw(seed);
        let (before, wanted, end, stands) = told(&plan, false).await;
        let (same, calls, its_end, its_stands) = told(&plan, true).await;
        assert_eq!(same, before, "seed {seed}");
        assert_eq!((its_end, its_stands), (end, stands), "seed {seed}");
        // Keys that were made before stay; those that are made after have the new names.
        let made: BTreeSet<&str> = before.iter().map(|call| key_of(call)).collect();
        let renamed: Vec<String> = wanted
            .iter()
            .map(|call| {
                if made.contains(key_of(call)) {
                    call.clone()
                } else {
                    call.replace("old-", "new-")
                }
            })
            .collect();
        let sorted = |mut calls: Vec<String>| {
            calls.sort();
            calls
        };
        let undos: Vec<&String> = wanted
            .iter()
            .filter(|call| call.starts_with("undo "))
            .collect();
        // All of them succeed by now, so none is called twice.
        let once: BTreeSet<&&String> = undos.iter().collect();
        assert_eq!(once.len(), undos.len(), "seed {seed}: {undos:?}");
        let undos = undos.len();
        half += usize::from(before.iter().any(|call| call.starts_with("undo ")));
        undone += undos;
        went_on += wanted.len() - undos;
        // Sub-sagas that undo themselves wait for nobody.
        let alone = |drawn: &Drawn| matches!(drawn.made, Made::Call | Made::Read);
        if plan.sequential && undos == wanted.len() && plan.steps.iter().all(alone) {
            assert_eq!(calls, renamed, "seed {seed}: in this order");
        }
        assert_eq!(sorted(calls), sorted(renamed), "seed {seed}");
    }
    assert!(
        undone > 200 && went_on > 200 && half > 20,
        "{undone} undos, {went_on} calls and {half} runs that had begun to be undone tell little"
    );
}

/// The key of the effect that a call is about.
fn key_of(call: &str) -> &str {
    let (_, keys) = call.split_once(") ").unwrap();
    let key = keys.split_once(" of ").map_or(keys, |(_, key)| key);
    key.split_once(": ").map_or(key, |(key, _)| key)
}
