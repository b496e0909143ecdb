//! What the barrier of a participant lets in, on each database (rule W4).

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]

mod barrier;
use barrier::{Asks, Crash, Work, compensate, each, execute, probe, run};

/// The answers to these calls, one after the other, the same on each database; and how often the effect of
/// `key` stands in the end.
async fn answers(calls: impl Fn(&str) -> Vec<Asks>, expected: &[&str], stands: i64) {
    each(async |service| {
        let key = format!("{}/pay/1", run());
        let mut answers = Vec::new();
        for asks in calls(&key) {
            answers.push(service.ask(asks).await);
        }
        assert_eq!(answers, expected, "{}", service.name());
        assert_eq!(service.stands(&key).await, stands, "{}", service.name());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_known_key_gets_the_stored_result_under_the_same_fence_and_a_higher_one() {
    let calls = |key: &str| {
        vec![
            execute(key, 1).result("first"),
            execute(key, 1).result("second"),
            execute(key, 2).result("third"),
        ]
    };
    let expected = ["fresh", "duplicate: first", "duplicate: first"];
    answers(calls, &expected, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_lower_fence_is_stale_for_every_call_of_the_run_also_with_a_known_key() {
    let calls = |key: &str| {
        vec![
            execute(key, 2),
            execute(key, 1),
            compensate(key, 1),
            probe(key, 1),
            // Another step of the run, and another run.
            execute(&format!("{key}0"), 1),
            execute(&format!("{}/pay/1", run()), 1),
            compensate(key, 2),
        ]
    };
    let expected = [
        "fresh",
        "stale",
        "stale",
        "stale",
        "stale",
        "fresh",
        "undo: the result",
    ];
    answers(calls, &expected, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_higher_fence_is_kept_whichever_call_brings_it() {
    for raised in [execute, compensate, probe] {
        let calls = |key: &str| vec![execute(key, 1), raised(key, 3), execute(key, 2)];
        let stands = i64::from(raised("r/a/1", 1).asked() != compensate("r/a/1", 1).asked());
        each(async |service| {
            let key = format!("{}/pay/1", run());
            let mut last = String::new();
            for asks in calls(&key) {
                last = service.ask(asks).await;
            }
            assert_eq!(last, "stale");
            assert_eq!(service.stands(&key).await, stands);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_another_request_under_a_known_key_is_an_error() {
    let calls = |key: &str| {
        vec![
            execute(key, 1),
            execute(key, 1).request("another"),
            compensate(key, 1).request("of the undo"),
            compensate(key, 1),
            compensate(key, 1).request("of the undo"),
        ]
    };
    let expected = [
        "fresh",
        "other-request",
        "undo: the result",
        "other-request",
        "duplicate: the result",
    ];
    answers(calls, &expected, 0).await;

    let empty = |key: &str| vec![compensate(key, 1), compensate(key, 1).request("another")];
    answers(empty, &["nothing", "other-request"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_an_undo_before_its_execute_is_recorded_and_the_late_execute_is_refused() {
    let calls = |key: &str| vec![compensate(key, 1), compensate(key, 1), execute(key, 1)];
    answers(calls, &["nothing", "nothing", "closed"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_an_execute_after_the_undo_is_refused() {
    let calls = |key: &str| {
        vec![
            execute(key, 1).result("paid"),
            compensate(key, 1).result("paid back"),
            execute(key, 1),
            compensate(key, 1),
        ]
    };
    let expected = ["fresh", "undo: paid", "closed", "duplicate: paid back"];
    answers(calls, &expected, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_probe_tells_the_result_or_closes_the_key_for_good() {
    let done = |key: &str| vec![execute(key, 1).result("paid"), probe(key, 1)];
    answers(done, &["fresh", "done: paid"], 1).await;

    let never = |key: &str| {
        vec![
            probe(key, 1),
            execute(key, 1),
            probe(key, 1),
            compensate(key, 1),
        ]
    };
    answers(never, &["never", "closed", "never", "nothing"], 0).await;

    let undone = |key: &str| vec![execute(key, 1), compensate(key, 1), probe(key, 1)];
    answers(undone, &["fresh", "undo: the result", "never"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_after_never_only_a_later_attempt_gets_in_under_the_same_key() {
    let calls = |key: &str| {
        vec![
            probe(key, 1).attempt(2),
            // Of those that the probe was about, none gets in, nor one that doesn't say which it is.
            execute(key, 1).attempt(1),
            execute(key, 1).attempt(2),
            execute(key, 1),
            // The later of two probes counts, in whichever order they arrive.
            probe(key, 1).attempt(4),
            probe(key, 1).attempt(3),
            execute(key, 1).attempt(4),
            execute(key, 1).attempt(5).work(Work::Rejects),
            execute(key, 1).attempt(4),
            execute(key, 1).attempt(6).result("sixth"),
            execute(key, 1).attempt(4),
            probe(key, 1).attempt(6),
        ]
    };
    let expected = [
        "never",
        "closed",
        "closed",
        "closed",
        "never",
        "never",
        "closed",
        "rejected",
        "closed",
        "fresh",
        "duplicate: sixth",
        "done: sixth",
    ];
    answers(calls, &expected, 1).await;

    let undone = |key: &str| {
        vec![
            probe(key, 1).attempt(1),
            compensate(key, 1),
            execute(key, 1).attempt(2),
        ]
    };
    answers(undone, &["never", "nothing", "closed"], 0).await;

    let unknown = |key: &str| {
        vec![
            probe(key, 1).attempt(1),
            probe(key, 1),
            execute(key, 1).attempt(2),
        ]
    };
    answers(unknown, &["never", "never", "closed"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_call_leaves_nothing_and_its_key_open() {
    let calls = |key: &str| {
        vec![
            execute(key, 1).work(Work::Rejects),
            execute(key, 1),
            compensate(key, 1).work(Work::Rejects),
            execute(key, 1),
            compensate(key, 1),
        ]
    };
    let expected = [
        "rejected",
        "fresh",
        "rejected",
        "duplicate: the result",
        "undo: the result",
    ];
    answers(calls, &expected, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_not_recorded_is_not_committed_or_later_calls_say_so() {
    each(async |service| {
        let key = format!("{}/pay/1", run());
        let first = service.ask(execute(&key, 1).work(Work::Forgets)).await;
        let second = service.ask(execute(&key, 1)).await;
        let undo = service.ask(compensate(&key, 1).work(Work::Forgets)).await;
        let again = service.ask(compensate(&key, 1)).await;
        let asked = service.ask(probe(&key, 1)).await;
        let (answers, stands) = match service.name() {
            "PostgreSQL" => (
                [
                    "commit: 23503",
                    "fresh",
                    "commit: 23503",
                    "undo: the result",
                    "never",
                ],
                0,
            ),
            "SQLite" => (
                [
                    "commit: ConstraintViolation",
                    "fresh",
                    "commit: ConstraintViolation",
                    "undo: the result",
                    "never",
                ],
                0,
            ),
            // It has no constraint that waits for the commit.
            _ => (
                [
                    "fresh",
                    "unrecorded",
                    "unrecorded",
                    "unrecorded",
                    "unrecorded",
                ],
                1,
            ),
        };
        assert_eq!(
            [first, second, undo, again, asked],
            answers,
            "{}",
            service.name()
        );
        assert_eq!(service.stands(&key).await, stands, "{}", service.name());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_committed_is_no_answer() {
    let calls = |key: &str| {
        vec![
            probe(key, 2).crash(Crash::BeforeCommit),
            compensate(key, 3).crash(Crash::BeforeCommit),
            execute(key, 1),
        ]
    };
    answers(calls, &["never", "nothing", "fresh"], 1).await;
}
