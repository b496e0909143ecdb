//! Spans and counts of a small saga, exported by the OpenTelemetry SDK.
//!
//! `cargo run --example observe --features metrics` prints the spans as a tree and the counts as a list.
//! With `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318` both also go to a collector, by OTLP over HTTP.
//!
//! The saga retries once, fails, and undoes what it did, so that all there is to be seen can be seen.

mod export;
mod ids;
mod saga;
mod screen;

use amends::store::MemoryStore;
use amends::{Coordinator, Outcome, StartOptions};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What a web framework would have found in the request that asks for the order.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn main() -> Result<(), Failed> {
    // Outside of the runtime: the client that speaks to a collector blocks.
    let exports = export::install()?;
    tokio::runtime::Runtime::new()?.block_on(order())?;
    exports.finish()
}

async fn order() -> Result<(), Failed> {
    let saga = saga::place_order()?;
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await?;
    let options = StartOptions::new().traceparent(TRACEPARENT);
    let run = coordinator
        .start_with(&saga, "order-4711", 120, options)
        .await?;
    match run.outcome().await? {
        Outcome::Compensated(partial) => println!("order-4711: {}", partial.hint()),
        other => return Err(format!("order-4711 was to be undone, and is {other:?}").into()),
    }
    coordinator.shutdown().await;
    Ok(())
}
