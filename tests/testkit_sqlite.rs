//! The exploration on SQLite files: each process opens the file anew.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "testkit", feature = "sqlite"))]

use std::sync::Arc;
use std::time::Duration;

use amends::policy::RecoveryPolicy;
use amends::store::{SqliteStore, Store};
use amends::testkit::{Explored, Explorer, Fault, Reopen, Scenario, World};
use amends::{Retry, Saga};

/// A file per run of the scenario, which goes away with the run.
fn files() -> Explorer {
    Explorer::new("on files").real_time().stores(|| -> Reopen {
        let directory = tempfile::tempdir().unwrap();
        Box::new(move || {
            let store: Arc<dyn Store> =
                Arc::new(SqliteStore::open(directory.path().join("sagas.db")).unwrap());
            store
        })
    })
}

fn order(world: &World) -> Saga<u64, String> {
    let mut saga = Saga::builder::<u64>("order").policy(RecoveryPolicy::saga().max_recoveries(0));
    let order = saga.input();
    let retry = Retry::constant()
        .initial(Duration::from_millis(1))
        .max_attempts(2);
    let stock = saga.add(world.step::<u64>("reserve"), order);
    let paid = saga.add(
        world.step::<(u64, String)>("charge").retry(retry),
        (order.map(|order| order * 10), stock),
    );
    saga.returns(paid).unwrap()
}

#[test]
fn runs_survive_a_crash_at_every_append_of_a_file() {
    let mut all = Explored::default();
    for (explorer, fault, ends) in [
        (files().once(), Fault::Twice, ["completed"]),
        (files(), Fault::Rejected, ["compensated"]),
        (files().once(), Fault::LostReply, ["compensated"]),
    ] {
        let explored = explorer.explore(|| {
            let world = World::new().fail_calls("charge", .., fault.clone());
            Scenario::new(order(&world), 1, world).ends(&ends)
        });
        all += explored.unwrap();
    }
    println!("explored on SQLite files: {all}");
    assert!(all.runs >= 100, "only {} runs", all.runs);
}
