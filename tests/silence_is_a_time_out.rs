//! A call that is silent for longer than its limit has timed out, and one that tells that it lives has not.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::failure::FailedEffect;
use amends::*;
use common::*;

/// What calls wrote down, with the second at which they did.
#[derive(Clone)]
struct Diary(World, Arc<Mutex<Vec<String>>>);

impl Diary {
    fn of(world: &World) -> Diary {
        Diary(world.clone(), Arc::default())
    }

    fn write(&self, line: &str) {
        let at = self.0.now().as_secs();
        self.1.lock().unwrap().push(format!("{line} at {at}"));
    }

    fn lines(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

/// Notes that the future was dropped.
struct Dropped<'a>(&'a Diary);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.write("dropped");
    }
}

async fn beats(cx: &StepContext, times: u32, apart: Duration) {
    for _ in 0..times {
        tokio::time::sleep(apart).await;
        cx.heartbeat();
    }
}

/// One step that beats so many times, four seconds apart, and is silent for ever after that.
fn falls_silent(diary: &Diary) -> StepSpec<u32, u32> {
    step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, times: &u32| {
            let _dropped = Dropped(diary);
            diary.write("called");
            beats(cx, *times, 4 * SECOND).await;
            diary.write("silent");
            std::future::pending::<()>().await;
            Ok(*times)
        },
        async |diary, _cx, _times, effect| {
            let known = matches!(effect, Effect::Done(_));
            diary.write(if known { "undo" } else { "undo in doubt" });
            Ok(())
        },
    )
}

fn only<I: Payload, O: Payload>(step: StepSpec<I, O>) -> Saga<I, O> {
    let compensate = RecoveryPolicy::new("undo", RecoveryStrategy::Compensate);
    let mut saga = Saga::builder::<I>("only").policy(compensate);
    let input = saga.input();
    let node = saga.add(step, input);
    saga.returns(node).unwrap()
}

#[test]
fn a_step_that_is_silent_for_longer_than_its_limit_is_dropped_and_in_doubt() {
    let world = World::new();
    let diary = Diary::of(&world);
    let saga = only(
        falls_silent(&diary)
            .heartbeat(5 * SECOND)
            .retry(Retry::none()),
    );
    let partial = world.run_to_rest(&saga, 3).partial();
    assert_eq!(
        diary.lines(),
        [
            "called at 0",
            "silent at 12",
            "dropped at 17",
            "undo in doubt at 17"
        ]
    );
    let failure = partial.step("a").unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.mode, FailureMode::StepTimeout);
    assert_eq!(failure.effect, FailedEffect::InDoubt);
    assert_eq!(failure.message, "no heartbeat within 5s");
}

#[test]
fn silence_is_retried_as_any_time_out_is() {
    let world = World::new();
    let diary = Diary::of(&world);
    let saga = only(falls_silent(&diary).heartbeat(5 * SECOND).retry(calls(2)));
    world.run_to_rest(&saga, 0);
    assert_eq!(
        diary.lines(),
        [
            "called at 0",
            "silent at 0",
            "dropped at 5",
            "called at 6",
            "silent at 6",
            "dropped at 11",
            "undo in doubt at 11"
        ]
    );
}

#[test]
fn a_step_that_tells_that_it_lives_takes_as_long_as_it_needs() {
    for progress in [false, true] {
        let world = World::new();
        let long = step_with(
            "a",
            progress,
            async |progress, cx: &StepContext, times: &u32| {
                for time in 0..*times {
                    tokio::time::sleep(4 * SECOND).await;
                    if *progress {
                        cx.report_progress(time);
                    } else {
                        cx.heartbeat();
                    }
                }
                Ok(*times)
            },
            async |_, _, _, _| Ok(()),
        );
        let saga = only(long.heartbeat(5 * SECOND).timeout(3_600 * SECOND));
        let outcome = world.run_to_rest(&saga, 100);
        assert_eq!(outcome.completed(), Some(100));
        assert_eq!(world.now(), 400 * SECOND);
    }
}

#[test]
fn the_time_out_passes_whatever_a_step_tells() {
    let world = World::new();
    let diary = Diary::of(&world);
    let saga = only(
        falls_silent(&diary)
            .heartbeat(5 * SECOND)
            .retry(Retry::none()),
    );
    // The 30 s that every call has unless it is told otherwise.
    let partial = world.run_to_rest(&saga, 1_000).partial();
    assert_eq!(
        diary.lines(),
        ["called at 0", "dropped at 30", "undo in doubt at 30"]
    );
    let failure = partial.step("a").unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.message, "no answer within 30s");
}

#[test]
fn without_a_limit_a_step_may_be_silent() {
    let world = World::new();
    let quiet = step_fn(
        "a",
        async |_: &StepContext, n: &u32| {
            tokio::time::sleep(3_599 * SECOND).await;
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    );
    let saga = only(quiet.timeout(3_600 * SECOND));
    assert_eq!(world.run_to_rest(&saga, 7).completed(), Some(7));
}

#[test]
fn a_sign_of_life_may_come_from_a_task_of_the_steps_own() {
    let world = World::new();
    let diary = Diary::of(&world);
    let step = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, times: &u32| {
            let _dropped = Dropped(diary);
            let (cx, times) = (cx.clone(), *times);
            let work = tokio::spawn(async move { beats(&cx, times, 4 * SECOND).await });
            work.await.unwrap();
            diary.write("worked");
            Ok(times)
        },
        async |_, _, _, _| Ok(()),
    );
    let saga = only(step.heartbeat(5 * SECOND));
    assert_eq!(world.run_to_rest(&saga, 5).completed(), Some(5));
    assert_eq!(diary.lines(), ["worked at 20", "dropped at 20"]);
}

#[test]
fn an_undo_has_a_limit_of_its_own() {
    let world = World::new();
    let diary = Diary::of(&world);
    let undone = step_with(
        "a",
        diary.clone(),
        async |_diary, _cx, n: &u32| Ok(*n),
        async |diary, cx: &StepContext, _n, _effect| {
            let _dropped = Dropped(diary);
            diary.write("undo");
            beats(cx, 5, 4 * SECOND).await;
            if cx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(())
        },
    )
    .heartbeat(SECOND)
    .compensation_heartbeat(5 * SECOND)
    .compensation_retry(calls(2));
    let mut saga = Saga::builder::<u32>("undone");
    let n = saga.input();
    let a = saga.add(undone, n);
    let refused = async |_: &StepContext, _: &u32| Err::<u32, _>(StepError::rejected("no"));
    let b = saga.add(step_fn("b", refused, async |_, _, _| Ok(())), a);
    let saga = saga.returns(b).unwrap();
    let outcome = world.run_to_rest(&saga, 1);
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(
        diary.lines(),
        ["undo at 0", "dropped at 25", "undo at 26", "dropped at 46"]
    );
    let partial = outcome.partial();
    let calls = &partial.step("a").unwrap().calls;
    let failures = calls.iter().filter_map(|call| call.failure.as_ref());
    let messages: Vec<&str> = failures.map(|failure| &*failure.message).collect();
    assert_eq!(messages, ["no heartbeat within 5s"]);
}

#[test]
fn a_limit_that_nothing_could_keep_is_a_fault_of_the_definition() {
    let work = || {
        step_fn(
            "a",
            async |_: &StepContext, (): &()| Ok(()),
            async |_, (), _| Ok(()),
        )
    };
    let send = irreversible_fn("b", async |_: &StepContext, (): &()| Ok(()));
    let mut saga = Saga::builder::<()>("faulty");
    saga.add(
        work()
            .heartbeat(Duration::ZERO)
            .compensation_heartbeat(Duration::ZERO),
        (),
    );
    saga.add(send.compensation_heartbeat(SECOND), ());
    let faults = saga.returns::<()>(()).unwrap_err().to_string();
    let lines: Vec<&str> = faults
        .lines()
        .filter(|line| line.contains("heartbeat"))
        .collect();
    assert_eq!(
        lines,
        [
            "- `a`: heartbeat: every call is silent for longer than 0 s",
            "- `a`: compensation_heartbeat: every call is silent for longer than 0 s",
            "- `b`: `compensation_heartbeat` makes no sense here: it has no undo"
        ]
    );
}
