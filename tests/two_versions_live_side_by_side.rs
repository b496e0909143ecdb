//! Several versions of one saga in one binary: each run is finished by the code it was started with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::journal::Standing;
use amends::{BuildError, RunId, Saga, StartError};
use evolving::{Code, Disk, Then, called, order, until};

/// `reserve`, then `charge`.
fn version_1(code: &Code, charge: Then) -> Saga<String, String> {
    let mut saga = order(1);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve-1", Then::Done), order);
    let paid = saga.add(code.step("charge", "charge-1", charge), stock);
    saga.returns(paid).unwrap()
}

/// `reserve`, `check`, then `charge`.
fn version_2(code: &Code) -> Saga<String, String> {
    let mut saga = order(2);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve-2", Then::Done), order);
    let sound = saga.add(code.step("check", "check-2", Then::Done), stock);
    let paid = saga.add(code.step("charge", "charge-2", Then::Done), sound);
    saga.returns(paid).unwrap()
}

#[tokio::test]
async fn a_run_of_the_old_version_is_finished_by_a_binary_that_has_both() {
    for disk in Disk::all() {
        let code = Code::default();
        let old = version_1(&code, Then::Hangs);
        let first = disk.binary().register(&old).build().await.unwrap();
        first.start(&old, "order-1", "a".to_owned()).await.unwrap();
        let calls = called(&code.calls, 2).await;
        assert_eq!(
            calls,
            [
                "reserve-1(a) reserve/1",
                "charge-1(reserve-1 of a) charge/1"
            ]
        );
        first.shutdown().await;

        let (old, new) = (version_1(&code, Then::Done), version_2(&code));
        let both = disk.binary().register(&old).register(&new);
        let both = both.build().await.unwrap();
        let done = until(&both, "order-1", Standing::Completed).await;
        assert_eq!(done.version, 1);
        // The same key, and nothing of the other version.
        assert_eq!(code.calls.take(), ["charge-1(reserve-1 of a) charge/1"]);

        let run = both.start(&new, "order-2", "b".to_owned()).await.unwrap();
        let output = run.outcome().await.unwrap().completed();
        assert_eq!(output.unwrap(), "charge-2 of check-2 of reserve-2 of b");
        assert_eq!(code.calls.take().len(), 3);
        let new = both.get(&RunId::new("order-2")).await.unwrap().unwrap();
        assert_eq!((new.version, new.total), (2, 3));
        both.shutdown().await;
    }
}

#[tokio::test]
async fn a_start_of_the_same_id_with_the_other_version_gives_the_run_that_is_there() {
    for disk in Disk::all() {
        let code = Code::default();
        let (old, new) = (version_1(&code, Then::Done), version_2(&code));
        let both = disk.binary().register(&old).register(&new);
        let both = both.build().await.unwrap();
        let run = both.start(&old, "order-1", "a".to_owned()).await.unwrap();
        run.outcome().await.unwrap();
        assert_eq!(code.calls.take().len(), 2);

        let again = both.start(&new, "order-1", "a".to_owned()).await.unwrap();
        let output = again.outcome().await.unwrap().completed();
        assert_eq!(output.unwrap(), "charge-1 of reserve-1 of a");
        assert_eq!(code.calls.take(), Vec::<String>::new());
        let other = both.start(&new, "order-1", "b".to_owned()).await;
        assert!(matches!(other, Err(StartError::OtherInput { .. })));
        both.shutdown().await;
    }
}

#[tokio::test]
async fn a_run_whose_version_is_not_registered_waits_for_a_binary_that_has_it() {
    for disk in Disk::all() {
        let code = Code::default();
        let old = version_1(&code, Then::Hangs);
        let first = disk.binary().register(&old).build().await.unwrap();
        first.start(&old, "order-1", "a".to_owned()).await.unwrap();
        assert_eq!(called(&code.calls, 2).await.len(), 2);
        first.shutdown().await;

        let new = version_2(&code);
        let second = disk.binary().register(&new).build().await.unwrap();
        assert_eq!(second.all_resumed().await, 0);
        let listed = second.without_definition(9).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].run.as_str(), listed[0].version), ("order-1", 1));
        let alone = second.get(&RunId::new("order-1")).await.unwrap().unwrap();
        assert_eq!(alone.standing, Standing::Running, "nothing is written");
        second.shutdown().await;
        assert_eq!(code.calls.take(), Vec::<String>::new());

        let old = version_1(&code, Then::Done);
        let third = disk.binary().register(&new).register(&old);
        let third = third.build().await.unwrap();
        until(&third, "order-1", Standing::Completed).await;
        assert_eq!(code.calls.take(), ["charge-1(reserve-1 of a) charge/1"]);
        third.shutdown().await;
    }
}

#[tokio::test]
async fn two_structures_under_one_version_are_refused_and_nothing_is_kept() {
    for disk in Disk::all() {
        let code = Code::default();
        let one = version_1(&code, Then::Done);
        let other = order(1);
        let text = other.input();
        let other = other.returns::<String>(text).unwrap();
        let store = disk.open();
        let built = amends::Coordinator::builder_shared(store.clone())
            .register(&one)
            .register(&other);
        let built = built.build().await;
        assert!(matches!(
            built,
            Err(BuildError::TwoDefinitions { version: 1, .. })
        ));
        assert_eq!(store.definitions().await.unwrap(), Vec::new());
        store.close().await;
    }
}
