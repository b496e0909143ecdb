//! A run that waits is migrated: its wait goes on under its new name, and has the signal that was accepted
//! under the old one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::journal::Standing;
use amends::{Coordinator, Migration, RecoveryStrategy, RunId, Saga, wait_for};
use evolving::{Code, Disk, Then, order, until};

fn run() -> RunId {
    RunId::new("order-1")
}

/// `reserve`, then a wait for one signal and for another, then `ship`.
fn waiting(code: &Code, version: u32, names: [&str; 2]) -> Saga<String, String> {
    let mut saga = order(version);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let paid = saga.add(wait_for::<String>(names[0]).after(stock), ());
    let sealed = saga.add(wait_for::<String>(names[1]).after(paid), ());
    let sent = saga.add(code.step("ship", "ship", Then::Done), (paid, sealed));
    saga.returns(sent).unwrap()
}

#[tokio::test]
async fn under_its_new_name() {
    for disk in Disk::all() {
        let code = Code::default();
        let old = waiting(&code, 1, ["paid", "sealed"]);
        let first = disk.binary().register(&old).build().await.unwrap();
        first.start(&old, run(), "a".to_owned()).await.unwrap();
        // It comes before its wait has begun.
        let id = run();
        let early = first.signal(&id, "sealed", "wax".to_owned());
        early.await.unwrap();
        first.shutdown().await;
        code.calls.take();

        let new = waiting(&code, 2, ["payment", "seal"]);
        let migration = Migration::from_version(1).to(&new);
        let migration = migration.rename("paid", "payment").rename("sealed", "seal");
        let second: Coordinator = disk
            .binary()
            .register(&new)
            .migrate(migration)
            .build()
            .await
            .unwrap();
        second.migrate(&run(), "ann", "v2").await.unwrap();
        until(&second, "order-1", Standing::Parked).await;
        let again = RecoveryStrategy::RetryFailed;
        second.retry(&run(), again, "ann", "go on").await.unwrap();
        let gone = second.signal(&run(), "paid", "cash".to_owned()).await;
        assert!(gone.is_err(), "nothing waits under that name");
        second
            .signal(&run(), "payment", "cash".to_owned())
            .await
            .unwrap();
        until(&second, "order-1", Standing::Completed).await;
        assert_eq!(code.calls.take(), ["ship((cash, wax)) ship/1"]);
        second.shutdown().await;
    }
}
