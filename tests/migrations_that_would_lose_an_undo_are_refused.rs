//! A migration is refused where an effect that stands would lose its undo, its input or its place in the
//! order, or where the point of no return would move; each reason is told, all of them at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::journal::{Command, SkippedEffect, Standing, Verb, VerbName};
use amends::step::Value;
use amends::store::MemoryStore;
use amends::{
    CommandError, Coordinator, Migration, RecoveryStrategy, Resolution, RunId, Saga, SagaBuilder,
    step,
};
use evolving::{Code, Disk, Then, order, parked_by, refused, until};
use std::sync::Arc;

fn run() -> RunId {
    RunId::new("order-1")
}

fn disk() -> Disk {
    Disk::Memory(Arc::new(MemoryStore::new()))
}

/// A binary that has the saga, and declares this.
async fn binary(disk: &Disk, saga: &Saga<String, String>, migration: Migration) -> Coordinator {
    let binary = disk.binary().register(saga).migrate(migration);
    binary.build().await.unwrap()
}

/// `reserve`, then `charge`, then `ship`, with this end.
fn three(code: &Code, ship: Then) -> Saga<String, String> {
    let mut saga = order(1);
    let order = saga.input();
    let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
    let paid = saga.add(code.step("charge", "charge", Then::Done), stock);
    let sent = saga.add(code.step("ship", "ship", ship), paid);
    saga.returns(sent).unwrap()
}

/// Version 2, made of what is added to it.
fn second(
    add: impl FnOnce(&mut SagaBuilder<String>) -> amends::Node<String>,
) -> Saga<String, String> {
    let mut saga = order(2);
    let output = add(&mut saga);
    saga.returns(output).unwrap()
}

#[tokio::test]
async fn an_effect_whose_step_is_dropped() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        saga.add(code.step("ship", "ship", Then::Done), stock)
    });
    let dropped = Migration::from_version(1).to(&two).drop("charge");
    let reasons = refused(&binary(&disk, &two, dropped).await).await;
    let why = "`charge` is done, and has no counterpart: nothing would undo it";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn a_doubt_whose_step_is_dropped() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Doubt), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        saga.add(code.step("charge", "charge", Then::Done), stock)
    });
    let dropped = || Migration::from_version(1).to(&two).drop("ship");
    let binary = binary(&disk, &two, dropped()).await;
    let why = "`ship` is in doubt, and has no counterpart: nothing would undo it";
    assert_eq!(refused(&binary).await, [why]);
    // Once somebody says that nothing is there, nothing is lost.
    let nothing = Resolution::<String>::NotDone;
    binary
        .resolve(&run(), "ship", nothing, "ann", "asked")
        .await
        .unwrap();
    binary.migrate(&run(), "ann", "v2").await.unwrap();
    binary
        .retry(&run(), RecoveryStrategy::RetryFailed, "ann", "")
        .await
        .unwrap();
    until(&binary, "order-1", Standing::Completed).await;
}

#[tokio::test]
async fn an_effect_whose_step_is_read_only_now() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(code.read("look", "look"), stock);
        saga.add(code.step("ship", "ship", Then::Done), paid)
    });
    let renamed = Migration::from_version(1).to(&two).rename("charge", "look");
    let reasons = refused(&binary(&disk, &two, renamed).await).await;
    let why = "`charge` is done, and `look` is read-only: nothing would undo it";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn an_effect_whose_step_is_irreversible_now_and_the_pivot() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(code.forever("charge", "charge", Then::Done).pivot(), stock);
        saga.add(code.step("ship", "ship", Then::Done), paid)
    });
    let reasons = refused(&binary(&disk, &two, Migration::from_version(1).to(&two)).await).await;
    let why = [
        "`charge` is done, and `charge` is irreversible: nothing would undo it",
        "`charge` is done, and `charge` is the pivot: nothing could go back any more",
    ];
    assert_eq!(reasons, why);
}

#[tokio::test]
async fn an_order_of_undos_that_is_lost() {
    let (code, disk) = (Code::default(), disk());
    let one = {
        let mut saga = order(1);
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(
            code.step("charge", "charge", Then::Done).after(stock),
            order,
        );
        let sent = saga.add(code.step("ship", "ship", Then::Refused), paid);
        saga.returns(sent).unwrap()
    };
    parked_by(&disk, &one, "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(code.step("pay", "pay", Then::Done), order);
        saga.add(code.step("ship", "ship", Then::Done).after(stock), paid)
    });
    let renamed = Migration::from_version(1).to(&two).rename("charge", "pay");
    let reasons = refused(&binary(&disk, &two, renamed).await).await;
    let why = "`charge` came after `reserve`, and `pay` doesn't come after `reserve`: they would be undone in another order";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn an_order_of_undos_that_is_turned_round() {
    let (code, disk) = (Code::default(), disk());
    let side_by_side = |version: u32, reserve_first: bool, ship: Then| {
        let mut saga = order(version);
        let order = saga.input();
        let (reserve, charge) = (
            code.step("reserve", "reserve", Then::Done),
            code.step("charge", "charge", Then::Done),
        );
        let paid = if reserve_first {
            let stock = saga.add(reserve, order);
            saga.add(charge.after(stock), order)
        } else {
            let paid = saga.add(charge, order);
            saga.add(reserve.after(paid), order);
            paid
        };
        let sent = saga.add(code.step("ship", "ship", ship), paid);
        saga.returns(sent).unwrap()
    };
    parked_by(&disk, &side_by_side(1, true, Then::Refused), "order-1").await;
    let two = side_by_side(2, false, Then::Done);
    let reasons = refused(&binary(&disk, &two, Migration::from_version(1).to(&two)).await).await;
    let why = "`charge` came after `reserve`, and `charge` doesn't come after `reserve`: they would be undone in another order";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn an_order_that_holds_through_other_steps_stays() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    // `charge` still comes after `reserve`, by way of a step that is dropped from between them nowhere.
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(code.step("charge", "charge", Then::Done), stock);
        saga.add(code.step("bill", "bill", Then::Done), paid);
        saga.add(code.step("ship", "ship", Then::Done), paid)
    });
    let binary = binary(&disk, &two, Migration::from_version(1).to(&two)).await;
    binary.migrate(&run(), "ann", "v2").await.unwrap();
}

#[tokio::test]
async fn an_effect_whose_input_is_wired_otherwise() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
        let paid = saga.add(
            code.step("charge", "charge", Then::Done).after(stock),
            order,
        );
        saga.add(code.step("ship", "ship", Then::Done), paid)
    });
    let reasons = refused(&binary(&disk, &two, Migration::from_version(1).to(&two)).await).await;
    let why = "`charge` is done, its input was (reserve), and that of `charge` is (input): it would not be undone, \
               or called again, with what it was called with";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn an_input_that_comes_from_a_renamed_step_is_wired_as_before() {
    let (code, disk) = (Code::default(), disk());
    let mapped = |version: u32, reserve: &str, ship: Then| {
        let mut saga = order(version);
        let order = saga.input();
        let stock = saga.add(code.step(reserve, "reserve", Then::Done), order);
        let short = stock.map(|stock| stock[..7].to_owned());
        let paid = saga.add(code.step("charge", "charge", Then::Done), short);
        let sent = saga.add(code.step("ship", "ship", ship), paid);
        saga.returns(sent).unwrap()
    };
    parked_by(&disk, &mapped(1, "input", Then::Refused), "order-1").await;
    let two = mapped(2, "a (quoted, \"odd\\\") name", Then::Done);
    let renamed = Migration::from_version(1).to(&two);
    let renamed = renamed.rename("input", "a (quoted, \"odd\\\") name");
    let binary = binary(&disk, &two, renamed).await;
    binary.migrate(&run(), "ann", "v2").await.unwrap();
    code.calls.take();
    let back = RecoveryStrategy::Compensate;
    binary.retry(&run(), back, "ann", "").await.unwrap();
    until(&binary, "order-1", Standing::Compensated).await;
    let undos = code.calls.take();
    assert!(undos[0].starts_with("undo charge(reserve) "), "{undos:?}");
    assert!(undos[1].contains(" input/1/undo of input/1"), "{undos:?}");
}

#[tokio::test]
async fn a_step_that_is_done_and_comes_after_one_that_is_not() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        let sound = saga.add(code.step("check", "check", Then::Done), order);
        let stock = saga.add(
            code.step("reserve", "reserve", Then::Done).after(sound),
            order,
        );
        let paid = saga.add(code.step("charge", "charge", Then::Done), stock);
        saga.add(code.step("ship", "ship", Then::Done), paid)
    });
    let reasons = refused(&binary(&disk, &two, Migration::from_version(1).to(&two)).await).await;
    let why = "`reserve` is done, and `reserve` comes after `check`, which is not done";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn a_pivot_that_would_be_another_step_once_it_is_passed() {
    let (code, disk) = (Code::default(), disk());
    let pivot = |version: u32, at: &str, last: Then| {
        let mut saga = order(version);
        let mut node = saga.input();
        for name in ["reserve", "charge", "ship", "thank"] {
            let name: &'static str = name;
            let then = if name == "thank" { last } else { Then::Done };
            let step = code.step(name, name, then);
            node = saga.add(if name == at { step.pivot() } else { step }, node);
        }
        saga.returns(node).unwrap()
    };
    parked_by(&disk, &pivot(1, "charge", Then::Refused), "order-1").await;
    for (at, why) in [
        (
            "ship",
            "the run is past its pivot `charge`, and the pivot is `ship`",
        ),
        (
            "none",
            "the run is past its pivot `charge`, and the pivot is none",
        ),
        (
            "reserve",
            "the run is past its pivot `charge`, and the pivot is `reserve`",
        ),
    ] {
        let two = pivot(2, at, Then::Done);
        let binary = binary(&disk, &two, Migration::from_version(1).to(&two)).await;
        assert_eq!(refused(&binary).await, [why]);
        binary.shutdown().await;
    }
    // Where it stays, the run stays past it.
    let two = pivot(2, "charge", Then::Done);
    let binary = binary(&disk, &two, Migration::from_version(1).to(&two)).await;
    binary.migrate(&run(), "ann", "").await.unwrap();
    let id = run();
    let back = binary.retry(&id, RecoveryStrategy::Compensate, "ann", "");
    let told = back.await.unwrap_err().to_string();
    assert!(told.contains("past the pivot"), "{told}");
    let on = binary.retry(&id, RecoveryStrategy::RetryFailed, "ann", "");
    on.await.unwrap();
    until(&binary, "order-1", Standing::Completed).await;
}

#[tokio::test]
async fn a_name_under_which_another_step_has_had_the_same_keys() {
    let (code, disk) = (Code::default(), disk());
    let one = {
        let mut saga = order(1);
        let order = saga.input();
        let sent = saga.add(code.step("bill", "bill", Then::Done), order);
        let stock = saga.add(
            code.step("reserve", "reserve", Then::Refused).after(sent),
            order,
        );
        saga.returns(stock).unwrap()
    };
    let first = disk.binary().register(&one).build().await.unwrap();
    first.start(&one, "order-1", "a".to_owned()).await.unwrap();
    until(&first, "order-1", Standing::Parked).await;
    // `bill` is undone and done again: it comes to its second round.
    let again = RecoveryStrategy::RetryAll;
    first.retry(&run(), again, "ann", "").await.unwrap();
    for _ in 0..2_000 {
        if code.calls.count() == 5 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    until(&first, "order-1", Standing::Parked).await;
    first.shutdown().await;
    let calls = code.calls.take();
    assert!(calls[4].ends_with(" reserve/1"), "{calls:?}");
    assert!(calls[3].ends_with(" bill/2"), "{calls:?}");

    // The two swap their names: `reserve` in its first round would come to the keys of `bill` in its second.
    let two = second(|saga| {
        let order = saga.input();
        let sent = saga.add(code.step("reserve", "bill", Then::Done), order);
        saga.add(code.step("bill", "reserve", Then::Done).after(sent), order)
    });
    let swapped = Migration::from_version(1).to(&two);
    let swapped = swapped.rename("reserve", "bill").rename("bill", "reserve");
    let reasons = refused(&binary(&disk, &two, swapped).await).await;
    let why = "`bill` was the name of another step, up to round 2: the keys of `reserve` would come to be the same";
    assert_eq!(reasons, [why]);
}

#[tokio::test]
async fn all_reasons_are_told_at_once_and_nothing_is_changed() {
    for disk in Disk::all() {
        let code = Code::default();
        parked_by(&disk, &three(&code, Then::Doubt), "order-1").await;
        let two = second(|saga| {
            let order = saga.input();
            let paid = saga.add(code.step("pay", "pay", Then::Done), order);
            saga.add(code.read("look", "look"), paid)
        });
        let migration = Migration::from_version(1).to(&two);
        let migration = migration.rename("charge", "pay").rename("ship", "look");
        let binary = binary(&disk, &two, migration.drop("reserve")).await;
        let before = binary.get(&run()).await.unwrap();
        let told = binary.migrate(&run(), "ann", "v2").await;
        let Err(CommandError::Refused { why, legal, .. }) = told else {
            panic!("{told:?}")
        };
        assert_eq!(
            why.to_string(),
            "it can't be migrated to version 2: \
             `reserve` is done, and has no counterpart: nothing would undo it; \
             `charge` is done, its input was (reserve), and that of `pay` is (input): it would not be undone, or \
             called again, with what it was called with; \
             `ship` is in doubt, and `look` is read-only: nothing would undo it"
        );
        let takes = [
            VerbName::MarkCompensated,
            VerbName::Resolve,
            VerbName::Abandon,
            VerbName::Migrate,
        ];
        assert_eq!(legal, takes);
        assert_eq!(binary.get(&run()).await.unwrap(), before);
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_run_for_which_nothing_is_declared() {
    let (code, disk) = (Code::default(), disk());
    parked_by(&disk, &three(&code, Then::Refused), "order-1").await;
    let two = second(|saga| {
        let order = saga.input();
        saga.add(code.step("reserve", "reserve", Then::Done), order)
    });
    let binary = disk.binary().register(&two).build().await.unwrap();
    let told = binary.migrate(&run(), "ann", "v2").await.unwrap_err();
    assert_eq!(
        told.to_string(),
        "run `order-1`: no migration of saga `order` version 1 is declared here \
         (it takes now: mark-compensated, abandon)"
    );
    let to_3 = Command::new("order-1", Verb::Migrate { to: Some(3) });
    let told = binary.command(&to_3).await.unwrap_err();
    assert!(
        told.to_string()
            .contains("version 1 to version 3 is declared"),
        "{told}"
    );
}

#[tokio::test]
async fn a_run_that_has_ended() {
    let (code, disk) = (Code::default(), disk());
    let one = three(&code, Then::Done);
    let first = disk.binary().register(&one).build().await.unwrap();
    let handle = first.start(&one, "order-1", "a".to_owned()).await.unwrap();
    handle.outcome().await.unwrap();
    drop(handle);
    first.shutdown().await;
    let two = second(|saga| {
        let order = saga.input();
        saga.add(code.step("reserve", "reserve", Then::Done), order)
    });
    let dropped = Migration::from_version(1)
        .to(&two)
        .drop("charge")
        .drop("ship");
    let binary = binary(&disk, &two, dropped).await;
    let told = binary.migrate(&run(), "ann", "v2").await.unwrap_err();
    assert!(told.to_string().contains("the run has ended"), "{told}");
}

#[tokio::test]
async fn what_an_operator_took_as_done_keeps_the_key_of_its_old_name() {
    for disk in Disk::all() {
        let code = Code::default();
        let one = {
            let mut saga = order(1);
            let order = saga.input();
            let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
            let paid = saga.add(code.step("charge", "charge", Then::Refused), stock);
            let sent = saga.add(code.step("ship", "ship", Then::Done), paid);
            saga.returns(sent).unwrap()
        };
        let first = disk.binary().register(&one).build().await.unwrap();
        first.start(&one, "order-1", "a".to_owned()).await.unwrap();
        until(&first, "order-1", Standing::Parked).await;
        // `ship` is never called, so that nothing has announced a key of it.
        for (step, effect) in [
            ("charge", SkippedEffect::None),
            ("ship", SkippedEffect::Done),
        ] {
            let skip = Verb::Skip {
                step: step.to_owned(),
                effect,
                output: Value::typed(Arc::new("by hand".to_owned())),
            };
            let skip = Command::new("order-1", skip);
            first.command(&skip).await.unwrap();
        }
        first.shutdown().await;
        code.calls.take();
        let two = second(|saga| {
            let order = saga.input();
            let stock = saga.add(code.step("reserve", "reserve", Then::Done), order);
            let paid = saga.add(code.step("charge", "charge", Then::Done), stock);
            saga.add(code.step("send", "send", Then::Done), paid)
        });
        let renamed = Migration::from_version(1).to(&two).rename("ship", "send");
        let binary = binary(&disk, &two, renamed).await;
        binary.migrate(&run(), "ann", "v2").await.unwrap();
        binary
            .retry(&run(), RecoveryStrategy::Compensate, "ann", "")
            .await
            .unwrap();
        until(&binary, "order-1", Standing::Compensated).await;
        let undos = code.calls.take();
        assert!(
            undos[0].ends_with(" ship/1/undo of ship/1: what it had done, by hand"),
            "{undos:?}"
        );
        binary.shutdown().await;
    }
}

#[tokio::test]
async fn a_step_that_a_saga_of_its_own_is_undoing() {
    let (code, disk) = (Code::default(), disk());
    let by_a_saga = |version: u32, undo: Then| {
        let mut back = Saga::builder::<(String, String)>("refund");
        let what = back
            .input()
            .map(|(input, _): &(String, String)| input.clone());
        let given = back.add(code.step("give-back", "give-back", undo), what);
        let back = back.returns(given).unwrap();
        let mut child = Saga::builder::<String>("payment");
        let input = child.input();
        let taken = child.add(code.step("take", "take", Then::Done), input);
        let child = child.returns(taken).unwrap();
        let mut saga = order(version);
        let order = saga.input();
        let charge = step("charge", &child).compensate_with(&back);
        let paid = saga.add(charge, order);
        let sent = saga.add(code.step("ship", "ship", Then::Refused), paid);
        saga.returns(sent).unwrap()
    };
    let one = by_a_saga(1, Then::Hangs);
    let first = disk.binary().register(&one).build().await.unwrap();
    first.start(&one, "order-1", "a".to_owned()).await.unwrap();
    until(&first, "order-1", Standing::Parked).await;
    let id = run();
    let back = first.retry(&id, RecoveryStrategy::Compensate, "ann", "");
    back.await.unwrap();
    assert_eq!(evolving::called(&code.calls, 3).await.len(), 3);
    first.shutdown().await;
    let two = by_a_saga(2, Then::Done);
    let reasons = refused(&binary(&disk, &two, Migration::from_version(1).to(&two)).await).await;
    let why = "`charge` is, or has been, undone by a saga of its own, whose rounds would be lost";
    assert_eq!(reasons, [why]);
}
