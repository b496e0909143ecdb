//! The rivals on sqlx, one cell a call; `rivals` calls it.

mod durare;
mod duroxide;

use measure::{Failed, Order, serve};

fn main() -> Result<(), Failed> {
    match std::env::args().nth(1).as_deref() {
        Some("durare") => serve(durare::open),
        Some("duroxide") => serve(duroxide::open),
        engine => Err(format!("no engine {engine:?} here").into()),
    }
}

/// What a module says of an order that it doesn't know.
fn unknown(order: &Order) -> Failed {
    format!("{} has no {}, {}", order.engine, order.store, order.setting).into()
}
