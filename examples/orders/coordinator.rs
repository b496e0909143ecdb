//! The coordinator process: opens the journal, goes on with what an earlier process left open, and
//! starts whatever has not been started yet.
//!
//! It does the same thing after each kill as on the first start, and keeps nothing but the journal
//! between its lives. An order is started under the run id `order-<id>`; started again, it is the
//! same run.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use amends::failure::FailedEffect;
use amends::store::{MemoryStore, SqliteStore};
use amends::{Coordinator, FailureMode, Outcome, PartialResult, RunId, Saga};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::api::Confirmation;
use crate::model::{self, Order};
use crate::saga::{Services, place_order};
use crate::words::{End, Ended, Word};
use crate::{Error, child};

/// How many orders are worked on at the same time.
const IN_FLIGHT: usize = 32;

/// What the coordinator is started with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    orders: PathBuf,
    /// The file of the journal; without it, memory.
    #[arg(long)]
    journal: Option<PathBuf>,
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

/// Runs until every order has ended, or until the parent is gone.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    tokio::spawn(async {
        child::parent_is_done().await;
        std::process::exit(1);
    });
    let orders = model::read_orders(&options.orders)?;
    let services = Services::on(options.stock, options.payments, options.parcels)?;
    let saga = place_order(&services)?;
    let builder = match &options.journal {
        Some(path) => Coordinator::builder(SqliteStore::open(path)?),
        None => Coordinator::builder(MemoryStore::new()),
    };
    let coordinator = builder.register(&saga).build().await?;
    say(&Word::Ready {
        resumed: coordinator.all_resumed().await,
    })?;

    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut orders_in_work = JoinSet::new();
    for order in orders {
        let place = Arc::clone(&in_flight).acquire_owned().await?;
        let (coordinator, saga) = (coordinator.clone(), saga.clone());
        orders_in_work.spawn(async move {
            let ended = work_off(&coordinator, &saga, order).await;
            drop(place);
            say(&Word::Ended(ended?))
        });
    }
    while let Some(worked_off) = orders_in_work.join_next().await {
        worked_off??;
    }
    coordinator.shutdown().await;
    Ok(())
}

/// Starts the run of an order, or finds it again, and waits for its end.
async fn work_off(
    coordinator: &Coordinator,
    saga: &Saga<Order, Confirmation>,
    order: Order,
) -> Result<Ended, Error> {
    let order_id = order.id.clone();
    let run = coordinator
        .start(saga, RunId::new(format!("order-{order_id}")), order)
        .await?;
    Ok(ended(order_id, &run.outcome().await?))
}

/// How a run ended, in the words that the parent hears.
pub(crate) fn ended(order_id: String, outcome: &Outcome<Confirmation>) -> Ended {
    let partial = outcome.partial();
    let (end, why) = match outcome {
        Outcome::Completed(_) => (End::Completed, "paid and shipped".to_owned()),
        Outcome::Compensated(_) => (End::Compensated, refusal(&partial)),
        Outcome::Stopped(_) => (End::Stopped, partial.stopped.clone().unwrap_or_default()),
        _ => (End::Parked, partial.hint()),
    };
    Ended {
        order_id,
        end,
        why,
        in_doubt: doubts(&partial),
    }
}

/// Why an order was undone.
fn refusal(partial: &PartialResult) -> String {
    let step = partial.failing_step.as_deref().unwrap_or_default();
    let refused = partial.failure_mode == Some(FailureMode::StepValidation);
    match step {
        "reserve-stock" if refused => "sold out".to_owned(),
        "charge-card" if refused => "card declined".to_owned(),
        "book-parcel" if refused => "no carrier goes there".to_owned(),
        _ => format!("{step} never got through"),
    }
}

/// How many attempts left an effect in doubt: interrupted by a kill, or failed without a word.
fn doubts(partial: &PartialResult) -> usize {
    let attempts = partial.steps.iter().flat_map(|step| &step.history);
    let in_doubt = attempts.filter(|attempt| {
        attempt
            .failure
            .as_ref()
            .is_none_or(|failure| failure.effect == FailedEffect::InDoubt)
    });
    in_doubt.count()
}

/// A line for the parent, in one write, so that a kill can't leave half of it.
pub(crate) fn say(word: &Word) -> Result<(), Error> {
    let line = serde_json::to_string(word)? + "\n";
    Ok(std::io::stdout().write_all(line.as_bytes())?)
}
