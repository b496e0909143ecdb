//! Sagas of steps that have steps inside, and the runs of them that pictures are made of.
// A test file of its own needs not all of it.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use amends::{Node, RecoveryPolicy, Retry, Saga, delay, first_of, step, wait_for};
use tokio::time::sleep;

use crate::scripted::{Act, Cast, Drawn, MINUTES, MS, Script, run};

/// No jitter: it comes from the run's uid, which is random.
fn policy() -> RecoveryPolicy {
    RecoveryPolicy::saga().backoff(Retry::constant().initial(MS(200)))
}

/// A sub-saga with a fan-out inside.
fn parcel(cast: &Cast) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("parcel").policy(policy());
    let line = saga.input();
    let packed = saga.add(cast.step::<u64>("pack"), line);
    saga.add(
        cast.step::<u64>("label").for_each(),
        packed.map(|n| vec![*n, *n]),
    );
    saga.returns(packed).unwrap()
}

/// A shop with each form there is.
pub fn shop(cast: &Cast) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("shop").policy(policy());
    let order = saga.input();
    let carriers = ["north", "south"].map(|name| cast.look::<u64>(name));
    let carrier: Node<u64> = saga.add(first_of("carrier", carriers), order);
    let each = cast.step::<u64>("reserve").for_each();
    let reserved = saga.add(
        each.parallel(2).tolerate(1),
        order.map(|n| vec![*n, *n, *n]),
    );
    let insure = cast.step::<u64>("insure").only_if(carrier.map(|_| false));
    let insured = saga.add(insure, carrier);
    let pay = cast.step::<u64>("pay").fallback(cast.step("invoice"));
    let paid = saga.add(pay.after(reserved), order);
    let day = Duration::from_secs(86_400);
    let seen = wait_for::<u64>("looked-at").within(day).after(paid);
    let seen = saga.add(seen, ());
    let parcels = step("ship", &parcel(cast)).for_each().after(seen);
    let parcels = saga.add(parcels, order.map(|n| vec![*n, *n]));
    let rested = saga.add(delay("rest", MINUTES(90)).after(parcels), ());
    let mail = cast
        .last::<u64>("mail")
        .pivot()
        .after(rested)
        .after(insured);
    let mail = saga.add(mail, carrier);
    saga.returns(mail).unwrap()
}

/// Somebody looks at the order, two minutes after it was paid for.
async fn looked_at(coordinator: &amends::Coordinator, id: &amends::RunId) {
    sleep(MINUTES(2)).await;
    let seen = coordinator.signal(id, "looked-at", crate::scripted::SECRET);
    seen.await.unwrap();
    sleep(MINUTES(200)).await;
}

pub fn shop_completed() -> Drawn {
    let script = Script::default()
        .on("carrier/north", [Act::Done(40)])
        .on("reserve[1]", [Act::Busy(9), Act::Refused(6)])
        .on("ship[1]/label[0]", [Act::Busy(9), Act::Done(12)]);
    run("shop-completed", &shop(&Cast::new(script)), looked_at)
}

/// Paid by the other way, and waiting for somebody to look at it.
pub fn shop_waiting() -> Drawn {
    let script = Script::default().on("pay/primary", [Act::Refused(9)]);
    let shop = shop(&Cast::new(script));
    run("shop-waiting", &shop, async |_, _| sleep(MINUTES(1)).await)
}

/// A label deep inside is refused: its parcel undoes itself, then all.
pub fn shop_compensated() -> Drawn {
    let script = Script::default()
        .on("ship[1]/label[1]", [Act::Refused(60)])
        .undo("ship[0]/pack", [Act::Busy(5), Act::Done(9)]);
    run("shop-compensated", &shop(&Cast::new(script)), looked_at)
}

/// An undo inside a step that was undone fails for good.
pub fn shop_parked() -> Drawn {
    let script = Script::default()
        .on("mail", [Act::Refused(5)])
        .undo("ship[0]/label[1]", [Act::Refused(5)]);
    run("shop-parked", &shop(&Cast::new(script)), looked_at)
}

/// Four hundred items.
pub fn crowd(cast: &Cast) -> Saga<u64, ()> {
    let mut saga = Saga::builder::<u64>("crowd").policy(policy());
    let n = saga.input();
    let each = cast.step::<u64>("greet").for_each().parallel(8);
    let all = saga.add(each.tolerate_ratio(0.005), n.map(|n| vec![*n; 400]));
    saga.add(cast.step::<u64>("count").after(all), n);
    saga.returns(()).unwrap()
}

pub fn crowd_under_way() -> Drawn {
    let script = Script::default()
        .on("greet[17]", [Act::Refused(5)])
        .on("greet[31]", [Act::Refused(5)])
        .on("greet[40]", [Act::Hang]);
    run(
        "crowd-under-way",
        &crowd(&Cast::new(script)),
        async |_, _| sleep(MS(250)).await,
    )
}

/// More fail than may, and again when they are tried again.
pub fn crowd_compensated() -> Drawn {
    let script = Script::default()
        .on("greet[17]", [Act::Refused(5); 6])
        .on("greet[31]", [Act::Refused(5); 6])
        .on("greet[250]", [Act::Refused(5); 6]);
    let crowd = crowd(&Cast::new(script));
    run("crowd-compensated", &crowd, async |_, _| {
        sleep(MINUTES(60)).await;
    })
}

/// A sub-saga that another one undoes as a whole, since its end can't be taken back step by step.
pub fn deal(cast: &Cast) -> Saga<u64, ()> {
    let mut transfer = Saga::builder::<u64>("transfer").policy(policy());
    let amount = transfer.input();
    let held = transfer.add(cast.step::<u64>("hold"), amount);
    let wired = transfer.add(cast.last::<u64>("wire").pivot(), held);
    let transfer = transfer.returns(wired).unwrap();
    let mut back = Saga::builder::<(u64, u64)>("send-back").policy(policy());
    let what = back.input();
    let asked = back.add(cast.look::<(u64, u64)>("ask"), what);
    back.add(cast.step::<u64>("wire-back"), asked);
    let back = back.returns::<()>(()).unwrap();
    let mut saga = Saga::builder::<u64>("deal").policy(policy());
    let amount = saga.input();
    let paid = step("pay", &transfer).compensate_with(&back);
    let paid = saga.add(paid, amount);
    saga.add(cast.step::<u64>("deliver"), paid);
    saga.returns(()).unwrap()
}

pub fn deal_compensated() -> Drawn {
    let script = Script::default()
        .on("deliver", [Act::Refused(5)])
        .on("pay[undo]/wire-back", [Act::Busy(5), Act::Done(9)]);
    let deal = deal(&Cast::new(script));
    run("deal-compensated", &deal, async |_, _| {
        sleep(MINUTES(60)).await;
    })
}

/// All the runs that pictures are kept of.
pub fn all() -> Vec<Drawn> {
    vec![
        shop_completed(),
        shop_waiting(),
        shop_compensated(),
        shop_parked(),
        crowd_under_way(),
        crowd_compensated(),
        deal_compensated(),
    ]
}
