//! Orders and stock out of a seed, for those who have no data of their own.
//!
//! The day it makes up is like a real one: a few customers order much, most products suffice, some
//! sell out, and a handful of orders have nothing in them that could be shipped.

use fastrand::Rng;

use crate::model::{Address, Line, Order, StockItem};

const KINDS: [&str; 10] = [
    "Teapot", "Kettle", "Lantern", "Ladder", "Hammer", "Blanket", "Stool", "Basket", "Clock",
    "Bell",
];
const MATERIALS: [&str; 4] = ["Oak", "Copper", "Wool", "Slate"];
const CUSTOMERS: u32 = 90;
const CITIES: [(&str, &str); 12] = [
    ("Reims", "France"),
    ("Münster", "Germany"),
    ("Graz", "Austria"),
    ("Luleå", "Sweden"),
    ("Lisboa", "Portugal"),
    ("Bergamo", "Italy"),
    ("Cork", "Ireland"),
    ("Boise", "USA"),
    ("Resende", "Brazil"),
    ("Bern", "Switzerland"),
    ("Oulu", "Finland"),
    ("Torino", "Italy"),
];
/// Products at the end of the list that are no longer made, and of which nothing is left.
const DISCONTINUED: usize = 3;

/// A day of `count` orders, and a stock that does not suffice for all of them.
pub(crate) fn day(count: usize, seed: u64) -> (Vec<Order>, Vec<StockItem>) {
    let mut rng = Rng::with_seed(seed);
    let mut stock: Vec<StockItem> = MATERIALS
        .iter()
        .flat_map(|material| KINDS.iter().map(move |kind| format!("{material} {kind}")))
        .enumerate()
        .map(|(index, name)| StockItem {
            sku: format!("SKU-{:03}", index + 1),
            name,
            on_hand: 0,
            discontinued: false,
        })
        .collect();
    let prices: Vec<i64> = stock.iter().map(|_| rng.i64(2..160) * 125).collect();
    let orders: Vec<Order> = (0..count)
        .map(|index| order(index, &stock, &prices, &mut rng))
        .collect();

    let current = stock.len() - DISCONTINUED;
    for (index, item) in stock.iter_mut().enumerate() {
        item.discontinued = index >= current;
        if !item.discontinued {
            let wanted: u32 = (orders.iter().flat_map(|order| &order.lines))
                .filter(|line| line.sku == item.sku)
                .map(|line| line.quantity)
                .sum();
            // Every third product runs short.
            let percent = if rng.u8(0..3) == 0 {
                rng.u32(60..95)
            } else {
                rng.u32(100..130)
            };
            item.on_hand = wanted * percent / 100;
        }
    }
    (orders, stock)
}

fn order(index: usize, stock: &[StockItem], prices: &[i64], rng: &mut Rng) -> Order {
    let current = stock.len() - DISCONTINUED;
    // Two in a hundred want only what is no longer made; one in a hundred was emptied by its
    // customer before it was sent.
    let (products, most) = match rng.u8(0..100) {
        0..2 => (current..stock.len(), 2),
        2 => (0..current, 0),
        _ => (0..current, 24),
    };
    let size = rng.usize(1..=5);
    let lines = (rng.choose_multiple(products, size).into_iter())
        .map(|product| Line {
            sku: stock[product].sku.clone(),
            quantity: if most == 0 { 0 } else { rng.u32(1..=most) },
            unit_price_cents: prices[product],
            discount_percent: if rng.u8(0..5) < 3 {
                0
            } else {
                rng.u8(1..=5) * 5
            },
        })
        .collect();
    let customer = rng.u32(0..CUSTOMERS).min(rng.u32(0..CUSTOMERS));
    let (city, country) = CITIES[customer as usize % CITIES.len()];
    Order {
        id: format!("{}", 10_001 + index),
        customer_id: format!("C-{customer:03}"),
        ordered_on: format!("2026-{:02}-{:02}", 1 + index % 12, 1 + index % 28),
        ship_to: Address {
            name: format!("Customer {customer}"),
            city: city.to_owned(),
            country: country.to_owned(),
        },
        freight_cents: rng.i64(0..6_000),
        lines,
    }
}
