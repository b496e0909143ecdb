//! What a call reports is there for the next one, over failures and crashes, for as long as its round lasts.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::{Command, InputEdit, ParkReason, Verb};
use amends::step::PayloadError;
use amends::*;
use common::*;

/// What calls wrote down.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Writes down what a call reads.
    fn reads(&self, what: &str, cx: &StepContext) -> u64 {
        let known = cx.last_progress::<u64>().unwrap();
        let step = cx.step();
        match &known {
            Some(known) => self.write(format!("{what} {step} from {known}")),
            None => self.write(format!("{what} {step} from nothing")),
        }
        known.map_or(0, |known| *known)
    }
}

fn lost() -> StepError {
    StepError::in_doubt("lost").with_mode(FailureMode::SystemNetwork)
}

/// Reports one more than it reads, ten times, and fails but for the attempt that its input names.
fn counts(diary: &Diary) -> StepSpec<u32, u64> {
    step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, last: &u32| {
            let known = diary.reads("do", cx);
            for number in known + 1..=known + 10 {
                cx.report_progress(number);
            }
            if cx.attempt() == *last {
                Ok(known + 10)
            } else {
                Err(lost())
            }
        },
        async |diary, cx: &StepContext, _last, _effect| {
            diary.reads("undo", cx);
            Ok(())
        },
    )
    .retry(calls(3))
}

fn only(step: StepSpec<u32, u64>, policy: RecoveryPolicy) -> Saga<u32, u64> {
    let mut saga = Saga::builder::<u32>("only").policy(policy);
    let input = saga.input();
    let node = saga.add(step, input);
    saga.returns(node).unwrap()
}

fn always(strategy: RecoveryStrategy) -> RecoveryPolicy {
    RecoveryPolicy::new("always", strategy)
}

#[test]
fn each_attempt_goes_on_from_the_newest_report_of_the_one_before() {
    let (world, diary) = (World::new(), Diary::default());
    let saga = only(counts(&diary), always(RecoveryStrategy::Compensate));
    assert_eq!(world.run_to_rest(&saga, 3).completed(), Some(30));
    assert_eq!(
        diary.lines(),
        ["do a from nothing", "do a from 10", "do a from 20"]
    );
}

#[test]
fn a_call_reads_what_was_known_when_it_was_made_and_not_its_own_reports() {
    let world = World::new();
    let step = step_fn(
        "a",
        async |cx: &StepContext, _: &u32| {
            cx.report_progress(7_u64);
            tokio::time::sleep(20 * SECOND).await;
            Ok(cx.last_progress::<u64>()?.map_or(0, |known| *known))
        },
        async |_, _, _| Ok(()),
    );
    let saga = only(step, always(RecoveryStrategy::Compensate));
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(0));
    // It was written in between, so there was something to read.
    assert!(world.story().contains(&"progress a 7".to_owned()));
}

#[test]
fn what_is_not_of_the_type_that_is_asked_for_is_an_error() {
    let world = World::new();
    let step = step_fn(
        "a",
        async |cx: &StepContext, _: &u32| {
            if cx.attempt() == 1 {
                cx.report_progress("half".to_owned());
                return Err(lost());
            }
            assert_eq!(cx.last_progress::<String>()?.unwrap().as_str(), "half");
            let wrong = cx.last_progress::<u64>().unwrap_err();
            assert!(matches!(wrong, PayloadError::Decode { .. }), "{wrong}");
            Ok(2)
        },
        async |_, _, _| Ok(()),
    );
    let saga = only(step.retry(calls(2)), always(RecoveryStrategy::Compensate));
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(2));
}

#[test]
fn an_undo_reads_how_far_execute_got_and_its_own_reports_change_nothing() {
    let (world, diary) = (World::new(), Diary::default());
    let step = step_with(
        "a",
        diary.clone(),
        async |_diary, cx: &StepContext, _: &u32| {
            cx.report_progress(4_u64);
            Err::<u64, _>(lost().retryable(false))
        },
        async |diary, cx: &StepContext, _, effect| {
            assert!(matches!(effect, Effect::InDoubt));
            diary.reads("undo", cx);
            cx.report_progress(1_000_u64);
            // Long enough that it would be written.
            tokio::time::sleep(20 * SECOND).await;
            if cx.attempt() == 1 {
                Err(lost())
            } else {
                Ok(())
            }
        },
    );
    let saga = only(
        step.compensation_retry(calls(2)),
        always(RecoveryStrategy::Compensate),
    );
    assert_eq!(world.run_to_rest(&saga, 1).word(), "compensated");
    assert_eq!(diary.lines(), ["undo a from 4", "undo a from 4"]);
}

#[test]
fn what_was_undone_is_forgotten() {
    let (world, diary) = (World::new(), Diary::default());
    let saga = only(
        counts(&diary),
        always(RecoveryStrategy::RetryAll).max_recoveries(1),
    );
    assert_eq!(world.run_to_rest(&saga, 4).completed(), Some(10));
    assert_eq!(
        diary.lines(),
        [
            "do a from nothing",
            "do a from 10",
            "do a from 20",
            "undo a from 30",
            "do a from nothing"
        ]
    );
}

#[test]
fn a_step_with_an_edited_input_begins_from_nothing() {
    let (world, diary) = (World::new(), Diary::default());
    let step = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, n: &u32| {
            diary.reads("do", cx);
            cx.report_progress(5_u64);
            if *n == 0 {
                Err(StepError::rejected("nothing to do"))
            } else {
                Ok(1)
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let saga = only(step, always(RecoveryStrategy::Manual));
    assert_eq!(world.run_to_rest(&saga, 0).word(), "parked");
    world.life(&saga, async |coordinator| {
        let run = coordinator
            .attach(&saga, &"r".into())
            .await
            .unwrap()
            .unwrap();
        let retry = Verb::Retry {
            strategy: Some(RecoveryStrategy::RetryFailed),
            edits: vec![InputEdit {
                step: "a".to_owned(),
                input: Value::typed(Arc::new(1_u32)),
            }],
        };
        let retry = Command::new("r", retry).by("ada").reason("typo").token("t");
        coordinator.command(&retry).await.unwrap();
        assert_eq!(run.ended().await.unwrap().completed(), Some(1));
    });
    assert_eq!(diary.lines(), ["do a from nothing", "do a from nothing"]);
}

#[test]
fn a_step_whose_input_is_made_anew_begins_from_nothing() {
    let (world, diary) = (World::new(), Diary::default());
    let mut saga = Saga::builder::<u32>("fed").policy(always(RecoveryStrategy::RetryAll));
    let n = saga.input();
    let fed = saga.add(world.step("first"), n);
    let second = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, _: &u64| {
            diary.reads("do", cx);
            cx.report_progress(5_u64);
            if cx.attempt() == 1 {
                // Nothing was done, so its round goes on; what feeds it is undone and made anew.
                Err(StepError::rejected("not these"))
            } else {
                Ok(1)
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let second = saga.add(second, fed);
    let saga = saga.returns(second).unwrap();
    assert_eq!(world.run_to_rest(&saga, 1_u32).word(), "completed");
    assert_eq!(diary.lines(), ["do a from nothing", "do a from nothing"]);
    let calls = world.calls_of("do first");
    assert_eq!(
        calls.iter().map(|call| call.round).collect::<Vec<_>>(),
        [1, 2]
    );
}

/// Reports its way through the input, one number a second, and dies with its process where it is told.
fn steady(diary: &Diary) -> StepSpec<u32, u64> {
    step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, most: &u32| {
            for number in diary.reads("do", cx) + 1..=u64::from(*most) {
                tokio::time::sleep(SECOND).await;
                cx.report_progress(number);
            }
            Ok(0)
        },
        async |_, _, _, _| Ok(()),
    )
    .timeout(3_600 * SECOND)
}

/// Lets run `r` live for so long, and crashes.
fn lives_for(world: &World, saga: &Saga<u32, u64>, seconds: u32) {
    world.life(saga, async |coordinator| {
        let _run = coordinator.start(saga, "r", 100).await.unwrap();
        tokio::time::sleep(seconds * SECOND).await;
    });
}

#[test]
fn after_a_crash_the_step_goes_on_from_the_report_that_was_written_last() {
    let (world, diary) = (World::new(), Diary::default());
    let saga = only(steady(&diary), always(RecoveryStrategy::Compensate));
    // Written every ten seconds: at 10 and at 20.
    lives_for(&world, &saga, 25);
    assert_eq!(world.recover(&saga).completed(), Some(0));
    assert_eq!(diary.lines(), ["do a from nothing", "do a from 20"]);
    // The second life began at 20 and had 80 to go.
    assert_eq!(world.now(), 105 * SECOND);
}

#[test]
fn a_step_that_comes_on_between_crashes_is_not_what_brings_the_process_down() {
    let (world, diary) = (World::new(), Diary::default());
    let saga = only(steady(&diary), always(RecoveryStrategy::Compensate));
    for _ in 0..5 {
        lives_for(&world, &saga, 15);
    }
    assert_eq!(world.recover(&saga).completed(), Some(0));
    assert_eq!(
        diary.lines(),
        [
            "do a from nothing",
            "do a from 10",
            "do a from 20",
            "do a from 30",
            "do a from 40",
            "do a from 50"
        ]
    );
}

#[test]
fn the_same_report_again_is_no_progress() {
    let (world, diary) = (World::new(), Diary::default());
    let stuck = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, _: &u32| {
            diary.reads("do", cx);
            loop {
                cx.report_progress(1_u64);
                tokio::time::sleep(SECOND).await;
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let saga = only(
        stuck.timeout(3_600 * SECOND),
        always(RecoveryStrategy::Compensate),
    );
    for _ in 0..3 {
        lives_for(&world, &saga, 15);
    }
    let parked = world.recover(&saga).partial().parked.unwrap();
    assert_eq!(parked.reason, ParkReason::Interrupted);
    assert_eq!(
        diary.lines(),
        ["do a from nothing", "do a from 1", "do a from 1"]
    );
}

#[test]
fn what_an_attempt_left_behind_reports_is_nobodys_progress() {
    let (world, diary) = (World::new(), Diary::default());
    let step = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, _: &u32| {
            diary.reads("do", cx);
            if cx.attempt() == 1 {
                cx.report_progress(3_u64);
                let left = cx.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(SECOND / 2).await;
                    left.report_progress(99_u64);
                });
                return Err(lost());
            }
            // The other one reports meanwhile, and all that is to be written is.
            tokio::time::sleep(30 * SECOND).await;
            if cx.attempt() == 2 {
                Err(lost())
            } else {
                Ok(1)
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let soon = Retry::constant().initial(Duration::from_millis(1));
    let step = step.retry(soon).timeout(60 * SECOND);
    let saga = only(step, always(RecoveryStrategy::Compensate));
    assert_eq!(world.run_to_rest(&saga, 1).completed(), Some(1));
    assert_eq!(
        diary.lines(),
        ["do a from nothing", "do a from 3", "do a from 3"]
    );
    let reports: Vec<String> = world.story();
    let reports = reports.iter().filter(|line| line.starts_with("progress"));
    assert_eq!(reports.collect::<Vec<_>>(), ["progress a 3"]);
}
