//! Sagas in sagas: an order is fulfilled parcel by parcel, and each parcel has a label that is a saga, too.
//!
//! `cargo run --example fulfilment` fulfils two orders. In the first the printer is out of paper once: the label
//! gives its postage back, the parcel is unpacked, and the fulfilment tries that parcel again, and no other.
//! In the second a parcel is too heavy for the van: the fulfilment undoes itself, then the order.

mod desk;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::policy::{Condition, Rule};
use amends::store::SqliteStore;
use amends::{
    Coordinator, RecoveryPolicy, RecoveryStrategy, Retry, Saga, SagaError, diagram, step,
};
use serde::{Deserialize, Serialize};

use desk::{Answer, Desk, Error, tell};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    name: String,
    /// What each parcel weighs.
    kilos: Vec<u32>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Parcel {
    name: String,
    kilos: u32,
}

impl Order {
    fn parcels(&self) -> Vec<Parcel> {
        let parcel = |(at, &kilos)| Parcel {
            name: format!("{}-{at}", self.name),
            kilos,
        };
        self.kilos.iter().enumerate().map(parcel).collect()
    }
}

struct Services {
    till: Desk<Order>,
    table: Desk<Parcel>,
    post: Desk<Parcel>,
    printer: Desk<Parcel>,
    van: Desk<Parcel>,
}

fn label(services: &Services) -> Result<Saga<Parcel, String>, SagaError> {
    let mut saga = Saga::builder::<Parcel>("label");
    let parcel = saga.input();
    let postage = saga.add(step("postage", services.post.clone()), parcel);
    let printed = saga.add(
        step("print", services.printer.clone()).after(postage),
        parcel,
    );
    saga.returns(printed)
}

fn parcel(services: &Services) -> Result<Saga<Parcel, String>, SagaError> {
    let mut saga = Saga::builder::<Parcel>("parcel");
    let parcel = saga.input();
    let packed = saga.add(step("pack", services.table.clone()), parcel);
    let labelled = saga.add(step("label", &label(services)?).after(packed), parcel);
    let loaded = saga.add(step("load", services.van.clone()).after(labelled), parcel);
    saga.returns(loaded)
}

fn fulfilment(services: &Services) -> Result<Saga<Order, Vec<String>>, SagaError> {
    let once_more = RecoveryPolicy::new("once more", RecoveryStrategy::RetryFailed)
        .rule(Rule::new("twice is enough", RecoveryStrategy::Compensate).when(Condition::UsedUp))
        .max_recoveries(1)
        .backoff(Retry::constant().initial(Duration::from_millis(100)));
    let mut saga = Saga::builder::<Order>("fulfilment").policy(once_more);
    let order = saga.input();
    let parcels = step("parcel", &parcel(services)?).for_each().parallel(2);
    let loaded = saga.add(parcels, order.map(Order::parcels));
    saga.returns(loaded)
}

fn order(services: &Services) -> Result<Saga<Order, Vec<String>>, SagaError> {
    let mut saga = Saga::builder::<Order>("order");
    let order = saga.input();
    let paid = saga.add(step("charge", services.till.clone()), order);
    let loaded = saga.add(step("fulfil", &fulfilment(services)?).after(paid), order);
    saga.returns(loaded)
}

async fn services() -> Result<Services, Error> {
    let yes = |what: &'static str| {
        move |parcel: &Parcel, _: &[&Parcel]| Answer::Yes(format!("{} {what}", parcel.name))
    };
    let has_paper = AtomicBool::new(false);
    let printer = move |parcel: &Parcel, _: &[&Parcel]| {
        if parcel.name == "books-1" && !has_paper.swap(true, Ordering::Relaxed) {
            return Answer::No("out of paper".to_owned());
        }
        Answer::Yes(format!("{} has a label", parcel.name))
    };
    let van = |parcel: &Parcel, _: &[&Parcel]| match parcel.kilos {
        0..=30 => Answer::Yes(format!("{} is in the van", parcel.name)),
        kilos => Answer::No(format!("{kilos} kg are too heavy")),
    };
    Ok(Services {
        till: Desk::open(|order: &Order, _: &[&Order]| Answer::Yes(format!("{} paid", order.name)))
            .await?,
        table: Desk::open(yes("packed")).await?,
        post: Desk::open(yes("has postage")).await?,
        printer: Desk::open(printer).await?,
        van: Desk::open(van).await?,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let services = services().await?;
    let saga = order(&services)?;
    print!("{}", diagram::text(saga.graph()));
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("sagas.db"))?;
    let coordinator = Coordinator::builder(store).register(&saga).build().await?;
    for (name, kilos, end) in [
        ("books", [8, 12], "completed"),
        ("anvils", [20, 60], "compensated"),
    ] {
        let order = Order {
            name: name.to_owned(),
            kilos: kilos.to_vec(),
        };
        let outcome = coordinator
            .start(&saga, name, order)
            .await?
            .outcome()
            .await?;
        tell(&outcome.partial());
        assert_eq!(outcome.word(), end);
    }
    coordinator.shutdown().await;

    println!("\nin the services' own books:");
    let paid: Vec<String> = services
        .till
        .standing()
        .into_iter()
        .map(|order| order.name)
        .collect();
    println!("  till     {}", paid.join(", "));
    assert_eq!(paid, ["books"]);
    let books = [
        ("table", &services.table),
        ("post", &services.post),
        ("printer", &services.printer),
        ("van", &services.van),
    ];
    for (name, desk) in books {
        let mut stand: Vec<String> = desk
            .standing()
            .into_iter()
            .map(|parcel| parcel.name)
            .collect();
        stand.sort();
        println!("  {name:<8} {}", stand.join(", "));
        assert_eq!(stand, ["books-0", "books-1"]);
    }
    Ok(())
}
