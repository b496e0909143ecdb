//! Rule I5 of the rules of a run: signals.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::unchecked_time_subtraction,
    clippy::duration_suboptimal_units,
    clippy::similar_names,
    reason = "it reads as it is meant"
)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Event, Standing, Verb};
use amends::machine::Refused;
use amends::store::{MemoryStore, Store, SubmitError};
use amends::{
    CommandError, Coordinator, FailureMode, Part, RecoveryPolicy, RecoveryStrategy, RunHandle,
    RunId, Saga, SignalTold, StepStatus, Timestamp, UndoRule, Value, delay, first_of, step,
    wait_for,
};
use undo::{Act, TestStore, World, life};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The run's journal in words, one list per record.
async fn records(store: &TestStore) -> Vec<Vec<String>> {
    let mut records = undo::records(store, "r").await;
    for event in records.iter_mut().flatten() {
        // The reason that was given says nothing here.
        for kind in ["signalled", "paused", "resumed"] {
            if event.starts_with(kind) {
                event.truncate(kind.len());
            }
        }
    }
    records
}

async fn events(store: &TestStore) -> Vec<String> {
    records(store).await.concat()
}

/// A store in the world's time.
fn store_in(world: &Arc<World>) -> Arc<TestStore> {
    let now = Arc::clone(world);
    TestStore::over(Arc::new(MemoryStore::new().clock(move || now.now())))
}

async fn coordinator<I: 'static, O: 'static>(
    world: &Arc<World>,
    store: &Arc<TestStore>,
    saga: &Saga<I, O>,
) -> Coordinator {
    let builder = world.coordinator(store).register(saga);
    builder.build().await.unwrap()
}

/// `paid` is waited for, for so long; `pack` follows.
fn order(
    world: &Arc<World>,
    limit: Option<Duration>,
    strategy: RecoveryStrategy,
    checkpoint: bool,
) -> Saga<u64, u64> {
    let mut b = Saga::builder::<u64>("order").policy(RecoveryPolicy::new("as told", strategy));
    let mut wait = wait_for::<u64>("paid");
    if let Some(limit) = limit {
        wait = wait.within(limit);
    }
    if checkpoint {
        wait = wait.checkpoint();
    }
    let paid = b.add(wait, ());
    b.add(world.step("pack").after(paid), ());
    b.returns(paid).unwrap()
}

fn signal(name: &str, payload: u64, token: &str) -> Command {
    let verb = Verb::Signal {
        name: name.to_owned(),
        payload: Value::typed(Arc::new(payload)),
    };
    Command::new("r", verb)
        .by("shop")
        .reason("paid")
        .token(token)
}

/// What became of a command that was handed in.
async fn answer(store: &TestStore, token: &str) -> CommandAnswer {
    loop {
        let found = store.find_command(token).await.unwrap().unwrap();
        if let Some(answer) = found.answer {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn standing_of(coordinator: &Coordinator) -> Standing {
    let partial = coordinator.get(&RunId::new("r")).await.unwrap().unwrap();
    partial.standing
}

async fn status(coordinator: &Coordinator, step: &str) -> StepStatus {
    let partial = coordinator.get(&RunId::new("r")).await.unwrap().unwrap();
    partial.step(step).unwrap().status
}

fn refusal(error: CommandError) -> Refused {
    match error {
        CommandError::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

/// The signals of the run's journal: whether they were late, and when they were accepted.
async fn signals(store: &TestStore) -> Vec<(String, bool, Timestamp)> {
    let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
    let records = journal.records.into_iter();
    let events = records.flat_map(|record| record.events);
    events
        .filter_map(|event| match event {
            Event::Signalled(signal) => Some((signal.name.to_string(), signal.late, signal.at)),
            _ => None,
        })
        .collect()
}

#[test]
fn i5_a_signal_may_come_before_its_wait_and_outlives_the_process() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order");
    let cool = b.add(delay("cool-down", HOUR), ());
    let paid = b.add(wait_for::<u64>("paid").after(cool), ());
    let saga = b.returns(paid).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        let told = coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        assert_eq!(told, SignalTold::Accepted);
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Pending);
    });
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        assert_eq!(
            events(&store).await,
            [
                "run_started",
                "wait_began cool-down",
                "signalled",
                "claimed",
                "wait_over cool-down",
                "wait_began paid",
                "wait_over paid",
                "ended completed"
            ]
        );
        assert_eq!(world.millis(), 3_600_000);
    });
}

#[test]
fn i5_a_signal_completes_the_wait_that_is_there() {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, None, RecoveryStrategy::Manual, false);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(HOUR).await;
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Waiting);
        let told = coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        assert_eq!(told, SignalTold::Accepted);
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        assert_eq!(
            records(&store).await,
            [
                vec!["run_started", "wait_began paid"],
                // Taken in the same write in which it was accepted, with what comes next.
                vec!["signalled", "wait_over paid", "step_started pack"],
                vec!["step_done pack", "ended completed"],
            ]
        );
    });
}

#[test]
fn i5_signals_of_one_name_queue_and_each_round_takes_one() {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, None, RecoveryStrategy::RetryAll, false);
    world.on("do pack", [Act::Rejected, Act::Rejected]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        for payload in [5_u64, 6, 7] {
            let told = coordinator.signal(run.id(), "paid", payload).await.unwrap();
            assert_eq!(told, SignalTold::Accepted);
        }
        // One for each round, in their order.
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.partial().step("paid").unwrap().round, 3);
        assert_eq!(outcome.completed(), Some(7));
    });
}

#[test]
fn i5_a_new_round_needs_a_new_signal() {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, None, RecoveryStrategy::RetryAll, false);
    world.on("do pack", [Act::Rejected]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Waiting);
        assert_eq!(world.count("do pack"), 1);
        coordinator.signal(run.id(), "paid", 6_u64).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(6));
        assert_eq!(world.count("do pack"), 2);
    });
}

#[test]
fn i5_a_wait_that_is_kept_keeps_its_signal() {
    for (strategy, checkpoint) in [
        (RecoveryStrategy::RetryFromCheckpoint, true),
        (RecoveryStrategy::RetryFailed, false),
    ] {
        let world = World::new();
        let store = store_in(&world);
        let saga = order(&world, None, strategy, checkpoint);
        world.on("do pack", [Act::Rejected]);
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            for payload in [5_u64, 6] {
                coordinator.signal(run.id(), "paid", payload).await.unwrap();
            }
            let outcome = run.outcome().await.unwrap();
            assert_eq!(outcome.partial().step("paid").unwrap().round, 1);
            assert_eq!(outcome.completed(), Some(5), "{strategy}");
            let events = events(&store).await;
            let waits = events.iter().filter(|event| **event == "wait_began paid");
            assert_eq!(waits.count(), 1, "{strategy}");
            assert_eq!(world.count("do pack"), 2, "{strategy}");
        });
    }
}

#[test]
fn i5_the_same_token_and_payload_is_nothing_and_another_payload_is_an_error() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order");
    let cool = b.add(delay("cool-down", HOUR), ());
    let paid = b.add(wait_for::<u64>("paid").after(cool), ());
    let other = b.add(wait_for::<u64>("other").after(paid), ());
    let saga = b.returns((paid, other)).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        coordinator.start(&saga, "r", 1).await.unwrap();
        coordinator.command(&signal("paid", 5, "t")).await.unwrap();
        let written = records(&store).await;
        coordinator.command(&signal("paid", 5, "t")).await.unwrap();
        for same_token in [signal("paid", 6, "t"), signal("other", 5, "t")] {
            let refused = coordinator.command(&same_token).await.unwrap_err();
            assert_eq!(refusal(refused), Refused::TokenTaken("t".to_owned()));
        }
        assert_eq!(records(&store).await, written, "nothing happened");

        // The same through the store.
        store.submit(&signal("paid", 7, "u")).await.unwrap();
        assert_eq!(
            answer(&store, "u").await,
            CommandAnswer::Accepted { told: None }
        );
        store.submit(&signal("paid", 7, "u")).await.unwrap();
        for same_token in [signal("paid", 8, "u"), signal("other", 7, "u")] {
            match store.submit(&same_token).await {
                Err(SubmitError::TokenTaken { token }) => assert_eq!(token, "u"),
                other => panic!("{other:?}"),
            }
        }
        // And from one way to the other.
        coordinator.command(&signal("paid", 7, "u")).await.unwrap();
        let names: Vec<String> = signals(&store)
            .await
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        assert_eq!(names, ["paid", "paid"]);
        // A token of another command is no signal's, and the other way round.
        let pause = Command::new("r", Verb::Pause).token("t");
        let refused = coordinator.command(&pause).await.unwrap_err();
        assert_eq!(refusal(refused), Refused::TokenTaken("t".to_owned()));
        let pause = Command::new("r", Verb::Pause).token("p");
        coordinator.command(&pause).await.unwrap();
        let refused = coordinator.command(&signal("paid", 9, "p")).await;
        assert_eq!(
            refusal(refused.unwrap_err()),
            Refused::TokenTaken("p".to_owned())
        );
    });
}

#[test]
fn i5_a_signal_that_ended_its_run_is_known_when_it_is_sent_again() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order");
    let paid = b.add(wait_for::<u64>("paid"), ());
    let saga = b.returns(paid).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        coordinator.command(&signal("paid", 5, "t")).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        coordinator.command(&signal("paid", 5, "t")).await.unwrap();
        let refused = coordinator.command(&signal("paid", 6, "t")).await;
        assert_eq!(
            refusal(refused.unwrap_err()),
            Refused::TokenTaken("t".to_owned())
        );
        let refused = coordinator.command(&signal("paid", 6, "u")).await;
        assert_eq!(refusal(refused.unwrap_err()), Refused::Ended);
        assert_eq!(signals(&store).await.len(), 1);
    });
}

#[test]
fn i5_an_unknown_run_an_unknown_name_and_a_wrong_payload_are_errors_that_change_nothing() {
    let world = World::new();
    let store = store_in(&world);
    let mut child = Saga::builder::<u64>("line");
    let picked = child.add(wait_for::<u64>("picked"), ());
    let child = child.returns(picked).unwrap();
    let mut b = Saga::builder::<Vec<u64>>("order");
    let lines = b.input();
    let paid = b.add(wait_for::<u64>("paid"), ());
    b.add(step("line", &child).for_each(), lines);
    b.add(delay("cool-down", HOUR), ());
    let saga = b.returns(paid).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", vec![1, 2]).await.unwrap();
        let written = records(&store).await;
        let nobody = coordinator.signal(&"s".into(), "paid", 5_u64).await;
        assert!(
            matches!(nobody, Err(CommandError::NoSuchRun { .. })),
            "{nobody:?}"
        );
        let handed_in = store
            .submit(&Command::new("s", signal("paid", 5, "t").verb))
            .await;
        assert!(
            matches!(handed_in, Err(SubmitError::NoSuchRun { .. })),
            "{handed_in:?}"
        );

        let known = vec!["paid".to_owned(), "line[]/picked".to_owned()];
        for name in [
            "pay",
            "cool-down",
            "line",
            "line/picked",
            "line[0]",
            "line[x]/picked",
            "",
        ] {
            let refused = coordinator.signal(run.id(), name, 5_u64).await.unwrap_err();
            let name = name.to_owned();
            let known = known.clone();
            assert_eq!(refusal(refused), Refused::NoSuchSignal { name, known });
        }
        let refused = coordinator
            .signal(run.id(), "pay", 5_u64)
            .await
            .unwrap_err();
        assert_eq!(
            refusal(refused).to_string(),
            "the saga waits for no signal `pay`: it waits for `paid`, `line[]/picked`"
        );
        let refused = coordinator.signal(run.id(), "line[2]/picked", 5_u64).await;
        assert_eq!(
            refusal(refused.unwrap_err()).to_string(),
            "signal `line[2]/picked`: `line` has 2 items, from 0"
        );
        let refused = coordinator
            .signal(run.id(), "paid", "five".to_owned())
            .await;
        match refusal(refused.unwrap_err()) {
            Refused::BadSignal { name, why } => {
                assert_eq!(name, "paid");
                assert!(why.contains("u64"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(records(&store).await, written);
        for name in ["line[1]/picked", "line[0]/picked", "paid"] {
            coordinator.signal(run.id(), name, 5_u64).await.unwrap();
        }
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
    });
}

#[test]
fn i5_a_late_signal_is_kept_as_late_and_its_sender_is_told() {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, Some(HOUR), RecoveryStrategy::Manual, false);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        let parked = run.outcome().await.unwrap();
        assert_eq!(parked.word(), "parked");
        assert_eq!(world.millis(), 3_600_000);
        let failure = parked
            .partial()
            .step("paid")
            .unwrap()
            .failure
            .clone()
            .unwrap();
        assert_eq!(failure.mode, FailureMode::StepTimeout);
        assert_eq!(failure.message, "no signal within 3600s");

        let told = coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        assert_eq!(told, SignalTold::Late);
        store.submit(&signal("paid", 6, "t")).await.unwrap();
        assert_eq!(answer(&store, "t").await, CommandAnswer::Late);
        // Told again, the same.
        let told = coordinator.command(&signal("paid", 6, "t")).await.unwrap();
        assert_eq!(told, amends::Told::Signal(SignalTold::Late));
        let kept: Vec<bool> = signals(&store)
            .await
            .into_iter()
            .map(|(_, late, _)| late)
            .collect();
        assert_eq!(kept, [true, true]);

        // A late one is of no use to a wait that begins anew; that needs one of its own.
        let again = RecoveryStrategy::RetryFailed;
        coordinator
            .retry(run.id(), again, "ada", "they called")
            .await
            .unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Waiting);
        let told = coordinator.signal(run.id(), "paid", 7_u64).await.unwrap();
        assert_eq!(told, SignalTold::Accepted);
        assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
    });
}

/// The coordinator is down from 10 minutes after the start to two hours after it, and the signal is handed in
/// `at`, after the start.
fn signalled_while_down(at: Duration) -> (Vec<String>, CommandAnswer, String) {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, Some(HOUR), RecoveryStrategy::Compensate, false);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(10 * MINUTE).await;
    });
    life(&world, async || {
        tokio::time::sleep(at - 10 * MINUTE).await;
        let mut dated_back = signal("paid", 5, "t");
        dated_back.at = Timestamp::from_micros(0);
        store.submit(&dated_back).await.unwrap();
        tokio::time::sleep(2 * HOUR - at).await;
    });
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        let word = outcome.word().to_owned();
        let answer = answer(&store, "t").await;
        (events(&store).await, answer, word)
    })
}

#[test]
fn i5_the_time_at_which_the_store_accepted_a_signal_decides() {
    let taken = [
        "run_started",
        "wait_began paid",
        "claimed",
        "signalled",
        "wait_over paid",
        "step_started pack",
        "step_done pack",
        "ended completed",
    ];
    for in_time in [30 * MINUTE, HOUR] {
        let (events, answer, word) = signalled_while_down(in_time);
        assert_eq!(events, taken, "{in_time:?}");
        assert_eq!(answer, CommandAnswer::Accepted { told: None });
        assert_eq!(word, "completed");
    }
    for late in [HOUR + Duration::from_micros(1_000), 90 * MINUTE] {
        let (events, answer, word) = signalled_while_down(late);
        let expired = [
            "run_started",
            "wait_began paid",
            "claimed",
            "signalled",
            "wait_over paid",
            "decided compensate",
            "ended compensated",
        ];
        assert_eq!(events, expired, "{late:?}");
        assert_eq!(answer, CommandAnswer::Late);
        assert_eq!(word, "compensated");
    }
}

/// The limit passes while the run does something else, or nothing; a signal that came before it is taken, one that
/// came after it is late.
struct Meanwhile {
    what: &'static str,
    /// What the run is doing from half an hour after its start on.
    prepare: fn(&World),
    begin: fn() -> Option<Verb>,
    /// What lets it go forward again, two hours after its start.
    end: fn() -> Option<Verb>,
    standing: Standing,
}

fn meanwhile() -> [Meanwhile; 4] {
    let none = || None;
    let retry = || Some(Verb::retry(RecoveryStrategy::RetryFailed));
    [
        Meanwhile {
            what: "paused",
            prepare: |_| {},
            begin: || Some(Verb::Pause),
            end: || Some(Verb::Resume),
            standing: Standing::Paused,
        },
        Meanwhile {
            what: "parked",
            prepare: |world| world.on("do quick", [Act::Rejected.after(1_800_000)]),
            begin: none,
            end: retry,
            standing: Standing::Parked,
        },
        Meanwhile {
            what: "draining",
            prepare: |world| {
                world.on("do quick", [Act::Rejected.after(1_800_000)]);
                world.on("do slow", [Act::Done.after(7_200_000)]);
            },
            begin: none,
            end: retry,
            standing: Standing::Running,
        },
        Meanwhile {
            what: "unwinding",
            prepare: |world| {
                world.on("do quick", [Act::Rejected.after(1_800_000)]);
                world.on("undo quick", [Act::Done.after(5_400_000)]);
            },
            begin: none,
            end: none,
            standing: Standing::Running,
        },
    ]
}

/// How the wait ended, how the signal's sender was told, and how the run stood in between.
fn while_it_passes(case: &Meanwhile, at: Duration) -> (Vec<String>, CommandAnswer, Standing) {
    let world = World::new();
    let store = store_in(&world);
    let strategy = match case.what {
        "unwinding" => RecoveryStrategy::RetryFailed,
        _ => RecoveryStrategy::Manual,
    };
    let mut b = Saga::builder::<u64>("order").policy(RecoveryPolicy::new("as told", strategy));
    let paid = b.add(wait_for::<u64>("paid").within(HOUR), ());
    let day = 24 * HOUR;
    b.add(world.step("slow").timeout(day), ());
    let quick = world.step("quick").timeout(day).compensation_timeout(day);
    b.add(quick.undo_failing(UndoRule::Always), ());
    let saga = b.returns(paid).unwrap();
    (case.prepare)(&world);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(30 * MINUTE).await;
        if let Some(verb) = (case.begin)() {
            coordinator.command(&Command::new("r", verb)).await.unwrap();
        }
        tokio::time::sleep(at - 30 * MINUTE).await;
        store.submit(&signal("paid", 5, "t")).await.unwrap();
        let answer = answer(&store, "t").await;
        tokio::time::sleep_until(tokio::time::Instant::now() + 90 * MINUTE - at).await;
        let standing = standing_of(&coordinator).await;
        tokio::time::sleep(60 * MINUTE).await;
        if let Some(verb) = (case.end)() {
            coordinator.command(&Command::new("r", verb)).await.unwrap();
        }
        drop(run.outcome().await.unwrap());
        let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
        let all = journal.records.into_iter().flat_map(|record| record.events);
        let wait = all.filter_map(|event| match event {
            Event::WaitBegan { .. } => Some("began".to_owned()),
            Event::WaitOver { expired: true, .. } => Some("expired".to_owned()),
            Event::WaitOver { expired: false, .. } => Some("taken".to_owned()),
            _ => None,
        });
        (wait.collect(), answer, standing)
    })
}

#[test]
fn i5_a_limit_that_passes_while_the_run_does_not_go_forward_is_the_same_limit() {
    for case in meanwhile() {
        let (wait, answer, standing) = while_it_passes(&case, 50 * MINUTE);
        assert_eq!(wait, ["began", "taken"], "{}", case.what);
        assert_eq!(
            answer,
            CommandAnswer::Accepted { told: None },
            "{}",
            case.what
        );
        assert_eq!(standing, case.standing, "{}", case.what);
        let (wait, answer, standing) = while_it_passes(&case, 80 * MINUTE);
        assert_eq!(wait[..2], ["began", "expired"], "{}", case.what);
        assert_eq!(answer, CommandAnswer::Late, "{}", case.what);
        assert_eq!(standing, case.standing, "{}", case.what);
    }
}

#[test]
fn i5_a_signal_in_the_store_counts_when_the_run_goes_forward_again_after_a_crash() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order").policy(RecoveryPolicy::new(
        "as told",
        RecoveryStrategy::RetryFailed,
    ));
    let paid = b.add(wait_for::<u64>("paid").within(HOUR), ());
    b.add(world.step("quick"), ());
    b.add(world.step("slow").timeout(24 * HOUR), ());
    let saga = b.returns(paid).unwrap();
    world.on("do quick", [Act::Rejected]);
    world.on("do slow", [Act::Hang]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(10 * MINUTE).await;
        // `quick` has failed, and `slow` is awaited.
        assert_eq!(standing_of(&coordinator).await, Standing::Running);
    });
    life(&world, async || {
        store.submit(&signal("paid", 5, "t")).await.unwrap();
        tokio::time::sleep(2 * HOUR).await;
    });
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        // One turn interrupts `slow`, decides, and goes forward, long after the limit.
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        assert_eq!(
            answer(&store, "t").await,
            CommandAnswer::Accepted { told: None }
        );
    });
}

#[test]
fn i5_what_waits_inside_steps_is_named_by_its_path() {
    let world = World::new();
    let store = store_in(&world);
    let mut line = Saga::builder::<u64>("line");
    let picked = line.add(wait_for::<u64>("picked").within(HOUR), ());
    let line = line.returns(picked).unwrap();
    let mut b = Saga::builder::<Vec<u64>>("order");
    let lines = b.input();
    let picked = b.add(step("line", &line).for_each().parallel(2), lines);
    let wanted = b.add(wait_for::<bool>("wanted"), ());
    let gift = b.add(wait_for::<u64>("gift").only_if(wanted), ());
    let paid = wait_for::<u64>("paid").within(HOUR).into_spec();
    let paid = b.add(paid.fallback_value(0), ());
    let ways = ["card", "cash"].map(|way| wait_for::<u64>(way).into_spec());
    let first = b.add(first_of("till", ways), ());
    let saga = b.returns((picked, gift, paid, first)).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", vec![1, 2, 3]).await.unwrap();
        let send = async |name: &str, payload: u64| {
            let told = coordinator.signal(run.id(), name, payload).await.unwrap();
            assert_eq!(told, SignalTold::Accepted, "{name}");
        };
        // Two at once: the third has not begun, and its signal may come before.
        for (item, status_of) in [
            (0, StepStatus::Waiting),
            (1, StepStatus::Waiting),
            (2, StepStatus::Pending),
        ] {
            let name = format!("line[{item}]/picked");
            assert_eq!(status(&coordinator, &name).await, status_of, "{name}");
        }
        assert_eq!(
            standing_of(&coordinator).await,
            Standing::Waiting {
                until: world.now().after(HOUR)
            }
        );
        send("line[2]/picked", 32).await;
        send("line[1]/picked", 31).await;
        send("line[0]/picked", 30).await;
        coordinator.signal(run.id(), "wanted", true).await.unwrap();
        send("gift", 9).await;
        send("till/cash", 4).await;
        // Whoever lost the race waits no more, and is told so.
        let late = coordinator
            .signal(run.id(), "till/card", 5_u64)
            .await
            .unwrap();
        assert_eq!(late, SignalTold::Late);
        assert_eq!(
            status(&coordinator, "till/card").await,
            StepStatus::Interrupted
        );
        let outcome = run.outcome().await.unwrap();
        assert_eq!(world.millis(), 3_600_000, "`paid` fell back at its limit");
        assert_eq!(outcome.completed(), Some((vec![30, 31, 32], Some(9), 0, 4)));
    });
}

#[test]
fn i5_a_wait_against_a_delay_is_a_race_like_any_other() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order");
    let ways = [
        wait_for::<()>("answer").into_spec(),
        delay("patience", HOUR).into_spec(),
    ];
    let heard = b.add(first_of("either", ways), ());
    b.add(world.step("after").after(heard), ());
    let saga = b.returns(heard).unwrap();
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        world.on("do after", [Act::Done.after(1_000)]);
        tokio::time::sleep(HOUR + Duration::from_millis(500)).await;
        // Nothing waits any more: the run is under way with what comes after.
        assert_eq!(standing_of(&coordinator).await, Standing::Running);
        let late = coordinator.signal(run.id(), "either/answer", ()).await;
        assert_eq!(late.unwrap(), SignalTold::Late);
        let outcome = run.outcome().await.unwrap();
        assert_eq!(outcome.word(), "completed");
        let partial = outcome.partial();
        let statuses: Vec<StepStatus> = partial.steps.iter().map(|step| step.status).collect();
        assert_eq!(
            statuses,
            [
                StepStatus::Done,
                StepStatus::Interrupted,
                StepStatus::Done,
                StepStatus::Done
            ]
        );
    });
}

#[test]
fn i5_a_wait_that_ends_with_its_run_waits_no_more() {
    for (verb, word) in [(Verb::Cancel, "compensated"), (Verb::Abandon, "abandoned")] {
        let world = World::new();
        let store = store_in(&world);
        let mut child = Saga::builder::<u64>("child");
        let picked = child.add(wait_for::<u64>("picked"), ());
        let child = child.returns(picked).unwrap();
        let mut b = Saga::builder::<u64>("order");
        let n = b.input();
        let paid = b.add(wait_for::<u64>("paid").within(HOUR), ());
        b.add(step("inner", &child), n);
        b.add(world.step("done"), ());
        let saga = b.returns(paid).unwrap();
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            tokio::time::sleep(MINUTE).await;
            let verb = Command::new("r", verb.clone()).by("ada").reason("over");
            coordinator.command(&verb).await.unwrap();
            let outcome = run.outcome().await.unwrap();
            assert_eq!(outcome.word(), word);
            assert_eq!(world.millis(), 60_000, "nobody waits for a wait");
            for waits in ["paid", "inner/picked"] {
                let partial = outcome.partial();
                let step = partial.step(waits).unwrap();
                assert_eq!(step.status, StepStatus::Interrupted, "{waits}");
            }
            let undone = usize::from(word == "compensated");
            assert_eq!(world.count("undo done"), undone);
            let refused = coordinator.signal(run.id(), "paid", 5_u64).await;
            assert_eq!(refusal(refused.unwrap_err()), Refused::Ended);
        });
    }
}

#[test]
fn i5_a_run_that_is_undone_keeps_signals_for_the_round_after() {
    let world = World::new();
    let store = store_in(&world);
    let mut b = Saga::builder::<u64>("order")
        .policy(RecoveryPolicy::new("as told", RecoveryStrategy::RetryAll));
    let done = b.add(world.step("done"), ());
    b.add(world.step("quick").after(done).timeout(HOUR), ());
    let paid = b.add(wait_for::<u64>("paid").within(HOUR).after(done), ());
    let saga = b.returns(paid).unwrap();
    world.on("do quick", [Act::Rejected.after(600_000)]);
    world.on("undo done", [Act::Done.after(20_000)]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(10 * MINUTE + Duration::from_secs(10)).await;
        assert_eq!(world.count("undo done"), 1);
        let told = coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        assert_eq!(told, SignalTold::Accepted);
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        assert_eq!(
            events(&store).await,
            [
                "run_started",
                "step_started done",
                "step_done done",
                "step_started quick",
                "wait_began paid",
                "step_failed quick",
                "decided retry_all",
                "undo_started done",
                "signalled",
                "undone done",
                "step_started done",
                "step_done done",
                "step_started quick",
                "wait_began paid",
                "wait_over paid",
                "step_done quick",
                "ended completed"
            ]
        );
    });
}

#[test]
fn i5_a_crash_between_a_signal_and_the_end_of_its_wait_loses_nothing() {
    let world = World::new();
    let store = store_in(&world);
    let saga = order(&world, Some(HOUR), RecoveryStrategy::Manual, false);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        coordinator.start(&saga, "r", 1).await.unwrap();
        let pause = Command::new("r", Verb::Pause);
        coordinator.command(&pause).await.unwrap();
        coordinator.command(&signal("paid", 5, "t")).await.unwrap();
    });
    life(&world, async || tokio::time::sleep(2 * HOUR).await);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let resume = Command::new("r", Verb::Resume);
        coordinator.command(&resume).await.unwrap();
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        let outcome = run.outcome().await.unwrap();
        let live = serde_json::to_value(outcome.partial()).unwrap();
        assert_eq!(outcome.completed(), Some(5));
        assert_eq!(
            events(&store).await,
            [
                "run_started",
                "wait_began paid",
                "commanded",
                "paused",
                "signalled",
                "claimed",
                "commanded",
                "resumed",
                "wait_over paid",
                "step_started pack",
                "step_done pack",
                "ended completed"
            ]
        );
        // Whoever folds the journal comes to the same.
        let folded = coordinator.get(&RunId::new("r")).await.unwrap().unwrap();
        assert_eq!(serde_json::to_value(folded).unwrap(), live);
    });
}

#[test]
fn i5_a_signal_whose_append_is_lost_is_taken_once_by_the_next_process() {
    for answer_of in [undo::Answer::Stuck, undo::Answer::WriteStuck] {
        let world = World::new();
        let store = store_in(&world);
        let saga = order(&world, Some(HOUR), RecoveryStrategy::Manual, false);
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            coordinator.start(&saga, "r", 1).await.unwrap();
            store.judge(move |sent| match sent.events.first() {
                Some(event) if event.starts_with("signalled") => answer_of,
                _ => undo::Answer::Write,
            });
            store.submit(&signal("paid", 5, "t")).await.unwrap();
            store.stuck().await;
        });
        store.judge(|_| undo::Answer::Write);
        life(&world, async || {
            tokio::time::sleep(2 * HOUR).await;
            let coordinator = coordinator(&world, &store, &saga).await;
            let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
            assert_eq!(
                answer(&store, "t").await,
                CommandAnswer::Accepted { told: None }
            );
            assert_eq!(signals(&store).await.len(), 1, "{answer_of:?}");
        });
    }
}

/// `a`, then a wait of an hour; `quick` beside them is refused, so that the run is parked.
fn beside(world: &Arc<World>, rule: UndoRule) -> Saga<u64, u64> {
    let strategy = match rule {
        UndoRule::Always => RecoveryStrategy::RetryFailed,
        _ => RecoveryStrategy::Manual,
    };
    let mut b = Saga::builder::<u64>("order").policy(RecoveryPolicy::new("as told", strategy));
    let day = 24 * HOUR;
    let a = b.add(world.step("a").timeout(day), ());
    let paid = b.add(wait_for::<u64>("paid").within(HOUR).after(a), ());
    b.add(world.step("quick").timeout(day).undo_failing(rule), ());
    world.on("do quick", [Act::Rejected.after(60_000)]);
    b.returns(paid).unwrap()
}

async fn told(coordinator: &Coordinator, verb: Verb) {
    let command = Command::new("r", verb).by("ada").reason("by hand");
    coordinator.command(&command).await.unwrap();
}

#[test]
fn i5_a_wait_that_an_operator_skipped_is_over() {
    let world = World::new();
    let store = store_in(&world);
    let saga = beside(&world, UndoRule::InDoubt);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        let skip = Verb::Skip {
            step: "paid".to_owned(),
            effect: amends::journal::SkippedEffect::None,
            output: Value::typed(Arc::new(9_u64)),
        };
        told(&coordinator, skip).await;
        world.on("do quick", [Act::Done.after(7_200_000)]);
        told(&coordinator, Verb::retry(RecoveryStrategy::RetryFailed)).await;
        assert_eq!(run.outcome().await.unwrap().completed(), Some(9));
        let events = events(&store).await;
        let waits: Vec<&String> = events
            .iter()
            .filter(|event| event.ends_with("paid"))
            .collect();
        assert_eq!(waits, ["wait_began paid", "skipped paid"]);
    });
}

#[test]
fn i5_a_wait_whose_step_before_was_undone_by_hand_begins_anew() {
    let world = World::new();
    let store = store_in(&world);
    let saga = beside(&world, UndoRule::InDoubt);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        let mark = Verb::MarkCompensated {
            step: "a".to_owned(),
        };
        told(&coordinator, mark).await;
        world.on("do a", [Act::Done.after(7_200_000)]);
        told(&coordinator, Verb::retry(RecoveryStrategy::RetryFailed)).await;
        // The old limit passes while `a` runs again, and means nothing any more.
        tokio::time::sleep(90 * MINUTE).await;
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Pending);
        tokio::time::sleep(60 * MINUTE).await;
        assert_eq!(status(&coordinator, "paid").await, StepStatus::Waiting);
        coordinator.signal(run.id(), "paid", 5_u64).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().completed(), Some(5));
        let events = events(&store).await;
        let waits: Vec<&String> = events
            .iter()
            .filter(|event| event.ends_with("paid"))
            .collect();
        assert_eq!(
            waits,
            ["wait_began paid", "wait_began paid", "wait_over paid"]
        );
    });
}

#[test]
fn i5_a_wait_keeps_its_limit_when_something_beside_it_is_settled_by_hand() {
    let world = World::new();
    let store = store_in(&world);
    let saga = beside(&world, UndoRule::Always);
    world.on("undo quick", [Act::Rejected]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run: RunHandle<u64> = coordinator.start(&saga, "r", 1).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "parked");
        let mark = Verb::MarkCompensated {
            step: "quick".to_owned(),
        };
        told(&coordinator, mark).await;
        told(&coordinator, Verb::retry(RecoveryStrategy::RetryFailed)).await;
        tokio::time::sleep_until(tokio::time::Instant::now() + HOUR).await;
        let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
        let over = journal.records.iter().find(|record| {
            let over = |event: &Event<_>| matches!(event, Event::WaitOver { expired: true, .. });
            record.events.iter().any(over)
        });
        let since = journal.records[0].at.after(HOUR);
        assert_eq!(over.map(|record| record.at), Some(since));
    });
}
