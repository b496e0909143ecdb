//! A verb for all runs that match: at a rate, with a dry run, and never twice under one token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod operating;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::journal::{CommandAnswer, Standing, Verb};
use amends::operator::{Bulk, BulkOutcome, BulkReport, BulkTotals, Operator, Sent};
use amends::store::{MemoryStore, RunFilter, Store};
use amends::{Coordinator, RecoveryStrategy};
use operating::{IS_REJECTED, coordinator, one_of_each, order, run_to_rest};
use tokio::time::Instant;

const ACCEPTED: Sent = Sent::Answered(CommandAnswer::Accepted { told: None });

async fn parked(store: &Arc<MemoryStore>, mended: &Arc<AtomicBool>, runs: usize) -> Coordinator {
    let coordinator = coordinator(store.clone(), mended).await;
    for number in 0..runs {
        run_to_rest(
            &coordinator,
            &order(mended),
            &format!("run-{number:03}"),
            IS_REJECTED,
        )
        .await;
    }
    coordinator
}

fn retry(token: &str) -> Bulk {
    let filter = RunFilter::all().standing(Standing::Parked);
    Bulk::new(filter, Verb::retry(RecoveryStrategy::RetryFailed))
        .by("ada")
        .reason("the bank has answered")
        .token(token)
}

async fn reports(operator: &Operator, bulk: &Bulk) -> (BulkTotals, Vec<BulkReport>) {
    let mut told = Vec::new();
    let totals = operator
        .bulk(bulk, |report| told.push(report.clone()))
        .await
        .unwrap();
    (totals, told)
}

fn totals(matched: u64, asked: u64, before: u64, accepted: u64) -> [u64; 4] {
    [matched, asked, before, accepted]
}

fn numbers(of: &BulkTotals) -> [u64; 4] {
    totals(of.matched, of.asked, of.before, of.accepted)
}

#[tokio::test(start_paused = true)]
async fn every_run_is_asked_once_at_the_rate_and_told_in_order() {
    let (store, mended) = (Arc::new(MemoryStore::new()), Arc::default());
    let coordinator = parked(&store, &mended, 21).await;
    mended.store(true, Ordering::SeqCst);
    let operator = Operator::new(store.clone());
    let begun = Instant::now();
    let bulk = retry("t").per_second(NonZeroU32::new(5).unwrap());
    let (totals, told) = reports(&operator, &bulk).await;
    assert_eq!(numbers(&totals), [21, 21, 0, 21]);
    // The first at once, and twenty more at five a second.
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let runs: Vec<String> = told
        .iter()
        .map(|report| report.entry.run.to_string())
        .collect();
    let wanted: Vec<String> = (0..21).map(|number| format!("run-{number:03}")).collect();
    assert_eq!(runs, wanted);
    assert!(
        told.iter()
            .all(|report| report.became == BulkOutcome::Asked(ACCEPTED))
    );
    for run in &wanted {
        let handle = coordinator
            .attach(&order(&mended), &run.as_str().into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(handle.ended().await.unwrap().word(), "completed");
    }
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn repeated_under_its_token_it_asks_nobody_twice() {
    let (store, mended) = (Arc::new(MemoryStore::new()), Arc::default());
    // Nothing is mended: each retry parks its run again, so the filter matches it again.
    let coordinator = parked(&store, &mended, 5).await;
    let operator = Operator::new(store.clone());
    // Interrupted after the second command.
    let mut told = 0;
    {
        let bulk = retry("t").per_second(NonZeroU32::MIN);
        let bulk = operator.bulk(&bulk, |_| told += 1);
        let stopped = tokio::time::timeout(Duration::from_millis(1_500), bulk).await;
        assert!(stopped.is_err());
    }
    let parked = RunFilter::all().standing(Standing::Parked);
    while operator.list(&parked, None, 9).await.unwrap().len() < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (totals, repeated) = reports(&operator, &retry("t")).await;
    assert_eq!(numbers(&totals), [5, 3, 2, 5]);
    let before = repeated
        .iter()
        .map(|report| matches!(report.became, BulkOutcome::Before(_)))
        .collect::<Vec<_>>();
    assert_eq!(before, [true, true, false, false, false]);
    while operator.list(&parked, None, 9).await.unwrap().len() < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for number in 0..5 {
        let run = format!("run-{number:03}").as_str().into();
        let view = operator.view(&run).await.unwrap().unwrap();
        assert_eq!(view.partial().steps[1].attempts, 2, "one retry each");
    }
    coordinator.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_who_would_refuse_and_why_and_hands_nothing_in() {
    let store = Arc::new(MemoryStore::new());
    one_of_each(store.clone()).await;
    let operator = Operator::new(store.clone());
    let bulk = Bulk::new(RunFilter::all().saga("place-order"), Verb::Compensate).token("t");
    let mut told = Vec::new();
    let totals = operator
        .bulk_dry_run(&bulk, |report| {
            let why = match &report.became {
                BulkOutcome::WouldAsk => "ask".to_owned(),
                BulkOutcome::Refused { why, .. } => why.to_string(),
                other => panic!("{other:?}"),
            };
            told.push((report.entry.run.to_string(), why));
        })
        .await
        .unwrap();
    let ended = "the run has ended: start a new one instead";
    let under_way = "`compensate` is not taken while the run is going forward: `cancel` ends a run that is under way";
    let wanted = [
        ("run-1", ended),
        ("run-2", "ask"),
        ("run-3", ended),
        ("run-4", "ask"),
        ("run-6", under_way),
    ];
    let wanted = wanted.map(|(run, why)| (run.to_owned(), why.to_owned()));
    assert_eq!(told, wanted);
    assert_eq!((totals.matched, totals.asked, totals.refused), (5, 2, 3));
    assert_eq!(store.open_commands(None, 9).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_drives_the_runs_their_commands_wait_and_the_bulk_does_not() {
    let store = Arc::new(MemoryStore::new());
    one_of_each(store.clone()).await;
    let operator = Operator::new(store.clone());
    let begun = Instant::now();
    let (totals, _) = reports(&operator, &retry("t").patience(Duration::from_secs(2))).await;
    assert_eq!((totals.matched, totals.asked, totals.waiting), (2, 2, 2));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "all wait together"
    );
    assert_eq!(store.open_commands(None, 9).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn runs_that_start_meanwhile_are_left_alone() {
    let (store, mended) = (Arc::new(MemoryStore::new()), Arc::default());
    let coordinator = parked(&store, &mended, 3).await;
    let operator = Operator::new(store.clone());
    let bulk = retry("t").per_second(NonZeroU32::MIN);
    let asking = {
        let operator = operator.clone();
        tokio::spawn(async move { operator.bulk(&bulk, |_| ()).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    for number in 3..6 {
        run_to_rest(
            &coordinator,
            &order(&mended),
            &format!("run-{number:03}"),
            IS_REJECTED,
        )
        .await;
    }
    assert_eq!(asking.await.unwrap().matched, 3);
    coordinator.shutdown().await;
}
