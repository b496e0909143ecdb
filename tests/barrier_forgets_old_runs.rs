//! Runs that nobody has touched for long are forgotten as a whole, and no others.

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]

mod barrier;
use barrier::{Gate, compensate, each, execute, run, until_waiting};

const HOUR: u64 = 3600;

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_old_are_forgotten_in_batches_with_their_fence() {
    each(async |service| {
        let runs: Vec<String> = (0..5).map(|_| run()).collect();
        for (number, run) in (0..).zip(&runs) {
            for step in ["pay/1", "pack/1"] {
                service.ask(execute(&format!("{run}/{step}"), 7)).await;
            }
            // The last but one is younger, the last was aged and then touched again by a duplicate.
            let age = if number == 3 { HOUR - 600 } else { HOUR + 600 };
            service.age(run, age).await;
        }
        let touched = format!("{}/pay/1", runs[4]);
        let again = service.ask(execute(&touched, 7)).await;
        assert_eq!(again, "duplicate: the result");

        let batches = [
            service.prune(HOUR, 2).await,
            service.prune(HOUR, 2).await,
            service.prune(HOUR, 2).await,
        ];
        assert_eq!(batches, [2, 1, 0], "{}", service.name());

        for (number, run) in runs.iter().enumerate() {
            for step in ["pay/1", "pack/1"] {
                let kept = service.state(&format!("{run}/{step}")).await;
                let expected = (number > 2).then(|| "done".to_owned());
                assert_eq!(kept, expected, "{} {number} {step}", service.name());
            }
        }
        // What is forgotten is new, and so is the fence.
        assert_eq!(
            service.ask(execute(&format!("{}/pay/1", runs[0]), 1)).await,
            "fresh"
        );
        assert_eq!(service.ask(execute(&touched, 1)).await, "stale");
        assert_eq!(
            service.ask(compensate(&touched, 8)).await,
            "undo: the result"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_called_meanwhile_is_not_forgotten() {
    each(async |service| {
        if service.waiting().await.is_none() {
            // One writer at a time: nothing happens meanwhile.
            return;
        }
        let run = run();
        service.ask(execute(&format!("{run}/a/1"), 1)).await;
        service.age(&run, 2 * HOUR).await;
        let gate = Gate::new();
        let call = {
            let service = std::sync::Arc::clone(&service);
            let asks = execute(&format!("{run}/b/1"), 1).gate(&gate);
            tokio::spawn(async move { service.ask(asks).await })
        };
        gate.entered(1).await;
        let pruned = {
            let service = std::sync::Arc::clone(&service);
            tokio::spawn(async move { service.prune(HOUR, 10).await })
        };
        // PostgreSQL passes over what is held; MariaDB waits for it, and looks again.
        if service.name() == "MariaDB" {
            until_waiting(&*service, 1).await;
        } else {
            while !pruned.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        gate.open();
        assert_eq!(pruned.await.unwrap(), 0, "{}", service.name());
        assert_eq!(call.await.unwrap(), "fresh");
        let kept = service.state(&format!("{run}/a/1")).await;
        assert_eq!(kept.as_deref(), Some("done"), "{}", service.name());
    })
    .await;
}
