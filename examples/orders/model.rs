//! Orders, stock, and the arithmetic of money: what every process of the example agrees on.
//!
//! Orders and stock travel as JSON lines, one record a line. The schema is that of the public
//! Northwind data, so that generated and real orders go the same way.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// An order, as the shop got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    #[serde(rename = "order_id")]
    pub(crate) id: String,
    pub(crate) customer_id: String,
    pub(crate) ordered_on: String,
    pub(crate) ship_to: Address,
    pub(crate) freight_cents: i64,
    pub(crate) lines: Vec<Line>,
}

/// Where the parcel goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) country: String,
}

/// A product of an order. A product occurs in one line of an order at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price_cents: i64,
    #[serde(default)]
    pub(crate) discount_percent: u8,
}

/// What the warehouse holds of a product when the day begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StockItem {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) on_hand: u32,
    #[serde(default)]
    pub(crate) discontinued: bool,
}

impl Line {
    /// The price of the line in whole cents; half a cent is rounded up, once per line.
    pub(crate) fn cents(&self) -> i64 {
        let percent = 100 - i64::from(self.discount_percent);
        (i64::from(self.quantity) * self.unit_price_cents * percent + 50) / 100
    }
}

impl Order {
    /// What the card is charged: all lines, and the freight.
    pub(crate) fn total_cents(&self) -> i64 {
        self.lines.iter().map(Line::cents).sum::<i64>() + self.freight_cents
    }

    /// Whether there is anything to put into a parcel.
    pub(crate) fn has_goods(&self) -> bool {
        self.lines.iter().any(|line| line.quantity > 0)
    }
}

/// Reads orders, and refuses what would make the audit meaningless: an id that occurs twice, a
/// product twice in an order, a price below zero, a discount over 100 %.
pub(crate) fn read_orders(path: &Path) -> Result<Vec<Order>, Error> {
    let orders: Vec<Order> = read_lines(path)?;
    let mut ids = HashSet::new();
    for order in &orders {
        let id = &order.id;
        if !ids.insert(id) {
            return Err(format!("{}: order {id} occurs twice", path.display()).into());
        }
        let mut skus = HashSet::new();
        let sound = order.freight_cents >= 0
            && order.lines.iter().all(|line| {
                skus.insert(&line.sku) && line.unit_price_cents >= 0 && line.discount_percent <= 100
            });
        if !sound {
            return Err(format!("{}: order {id} has an impossible line", path.display()).into());
        }
    }
    Ok(orders)
}

/// Reads the stock of a warehouse.
pub(crate) fn read_stock(path: &Path) -> Result<Vec<StockItem>, Error> {
    read_lines(path)
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let file = fs::File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            let record = serde_json::from_str(&line)
                .map_err(|e| format!("{}, line {}: {e}", path.display(), index + 1))?;
            records.push(record);
        }
    }
    Ok(records)
}

/// Writes records as JSON lines.
pub(crate) fn write_lines<T: Serialize>(path: &Path, records: &[T]) -> Result<(), Error> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// An amount for people: `1,234.50`.
pub(crate) fn money(cents: i64) -> String {
    let whole = (cents / 100).unsigned_abs().to_string();
    let mut text = String::from(if cents < 0 { "-" } else { "" });
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    // Writing to a string can't fail.
    let _ = write!(text, ".{:02}", (cents % 100).abs());
    text
}
