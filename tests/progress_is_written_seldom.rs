//! Reports never wait and never pile up: a chatty step costs a record every ten seconds, or each half of its
//! heartbeat limit, and what it told last comes with its end.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use amends::journal::{Event, form_of};
use amends::*;
use common::*;

/// Reports its way from 1 to its input, ten times a second.
fn chatty(name: &str) -> StepSpec<u64, u64> {
    step_fn(
        name,
        async |cx: &StepContext, most: &u64| {
            for number in 1..=*most {
                tokio::time::sleep(SECOND / 10).await;
                cx.report_progress(number);
            }
            Ok(*most)
        },
        async |_, _, _| Ok(()),
    )
    .timeout(3_600 * SECOND)
}

fn only(step: StepSpec<u64, u64>) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("only");
    let input = saga.input();
    let node = saga.add(step, input);
    saga.returns(node).unwrap()
}

/// The uncancelled part of a story, in one line per record.
fn records(world: &World) -> Vec<String> {
    let records = world.records().into_iter();
    records.map(|events| events.join(", ")).collect()
}

#[test]
fn a_chatty_step_costs_a_record_every_ten_seconds() {
    let world = World::new();
    let saga = only(chatty("a"));
    world.run_to_rest(&saga, 255);
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "progress a 100",
            "progress a 200",
            "progress a 255, done a, ended completed"
        ]
    );
}

#[test]
fn with_a_heartbeat_limit_it_is_each_half_of_it_and_never_more_than_once_a_second() {
    for (limit, apart) in [(60, 100), (20, 100), (8, 40), (2, 10), (1, 10)] {
        let world = World::new();
        let saga = only(chatty("a").heartbeat(limit * SECOND));
        world.run_to_rest(&saga, 125);
        let mut expected = vec!["run started, start a 1".to_owned()];
        for written in 1..=125 / apart {
            expected.push(format!("progress a {}", written * apart));
        }
        let last = if 125 % apart == 0 {
            ""
        } else {
            "progress a 125, "
        };
        expected.push(format!("{last}done a, ended completed"));
        assert_eq!(records(&world), expected, "{limit}");
    }
}

#[test]
fn a_step_that_is_done_soon_costs_no_record_for_what_it_reports() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("chain");
    let mut last = saga.input();
    for name in ["a", "b", "c"] {
        last = saga.add(chatty(name), last);
    }
    let saga = saga.returns(last).unwrap();
    world.run_to_rest(&saga, 50);
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "progress a 50, done a, start b 1",
            "progress b 50, done b, start c 1",
            "progress c 50, done c, ended completed"
        ]
    );
}

#[test]
fn what_an_attempt_told_last_comes_with_its_failure_or_its_time_out() {
    let world = World::new();
    let step = step_fn(
        "a",
        async |cx: &StepContext, n: &u64| {
            cx.report_progress(cx.attempt());
            match cx.attempt() {
                1 => Err(StepError::not_done("refused").with_mode(FailureMode::SystemNetwork)),
                2 => std::future::pending().await,
                3 => panic!("it"),
                _ => Ok(*n),
            }
        },
        async |_, _, _| Ok(()),
    );
    let park = RecoveryPolicy::new("park", RecoveryStrategy::Manual);
    let mut saga = Saga::builder::<u64>("only").policy(park);
    let n = saga.input();
    let a = saga.add(step.retry(calls(4)).timeout(5 * SECOND), n);
    let saga = saga.returns(a).unwrap();
    assert_eq!(world.run_to_rest(&saga, 1).word(), "parked");
    assert_eq!(
        records(&world),
        [
            "run started, start a 1",
            "progress a 1, failed a, again",
            "start a 1",
            "progress a 2, failed a, again",
            "start a 1",
            "progress a 3, failed a, decided manual, parked manual"
        ]
    );
}

#[test]
fn progress_goes_along_with_what_is_written_anyway_but_not_more_than_once_a_second() {
    let world = World::new();
    let mut saga = Saga::builder::<u64>("sides");
    let n = saga.input();
    let a = saga.add(chatty("a"), n);
    // Each of these ends a record, at 0.5, 1.25, 1.75 and 3.75 s.
    for (name, millis) in [("b", 500), ("c", 1_250), ("d", 1_750), ("e", 3_750)] {
        world.plan(
            &format!("do {name}"),
            [Act::Done(1).after(Duration::from_millis(millis))],
        );
        saga.add(world.step(name), n);
    }
    let saga = saga.returns(a).unwrap();
    world.run_to_rest(&saga, 50);
    assert_eq!(
        records(&world),
        [
            "run started, start a 1, start b 1, start c 1, start d 1, start e 1",
            "done b",
            "done c, progress a 12",
            "done d",
            "done e, progress a 37",
            "progress a 50, done a, ended completed"
        ]
    );
}

#[test]
fn a_report_from_a_thread_of_the_steps_own_wakes_whoever_writes_it() {
    let world = World::new();
    let step = step_fn(
        "a",
        async |cx: &StepContext, n: &u64| {
            let (cx, number) = (cx.clone(), *n);
            let work = tokio::spawn(async move {
                tokio::time::sleep(SECOND).await;
                cx.report_progress(number);
                tokio::time::sleep(20 * SECOND).await;
            });
            work.await.unwrap();
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    );
    let saga = only(step);
    world.life(&saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 7).await.unwrap();
        tokio::time::sleep(9 * SECOND).await;
        assert_eq!(records(&world), ["run started, start a 1"]);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(records(&world), ["run started, start a 1", "progress a 7"]);
    });
}

#[test]
fn at_the_end_of_a_shutdowns_grace_the_last_report_is_written() {
    let world = World::new();
    let saga = only(chatty("a"));
    world.life_with(
        |builder| builder.register(&saga).shutdown_grace(3 * SECOND),
        async |coordinator| {
            let _run = coordinator.start(&saga, "r", 1_000).await.unwrap();
            tokio::time::sleep(2 * SECOND + SECOND / 20).await;
            coordinator.shutdown().await;
        },
    );
    assert_eq!(records(&world), ["run started, start a 1", "progress a 50"]);
}

#[test]
fn a_record_with_progress_is_of_the_third_form_and_others_stay_as_old_as_they_can() {
    let progress: Event<String> = Event::Progress {
        step: "a".to_owned(),
        value: serde_json::from_str("7").unwrap(),
    };
    assert_eq!(
        serde_json::to_string(&progress).unwrap(),
        r#"{"progress":{"step":"a","value":7}}"#
    );
    assert_eq!(form_of(&[progress]), 3);
    let world = World::new();
    world.run_to_rest(&only(chatty("a")), 0);
    let forms: Vec<u32> = world
        .journal()
        .iter()
        .map(|events| form_of(events))
        .collect();
    assert_eq!(forms, [1, 1]);
}
