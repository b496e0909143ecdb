//! Approved, denied and timed out are three things; who said it, and why, is journalled, and nobody else may.
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::similar_names, reason = "it reads as it is meant")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Event, Verb};
use amends::machine::Refused;
use amends::store::{MemoryStore, Store};
use amends::{
    Approval, ApprovalVerdict, CommandError, Coordinator, FailureMode, RecoveryPolicy,
    RecoveryStrategy, RunHandle, RunId, Saga, SignalTold, StepStatus, approval,
};
use undo::{TestStore, World, life, records};

const HOUR: Duration = Duration::from_secs(3_600);

fn store_in(world: &Arc<World>) -> Arc<TestStore> {
    let now = Arc::clone(world);
    TestStore::over(Arc::new(MemoryStore::new().clock(move || now.now())))
}

async fn coordinator(
    world: &Arc<World>,
    store: &Arc<TestStore>,
    saga: &Saga<u64, Approval>,
) -> Coordinator {
    let builder = world.coordinator(store).register(saga);
    builder.build().await.unwrap()
}

/// `hold` is done, then Ada or Grace is asked, for an hour.
fn refund(world: &Arc<World>, required: bool) -> Saga<u64, Approval> {
    let mut b = Saga::builder::<u64>("refund")
        .policy(RecoveryPolicy::new("back", RecoveryStrategy::Compensate));
    let held = b.add(world.step("hold"), ());
    let mut asked = approval("boss")
        .approvers(["ada", "grace"])
        .within(HOUR)
        .after(held);
    if required {
        asked = asked.required();
    }
    let said = b.add(asked, ());
    b.returns(said).unwrap()
}

/// What an approver does after ten minutes.
#[derive(Clone, Copy, Debug)]
enum Says {
    Yes,
    No,
    Nothing,
}

async fn say(coordinator: &Coordinator, says: Says) {
    tokio::time::sleep(Duration::from_secs(600)).await;
    let run = RunId::new("r");
    let told = match says {
        Says::Yes => coordinator.approve(&run, "boss", "grace", "fair").await,
        Says::No => coordinator.deny(&run, "boss", "ada", "too much").await,
        Says::Nothing => return,
    };
    assert_eq!(told.unwrap(), SignalTold::Accepted);
}

fn approved() -> Approval {
    Approval::Approved {
        by: "grace".to_owned(),
        reason: "fair".to_owned(),
    }
}

fn denied() -> Approval {
    Approval::Denied {
        by: "ada".to_owned(),
        reason: "too much".to_owned(),
    }
}

#[test]
fn the_three_answers_are_told_apart_and_nothing_fails() {
    for (says, answer, minutes) in [
        (Says::Yes, approved(), 10),
        (Says::No, denied(), 10),
        (Says::Nothing, Approval::TimedOut, 60),
    ] {
        let world = World::new();
        let (store, saga) = (store_in(&world), refund(&world, false));
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            say(&coordinator, says).await;
            let outcome = run.outcome().await.unwrap();
            assert_eq!(world.millis(), minutes * 60_000, "{says:?}");
            assert_eq!(answer.is_approved(), matches!(says, Says::Yes));
            assert_eq!(outcome.completed(), Some(answer.clone()));
        });
        // The same to the next process, which reads it from the journal.
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            let run: RunHandle<Approval> = coordinator.start(&saga, "r", 1).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().completed(), Some(answer));
        });
    }
}

#[test]
fn a_required_approval_fails_when_denied_and_when_nobody_answers_and_not_in_the_same_way() {
    for (says, mode, message) in [
        (
            Says::No,
            FailureMode::PermissionDenied,
            "denied by ada: too much",
        ),
        (
            Says::Nothing,
            FailureMode::StepTimeout,
            "nobody approved within 3600s",
        ),
    ] {
        let world = World::new();
        let (store, saga) = (store_in(&world), refund(&world, true));
        life(&world, async || {
            let coordinator = coordinator(&world, &store, &saga).await;
            let run = coordinator.start(&saga, "r", 1).await.unwrap();
            say(&coordinator, says).await;
            let outcome = run.outcome().await.unwrap();
            assert_eq!(outcome.word(), "compensated");
            let partial = outcome.partial();
            assert_eq!(partial.failing_step.as_deref(), Some("boss"));
            assert_eq!(partial.failure_mode, Some(mode));
            let boss = partial.step("boss").unwrap();
            assert_eq!(boss.status, StepStatus::Failed);
            assert_eq!(boss.failure.as_ref().unwrap().message, message);
            assert_eq!(partial.step("hold").unwrap().status, StepStatus::Undone);
            assert_eq!(world.count("undo hold"), 1);
        });
    }
    let world = World::new();
    let (store, saga) = (store_in(&world), refund(&world, true));
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        say(&coordinator, Says::Yes).await;
        assert_eq!(run.outcome().await.unwrap().completed(), Some(approved()));
    });
}

#[test]
fn who_is_not_on_the_list_or_gives_no_reason_is_refused_and_the_run_waits_on() {
    let world = World::new();
    let (store, saga) = (store_in(&world), refund(&world, false));
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let written = records(&*store, "r").await;
        let refused = async |by: &str, reason: &str| {
            let answers = [
                coordinator.approve(run.id(), "boss", by, reason).await,
                coordinator.deny(run.id(), "boss", by, reason).await,
            ];
            answers.map(|answer| match answer {
                Err(CommandError::Refused { why, .. }) => why,
                other => panic!("{other:?}"),
            })
        };
        let said = |why: &str| Refused::BadSignal {
            name: "boss".to_owned(),
            why: why.to_owned(),
        };
        for nobody in ["mallory", "", "Ada", "ada "] {
            let why = format!("`{nobody}` may not answer: ada, grace may");
            assert_eq!(refused(nobody, "please").await, [said(&why), said(&why)]);
        }
        let why = said("an answer needs who gives it, and why");
        for nothing in ["", "  "] {
            assert_eq!(refused("ada", nothing).await, [why.clone(), why.clone()]);
        }
        // From outside it is no different, and neither is what is no verdict at all.
        let mallory = Command::new("r", Verb::signal("boss", ApprovalVerdict::Approved));
        let mallory = mallory.by("mallory").reason("please").token("m");
        let maybe = Command::new("r", Verb::signal("boss", "maybe".to_owned()));
        let maybe = maybe.by("ada").reason("who knows").token("n");
        for command in [&mallory, &maybe] {
            store.submit(command).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let kept = store.find_command(&command.token).await.unwrap().unwrap();
            let answer = kept.answer.unwrap();
            assert!(
                matches!(answer, CommandAnswer::Refused { .. }),
                "{answer:?}"
            );
        }
        assert_eq!(records(&*store, "r").await, written);
        say(&coordinator, Says::No).await;
        assert_eq!(run.outcome().await.unwrap().completed(), Some(denied()));
    });
}

#[test]
fn who_and_why_are_in_the_journal_and_a_second_word_changes_nothing() {
    let world = World::new();
    let (store, saga) = (store_in(&world), refund(&world, false));
    world.on("do hold", [undo::Act::Done.after(1_000)]);
    life(&world, async || {
        let coordinator = coordinator(&world, &store, &saga).await;
        let run = coordinator.start(&saga, "r", 1).await.unwrap();
        // Both before it is asked for: the first word counts.
        let early = [
            coordinator.deny(run.id(), "boss", "ada", "too much").await,
            coordinator.approve(run.id(), "boss", "grace", "fair").await,
        ];
        assert!(early.iter().all(Result::is_ok), "{early:?}");
        assert_eq!(run.outcome().await.unwrap().completed(), Some(denied()));
        let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
        let events = journal.records.into_iter().flat_map(|record| record.events);
        let signals: Vec<(String, String, String)> = events
            .filter_map(|event| match event {
                Event::Signalled(signal) => {
                    let kept = signal.kept.to_json().unwrap().get().to_owned();
                    Some((signal.by, signal.reason, kept))
                }
                _ => None,
            })
            .collect();
        let word = |by: &str, reason: &str, kept: &str| {
            (by.to_owned(), reason.to_owned(), kept.to_owned())
        };
        assert_eq!(
            signals,
            [
                word(
                    "ada",
                    "too much",
                    r#"{"denied":{"by":"ada","reason":"too much"}}"#
                ),
                word(
                    "grace",
                    "fair",
                    r#"{"approved":{"by":"grace","reason":"fair"}}"#
                ),
            ]
        );
    });
}
