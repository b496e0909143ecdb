//! The same saga on each engine: three steps in a row that add one, each with a compensation that does nothing.

mod amends;
mod cano;
mod steno;

use measure::{Failed, Order, serve};

/// Measures one cell, in this process.
pub(crate) fn cell() -> Result<(), Failed> {
    match std::env::args().nth(1).as_deref() {
        Some("amends") => serve(amends::open),
        Some("cano") => serve(cano::open),
        Some("steno") => serve(steno::open),
        engine => Err(format!("no engine {engine:?} here").into()),
    }
}

/// What a module says of an order that it doesn't know.
fn unknown(order: &Order) -> Failed {
    format!("{} has no {}, {}", order.engine, order.store, order.setting).into()
}
