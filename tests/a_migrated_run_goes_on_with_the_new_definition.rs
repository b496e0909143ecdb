//! A run whose definition is gone goes on with another, as a declared migration says: under its new names,
//! and with its old keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Standing, Verb, VerbName};
use amends::machine::Refused;
use amends::operator::{Fate, Operator, Sent};
use amends::{
    CommandError, Coordinator, Happened, Migration, RecoveryStrategy, RunId, Saga, StepStatus, Told,
};
use evolving::{Code, Disk, Then, called, order, parked_by, until};

/// `reserve`, then `charge`, then `log-it` and `ship`.
fn old(code: &Code, version: u32, ship: Then) -> Saga<String, String> {
    let mut saga = order(version);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve-1", Then::Done), order);
    let paid = saga.add(code.step("charge", "charge-1", Then::Done), stock);
    saga.add(code.read("log-it", "log-1"), order);
    let sent = saga.add(code.step("ship", "ship-1", ship), paid);
    saga.returns(sent).unwrap()
}

/// `reserve`, then `charge-card`, then `check`, then `ship`.
fn new(code: &Code, version: u32) -> Saga<String, String> {
    let mut saga = order(version);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve-2", Then::Done), order);
    let paid = saga.add(code.step("charge-card", "charge-2", Then::Done), stock);
    let sound = saga.add(code.step("check", "check-2", Then::Done), paid);
    let sent = saga.add(code.step("ship", "ship-2", Then::Done), sound);
    saga.returns(sent).unwrap()
}

fn migration(from: u32, saga: &Saga<String, String>) -> Migration {
    let migration = Migration::from_version(from).to(saga);
    migration.rename("charge", "charge-card").drop("log-it")
}

async fn migrating(disk: &Disk, from: u32, saga: &Saga<String, String>) -> Coordinator {
    let binary = disk.binary().register(saga);
    binary.migrate(migration(from, saga)).build().await.unwrap()
}

fn run() -> RunId {
    RunId::new("order-1")
}

#[tokio::test]
async fn a_parked_run_of_a_version_that_is_gone_is_completed_by_the_new_one() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &old(&code, 1, Then::Refused), "order-1").await;
        assert_eq!(code.calls.take().len(), 4);

        let saga = new(&code, 2);
        let binary = migrating(&disk, 1, &saga).await;
        let fate = binary.definitions().await.unwrap().versions[0].definitions[0].clone();
        assert_eq!((fate.open, fate.parked), (1, 1));
        assert_eq!(fate.fate, Fate::Migrates { to: 2 });
        binary.migrate(&run(), "ann", "v2 is out").await.unwrap();

        let still = binary.get(&run()).await.unwrap().unwrap();
        assert_eq!((still.version, still.standing), (2, Standing::Parked));
        assert_eq!(
            still.parked.as_ref().unwrap().reason.as_str(),
            "manual",
            "as it was"
        );
        let steps = still.steps.iter();
        let steps: Vec<(&str, StepStatus)> = steps.map(|step| (&*step.name, step.status)).collect();
        let wanted = [
            ("reserve", StepStatus::Done),
            ("charge-card", StepStatus::Done),
            ("check", StepStatus::Pending),
            ("ship", StepStatus::Pending),
        ];
        assert_eq!(steps, wanted);
        let last = &still.moments.last().unwrap().what;
        let told = Happened::Migrated {
            from: 1,
            to: 2,
            by: "ann".to_owned(),
            reason: "v2 is out".to_owned(),
        };
        assert_eq!(*last, told);
        assert_eq!(code.calls.take(), Vec::<String>::new(), "nothing is called");

        let again = RecoveryStrategy::RetryFailed;
        binary.retry(&run(), again, "ann", "go on").await.unwrap();
        let done = until(&binary, "order-1", Standing::Completed).await;
        assert_eq!((done.completed, done.total), (4, 4));
        // `ship` was refused in its first round. Its input is wired otherwise now: a new round, another key.
        let calls = [
            "check-2(charge-1 of reserve-1 of a) check/1",
            "ship-2(check-2 of charge-1 of reserve-1 of a) ship/2",
        ];
        assert_eq!(code.calls.take(), calls);
        let report = binary.definitions().await.unwrap();
        let counted: Vec<(u32, u64)> = report
            .versions
            .iter()
            .map(|of| (of.version, of.ended))
            .collect();
        assert_eq!(
            counted,
            [(1, 0), (2, 1)],
            "it is listed under its new version"
        );
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn an_undo_after_a_migration_and_a_restart_has_the_old_keys_and_the_old_inputs() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &old(&code, 1, Then::Doubt), "order-1").await;
        code.calls.take();

        let saga = {
            let mut saga = order(2);
            let order = saga.input();
            let stock = saga.add(code.step("reserve", "reserve-2", Then::Done), order);
            let paid = saga.add(code.step("charge-card", "charge-2", Then::Done), stock);
            let sent = saga.add(code.step("send", "send-2", Then::Done), paid);
            let billed = saga.add(code.step("bill", "bill-2", Then::Done), sent);
            saga.returns(billed).unwrap()
        };
        let declared = || migration(1, &saga).rename("ship", "send");
        let first = disk.binary().register(&saga).migrate(declared());
        let first = first.build().await.unwrap();
        first.migrate(&run(), "ann", "v2").await.unwrap();
        first.shutdown().await;

        // The next binary needs no migration any more.
        let second = disk.binary().register(&saga).build().await.unwrap();
        let parked = until(&second, "order-1", Standing::Parked).await;
        let keys: Vec<String> = parked
            .outstanding
            .iter()
            .map(|stands| evolving::short(stands.key.as_ref().unwrap()))
            .collect();
        assert_eq!(keys, ["reserve/1", "charge/1", "ship/1"]);
        let back = RecoveryStrategy::Compensate;
        second.retry(&run(), back, "ann", "stop it").await.unwrap();
        until(&second, "order-1", Standing::Compensated).await;
        let undos = [
            "undo send-2(charge-1 of reserve-1 of a) ship/1/undo of ship/1: a doubt",
            "undo charge-2(reserve-1 of a) charge/1/undo of charge/1: what it had done, charge-1 of reserve-1 of a",
            "undo reserve-2(a) reserve/1/undo of reserve/1: what it had done, reserve-1 of a",
        ];
        assert_eq!(code.calls.take(), undos);
        second.shutdown().await;
    }
}

#[tokio::test]
async fn a_step_in_doubt_is_called_again_under_its_old_key() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &old(&code, 1, Then::Doubt), "order-1").await;
        code.calls.take();
        let mut saga = order(2);
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve-2", Then::Done), order);
        let paid = saga.add(code.step("charge-card", "charge-2", Then::Done), stock);
        let sent = saga.add(code.step("send", "send-2", Then::Done), paid);
        let saga = saga.returns(sent).unwrap();
        let declared = migration(1, &saga).rename("ship", "send");
        let binary = disk.binary().register(&saga).migrate(declared);
        let binary = binary.build().await.unwrap();
        binary.migrate(&run(), "ann", "v2").await.unwrap();
        let again = RecoveryStrategy::RetryFailed;
        binary.retry(&run(), again, "ann", "go on").await.unwrap();
        until(&binary, "order-1", Standing::Completed).await;
        assert_eq!(
            code.calls.take(),
            ["send-2(charge-1 of reserve-1 of a) ship/1"]
        );
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_definition_that_changed_under_its_version_parks_with_the_difference_and_is_migrated() {
    for disk in Disk::all() {
        let code = Code::default();
        let hangs = old(&code, 1, Then::Hangs);
        let first = disk.binary().register(&hangs).build().await.unwrap();
        first
            .start(&hangs, "order-1", "a".to_owned())
            .await
            .unwrap();
        assert_eq!(called(&code.calls, 4).await.len(), 4);
        first.shutdown().await;

        let saga = new(&code, 1);
        let declared = Migration::from_outline(&hangs.outline()).to(&saga);
        let declared = declared.rename("charge", "charge-card").drop("log-it");
        let binary = disk.binary().register(&saga).migrate(declared);
        let binary = binary.build().await.unwrap();
        let parked = until(&binary, "order-1", Standing::Parked).await;
        let why = parked.parked.unwrap();
        assert_eq!(why.reason.as_str(), "definition_changed");
        for difference in [
            "step `charge` is gone",
            "step `charge-card` is new",
            "the input of `ship` was (charge) and is (check)",
        ] {
            assert!(why.message.contains(difference), "{}", why.message);
        }
        // `ship` was in flight, so it is in doubt, and would get another input under its key.
        let reasons = evolving::refused(&binary).await;
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        let settle = amends::Resolution::<String>::NotDone;
        binary
            .resolve(&run(), "ship", settle, "ann", "asked")
            .await
            .unwrap();
        binary.migrate(&run(), "ann", "renamed").await.unwrap();
        let again = RecoveryStrategy::RetryFailed;
        binary.retry(&run(), again, "ann", "go on").await.unwrap();
        until(&binary, "order-1", Standing::Completed).await;
        code.calls.take();
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_run_that_nobody_could_drive_is_parked_by_its_migration() {
    for disk in Disk::all() {
        let code = Code::default();
        let hangs = old(&code, 1, Then::Hangs);
        let first = disk.binary().register(&hangs).build().await.unwrap();
        first
            .start(&hangs, "order-1", "a".to_owned())
            .await
            .unwrap();
        assert_eq!(called(&code.calls, 4).await.len(), 4);
        first.shutdown().await;

        let mut saga = order(2);
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve-2", Then::Done), order);
        let paid = saga.add(code.step("charge-card", "charge-2", Then::Done), stock);
        let sent = saga.add(code.step("ship", "ship-2", Then::Done), paid);
        let saga = saga.returns(sent).unwrap();
        let binary = migrating(&disk, 1, &saga).await;
        let alone = binary.get(&run()).await.unwrap().unwrap();
        assert_eq!(alone.standing, Standing::Running);
        binary.migrate(&run(), "ann", "v2").await.unwrap();
        let parked = until(&binary, "order-1", Standing::Parked).await;
        assert_eq!(parked.parked.unwrap().reason.as_str(), "definition_changed");
        let again = RecoveryStrategy::RetryFailed;
        binary.retry(&run(), again, "ann", "go on").await.unwrap();
        until(&binary, "order-1", Standing::Completed).await;
        let calls = code.calls.take();
        assert_eq!(calls, ["ship-2(charge-1 of reserve-1 of a) ship/1"]);
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn commands_that_wait_for_the_next_owner_are_carried_out_in_their_order() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &old(&code, 1, Then::Refused), "order-1").await;
        code.calls.take();
        let store = disk.open();
        let operator = Operator::new(store.clone());
        let commands = [
            Verb::Migrate { to: Some(2) },
            Verb::retry(RecoveryStrategy::RetryFailed),
        ];
        let commands = commands.map(|verb| Command::new("order-1", verb).by("ann"));
        for command in &commands {
            let sent = operator.send(command, Duration::ZERO).await.unwrap();
            assert_eq!(sent, Sent::Waiting);
        }
        let saga = new(&code, 2);
        let binary = Coordinator::builder_shared(store).register(&saga);
        let binary = binary.migrate(migration(1, &saga)).build().await.unwrap();
        until(&binary, "order-1", Standing::Completed).await;
        for command in &commands {
            let answer = operator
                .answer(&command.token, Duration::from_secs(10))
                .await;
            let taken = CommandAnswer::Accepted { told: None };
            assert_eq!(answer.unwrap(), Sent::Answered(taken));
        }
        assert_eq!(code.calls.take().len(), 2);
        // The journal is sound, and so is the list.
        let mut findings = Vec::new();
        let all = amends::store::RunFilter::all();
        let verified = operator
            .verify(&all, |finding| findings.push(finding.what.clone()), |_| {})
            .await
            .unwrap();
        assert!(verified.is_good(), "{findings:?}");
        let view = operator.view(&run()).await.unwrap().unwrap();
        assert_eq!(view.entry().version, 2);
        assert_eq!(view.partial().completed, 4);
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn the_same_migration_sent_again_is_carried_out_once() {
    let code = Code::default();
    let disk = Disk::all().remove(0);
    parked_by(&disk, &old(&code, 1, Then::Refused), "order-1").await;
    let saga = new(&code, 2);
    let binary = migrating(&disk, 1, &saga).await;
    let command = Command::new("order-1", Verb::Migrate { to: None }).token("t");
    for _ in 0..2 {
        assert_eq!(binary.command(&command).await.unwrap(), Told::Done);
    }
    let partial = binary.get(&run()).await.unwrap().unwrap();
    let migrated = |moment: &&amends::Moment| matches!(moment.what, Happened::Migrated { .. });
    assert_eq!(partial.moments.iter().filter(migrated).count(), 1);
    // Another one is refused: its definition is here now.
    let told = binary.migrate(&run(), "ann", "again").await;
    let Err(CommandError::Refused { why, .. }) = told else {
        panic!("{told:?}")
    };
    assert!(matches!(why, Refused::Unavailable(_)), "{why}");
}

#[tokio::test]
async fn what_is_asked_right_behind_a_migration_is_carried_out_by_the_new_code() {
    let code = Code::default();
    let disk = Disk::all().remove(0);
    parked_by(&disk, &old(&code, 1, Then::Refused), "order-1").await;
    let saga = new(&code, 2);
    let binary = migrating(&disk, 1, &saga).await;
    let (id, again) = (run(), RecoveryStrategy::RetryFailed);
    // Both are there before the run is looked at.
    let (migrated, retried) = tokio::join!(
        binary.migrate(&id, "ann", "v2"),
        binary.retry(&id, again, "ann", "go on")
    );
    migrated.unwrap();
    retried.unwrap();
    until(&binary, "order-1", Standing::Completed).await;
}

#[tokio::test]
async fn a_run_goes_through_two_migrations_and_keeps_its_first_keys() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &old(&code, 1, Then::Refused), "order-1").await;
        code.calls.take();
        let second = new(&code, 2);
        let binary = migrating(&disk, 1, &second).await;
        binary.migrate(&run(), "ann", "v2").await.unwrap();
        binary.shutdown().await;

        // `charge` is another step in version 3, whose keys must not be those of the old one.
        let mut saga = order(3);
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve-3", Then::Done), order);
        let paid = saga.add(code.step("pay", "pay-3", Then::Done), stock);
        let sound = saga.add(code.step("check", "check-3", Then::Done), paid);
        let sent = saga.add(code.step("ship", "ship-3", Then::Done), sound);
        let fee = saga.add(code.step("charge", "fee-3", Then::Refused), sent);
        let third = saga.returns(fee).unwrap();
        let declared = Migration::from_version(2).to(&third);
        let binary = disk.binary().register(&third);
        let binary = binary.migrate(declared.rename("charge-card", "pay"));
        let binary = binary.build().await.unwrap();
        binary.migrate(&run(), "ann", "v3").await.unwrap();
        let again = RecoveryStrategy::RetryFailed;
        binary.retry(&run(), again, "ann", "go on").await.unwrap();
        for _ in 0..2_000 {
            if code.calls.count() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let calls = code.calls.take();
        assert_eq!(calls.len(), 3);
        assert!(calls[2].ends_with(" charge/2"), "{calls:?}");
        until(&binary, "order-1", Standing::Parked).await;
        let back = RecoveryStrategy::Compensate;
        binary.retry(&run(), back, "ann", "stop it").await.unwrap();
        until(&binary, "order-1", Standing::Compensated).await;
        let undos = code.calls.take();
        let keys: Vec<&str> = undos
            .iter()
            .map(|undo| undo.rsplit_once(": ").unwrap().0)
            .collect();
        let wanted = [
            "undo ship-3(check-3 of charge-1 of reserve-1 of a) ship/2/undo of ship/2",
            "undo check-3(charge-1 of reserve-1 of a) check/1/undo of check/1",
            "undo pay-3(reserve-1 of a) charge/1/undo of charge/1",
            "undo reserve-3(a) reserve/1/undo of reserve/1",
        ];
        assert_eq!(keys, wanted);
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_run_in_the_middle_of_being_undone_is_migrated_and_undone_to_its_end() {
    for disk in Disk::all() {
        let code = Code::default();
        let stuck = |version: u32, charge: &'static str, undo: Then| {
            let mut saga = order(version);
            let order = saga.input();
            let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
            let paid = saga.add(code.stuck(charge, "charge", undo), stock);
            let sent = saga.add(code.step("ship", "ship", Then::Refused), paid);
            saga.returns(sent).unwrap()
        };
        let first = stuck(1, "charge", Then::Refused);
        let binary = disk.binary().register(&first).build().await.unwrap();
        binary
            .start(&first, "order-1", "a".to_owned())
            .await
            .unwrap();
        until(&binary, "order-1", Standing::Parked).await;
        let back = RecoveryStrategy::Compensate;
        binary.retry(&run(), back, "ann", "stop it").await.unwrap();
        until(&binary, "order-1", Standing::Parked).await;
        for _ in 0..2_000 {
            if code.calls.count() == 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let half = until(&binary, "order-1", Standing::Parked).await;
        assert_eq!(half.parked.unwrap().reason.as_str(), "compensation_failed");
        binary.shutdown().await;
        code.calls.take();

        let second = stuck(2, "charge-card", Then::Done);
        let declared = Migration::from_version(1)
            .to(&second)
            .rename("charge", "charge-card");
        let binary = disk.binary().register(&second).migrate(declared);
        let binary = binary.build().await.unwrap();
        binary.migrate(&run(), "ann", "mended").await.unwrap();
        let half = until(&binary, "order-1", Standing::Parked).await;
        assert!(half.legal.contains(&VerbName::Retry), "{:?}", half.legal);
        let charge = half.step("charge-card").unwrap();
        assert_eq!(charge.status, StepStatus::UndoFailed);
        let on = Command::new(
            "order-1",
            Verb::Retry {
                strategy: None,
                edits: Vec::new(),
            },
        );
        binary.command(&on).await.unwrap();
        until(&binary, "order-1", Standing::Compensated).await;
        let undos = code.calls.take();
        assert_eq!(undos.len(), 2);
        assert!(undos[0].contains(" charge/1/undo of charge/1"), "{undos:?}");
        binary.shutdown().await;
    }
}
