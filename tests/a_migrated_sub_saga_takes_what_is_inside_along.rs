//! A migration of a saga made of sagas, fan-outs and choices: what is inside of a step goes where the step
//! goes, and keeps its rounds and keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod evolving;

use amends::journal::Standing;
use amends::operator::Operator;
use amends::store::RunFilter;
use amends::{BuildError, Migration, Node, RecoveryStrategy, RunId, Saga, step};
use evolving::{Code, Disk, Then, order, refused, until};

fn run() -> RunId {
    RunId::new("order-1")
}

/// The names of one version.
struct Names {
    fulfil: &'static str,
    pack: &'static str,
    send: &'static str,
    reserve: &'static str,
}

const OLD: Names = Names {
    fulfil: "fulfil",
    pack: "pack",
    send: "send",
    reserve: "reserve",
};
const NEW: Names = Names {
    fulfil: "deliver",
    pack: "wrap",
    send: "send",
    reserve: "book",
};

/// A reservation for each of three lines; then a sub-saga of two steps; then `bill`.
fn nested(
    code: &Code,
    version: u32,
    names: &Names,
    send: Then,
    bill: Then,
) -> Saga<String, String> {
    let mut child = Saga::builder::<String>("fulfilment");
    let parcel = child.input();
    let packed = child.add(code.step(names.pack, "pack", Then::Done), parcel);
    let out = child.add(code.step(names.send, "send", send), packed);
    let child = child.returns(out).unwrap();

    let mut saga = order(version);
    let order = saga.input();
    let lines = order.map(|order: &String| vec![format!("{order}1"), format!("{order}2")]);
    let each = code.step::<String>(names.reserve, "reserve", Then::Done);
    let stock: Node<Vec<String>> = saga.add(each.for_each(), lines);
    let fulfilled = saga.add(
        step(names.fulfil, &child),
        stock.map(|stock| stock.join("+")),
    );
    let billed = saga.add(code.step("bill", "bill", bill), fulfilled);
    saga.returns(billed).unwrap()
}

fn renamed(saga: &Saga<String, String>) -> Migration {
    let migration = Migration::from_version(1).to(saga);
    let migration = migration
        .rename("fulfil", "deliver")
        .rename("reserve", "book");
    migration.rename("fulfil/pack", "deliver/wrap")
}

#[tokio::test]
async fn a_finished_sub_saga_and_a_fan_out_are_undone_under_their_old_keys() {
    for disk in Disk::all() {
        let code = Code::default();
        let old = nested(&code, 1, &OLD, Then::Done, Then::Refused);
        evolving::parked_by(&disk, &old, "order-1").await;
        assert_eq!(code.calls.take().len(), 5);

        let new = nested(&code, 2, &NEW, Then::Done, Then::Done);
        let first = disk.binary().register(&new).migrate(renamed(&new));
        let first = first.build().await.unwrap();
        first.migrate(&run(), "ann", "v2").await.unwrap();
        first.shutdown().await;

        let second = disk.binary().register(&new).build().await.unwrap();
        let parked = until(&second, "order-1", Standing::Parked).await;
        let steps: Vec<&str> = parked.steps.iter().map(|step| &*step.name).collect();
        let wanted = [
            "book",
            "book[0]",
            "book[1]",
            "deliver",
            "deliver/wrap",
            "deliver/send",
            "bill",
        ];
        assert_eq!(steps, wanted);
        let back = RecoveryStrategy::Compensate;
        second.retry(&run(), back, "ann", "stop it").await.unwrap();
        until(&second, "order-1", Standing::Compensated).await;
        let undos = code.calls.take();
        let keys = |undo: &String| {
            let (_, keys) = undo.split_once(") ").unwrap();
            keys.split_once(": ").unwrap().0.to_owned()
        };
        let mut keys: Vec<String> = undos.iter().map(keys).collect();
        keys[2..].sort();
        let wanted = [
            "fulfil/send/1/undo of fulfil/send/1",
            "fulfil/pack/1/undo of fulfil/pack/1",
            "reserve[0]/1/undo of reserve[0]/1",
            "reserve[1]/1/undo of reserve[1]/1",
        ];
        assert_eq!(keys, wanted);
        let operator = Operator::new(second_store(&disk, second).await);
        let mut findings = Vec::new();
        let found = |finding: &amends::operator::Finding| findings.push(finding.what.clone());
        operator
            .verify(&RunFilter::all(), found, |_| {})
            .await
            .unwrap();
        assert_eq!(findings, Vec::<String>::new());
        operator.store().close().await;
    }
}

/// The store, once its owner has let go of it.
async fn second_store(
    disk: &Disk,
    owner: amends::Coordinator,
) -> std::sync::Arc<dyn amends::store::Store> {
    owner.shutdown().await;
    disk.open()
}

#[tokio::test]
async fn a_sub_saga_that_is_half_done_goes_on_inside() {
    for disk in Disk::all() {
        let code = Code::default();
        let old = nested(&code, 1, &OLD, Then::Hangs, Then::Done);
        let first = disk.binary().register(&old).build().await.unwrap();
        first.start(&old, run(), "a".to_owned()).await.unwrap();
        let calls = evolving::called(&code.calls, 4).await;
        assert!(calls[3].ends_with(" fulfil/send/1"), "{calls:?}");
        first.shutdown().await;

        let new = nested(&code, 2, &NEW, Then::Done, Then::Done);
        let second = disk.binary().register(&new).migrate(renamed(&new));
        let second = second.build().await.unwrap();
        second.migrate(&run(), "ann", "v2").await.unwrap();
        let again = RecoveryStrategy::RetryFailed;
        second.retry(&run(), again, "ann", "go on").await.unwrap();
        let done = until(&second, "order-1", Standing::Completed).await;
        assert_eq!(done.outstanding.len(), 0);
        let calls = code.calls.take();
        // What was in flight is called again, under its old key; what comes after it has the new names.
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(calls[0].ends_with(" fulfil/send/1"), "{calls:?}");
        assert!(calls[1].ends_with(" bill/1"), "{calls:?}");
        second.shutdown().await;
    }
}

#[tokio::test]
async fn a_new_sub_saga_with_an_old_name_makes_no_old_key_again() {
    let (code, disk) = (Code::default(), Disk::all().remove(0));
    let old = nested(&code, 1, &OLD, Then::Done, Then::Refused);
    evolving::parked_by(&disk, &old, "order-1").await;
    code.calls.take();
    // `fulfil` and its steps are others in version 2, and come after what they were before.
    let new = {
        let inner = |pack: &str, name: &str| {
            let mut child = Saga::builder::<String>(name);
            let parcel = child.input();
            let packed = child.add(code.step(pack, "pack", Then::Done), parcel);
            let sent = child.add(code.step("send", "send", Then::Done), packed);
            child.returns(sent).unwrap()
        };
        let (child, other) = (inner("wrap", "fulfilment"), inner("pack", "other"));
        let mut saga = order(2);
        let order = saga.input();
        let lines = order.map(|order: &String| vec![format!("{order}1"), format!("{order}2")]);
        let each = code.step::<String>("book", "reserve", Then::Done);
        let stock = saga.add(each.for_each(), lines);
        let delivered = saga.add(step("deliver", &child), stock.map(|stock| stock.join("+")));
        let again = saga.add(step("fulfil", &other), delivered);
        let billed = saga.add(code.step("bill", "bill", Then::Done), again);
        saga.returns(billed).unwrap()
    };
    let binary = disk.binary().register(&new).migrate(renamed(&new));
    let binary = binary.build().await.unwrap();
    binary.migrate(&run(), "ann", "v2").await.unwrap();
    let again = RecoveryStrategy::RetryFailed;
    binary.retry(&run(), again, "ann", "go on").await.unwrap();
    until(&binary, "order-1", Standing::Completed).await;
    let calls = code.calls.take();
    let keys: Vec<&str> = calls
        .iter()
        .map(|call| call.rsplit_once(' ').unwrap().1)
        .collect();
    assert_eq!(keys, ["fulfil/pack/2", "fulfil/send/2", "bill/2"]);
}

#[tokio::test]
async fn what_is_lost_inside_is_told_by_its_path() {
    let (code, disk) = (Code::default(), Disk::all().remove(0));
    let old = nested(&code, 1, &OLD, Then::Done, Then::Refused);
    evolving::parked_by(&disk, &old, "order-1").await;
    let without = |pack: Option<&str>| {
        let mut child = Saga::builder::<String>("fulfilment");
        let parcel = child.input();
        let before = pack.map_or(parcel, |pack| {
            child.add(code.step(pack, "pack", Then::Done), parcel)
        });
        let sent = child.add(code.step("send", "send", Then::Done), before);
        let child = child.returns(sent).unwrap();
        let mut saga = order(2);
        let order = saga.input();
        let lines = order.map(|order: &String| vec![format!("{order}1"), format!("{order}2")]);
        let each = code.step::<String>("reserve", "reserve", Then::Done);
        let stock = saga.add(each.for_each(), lines);
        let fulfilled = saga.add(step("fulfil", &child), stock.map(|stock| stock.join("+")));
        let billed = saga.add(code.step("bill", "bill", Then::Done), fulfilled);
        saga.returns(billed).unwrap()
    };
    let new = without(None);
    let dropped = Migration::from_version(1).to(&new).drop("fulfil/pack");
    let binary = disk.binary().register(&new).migrate(dropped);
    let binary = binary.build().await.unwrap();
    let why = [
        "`fulfil/pack` is done, and has no counterpart: nothing would undo it",
        "`fulfil/send` is done, its input was (pack), and that of `fulfil/send` is (input): it would not be undone, \
         or called again, with what it was called with",
    ];
    assert_eq!(refused(&binary).await, why);
    binary.shutdown().await;

    // A name that is not said is told when it is declared, and so is one that would leave its saga.
    let new = without(Some("wrap"));
    let built = disk
        .binary()
        .register(&new)
        .migrate(Migration::from_version(1).to(&new));
    let Err(BuildError::Migration { faults, .. }) = built.build().await else {
        panic!("it is taken")
    };
    let say = "`fulfil/pack` has no counterpart: say `.rename(\"fulfil/pack\", ..)` or `.drop(\"fulfil/pack\")`";
    assert_eq!(faults, [say]);
    let leaves = Migration::from_version(1)
        .to(&new)
        .rename("fulfil/pack", "bill");
    let built = disk.binary().register(&new).migrate(leaves.drop("bill"));
    let Err(BuildError::Migration { faults, .. }) = built.build().await else {
        panic!("it is taken")
    };
    let told = "`fulfil/pack` is renamed to `bill`: a step stays inside of what it is inside of";
    assert_eq!(faults, [told]);
}

#[tokio::test]
async fn a_sub_saga_that_is_done_does_not_get_more_steps_and_is_no_step_now() {
    let (code, disk) = (Code::default(), Disk::all().remove(0));
    let old = nested(&code, 1, &OLD, Then::Done, Then::Refused);
    evolving::parked_by(&disk, &old, "order-1").await;
    let with = |version: u32, label: bool| {
        let mut child = Saga::builder::<String>("fulfilment");
        let parcel = child.input();
        let packed = child.add(code.step("pack", "pack", Then::Done), parcel);
        let sent = child.add(code.step("send", "send", Then::Done), packed);
        child.add(code.step("label", "label", Then::Done), packed);
        let child = child.returns(sent).unwrap();
        let mut saga = order(version);
        let order = saga.input();
        let lines = order.map(|order: &String| vec![format!("{order}1"), format!("{order}2")]);
        let each = code.step::<String>("reserve", "reserve", Then::Done);
        let stock = saga
            .add(each.for_each(), lines)
            .map(|stock: &Vec<String>| stock.join("+"));
        let fulfilled = if label {
            saga.add(step("fulfil", &child), stock)
        } else {
            saga.add(code.step("fulfil", "fulfil", Then::Done), stock)
        };
        let billed = saga.add(code.step("bill", "bill", Then::Done), fulfilled);
        saga.returns(billed).unwrap()
    };
    for (version, label, why) in [
        (
            2,
            true,
            "`fulfil` is done, and `fulfil/label` inside `fulfil` is new",
        ),
        (
            3,
            false,
            "`fulfil` is done, and is of another form now: nothing would undo it",
        ),
    ] {
        let new = with(version, label);
        let migration = Migration::from_version(1).to(&new);
        let binary = disk.binary().register(&new).migrate(migration);
        let binary = binary.build().await.unwrap();
        assert_eq!(refused(&binary).await, [why]);
        binary.shutdown().await;
    }
}
