//! Ten thousand random sagas, each compared with a naive reference, event by event.
//!
//! `AMENDS_SEED=17 cargo test --test random_model -- --nocapture` runs the one with that seed and prints
//! its plan and journal. `AMENDS_SAGAS=1000000` tries as many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the runner is part of the test, outside of its function"
)]

#[path = "random_model/model.rs"]
mod model;
#[path = "random_model/plan.rs"]
mod plan;
#[path = "random_model/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::journal::{Journal, ParkReason, Timestamp};
use amends::saga::StepKind;
use amends::store::{MemoryStore, Store};
use amends::{
    Clock, Coordinator, Node, Outcome, Probe, Probed, RecoveryStrategy, Resolution, Saga, Siblings,
    StartOptions, StepContext, StepError, irreversible, read_only, step, step_fn,
};
use tokio::time::Instant;

use crate::model::Model;
use crate::plan::{Plan, TIMEOUT};
use crate::world::{Body, INPUT, MAPPED, World};

/// How many sagas the suite runs.
const SAGAS: u64 = 10_000;
/// A run that has not come to rest after so much virtual time never does.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Wall time that follows tokio's paused clock.
#[derive(Debug)]
struct VirtualTime(Instant);

impl Clock for VirtualTime {
    fn now(&self) -> Timestamp {
        let passed = self.0.elapsed().as_micros();
        Timestamp::from_micros(1_000_000 + i64::try_from(passed).unwrap())
    }
}

fn saga(world: &Arc<World>) -> Saga<u64, u64> {
    let plan = &world.plan;
    let mut builder = Saga::builder::<u64>("random")
        .siblings(plan.siblings)
        .undo_order(plan.undo_order)
        .on_stop(plan.on_stop)
        .policy(plan.recovery_policy());
    let mut nodes: Vec<Node<u64>> = Vec::new();
    for (index, wanted) in plan.steps.iter().enumerate() {
        let body = Arc::new(Body {
            world: Arc::clone(world),
            step: index,
        });
        let name = format!("s{index}");
        let mut spec = match wanted.kind {
            StepKind::Compensatable => step(name, Arc::clone(&body))
                .undo_failing(wanted.undo_rule)
                .compensation_retry(wanted.undo_retry())
                .compensation_timeout(Duration::from_millis(TIMEOUT)),
            StepKind::ReadOnly => read_only(name, Arc::clone(&body)),
            StepKind::Irreversible => irreversible(name, Arc::clone(&body)),
        };
        spec = spec
            .retry(wanted.retry())
            .timeout(Duration::from_millis(TIMEOUT));
        if plan.pivot == Some(index) {
            spec = spec.pivot();
        }
        if wanted.checkpoint {
            spec = spec.checkpoint();
        }
        if wanted.at_most_once {
            spec = spec.at_most_once();
        }
        if wanted.atomic {
            spec = spec.atomic();
        }
        if wanted.probed {
            spec = spec.probe(ProbeOf(body));
        }
        for &before in &wanted.after {
            spec = spec.after(nodes[before]);
        }
        let source = wanted.data.map_or(builder.input(), |source| nodes[source]);
        let node = if wanted.mapped {
            builder.add(spec, source.map(|value| value + MAPPED))
        } else {
            builder.add(spec, source)
        };
        nodes.push(node);
    }
    let returned = plan.returned.map_or(builder.input(), |step| nodes[step]);
    builder.returns(returned).expect("the generator obeys P1")
}

/// `Probe` is not implemented for `Arc`s.
struct ProbeOf(Arc<Body>);

impl Probe for ProbeOf {
    type Input = u64;
    type Output = u64;

    async fn probe(&self, cx: &StepContext, input: &u64) -> Result<Probed<u64>, StepError> {
        self.0.probe(cx, input).await
    }
}

/// What a run came to.
struct Came {
    word: &'static str,
    events: usize,
    steps: usize,
}

fn run(seed: u64, shown: bool) -> Result<Came, String> {
    let world = Arc::new(World::new(Plan::random(seed)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let (outcome, journal) = runtime.block_on(drive(&world))?;
    drop(runtime);
    let plan = &world.plan;
    if shown {
        println!("{plan:#?}");
        for record in &journal.records {
            for event in &record.events {
                println!("{:>3} {:>9} {event:?}", record.seq, record.at.as_micros());
            }
        }
        println!("{:#?}", outcome.partial());
    }
    let mut model = Model::new(plan);
    for record in &journal.records {
        model.record(record)?;
    }
    model.agrees(outcome.word(), &outcome.partial())?;
    let facts = world.facts();
    if let Some(wrong) = facts.violations.first() {
        return Err(wrong.clone());
    }
    let standing: BTreeSet<usize> = facts.standing.keys().copied().collect();
    model.true_of(&standing)?;
    if let (Outcome::Completed(completed), Some(returned)) = (&outcome, plan.returned)
        && facts.outputs.get(&returned) != Some(&completed.output)
    {
        return Err(format!("the run gave {}", completed.output));
    }
    Ok(Came {
        word: model.word(),
        events: model.events,
        steps: plan.steps.len(),
    })
}

async fn drive(world: &Arc<World>) -> Result<(Outcome<u64>, Journal), String> {
    let plan = &world.plan;
    let saga = saga(world);
    let store = Arc::new(MemoryStore::new());
    let coordinator = Coordinator::builder_shared(Arc::clone(&store) as Arc<dyn Store>)
        .register(&saga)
        .clock(VirtualTime(Instant::now()))
        .keep_resident(Duration::from_millis(plan.resident))
        .build()
        .await
        .map_err(|error| error.to_string())?;
    let mut options = StartOptions::new();
    if let Some(deadline) = plan.deadline {
        options = options.deadline(Duration::from_millis(deadline));
    }
    let handle = coordinator
        .start_with(&saga, "run", INPUT, options)
        .await
        .map_err(|error| error.to_string())?;
    let at_rest = tokio::time::timeout(FOREVER, handle.outcome());
    tokio::pin!(at_rest);
    let ended = match plan.cancel_at {
        None => at_rest.await,
        Some(after) => {
            let cancelled = tokio::select! {
                biased;
                ended = &mut at_rest => Err(ended),
                () = tokio::time::sleep(Duration::from_millis(after)) => {
                    Ok(coordinator.cancel(handle.id(), "the test", "by chance").await)
                }
            };
            match cancelled {
                Err(ended) => ended,
                Ok(_) => at_rest.await,
            }
        }
    };
    let journal = store
        .load(handle.id())
        .await
        .map_err(|error| error.to_string())?
        .ok_or("the journal is gone")?;
    let Ok(outcome) = ended else {
        let last: Vec<String> = journal
            .records
            .iter()
            .rev()
            .take(3)
            .map(|record| format!("{:?}", record.events))
            .collect();
        return Err(format!("the run never rests; its last records: {last:#?}"));
    };
    Ok((outcome.map_err(|error| error.to_string())?, journal))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn ten_thousand_random_sagas_agree_with_the_model() {
    if let Some(seed) = number("AMENDS_SEED") {
        let came = run(seed, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("model: seed {seed} agrees ({})", came.word);
        return;
    }
    let sagas = number("AMENDS_SAGAS").unwrap_or(SAGAS);
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut came: Vec<(u64, Result<Came, String>)> = std::thread::scope(|scope| {
        let worker = || {
            let mut came = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= sagas {
                    return came;
                }
                came.push((seed, run(seed, false)));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect()
    });
    came.sort_by_key(|(seed, _)| *seed);
    let (mut agreed, mut events, mut largest) = (0, 0, 0);
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (seed, came) in came {
        match came {
            Ok(came) => {
                agreed += 1;
                events += came.events;
                largest = largest.max(came.steps);
                *ends.entry(came.word).or_default() += 1;
            }
            Err(why) => wrong.push(format!("AMENDS_SEED={seed}: {why}")),
        }
    }
    let shown = wrong.len().min(12);
    assert!(
        wrong.is_empty(),
        "{} of {sagas} random sagas disagree with the model:\n{}",
        wrong.len(),
        wrong[..shown].join("\n")
    );
    assert_eq!(agreed, sagas);
    let ends: Vec<String> = ends
        .iter()
        .map(|(word, count)| format!("{word} {count}"))
        .collect();
    // Past the harness's capture, so that it shows in every run.
    let ends_told = ends.join(", ");
    let told = format!("model: {agreed} random sagas agree ({events} events, ends: {ends_told})");
    let mut shown = std::io::stderr();
    writeln!(shown, "{told}").unwrap();
    if sagas >= SAGAS {
        assert_eq!(largest, 40, "no graph had 40 steps");
        assert_eq!(ends.len(), 4, "some end was never reached");
    }
}

/// What going forward again meets first may park the run; the steps behind it must not be forgotten.
#[tokio::test(start_paused = true)]
async fn a_run_parked_at_one_interrupted_step_takes_up_the_others_with_it() {
    let mut builder = Saga::builder::<u64>("interrupted").siblings(Siblings::Stop {
        grace: Duration::from_millis(1),
    });
    let slow = |name: &str| {
        step_fn(
            name.to_owned(),
            async |cx: &StepContext, n: &u64| {
                if cx.attempt() == 1 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(*n)
            },
            async |_cx, _n, _effect| Ok(()),
        )
    };
    let input = builder.input();
    let once = builder.add(slow("once").at_most_once(), input);
    let other = builder.add(slow("other"), input);
    let lost = step_fn(
        "lost",
        async |_cx: &StepContext, _n: &u64| Err::<u64, _>(StepError::in_doubt("lost")),
        async |_cx, _n, _effect| Ok(()),
    );
    builder.add(lost.probe(ItHappened), input);
    let saga = builder.returns((once, other)).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .clock(VirtualTime(Instant::now()))
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "run", 7).await.unwrap();
    let Outcome::Parked(partial) = run.outcome().await.unwrap() else {
        panic!("a step in doubt that runs at most once was called again")
    };
    assert_eq!(
        partial.parked.unwrap().reason,
        ParkReason::AtMostOnceInDoubt
    );
    let answer = Resolution::<u64>::NotDone;
    coordinator
        .resolve(run.id(), "once", answer, "the test", "it knows")
        .await
        .unwrap();
    coordinator
        .retry(run.id(), RecoveryStrategy::RetryFailed, "the test", "go on")
        .await
        .unwrap();
    let ended = tokio::time::timeout(FOREVER, run.ended()).await;
    let ended = ended.expect("the other step was forgotten").unwrap();
    assert_eq!(ended.completed(), Some((7, 7)));
}

/// Whatever was lost, it happened.
struct ItHappened;

impl Probe for ItHappened {
    type Input = u64;
    type Output = u64;

    async fn probe(&self, _cx: &StepContext, _input: &u64) -> Result<Probed<u64>, StepError> {
        Ok(Probed::Done(1))
    }
}
