//! Orders with one reservation per line: all lines or none, and then the same orders again with as many lines
//! as there are goods for.
//!
//! ```text
//! cargo run --example order_lines
//! cargo run --example order_lines -- --orders orders.jsonl --stock stock.jsonl
//! ```
//!
//! How many lines an order has is known when it comes; each is a step of its own, with its own key, and is given
//! back by itself. At the end the warehouse's own book has to agree with what each run says.

mod desk;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use amends::failure::Failure;
use amends::store::SqliteStore;
use amends::{
    Coordinator, Outcome, Payload, RecoveryPolicy, RecoveryStrategy, Saga, SagaError, StepStatus,
    step,
};
use clap::Parser;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use desk::{Answer, Desk, Error, tell};

#[derive(Parser)]
struct Files {
    /// Orders as JSON lines; a few of our own if not given.
    #[arg(long, requires = "stock")]
    orders: Option<PathBuf>,
    /// Stock as JSON lines.
    #[arg(long, requires = "orders")]
    stock: Option<PathBuf>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    order_id: String,
    lines: Vec<Line>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    sku: String,
    quantity: u32,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    on_hand: u32,
}

/// What the warehouse is asked for.
#[derive(Clone, Serialize, Deserialize)]
struct Pick {
    order_id: String,
    #[serde(flatten)]
    line: Line,
}

impl Order {
    fn picks(&self) -> Vec<Pick> {
        let pick = |line: &Line| Pick {
            order_id: self.order_id.clone(),
            line: line.clone(),
        };
        self.lines.iter().map(pick).collect()
    }
}

/// Goods that are reserved, a text per line.
type Reserved = Vec<String>;
/// The same, where some lines may be missing.
type ReservedOrNot = Vec<Result<String, Failure>>;

/// A line that can't be had gives back all others.
fn whole_orders(warehouse: &Desk<Pick>) -> Result<Saga<Order, Reserved>, SagaError> {
    let mut saga = Saga::builder::<Order>("whole-orders");
    let order = saga.input();
    let reserve = step("reserve", warehouse.clone()).max_in_flight(16);
    let reserved = saga.add(reserve.for_each().parallel(4), order.map(Order::picks));
    saga.returns(reserved)
}

/// Up to half of the lines may be missing.
fn half_orders(warehouse: &Desk<Pick>) -> Result<Saga<Order, ReservedOrNot>, SagaError> {
    // Trying again brings no goods.
    let give_back = RecoveryPolicy::new("sold out", RecoveryStrategy::Compensate);
    let mut saga = Saga::builder::<Order>("half-orders").policy(give_back);
    let order = saga.input();
    let reserve = step("reserve", warehouse.clone()).max_in_flight(16);
    let reserved = saga.add(
        reserve.for_each().parallel(4).tolerate_ratio(0.5),
        order.map(Order::picks),
    );
    saga.returns(reserved)
}

async fn warehouse(stock: &[Item]) -> Result<Desk<Pick>, Error> {
    let stock = stock.iter().map(|item| (item.sku.clone(), item.on_hand));
    let stock: HashMap<String, u32> = stock.collect();
    Desk::open(move |pick: &Pick, reserved: &[&Pick]| {
        let same = reserved
            .iter()
            .filter(|other| other.line.sku == pick.line.sku);
        let taken: u32 = same.map(|other| other.line.quantity).sum();
        let left = stock.get(&pick.line.sku).unwrap_or(&0) - taken;
        match pick.line.quantity {
            wanted if wanted > left => Answer::No(format!("{left} of {} left", pick.line.sku)),
            wanted => Answer::Yes(format!("{wanted} of {}", pick.line.sku)),
        }
    })
    .await
}

/// Runs all orders side by side, and compares what stands in the warehouse's book with what the runs say.
async fn run<O: Payload>(
    coordinator: &Coordinator,
    saga: &Saga<Order, O>,
    orders: &[Order],
    warehouse: &Desk<Pick>,
) -> Result<(), Error> {
    let mut runs = Vec::new();
    for order in orders {
        let id = format!("{} {}", saga.name(), order.order_id);
        runs.push(coordinator.start(saga, id, order.clone()).await?);
    }
    let mut ends = BTreeMap::<&str, u32>::new();
    let mut said = BTreeSet::new();
    let mut partly = None;
    for (order, run) in orders.iter().zip(runs) {
        let outcome = run.outcome().await?;
        let partial = outcome.partial();
        let lines = order.lines.iter().enumerate();
        let reserved = lines.filter(|(line, _)| {
            let step = partial.step(&format!("reserve[{line}]"));
            step.is_some_and(|step| step.status == StepStatus::Done)
        });
        let reserved: Vec<_> = reserved.map(|(_, line)| line.sku.clone()).collect();
        let end = match outcome {
            Outcome::Completed(_) if reserved.len() == order.lines.len() => "whole",
            Outcome::Completed(_) => "in part",
            Outcome::Compensated(_) => "given back",
            other => return Err(format!("{}: {}", run.id(), other.partial().hint()).into()),
        };
        *ends.entry(end).or_default() += 1;
        said.extend(reserved.into_iter().map(|sku| (&order.order_id, sku)));
        if partly.is_none() && end != "whole" && order.lines.len() > 2 {
            partly = Some(partial);
        }
    }
    if let Some(partial) = partly {
        tell(&partial);
    }
    let standing = warehouse.standing();
    let standing = standing
        .iter()
        .map(|pick| (&pick.order_id, pick.line.sku.clone()));
    assert_eq!(standing.collect::<BTreeSet<_>>(), said);
    println!("{}: {ends:?}, {} lines reserved", saga.name(), said.len());
    Ok(())
}

fn read<T: DeserializeOwned>(file: Option<PathBuf>, own: &str) -> Result<Vec<T>, Error> {
    let text = file.map_or(Ok(own.to_owned()), fs::read_to_string)?;
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let files = Files::parse();
    let orders: Vec<Order> = read(files.orders, include_str!("data/orders.jsonl"))?;
    let stock: Vec<Item> = read(files.stock, include_str!("data/stock.jsonl"))?;
    // The same goods twice, so that the two ways don't take them from each other.
    let (first, second) = (warehouse(&stock).await?, warehouse(&stock).await?);
    let (whole, half) = (whole_orders(&first)?, half_orders(&second)?);
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("sagas.db"))?;
    let coordinator = Coordinator::builder(store)
        .register(&whole)
        .register(&half)
        .build()
        .await?;
    run(&coordinator, &whole, &orders, &first).await?;
    run(&coordinator, &half, &orders, &second).await?;
    coordinator.shutdown().await;
    Ok(())
}
