//! Journals of runs whose steps have steps inside follow the rules by which a store is verified, and go to
//! another store and on from there.
#![cfg(all(feature = "sqlite", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[path = "diagram/nested.rs"]
mod nested;
#[path = "diagram/scripted.rs"]
mod scripted;

use std::sync::Arc;

use amends::operator::Operator;
use amends::store::{MemoryStore, RunFilter, SqliteStore, Store};
use amends::testkit::VirtualClock;
use amends::{Coordinator, RunId, Saga, UndoOrder, step};
use nested::{crowd, deal, shop};
use scripted::{Act, Cast, MINUTES, MS, SECRET, Script, life};
use tokio::time::sleep;

/// Labels are refused once, mails and deliveries always.
fn cast() -> Cast {
    let script = Script::default()
        .on("reserve[1]", [Act::Busy(9), Act::Refused(6)])
        .on("ship[1]/label[1]", [Act::Refused(9), Act::Done(5)])
        .on("mail", [Act::Refused(5)])
        .on("greet[17]", [Act::Refused(5)])
        .on("deliver", [Act::Refused(5)])
        .undo("pay/primary", [Act::Refused(5)])
        .undo("ordered[0]/pack", [Act::Busy(5), Act::Done(9)]);
    Cast::new(script)
}

/// Undone one after another, those inside steps, too.
fn ordered(cast: &Cast) -> Saga<u64, ()> {
    let mut parcel = Saga::builder::<u64>("parcel").undo_order(UndoOrder::Sequential);
    let line = parcel.input();
    parcel.add(cast.step::<u64>("pack"), line);
    parcel.add(cast.step::<u64>("label"), line);
    let parcel = parcel.returns::<u64>(line).unwrap();
    let mut saga = Saga::builder::<u64>("ordered").undo_order(UndoOrder::Sequential);
    let n = saga.input();
    saga.add(cast.step::<u64>("first"), n);
    let parcels = step("ordered", &parcel).for_each().parallel(1);
    let sent = saga.add(parcels, n.map(|n| vec![*n, *n, *n]));
    saga.add(cast.step::<u64>("deliver").after(sent), n);
    saga.returns(()).unwrap()
}

async fn coordinator(store: Arc<dyn Store>, cast: &Cast) -> Coordinator {
    Coordinator::builder_shared(store)
        .clock(VirtualClock::new())
        .register(&shop(cast))
        .register(&crowd(cast))
        .register(&deal(cast))
        .register(&ordered(cast))
        .build()
        .await
        .unwrap()
}

/// Runs that have completed, gone back, and been parked, and one that waits.
fn source() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    life(async || {
        let cast = cast();
        let coordinator = coordinator(store.clone(), &cast).await;
        for run in ["shop-parked", "shop-waiting"] {
            coordinator.start(&shop(&cast), run, SECRET).await.unwrap();
        }
        coordinator
            .start(&crowd(&cast), "crowd", SECRET)
            .await
            .unwrap();
        coordinator
            .start(&deal(&cast), "deal", SECRET)
            .await
            .unwrap();
        let run = RunId::new("ordered");
        coordinator
            .start(&ordered(&cast), run, SECRET)
            .await
            .unwrap();
        sleep(MINUTES(2)).await;
        let parked = RunId::new("shop-parked");
        let seen = coordinator.signal(&parked, "looked-at", SECRET).await;
        seen.unwrap();
        sleep(MINUTES(200)).await;
        coordinator.shutdown().await;
    });
    store
}

async fn exported(store: Arc<dyn Store>) -> String {
    let mut text = Vec::new();
    let failed = |run: &RunId, what: &str| panic!("{run}: {what}");
    let done = Operator::new(store)
        .export(&RunFilter::all(), &mut text, failed)
        .await;
    assert_eq!(done.unwrap().failed, 0);
    String::from_utf8(text).unwrap()
}

async fn findings(store: Arc<dyn Store>) -> Vec<String> {
    let mut found = Vec::new();
    let tell = |finding: &amends::operator::Finding| found.push(finding.to_string());
    let verified = Operator::new(store)
        .verify(&RunFilter::all(), tell, |_| ())
        .await;
    assert_eq!(verified.unwrap().runs, 5);
    found
}

async fn standings(store: &dyn Store) -> Vec<String> {
    let all = store.scan(&RunFilter::all(), None, 100).await.unwrap();
    let told = all
        .iter()
        .map(|entry| format!("{} {}", entry.run, entry.standing));
    told.collect()
}

#[test]
fn what_they_say_is_found_right_and_is_the_same_in_another_store() {
    let from = source();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(
            standings(&*from).await,
            [
                "shop-parked parked",
                "shop-waiting waiting",
                "crowd completed",
                "deal compensated",
                "ordered compensated"
            ]
        );
        assert_eq!(findings(from.clone()).await, Vec::<String>::new());
        let text = exported(from.clone()).await;
        assert!(text.contains(r#""form":3"#) && text.contains(r#""passed_over""#));

        let dir = tempfile::tempdir().unwrap();
        let to = Arc::new(SqliteStore::open(dir.path().join("sagas.db")).unwrap());
        let operator = Operator::new(to.clone());
        let imported = operator.import(text.as_bytes(), |_, _| (), |_| ()).await;
        assert_eq!(imported.unwrap().imported, 5);
        assert_eq!(findings(to.clone()).await, Vec::<String>::new());
        assert_eq!(exported(to.clone()).await, text);
        let (one, other) = (Operator::new(from), Operator::new(to.clone()));
        for run in ["shop-parked", "shop-waiting", "crowd", "deal", "ordered"] {
            let one = one.view(&run.into()).await.unwrap().unwrap();
            let other = other.view(&run.into()).await.unwrap().unwrap();
            // Payloads that were never written are values of their types.
            let written = |partial: amends::PartialResult| serde_json::to_value(partial).unwrap();
            assert_eq!(written(one.partial()), written(other.partial()), "{run}");
        }

        let cast = Cast::new(Script::default());
        let goes_on = coordinator(to.clone(), &cast).await;
        goes_on.all_resumed().await;
        let waiting = RunId::new("shop-waiting");
        goes_on.cancel(&waiting, "ann", "enough").await.unwrap();
        while !standings(&*to)
            .await
            .contains(&"shop-waiting compensated".to_owned())
        {
            sleep(MS(5)).await;
        }
        assert_eq!(findings(to).await, Vec::<String>::new());
        goes_on.shutdown().await;
    });
}

#[test]
fn what_no_run_can_do_inside_a_step_is_found() {
    let from = source();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let text = exported(from).await;
        for (was, is, said) in [
            // A step that its sub-saga does not have.
            (
                r#"{"step_done":{"step":"pay/wire""#,
                r#"{"step_done":{"step":"pay/wired""#,
                "the journal names step `pay/wired`, which its definition doesn't have",
            ),
            // An item behind the end of the list.
            (
                r#"{"step_done":{"step":"greet[399]""#,
                r#"{"step_done":{"step":"greet[400]""#,
                "the journal names step `greet[400]`, which its definition doesn't have",
            ),
        ] {
            assert_eq!(text.matches(was).count(), 1, "{was}");
            let to = Arc::new(MemoryStore::new());
            let mut refused = Vec::new();
            let told = |run: &RunId, became: &amends::operator::ImportOutcome| {
                let became = format!("{became:?}");
                if became.contains("Refused") {
                    refused.push(format!("{run}: {became}"));
                }
            };
            let text = text.replace(was, is);
            let imported = Operator::new(to)
                .import(text.as_bytes(), told, |_| ())
                .await;
            assert_eq!(imported.unwrap().refused, 1);
            assert_eq!(refused.len(), 1);
            assert!(refused[0].contains(said), "{refused:?}");
        }
    });
}
