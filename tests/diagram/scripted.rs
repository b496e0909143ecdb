//! Sagas whose steps follow a script, and the runs of them that pictures are made of.
// A test file of its own needs not all of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, SkippedEffect, Verb};
use amends::policy::Jitter;
use amends::store::MemoryStore;
use amends::testkit::VirtualClock;
use amends::{
    Action, Coordinator, CoordinatorBuilder, Effect, FailureMode, Graph, Node, PartialResult,
    Payload, RecoveryPolicy, RecoveryStrategy, Resolution, Retry, RunId, Saga, Siblings, Step,
    StepContext, StepError, StepSpec, Value, irreversible, read_only, step,
};
use tokio::time::sleep;

pub const MS: fn(u64) -> Duration = Duration::from_millis;
pub const MINUTES: fn(u64) -> Duration = |minutes| Duration::from_secs(minutes * 60);

/// What one call does, and after how many milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Done(u64),
    Busy(u64),
    Doubt(u64),
    Refused(u64),
    Stop(u64),
    Hang,
}

/// The acts of each step's calls; what isn't said is done after 12 ms, or undone after 8.
#[derive(Clone, Debug, Default)]
pub struct Script {
    execute: HashMap<&'static str, Vec<Act>>,
    undo: HashMap<&'static str, Vec<Act>>,
}

impl Script {
    pub fn on(mut self, step: &'static str, acts: impl Into<Vec<Act>>) -> Self {
        self.execute.insert(step, acts.into());
        self
    }

    pub fn undo(mut self, step: &'static str, acts: impl Into<Vec<Act>>) -> Self {
        self.undo.insert(step, acts.into());
        self
    }
}

#[derive(Debug)]
pub struct Scripted<I> {
    script: Arc<Script>,
    input: PhantomData<fn() -> I>,
}

async fn play(act: Act) -> Result<u64, StepError> {
    let busy = |error: StepError| error.with_mode(FailureMode::SystemNetwork);
    match act {
        Act::Done(ms) => {
            sleep(MS(ms)).await;
            Ok(SECRET)
        }
        Act::Busy(ms) => {
            sleep(MS(ms)).await;
            Err(busy(StepError::not_done(MESSAGE)))
        }
        Act::Doubt(ms) => {
            sleep(MS(ms)).await;
            Err(busy(StepError::in_doubt(MESSAGE)))
        }
        Act::Refused(ms) => {
            sleep(MS(ms)).await;
            Err(StepError::rejected(MESSAGE))
        }
        Act::Stop(ms) => {
            sleep(MS(ms)).await;
            Err(StepError::stop("nothing to do today"))
        }
        Act::Hang => std::future::pending().await,
    }
}

/// What failures say, which no picture may show but in a reason for parking.
pub const MESSAGE: &str = "the other side said no";

/// Inputs and outputs, which no picture may show.
pub const SECRET: u64 = 4_815_162_342;

fn act(script: &HashMap<&'static str, Vec<Act>>, cx: &StepContext, otherwise: u64) -> Act {
    let acts = script.get(cx.step());
    let act = acts.and_then(|acts| acts.get(cx.attempt() as usize - 1));
    act.copied().unwrap_or(Act::Done(otherwise))
}

impl<I: Payload> Step for Scripted<I> {
    type Input = I;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, _: &I) -> Result<u64, StepError> {
        play(act(&self.script.execute, cx, 12)).await
    }

    async fn compensate(&self, cx: &StepContext, _: &I, _: Effect<&u64>) -> Result<(), StepError> {
        play(act(&self.script.undo, cx, 8)).await.map(drop)
    }
}

impl<I: Payload> Action for Scripted<I> {
    type Input = I;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, _: &I) -> Result<u64, StepError> {
        play(act(&self.script.execute, cx, 12)).await
    }
}

/// Makes steps that follow one script.
#[derive(Clone, Debug)]
pub struct Cast(Arc<Script>);

/// No jitter: it comes from the run's uid, which is random.
pub fn backoff() -> Retry {
    Retry::exponential().initial(MS(40)).jitter(Jitter::None)
}

impl Cast {
    pub fn new(script: Script) -> Self {
        Cast(Arc::new(script))
    }

    fn play<I>(&self) -> Scripted<I> {
        Scripted {
            script: Arc::clone(&self.0),
            input: PhantomData,
        }
    }

    pub fn step<I: Payload>(&self, name: &str) -> StepSpec<I, u64> {
        step(name, self.play())
            .retry(backoff())
            .compensation_retry(backoff())
    }

    pub fn look<I: Payload>(&self, name: &str) -> StepSpec<I, u64> {
        read_only(name, self.play()).retry(backoff())
    }

    pub fn last<I: Payload>(&self, name: &str) -> StepSpec<I, u64> {
        irreversible(name, self.play()).retry(backoff())
    }
}

/// A policy without jitter.
fn policy() -> RecoveryPolicy {
    RecoveryPolicy::saga().backoff(Retry::constant().initial(MS(200)))
}

/// Three steps in a row, the last one the pivot.
pub fn order(cast: &Cast) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("place-order").policy(policy());
    let order = saga.input();
    let stock = saga.add(cast.step("reserve-stock"), order);
    let paid = saga.add(cast.step::<(u64, u64)>("charge-card"), (order, stock));
    let ship = saga.add(cast.last::<u64>("ship").pivot().after(paid), stock);
    saga.returns(ship).unwrap()
}

/// A diamond with a look at the side and something after the pivot.
pub fn trip(cast: &Cast) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("trip").version(3).policy(policy());
    let trip = saga.input();
    let quote = saga.add(cast.look::<u64>("quote"), trip);
    let flight = saga.add(cast.step::<u64>("book-flight").checkpoint(), quote);
    let hotel = saga.add(cast.step::<u64>("book-hotel"), quote);
    let pay = saga.add(
        cast.step::<(u64, u64)>("pay").pivot().checkpoint(),
        (flight, hotel),
    );
    saga.add(cast.look::<u64>("watch-prices").after(flight), trip);
    saga.add(cast.last::<u64>("send-tickets"), pay);
    saga.returns(pay).unwrap()
}

/// Eight layers of five steps, tied to two of the layer above and now and then to one further up.
pub fn nightly(cast: &Cast) -> Saga<u64, ()> {
    let mut saga = Saga::builder::<u64>("nightly").policy(policy());
    let input = saga.input();
    let mut layers: Vec<Vec<Node<u64>>> = Vec::new();
    for layer in 0..8_usize {
        let mut row = Vec::new();
        for place in 0..5 {
            let letter = char::from(b'a' + u8::try_from(layer).unwrap());
            let name = format!("job-{letter}{}", place + 1);
            let node = match layers.last() {
                None => saga.add(cast.step::<u64>(&name), input),
                Some(above) => {
                    let (one, two) = (above[place], above[(place + 1) % 5]);
                    let mut step = cast.step::<(u64, u64)>(&name);
                    if layer == 4 && place == 2 {
                        step = step.checkpoint();
                    }
                    if layer >= 3 && place == layer % 5 {
                        step = step.after(layers[layer - 3][4 - place]);
                    }
                    saga.add(step, (one, two))
                }
            };
            row.push(node);
        }
        layers.push(row);
    }
    saga.returns(()).unwrap()
}

/// A picture's material.
#[derive(Debug)]
pub struct Drawn {
    pub name: &'static str,
    pub graph: Graph,
    pub run: PartialResult,
}

/// A life of its own, which begins at the same instant each time.
pub fn life<T>(body: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(body())
}

fn on(store: &Arc<MemoryStore>, clock: VirtualClock) -> CoordinatorBuilder {
    Coordinator::builder_shared(store.clone()).clock(clock)
}

/// Runs to its end, or until it is parked; `meanwhile` may interfere.
pub fn run<O: Payload>(
    name: &'static str,
    saga: &Saga<u64, O>,
    meanwhile: impl AsyncFnOnce(&Coordinator, &RunId),
) -> Drawn {
    let run = life(async || {
        let store = Arc::new(MemoryStore::new());
        let built = on(&store, VirtualClock::new()).register(saga).build().await;
        let coordinator = built.unwrap();
        let id = RunId::new(format!("{}-1", saga.graph().saga()));
        coordinator.start(saga, id.clone(), SECRET).await.unwrap();
        meanwhile(&coordinator, &id).await;
        // All virtual time passes while nothing else can be done.
        coordinator.get(&id).await.unwrap().unwrap()
    });
    Drawn {
        name,
        graph: saga.graph().clone(),
        run,
    }
}

async fn rests(_: &Coordinator, _: &RunId) {
    sleep(MINUTES(60)).await;
}

pub fn order_completed() -> Drawn {
    let cast = Cast::new(Script::default().on("charge-card", [Act::Busy(9), Act::Done(15)]));
    run("order-completed", &order(&cast), rests)
}

pub fn order_compensated() -> Drawn {
    let script = Script::default()
        .on(
            "charge-card",
            [Act::Busy(9), Act::Busy(14), Act::Refused(6)],
        )
        .undo("reserve-stock", [Act::Busy(5), Act::Done(9)]);
    run("order-compensated", &order(&Cast::new(script)), rests)
}

pub fn order_stopped() -> Drawn {
    let script = Script::default().on("charge-card", [Act::Stop(9)]);
    run("order-stopped", &order(&Cast::new(script)), rests)
}

/// A day passes between two short attempts, and somebody says what became of a doubt.
pub fn order_parked_for_a_day() -> Drawn {
    let script = Script::default()
        .on("ship", [Act::Doubt(12), Act::Doubt(12), Act::Doubt(12)])
        .on("charge-card", [Act::Busy(10), Act::Done(25)]);
    let mut saga =
        Saga::builder::<u64>("place-order").policy(RecoveryPolicy::by_progress().max_recoveries(0));
    let cast = Cast::new(script);
    let order = saga.input();
    let stock = saga.add(cast.step("reserve-stock"), order);
    let paid = saga.add(cast.step::<(u64, u64)>("charge-card"), (order, stock));
    let ship = cast.last::<u64>("ship").pivot().after(paid);
    let ship = saga.add(ship, stock);
    let saga = saga.returns(ship).unwrap();
    run("order-parked-for-a-day", &saga, async |coordinator, id| {
        sleep(MINUTES(26 * 60)).await;
        let said = coordinator.resolve(
            id,
            "ship",
            Resolution::<u64>::NotDone,
            "ann",
            "the carrier has no parcel",
        );
        said.await.unwrap();
        sleep(MINUTES(2)).await;
        let again = coordinator.retry(
            id,
            RecoveryStrategy::RetryFailed,
            "ann",
            "the carrier is up again",
        );
        again.await.unwrap();
        rests(coordinator, id).await;
    })
}

/// An operator takes a step as done, pauses the run, and lets it go on.
pub fn order_operated() -> Drawn {
    let script = Script::default().on("charge-card", [Act::Refused(9)]);
    let cast = Cast::new(script);
    let mut saga = Saga::builder::<u64>("place-order").policy(RecoveryPolicy::by_progress());
    let order = saga.input();
    let stock = saga.add(cast.step("reserve-stock"), order);
    let paid = saga.add(cast.step::<(u64, u64)>("charge-card"), (order, stock));
    let packed = saga.add(cast.step::<u64>("pack").after(paid), stock);
    let ship = saga.add(cast.last::<u64>("ship").pivot(), packed);
    let saga = saga.returns(ship).unwrap();
    run("order-operated", &saga, async |coordinator, id| {
        let ask = async |verb: Verb, reason: &str| {
            let command = Command::new(id.clone(), verb).by("ann").reason(reason);
            coordinator.command(&command).await.unwrap();
        };
        sleep(MS(60)).await;
        let skipping = Verb::Skip {
            step: "charge-card".to_owned(),
            effect: SkippedEffect::None,
            output: Value::typed(Arc::new(SECRET)),
        };
        ask(skipping, "paid in cash").await;
        sleep(MS(10)).await;
        let retry = Verb::Retry {
            strategy: None,
            edits: Vec::new(),
        };
        ask(retry, "go on").await;
        sleep(MS(5)).await;
        ask(Verb::Pause, "the warehouse moves").await;
        sleep(MS(40)).await;
        ask(Verb::Resume, "it has moved").await;
        rests(coordinator, id).await;
    })
}

pub fn trip_parked() -> Drawn {
    let script = Script::default()
        .on("book-hotel", [Act::Doubt(20), Act::Refused(9)])
        .undo("book-hotel", [Act::Busy(5), Act::Busy(5), Act::Refused(5)]);
    run("trip-parked", &trip(&Cast::new(script)), rests)
}

pub fn trip_past_the_pivot() -> Drawn {
    let busy = [Act::Busy(10); 5];
    let script = Script::default().on("send-tickets", busy);
    run("trip-past-the-pivot", &trip(&Cast::new(script)), rests)
}

pub fn trip_cancelled() -> Drawn {
    let script = Script::default()
        .on("book-flight", [Act::Done(70)])
        .on("book-hotel", [Act::Busy(20), Act::Done(9)]);
    run(
        "trip-cancelled",
        &trip(&Cast::new(script)),
        async |coordinator, id| {
            sleep(MS(50)).await;
            coordinator
                .cancel(id, "bob", "the customer has changed her mind")
                .await
                .unwrap();
            rests(coordinator, id).await;
        },
    )
}

/// The process is gone in the middle of a call, and another one goes on.
pub fn trip_taken_over() -> Drawn {
    let script = Script::default().on("book-flight", [Act::Hang, Act::Done(20)]);
    let saga = trip(&Cast::new(script));
    let run = life(async || {
        let store = Arc::new(MemoryStore::new());
        let clock = VirtualClock::new();
        let gone = on(&store, clock).register(&saga).build().await.unwrap();
        gone.start(&saga, "trip-1", SECRET).await.unwrap();
        sleep(MS(90)).await;
        drop(gone);
        let other = on(&store, clock).register(&saga).build().await.unwrap();
        other.all_resumed().await;
        sleep(MINUTES(1)).await;
        other.get(&"trip-1".into()).await.unwrap().unwrap()
    });
    Drawn {
        name: "trip-taken-over",
        graph: saga.graph().clone(),
        run,
    }
}

/// A sibling of a step that failed for good is told to stop, doesn't, and is dropped.
pub fn siblings_interrupted() -> Drawn {
    let script = Script::default()
        .on("slow", [Act::Hang])
        .on("refused", [Act::Refused(30)]);
    let cast = Cast::new(script);
    let grace = Siblings::Stop { grace: MS(25) };
    let mut saga = Saga::builder::<u64>("siblings")
        .policy(policy())
        .siblings(grace);
    let input = saga.input();
    let quick = saga.add(cast.step::<u64>("quick"), input);
    saga.add(cast.step::<u64>("slow"), quick);
    saga.add(cast.step::<u64>("refused"), quick);
    let saga = saga.returns::<()>(()).unwrap();
    run("siblings-interrupted", &saga, rests)
}

pub fn nightly_under_way() -> Drawn {
    let script = Script::default()
        .on("job-c2", [Act::Busy(30), Act::Done(12)])
        .on("job-e4", [Act::Hang])
        .on("job-f2", [Act::Busy(8), Act::Busy(8), Act::Done(9)]);
    run(
        "nightly-under-way",
        &nightly(&Cast::new(script)),
        async |_, _| sleep(MS(140)).await,
    )
}

pub fn nightly_compensated() -> Drawn {
    let script = Script::default()
        .on("job-c2", [Act::Busy(30), Act::Done(12)])
        .on("job-d4", [Act::Done(45)])
        .on("job-g3", [Act::Doubt(8), Act::Refused(8)])
        .undo("job-b2", [Act::Busy(5), Act::Busy(5), Act::Done(8)]);
    run("nightly-compensated", &nightly(&Cast::new(script)), rests)
}

/// All the runs that pictures are kept of.
pub fn all() -> Vec<Drawn> {
    vec![
        order_completed(),
        order_compensated(),
        order_stopped(),
        order_parked_for_a_day(),
        order_operated(),
        trip_parked(),
        trip_past_the_pivot(),
        trip_cancelled(),
        trip_taken_over(),
        siblings_interrupted(),
        nightly_under_way(),
        nightly_compensated(),
    ]
}
