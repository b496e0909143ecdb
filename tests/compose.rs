//! Steps made of steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};

use amends::store::MemoryStore;
use amends::{
    Coordinator, Effect, Outcome, PartialResult, Saga, StepContext, StepError, StepSpec,
    StepStatus, first_of, step, step_with,
};

type Log = Arc<Mutex<Vec<String>>>;

fn noted(name: &str, log: &Log) -> StepSpec<u64, u64> {
    step_with(
        name,
        Arc::clone(log),
        async |log: &Log, cx: &StepContext, n: &u64| {
            log.lock().unwrap().push(format!("do {} {n}", cx.step()));
            if *n >= 100 {
                return Err(StepError::rejected("too much"));
            }
            Ok(n + 1)
        },
        async |log: &Log, cx: &StepContext, _: &u64, _: Effect<&u64>| {
            log.lock().unwrap().push(format!("undo {}", cx.step()));
            Ok(())
        },
    )
}

async fn run<O: amends::Payload>(saga: &Saga<u64, O>, input: u64) -> Outcome<O> {
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(saga)
        .build()
        .await
        .unwrap();
    coordinator
        .start(saga, "r", input)
        .await
        .unwrap()
        .outcome()
        .await
        .unwrap()
}

fn statuses(partial: &PartialResult) -> Vec<String> {
    partial
        .steps
        .iter()
        .map(|step| format!("{} {:?}", step.name, step.status))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_child_runs_inside_its_step() {
    let log = Log::default();
    let mut child = Saga::builder::<u64>("child");
    let n = child.input();
    let a = child.add(noted("a", &log), n);
    let b = child.add(noted("b", &log), a);
    let child = child.returns(b).unwrap();
    let mut parent = Saga::builder::<u64>("parent");
    let n = parent.input();
    let first = parent.add(noted("first", &log), n);
    let inner = parent.add(step("inner", &child), first);
    let last = parent.add(noted("last", &log), inner.map(|n| n + 1));
    let parent = parent.returns(last).unwrap();
    let outcome = run(&parent, 1).await;
    println!("{:?}", statuses(&outcome.partial()));
    assert_eq!(outcome.completed(), Some(6));
    println!("{:?}", log.lock().unwrap());
    log.lock().unwrap().clear();
    // `last` fails, `inner` is undone.
    let outcome = run(&parent, 96).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    assert_eq!(outcome.word(), "compensated");
    println!("{:?}", log.lock().unwrap());
    log.lock().unwrap().clear();
    // `inner/b` fails: the child undoes itself, then the parent.
    let outcome = run(&parent, 98).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    println!("{:?}", log.lock().unwrap());
    assert_eq!(outcome.word(), "compensated");
}

#[tokio::test(start_paused = true)]
async fn items_run_and_are_undone() {
    let log = Log::default();
    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let all = saga.add(
        noted("item", &log).for_each().parallel(2),
        n.map(|n| vec![*n, n + 1, n + 2]),
    );
    let last = saga.add(noted("last", &log), all.map(|all| all.iter().sum::<u64>()));
    let saga = saga.returns((all, last)).unwrap();
    let outcome = run(&saga, 1).await;
    println!("{:?}", statuses(&outcome.partial()));
    assert_eq!(outcome.completed(), Some((vec![2, 3, 4], 10)));
    let outcome = run(&saga, 90).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    println!("{:?}", log.lock().unwrap());
    log.lock().unwrap().clear();
    assert_eq!(outcome.word(), "compensated");
    let outcome = run(&saga, 98).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    println!("{:?}", log.lock().unwrap());
    assert_eq!(outcome.word(), "compensated");
    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let all = saga.add(
        noted("item", &log).for_each().tolerate(1),
        n.map(|n| vec![*n, n + 1, n + 2]),
    );
    let saga = saga.returns(all).unwrap();
    let outcome = run(&saga, 98).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    assert_eq!(outcome.word(), "completed");
    let outcome = run(&saga, 99).await;
    println!(
        "{:?} {:?} {:?}",
        outcome.word(),
        statuses(&outcome.partial()),
        outcome.partial().failure_mode
    );
}

#[tokio::test(start_paused = true)]
async fn choices() {
    let log = Log::default();
    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let way = saga.add(
        noted("way", &log)
            .fallback(noted("other", &log))
            .fallback_value(7),
        n.map(|n| *n),
    );
    let maybe = saga.add(noted("maybe", &log).only_if(way.map(|n| *n == 2)), way);
    let race = saga.add(first_of("race", [noted("x", &log), noted("y", &log)]), way);
    let saga = saga.returns((way, maybe, race)).unwrap();
    let outcome = run(&saga, 1).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    assert_eq!(
        outcome.partial().step("maybe").unwrap().status,
        StepStatus::Done
    );
    assert_eq!(outcome.completed(), Some((2, Some(3), 3)));
    let outcome = run(&saga, 100).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    assert_eq!(
        outcome.partial().step("maybe").unwrap().status,
        StepStatus::PassedOver
    );
    assert_eq!(outcome.completed(), Some((7, None, 8)));
    println!("{:?}", log.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_child_is_undone_by_a_saga() {
    let log = Log::default();
    let mut child = Saga::builder::<u64>("child");
    let n = child.input();
    let a = child.add(noted("a", &log), n);
    let child = child.returns(a).unwrap();
    let mut undo = Saga::builder::<(u64, u64)>("undo");
    let n = undo.input();
    let tries = Arc::new(Mutex::new(0_u32));
    let u = undo.add(noted("u", &log), n.map(|(n, o)| n + o));
    undo.add(
        step_with(
            "v",
            tries,
            async |tries: &Arc<Mutex<u32>>, _: &StepContext, n: &u64| {
                *tries.lock().unwrap() += 1;
                if *tries.lock().unwrap() < 3 {
                    return Err(StepError::rejected("not yet"));
                }
                Ok(*n)
            },
            async |_, _, _, _| Ok(()),
        ),
        u,
    );
    let undo: Saga<(u64, u64), ()> = undo.returns(()).unwrap();
    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let inner = saga.add(step("inner", &child).compensate_with(&undo), n);
    let last = saga.add(noted("last", &log), inner.map(|n| n + 98));
    let saga = saga.returns(last).unwrap();
    let outcome = run(&saga, 1).await;
    println!("{:?} {:?}", outcome.word(), statuses(&outcome.partial()));
    println!("{:?}", log.lock().unwrap());
    assert_eq!(outcome.word(), "compensated");
    assert!(
        outcome.partial().outstanding.is_empty(),
        "{:?}",
        outcome.partial().outstanding
    );
}
