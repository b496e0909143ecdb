//! The partial result tells each call of a step, and what happened to the run as a whole.
#![cfg(feature = "testkit")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "diagram/scripted.rs"]
mod scripted;

use amends::CallEnd::{Done, Failed, Interrupted, Lost, Stopped, UnderWay};
use amends::CallKind::{Compensate, Execute};
use amends::{CallEnd, CallKind, CancelTold, FailureMode, Happened, PartialResult, diagram};
use scripted::{
    Drawn, nightly_under_way, order_compensated, order_operated, order_parked_for_a_day,
    order_stopped, siblings_interrupted, trip_cancelled, trip_parked, trip_past_the_pivot,
    trip_taken_over,
};

/// Kind, attempt, from and to in milliseconds since the start, end.
type Told = (CallKind, u32, i64, Option<i64>, CallEnd);

fn calls(run: &PartialResult, step: &str) -> Vec<Told> {
    let since = |at: amends::Timestamp| (at.as_micros() - run.started_at.as_micros()) / 1_000;
    let calls = &run.step(step).unwrap().calls;
    calls
        .iter()
        .map(|call| {
            (
                call.call,
                call.attempt,
                since(call.started_at),
                call.ended_at.map(since),
                call.end,
            )
        })
        .collect()
}

fn moments(run: &PartialResult) -> Vec<(i64, &Happened)> {
    let since = |at: amends::Timestamp| (at.as_micros() - run.started_at.as_micros()) / 1_000;
    let moments = run.moments.iter();
    moments
        .map(|moment| (since(moment.at), &moment.what))
        .collect()
}

#[test]
fn failed_undo_attempts_are_told_like_any_other_call() {
    let Drawn { run, .. } = order_compensated();
    assert_eq!(
        calls(&run, "reserve-stock"),
        [
            (Execute, 1, 0, Some(12), Done),
            (Compensate, 1, 161, Some(166), Failed),
            (Compensate, 2, 206, Some(215), Done),
        ]
    );
    let undo = &run.step("reserve-stock").unwrap().calls[1];
    assert_eq!(
        undo.failure.as_ref().unwrap().mode,
        FailureMode::SystemNetwork
    );
    // It was to be tried again when it was.
    assert_eq!(
        undo.retry_at,
        Some(run.step("reserve-stock").unwrap().calls[2].started_at)
    );
    assert_eq!(
        calls(&run, "charge-card"),
        [
            (Execute, 1, 12, Some(21), Failed),
            (Execute, 2, 61, Some(75), Failed),
            (Execute, 3, 155, Some(161), Failed),
        ]
    );
    assert_eq!(calls(&run, "ship"), []);

    let Drawn { run, .. } = trip_parked();
    let hotel = run.step("book-hotel").unwrap();
    let undos: Vec<_> = hotel
        .calls
        .iter()
        .filter(|call| call.call == Compensate)
        .map(|call| (call.attempt, call.round, call.retry_at.is_some()))
        .collect();
    assert_eq!(undos, [(1, 1, true), (2, 1, true), (3, 1, false)]);
    assert_eq!(hotel.history.len(), 2, "the history is that of execute");
}

#[test]
fn a_call_that_its_process_took_along_ends_lost_when_the_run_is_taken_over() {
    let Drawn { run, .. } = trip_taken_over();
    assert_eq!(
        calls(&run, "book-flight"),
        [
            (Execute, 1, 12, Some(90), Lost),
            (Execute, 2, 90, Some(110), Done),
        ]
    );
    assert_eq!(moments(&run), [(90, &Happened::Claimed { fence: 2 })]);
    let history = &run.step("book-flight").unwrap().history;
    assert_eq!((history.len(), &history[0].failure), (1, &None));
}

#[test]
fn calls_that_asked_to_stop_or_were_dropped_or_are_under_way_are_told_so() {
    let Drawn { run, .. } = order_stopped();
    assert_eq!(
        calls(&run, "charge-card"),
        [(Execute, 1, 12, Some(21), Stopped)]
    );
    let Drawn { run, .. } = siblings_interrupted();
    assert_eq!(
        calls(&run, "slow"),
        [
            (Execute, 1, 12, Some(67), Interrupted),
            (Compensate, 1, 67, Some(75), Done),
        ]
    );
    let Drawn { run, .. } = nightly_under_way();
    assert_eq!(calls(&run, "job-e4"), [(Execute, 1, 48, None, UnderWay)]);
}

#[test]
fn what_happened_to_the_run_as_a_whole_is_told_in_order() {
    let Drawn { run, .. } = order_parked_for_a_day();
    let words: Vec<(i64, &str)> = moments(&run)
        .into_iter()
        .map(|(at, what)| {
            let word = match what {
                Happened::Decided { strategy, .. } => strategy.as_str(),
                Happened::Parked { reason, .. } => reason,
                Happened::Resolved { answer, .. } => answer,
                other => panic!("{other:?}"),
            };
            (at, word)
        })
        .collect();
    let day = 26 * 3_600_000;
    assert_eq!(
        words,
        [
            (243, "manual"),
            (243, "manual"),
            (day, "never"),
            (day + 120_000, "retry_failed"),
        ]
    );

    let Drawn { run, .. } = order_operated();
    let by_ann: Vec<(i64, &str)> = moments(&run)
        .into_iter()
        .filter_map(|(at, what)| match what {
            Happened::Skipped { step, .. } => Some((at, step.as_str())),
            Happened::Paused { reason, .. } | Happened::Resumed { reason, .. } => {
                Some((at, reason.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        by_ann,
        [
            (60, "charge-card"),
            (75, "the warehouse moves"),
            (115, "it has moved"),
        ]
    );

    let Drawn { run, .. } = trip_past_the_pivot();
    let [
        (
            186,
            Happened::Decided {
                failed, recovery, ..
            },
        ),
    ] = &moments(&run)[..]
    else {
        panic!("{:?}", run.moments)
    };
    assert_eq!(
        (failed.as_slice(), *recovery),
        (&["send-tickets".to_owned()][..], 1)
    );

    let Drawn { run, .. } = trip_cancelled();
    let cancel = Happened::CancelRequested {
        by: "bob".to_owned(),
        reason: "the customer has changed her mind".to_owned(),
        told: CancelTold::Accepted,
    };
    assert_eq!(moments(&run)[0], (50, &cancel));
    assert_eq!(run.moments.len(), 2);
}

#[test]
fn json_from_before_calls_were_kept_reads_and_is_drawn() {
    for Drawn { graph, run, .. } in scripted::all() {
        let mut json = serde_json::to_value(&run).unwrap();
        let read: PartialResult = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(read, run);
        assert_eq!(read.schema, 1);

        json.as_object_mut().unwrap().remove("moments");
        for step in json["steps"].as_array_mut().unwrap() {
            step.as_object_mut().unwrap().remove("calls");
        }
        let old: PartialResult = serde_json::from_value(json).unwrap();
        assert!(old.moments.is_empty() && old.steps.iter().all(|step| step.calls.is_empty()));
        assert!(diagram::run_svg(&graph, &old).ends_with("</svg>\n"));
        assert!(diagram::timeline_svg(&old).ends_with("</svg>\n"));
        let text = diagram::timeline_text(&old);
        assert!(text.contains(&run.steps[0].name), "{text}");
    }
}
