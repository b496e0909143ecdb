//! A run that is parked out of the blue, since its definition has changed, loses no retry that slept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use std::time::Duration;

use amends::journal::Standing;
use amends::policy::Jitter;
use amends::{RecoveryStrategy, Retry, RunId, Saga};
use evolving::{Code, Disk, Then, called, order, until};

/// `charge`, tried again in an hour.
fn charging(code: &Code, then: Then) -> Saga<String, String> {
    let mut saga = order(1);
    let order = saga.input();
    let retry = Retry::constant()
        .initial(Duration::from_secs(3_600))
        .jitter(Jitter::None)
        .max_attempts(9);
    let charge = code.step("charge", "charge", then).retry(retry);
    let paid = saga.add(charge, order);
    saga.returns(paid).unwrap()
}

#[tokio::test]
async fn a_retry_that_slept_is_taken_up_when_the_run_goes_on() {
    for disk in Disk::all() {
        let code = Code::default();
        let busy = charging(&code, Then::Busy);
        let first = disk.binary().register(&busy).build().await.unwrap();
        first.start(&busy, "order-1", "a".to_owned()).await.unwrap();
        assert_eq!(called(&code.calls, 1).await.len(), 1);
        until(&first, "order-1", Standing::Running).await;
        first.shutdown().await;

        let changed = {
            let mut saga = order(1);
            let order = saga.input();
            let paid = saga.add(code.step("pay", "pay", Then::Done), order);
            saga.returns(paid).unwrap()
        };
        let second = disk.binary().register(&changed).build().await.unwrap();
        // Whoever asks for it has it looked at, long before its retry is due.
        let run = RunId::new("order-1");
        let told = second.retry(&run, RecoveryStrategy::RetryFailed, "ann", "");
        assert!(told.await.is_err());
        until(&second, "order-1", Standing::Parked).await;
        second.shutdown().await;

        let mended = charging(&code, Then::Done);
        let third = disk.binary().register(&mended).build().await.unwrap();
        let on = third.retry(&run, RecoveryStrategy::RetryFailed, "ann", "");
        on.await.unwrap();
        until(&third, "order-1", Standing::Completed).await;
        assert_eq!(code.calls.take(), ["charge(a) charge/1"]);
        third.shutdown().await;
    }
}
