//! Calls at once, by connections of their own (rule W4).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

mod barrier;
use barrier::{
    Asks, Crash, Gate, Service, Work, compensate, each, execute, probe, run, until_waiting,
};

/// Longer than any call takes that waits for nobody.
const FOREVER: Duration = Duration::from_secs(20);

/// What comes soon, where nobody waits for anybody.
async fn soon<T>(service: &Arc<dyn Service>, future: impl Future<Output = T>) -> T {
    let Ok(came) = timeout(FOREVER, future).await else {
        panic!("{}: it waits for something", service.name())
    };
    came
}

/// Makes a call in a task of its own.
fn ask(service: &Arc<dyn Service>, asks: Asks) -> tokio::task::JoinHandle<String> {
    let service = Arc::clone(service);
    tokio::spawn(async move { service.ask(asks).await })
}

/// Makes calls at once, and again where `InnoDB` chose one to end a deadlock. Gives their answers, sorted, and
/// how often it chose one.
async fn at_once(service: &Arc<dyn Service>, calls: Vec<Asks>) -> (Vec<String>, usize) {
    let mut asked = JoinSet::new();
    for asks in calls {
        let service = Arc::clone(service);
        asked.spawn(async move {
            let mut chosen = 0;
            loop {
                let answer = service.ask(asks.clone()).await;
                if !answer.contains("Deadlock") {
                    return (answer, chosen);
                }
                chosen += 1;
            }
        });
    }
    let (mut answers, chosen): (Vec<_>, Vec<_>) = asked.join_all().await.into_iter().unzip();
    answers.sort();
    (answers, chosen.into_iter().sum())
}

/// Makes one call, and while it works, another one; the gate opens once that waits. Gives both answers.
async fn one_while_another(service: &Arc<dyn Service>, one: Asks, another: Asks) -> [String; 2] {
    let gate = Gate::new();
    let one = ask(service, one.gate(&gate));
    gate.entered(1).await;
    let another = ask(service, another);
    soon(service, until_waiting(&**service, 1)).await;
    gate.open();
    [one.await.unwrap(), another.await.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_of_many_executes_of_one_key_at_once_one_is_fresh_and_all_get_its_result() {
    each(async |service| {
        let key = format!("{}/pay/1", run());
        let calls = (0..8)
            .map(|_| execute(&key, 1).result("paid"))
            .collect::<Vec<_>>();
        let (answers, chosen) = at_once(&service, calls).await;
        let mut expected = vec!["duplicate: paid"; 7];
        expected.push("fresh");
        assert_eq!(
            (answers, chosen),
            (expected.into_iter().map(str::to_owned).collect(), 0)
        );
        assert_eq!(service.stands(&key).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_when_the_first_of_many_is_rolled_back_exactly_one_other_is_fresh() {
    each(async |service| {
        for ends in [Work::Rejects, Work::Done] {
            let key = format!("{}/pay/1", run());
            let gate = Gate::new();
            let first = execute(&key, 1).work(ends).gate(&gate);
            // Refused by the service, or lost with its connection.
            let first = ask(&service, first.crash(Crash::BeforeCommit));
            gate.entered(1).await;
            let others = (0..4)
                .map(|_| execute(&key, 1).result("paid"))
                .collect::<Vec<_>>();
            let waits = async {
                soon(&service, until_waiting(&*service, 4)).await;
                gate.open();
            };
            let ((answers, _), ()) = tokio::join!(at_once(&service, others), waits);
            let expected = [
                "duplicate: paid",
                "duplicate: paid",
                "duplicate: paid",
                "fresh",
            ];
            assert_eq!(answers, expected, "{}", service.name());
            assert_eq!(service.stands(&key).await, 1);
            first.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_compensate_waits_for_the_execute_under_way_and_sees_what_became_of_it() {
    each(async |service| {
        let key = format!("{}/pay/1", run());
        let paid = execute(&key, 1).result("paid");
        let both = one_while_another(&service, paid, compensate(&key, 1)).await;
        assert_eq!(both, ["fresh", "undo: paid"], "{}", service.name());
        assert_eq!(service.stands(&key).await, 0);

        for lost in [
            execute("r/a/1", 1).crash(Crash::BeforeCommit),
            execute("r/a/1", 1).work(Work::Rejects),
        ] {
            let key = format!("{}/pay/1", run());
            let lost = Asks {
                call: execute(&key, 1).call,
                ..lost
            };
            let both = one_while_another(&service, lost, compensate(&key, 1)).await;
            assert_eq!(both[1], "nothing", "{}", service.name());
            assert_eq!(service.ask(execute(&key, 1)).await, "closed");
            assert_eq!(service.stands(&key).await, 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_late_execute_or_a_second_undo_waits_for_the_undo_under_way() {
    each(async |service| {
        for (late, answer) in [
            (execute as fn(&str, u64) -> Asks, "closed"),
            (compensate, "duplicate: back"),
        ] {
            let key = format!("{}/pay/1", run());
            assert_eq!(service.ask(execute(&key, 1)).await, "fresh");
            let undo = compensate(&key, 1).result("back");
            let both = one_while_another(&service, undo, late(&key, 1)).await;
            assert_eq!(both, ["undo: the result", answer], "{}", service.name());
            assert_eq!(service.stands(&key).await, 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_probe_waits_for_the_execute_under_way_so_that_never_is_true() {
    each(async |service| {
        let key = format!("{}/pay/1", run());
        let paid = execute(&key, 1).result("paid");
        let both = one_while_another(&service, paid, probe(&key, 1)).await;
        assert_eq!(both, ["fresh", "done: paid"], "{}", service.name());

        let key = format!("{}/pay/1", run());
        let lost = execute(&key, 1).crash(Crash::BeforeCommit);
        let both = one_while_another(&service, lost, probe(&key, 1)).await;
        assert_eq!(both, ["fresh", "never"], "{}", service.name());
        assert_eq!(service.ask(execute(&key, 1)).await, "closed");
        assert_eq!(service.stands(&key).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_higher_fence_waits_for_calls_of_a_lower_one_that_are_in_and_lets_in_no_more() {
    each(async |service| {
        let run = run();
        let (old, new) = (format!("{run}/old/1"), format!("{run}/new/1"));
        // The run is known under the old fence, so that nobody has to make its rows.
        assert_eq!(
            service.ask(execute(&format!("{run}/a/1"), 1)).await,
            "fresh"
        );
        let both = one_while_another(&service, execute(&old, 1), execute(&new, 2)).await;
        assert_eq!(both, ["fresh", "fresh"], "{}", service.name());
        assert_eq!(service.ask(execute(&old, 1)).await, "stale");

        // The other way round: who has a lower fence and comes while the higher one is in.
        let (old, new) = (format!("{run}/old/2"), format!("{run}/new/2"));
        let both = one_while_another(&service, execute(&new, 3), execute(&old, 2)).await;
        assert_eq!(both, ["fresh", "stale"], "{}", service.name());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_of_one_run_do_not_wait_for_each_other_nor_do_other_runs() {
    each(async |service| {
        if service.waiting().await.is_none() {
            // One writer at a time: there all wait.
            return;
        }
        let run = run();
        assert_eq!(
            service.ask(execute(&format!("{run}/a/1"), 1)).await,
            "fresh"
        );
        let gate = Gate::new();
        let mut working = Vec::new();
        for branch in ["b", "c", "d"] {
            let key = format!("{run}/{branch}/1");
            working.push(ask(&service, execute(&key, 1).gate(&gate)));
        }
        // All three are in at once.
        soon(&service, gate.entered(3)).await;

        // Runs whose rows lie right before and behind those that are held, known and new, and known keys.
        let neighbours = [
            format!("{run}/b/0"),
            format!("{run}/b/2"),
            format!("{run}/z/1"),
            format!("{}/b/1", &run[..run.len() - 1]),
            format!("{run}0/b/1"),
            format!("{}/b/1", barrier::run()),
            "0/b/1".to_owned(),
            "zz/b/1".to_owned(),
        ];
        for key in &neighbours {
            let calls = [
                (execute(key, 1), "fresh"),
                (execute(key, 1), "duplicate: the result"),
                (compensate(key, 1), "undo: the result"),
                (execute(key, 1), "closed"),
                (probe(&format!("{key}x"), 1), "never"),
                (compensate(&format!("{key}y"), 1), "nothing"),
            ];
            for (asks, answer) in calls {
                let told = soon(&service, service.ask(asks)).await;
                assert_eq!(told, answer, "{} {key}", service.name());
            }
        }
        gate.open();
        for working in working {
            assert_eq!(working.await.unwrap(), "fresh", "{}", service.name());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_that_are_a_runs_first_or_a_take_overs_first_calls_come_at_once_without_a_deadlock()
 {
    each(async |service| {
        for _ in 0..5 {
            let run = run();
            for fence in [1, 2, 3] {
                let calls = (0..6)
                    .map(|branch| execute(&format!("{run}/branch[{branch}]/{fence}"), fence))
                    .collect();
                let (answers, chosen) = at_once(&service, calls).await;
                assert_eq!(answers, ["fresh"; 6], "{}", service.name());
                assert_eq!(chosen, 0, "{}", service.name());
            }
        }
    })
    .await;
}
