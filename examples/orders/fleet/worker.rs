//! A worker of the fleet: a coordinator that starts and awaits what it is told to, and drives whatever runs
//! are its own.
//!
//! It keeps nothing between its lives, and does nothing about its kin: that runs of a dead worker go on, and
//! that a zombie does no harm, is the coordinator's business.

use std::time::Duration;

use amends::store::PostgresStore;
use amends::{Coordinator, RunId, Saga};
use tokio::time::{sleep, timeout};

use super::LOOK;
use super::feed::Told;
use super::overheard::Overheard;
use crate::api::Confirmation;
use crate::coordinator::{ended, say};
use crate::model::Order;
use crate::saga::{Services, place_order};
use crate::words::Word;
use crate::{Error, child};

/// What a worker is started with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What it is called in journals.
    #[arg(long)]
    name: String,
    /// How to connect to the database.
    #[arg(long)]
    store: String,
    /// How long its lease lasts, in seconds.
    #[arg(long)]
    lease: f64,
    /// The port of the service.
    #[arg(long)]
    stock: u16,
    /// The port of the service.
    #[arg(long)]
    payments: u16,
    /// The port of the service.
    #[arg(long)]
    parcels: u16,
}

/// Runs until the parent closes its end of standard input.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let mut told = child::told_by_parent();
    let services = Services::on(options.stock, options.payments, options.parcels)?;
    let saga = place_order(&services)?;
    let coordinator = join(&options, &saga).await?;
    say(&Word::Ready { resumed: 0 })?;
    while let Some(line) = told.recv().await {
        let (coordinator, saga) = (coordinator.clone(), saga.clone());
        let told = serde_json::from_str(&line)?;
        tokio::spawn(async move {
            let word = match told {
                Told::Start { order } => start(&coordinator, &saga, order).await,
                Told::Await { order_id } => wait(&coordinator, &saga, order_id).await,
            };
            if say(&word).is_err() {
                // There is no parent to listen to any more.
                std::process::exit(1);
            }
        });
    }
    // Its lease is given up; without a database that would take for ever.
    let _ = timeout(Duration::from_secs(3), coordinator.shutdown()).await;
    Ok(())
}

/// Joins the fleet, as soon as the database lets it.
async fn join(options: &Options, saga: &Saga<Order, Confirmation>) -> Result<Coordinator, Error> {
    let mut tries = 0;
    loop {
        let failed = match try_to_join(options, saga).await {
            Ok(coordinator) => return Ok(coordinator),
            Err(error) => error,
        };
        tries += 1;
        if tries == 50 {
            return Err(failed);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn try_to_join(
    options: &Options,
    saga: &Saga<Order, Confirmation>,
) -> Result<Coordinator, Error> {
    let store = PostgresStore::options()
        .lease(Duration::from_secs_f64(options.lease))
        .look(LOOK)
        // One lane: while an answer is awaited, all other appends wait to be sent, and a worker that is frozen
        // then is frozen with something to send.
        .lanes(1)
        .statement_timeout(Duration::from_secs(5))
        .connect(&options.store)
        .await?;
    let builder = Coordinator::builder(Overheard(store)).register(saga);
    let builder = builder.worker(&options.name);
    let builder = builder.shutdown_grace(Duration::from_secs(1));
    Ok(builder.build().await?)
}

fn run_of(order_id: &str) -> RunId {
    RunId::new(format!("order-{order_id}"))
}

/// Starts the run of an order, or finds it started, here or elsewhere.
async fn start(coordinator: &Coordinator, saga: &Saga<Order, Confirmation>, order: Order) -> Word {
    let order_id = order.id.clone();
    match coordinator.start(saga, run_of(&order_id), order).await {
        Ok(_) => Word::Started { order_id },
        Err(_) => Word::NotNow { order_id },
    }
}

/// Waits for the end of a run, wherever it is driven.
async fn wait(
    coordinator: &Coordinator,
    saga: &Saga<Order, Confirmation>,
    order_id: String,
) -> Word {
    let run = match coordinator.attach(saga, &run_of(&order_id)).await {
        Ok(Some(run)) => run,
        Ok(None) => return Word::Missing { order_id },
        Err(_) => return Word::NotNow { order_id },
    };
    match run.outcome().await {
        Ok(outcome) => Word::Ended(ended(order_id, &outcome)),
        Err(_) => Word::NotNow { order_id },
    }
}
