//! What is wrong with a migration whatever its runs have done is told when the coordinator is built, all of
//! it at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::{BuildError, Migration, Saga};
use evolving::{Code, Disk, Then, order};

/// `reserve`, then `look`, then `charge`.
fn old(code: &Code) -> Saga<String, String> {
    let mut saga = order(1);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let seen = saga.add(code.read("look", "look"), stock);
    let paid = saga.add(code.step("charge", "charge", Then::Done), seen);
    saga.returns(paid).unwrap()
}

/// `reserve`, then `pay`.
fn new(code: &Code) -> Saga<String, String> {
    let mut saga = order(2);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let paid = saga.add(code.step("pay", "pay", Then::Done), stock);
    saga.returns(paid).unwrap()
}

/// What a binary with the new version says of it.
async fn faults(declare: impl Fn(&Saga<String, String>) -> Vec<Migration>) -> Vec<String> {
    let mut told = Vec::new();
    for disk in Disk::all() {
        let code = Code::default();
        let first = disk.binary().register(&old(&code)).build().await.unwrap();
        first.shutdown().await;
        let saga = new(&code);
        let mut binary = disk.binary().register(&saga);
        for migration in declare(&saga) {
            binary = binary.migrate(migration);
        }
        told.push(match binary.build().await {
            Ok(binary) => {
                binary.shutdown().await;
                Vec::new()
            }
            Err(BuildError::Migration {
                saga,
                from,
                to,
                faults,
            }) => {
                assert_eq!((saga.as_str(), from, to), ("order", 1, 2));
                faults
            }
            Err(error) => panic!("{error}"),
        });
    }
    assert!(told.iter().all(|faults| *faults == told[0]), "{told:?}");
    told.remove(0)
}

#[tokio::test]
async fn one_that_says_what_became_of_each_step_is_taken() {
    let whole = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga);
        vec![migration.rename("charge", "pay").drop("look")]
    };
    assert_eq!(faults(whole).await, Vec::<String>::new());
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let faulty = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga);
        let migration = migration.rename("chrage", "pay").rename("reserve", "book");
        vec![migration.drop("log-it")]
    };
    let told = [
        "`chrage` is renamed, and no step of before is called so",
        "`reserve` is renamed to `book`, and no step is called so",
        "`log-it` is dropped, and no step of before is called so",
        "`look` has no counterpart: say `.rename(\"look\", ..)` or `.drop(\"look\")`",
        "`charge` has no counterpart: say `.rename(\"charge\", ..)` or `.drop(\"charge\")`",
    ];
    assert_eq!(faults(faulty).await, told);
}

#[tokio::test]
async fn two_steps_that_become_one_are_told() {
    let faulty = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga);
        vec![migration.rename("charge", "reserve").drop("look")]
    };
    let told = ["`reserve` and `charge` both become `reserve`"];
    assert_eq!(faults(faulty).await, told);
}

#[tokio::test]
async fn a_read_only_step_that_becomes_an_effect_is_told() {
    let faulty = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga);
        vec![migration.rename("look", "pay").drop("charge")]
    };
    let told = [
        "`look` is read-only, and `pay` is compensatable: what was read would be taken for an effect",
    ];
    assert_eq!(faults(faulty).await, told);
}

#[tokio::test]
async fn a_step_that_is_said_twice_is_told() {
    let faulty = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga).drop("look");
        let migration = migration
            .rename("charge", "reserve")
            .rename("charge", "pay");
        vec![migration.drop("charge")]
    };
    let told = [
        "`charge` is renamed twice, to `reserve` and to `pay`",
        "`charge` is renamed, and dropped",
    ];
    assert_eq!(faults(faulty).await, told);
}

#[tokio::test]
async fn a_migration_that_is_declared_twice_is_told() {
    let faulty = |saga: &Saga<String, String>| {
        let migration = Migration::from_version(1).to(saga);
        let migration = migration.rename("charge", "pay").drop("look");
        vec![migration.clone(), migration]
    };
    assert_eq!(faults(faulty).await, ["it is declared twice"]);
}

#[tokio::test]
async fn one_from_an_outline_is_checked_where_the_store_knows_nothing() {
    let code = Code::default();
    let saga = new(&code);
    let disk = Disk::all().remove(0);
    let declared = Migration::from_outline(&old(&code).outline()).to(&saga);
    let binary = disk.binary().register(&saga).migrate(declared);
    let Err(BuildError::Migration { faults, .. }) = binary.build().await else {
        panic!("it is taken")
    };
    assert_eq!(faults.len(), 2, "{faults:?}");
    // From a version of which the store knows nothing there is nothing to migrate, nor to check.
    let declared = Migration::from_version(1).to(&saga);
    let binary = disk.binary().register(&saga).migrate(declared);
    assert!(binary.build().await.is_ok());
}

#[tokio::test]
async fn what_it_leads_to_has_to_be_registered_and_what_it_leads_from_must_not_be() {
    let code = Code::default();
    let (one, two) = (old(&code), new(&code));
    let disk = Disk::all().remove(0);
    let declared = || {
        let migration = Migration::from_outline(&one.outline()).to(&two);
        migration.rename("charge", "pay").drop("look")
    };
    let without = disk.binary().migrate(declared()).build().await;
    let both = disk.binary().register(&one).register(&two);
    let both = both.migrate(declared()).build().await;
    let faults = [without, both].map(|built| match built {
        Err(BuildError::Migration { faults, .. }) => faults,
        other => panic!("{other:?}"),
    });
    assert_eq!(faults[0], ["what it leads to is not registered"]);
    let goes_on = "what it leads from is registered: its runs go on as they are";
    assert_eq!(faults[1], [goes_on]);
}

#[tokio::test]
async fn a_migration_to_another_saga_is_told() {
    let code = Code::default();
    let one = old(&code);
    let mut other = Saga::builder::<String>("refund");
    let text = other.input();
    let done = other.add(code.step("refund", "refund", Then::Done), text);
    let other = other.returns(done).unwrap();
    let declared = Migration::from_outline(&one.outline()).to(&other);
    let disk = Disk::all().remove(0);
    let built = disk.binary().register(&other).migrate(declared).build();
    let error = built.await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the migration of saga `refund` from version 1 to 1: it leads from saga `order` to saga `refund`: \
         a run stays one of its saga"
    );
}
