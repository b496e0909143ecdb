//! The audit: what three databases say, against what was ordered.
//!
//! It reads the orders, the stock, and the books of the three services. It does not read the
//! journal of the coordinator, nor does it use the code that the services used to write. Only when
//! it knows what became of each order does it ask whether the coordinator said the same.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::Error;
use crate::model::{Order, StockItem};
use crate::words::{End, Ended};

/// What the audit found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Each deviation in a sentence.
    pub(crate) violations: Vec<String>,
    /// Orders that are wholly there.
    pub(crate) there: usize,
    /// Orders of which nothing is left.
    pub(crate) undone: usize,
    /// What the shop has earned, by its own price list.
    pub(crate) earned_cents: i64,
    /// What the shop's accounts at the bank hold.
    pub(crate) banked_cents: i64,
    /// Pieces that left the warehouse.
    pub(crate) pieces: i64,
}

/// The databases of the services.
pub(crate) struct Books<'a> {
    pub(crate) stock: &'a Path,
    pub(crate) payments: &'a Path,
    pub(crate) parcels: &'a Path,
}

/// Everything the three services hold for one order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holding {
    reserved: BTreeMap<String, i64>,
    accounts: BTreeMap<String, i64>,
    parcels: Vec<(String, i64)>,
    messages: i64,
}

impl Holding {
    fn wanted(order: &Order) -> Self {
        let lines = order.lines.iter().filter(|line| line.quantity > 0);
        let reserved: BTreeMap<_, _> = lines
            .map(|line| (line.sku.clone(), i64::from(line.quantity)))
            .collect();
        let goods = order.total_cents() - order.freight_cents;
        let accounts = [
            (format!("card/{}", order.customer_id), -order.total_cents()),
            ("shop/goods".to_owned(), goods),
            ("shop/freight".to_owned(), order.freight_cents),
        ];
        Self {
            parcels: vec![(order.ship_to.city.clone(), reserved.values().sum())],
            reserved,
            accounts: accounts
                .into_iter()
                .filter(|(_, cents)| *cents != 0)
                .collect(),
            messages: 1,
        }
    }
}

/// Examines the books.
pub(crate) fn examine(
    orders: &[Order],
    stock: &[StockItem],
    books: &Books<'_>,
    words: &HashMap<String, Ended>,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let mut holdings = HashMap::new();
    let on_hand = read_stock(books.stock, &mut holdings, &mut findings)?;
    read_payments(books.payments, &mut holdings, &mut findings)?;
    read_parcels(books.parcels, &mut holdings)?;

    let mut sold: HashMap<&str, i64> = HashMap::new();
    for order in orders {
        let id = &order.id;
        let holding = holdings.remove(id).unwrap_or_default();
        let wanted = Holding::wanted(order);
        let truth = if holding == Holding::default() {
            findings.undone += 1;
            Some(false)
        } else if holding == wanted {
            findings.there += 1;
            findings.earned_cents += order.total_cents();
            for line in &order.lines {
                *sold.entry(&line.sku).or_default() += i64::from(line.quantity);
            }
            Some(true)
        } else {
            findings.violations.push(format!(
                "order {id} is neither there nor undone: it should be {wanted:?}, and is {holding:?}"
            ));
            None
        };
        match (words.get(id).map(|word| word.end), truth) {
            (None, _) => findings.violations.push(format!("order {id} never ended")),
            (Some(End::Parked), _) => {
                findings
                    .violations
                    .push(format!("order {id} waits for an operator; there is none"));
            }
            (Some(end), Some(there)) if there != (end == End::Completed) => {
                let really = if there { "there" } else { "undone" };
                findings.violations.push(format!(
                    "order {id} is wholly {really}, but the coordinator said {end:?}"
                ));
            }
            _ => {}
        }
    }
    for (id, holding) in holdings {
        findings
            .violations
            .push(format!("nobody ordered {id}, yet it is {holding:?}"));
    }

    for item in stock {
        let sold = sold.get(item.sku.as_str()).copied().unwrap_or_default();
        let left = on_hand.get(&item.sku).copied();
        findings.pieces += sold;
        if left != Some(i64::from(item.on_hand) - sold) {
            findings.violations.push(format!(
                "{}: {} at first, {sold} sold, but {left:?} on hand",
                item.sku, item.on_hand
            ));
        }
    }
    if findings.banked_cents != findings.earned_cents {
        findings.violations.push(format!(
            "the shop earned {} cents, but its accounts hold {}",
            findings.earned_cents, findings.banked_cents
        ));
    }
    Ok(findings)
}

/// What stands reserved per order, and what is on hand per product. A key may reserve a product
/// once, and release once what it reserved.
fn read_stock(
    path: &Path,
    holdings: &mut HashMap<String, Holding>,
    findings: &mut Findings,
) -> Result<HashMap<String, i64>, Error> {
    let db = read_only(path)?;
    let mut statement = db.prepare(
        "SELECT order_id, effect_key, sku,
                count(*) FILTER (WHERE kind = 'reserve'),
                count(*) FILTER (WHERE kind = 'release'),
                sum(CASE kind WHEN 'reserve' THEN quantity ELSE -quantity END)
         FROM movement GROUP BY order_id, effect_key, sku",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (order, key, sku): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (reserves, releases, standing): (i64, i64, i64) =
            (row.get(3)?, row.get(4)?, row.get(5)?);
        if reserves != 1 || releases > 1 || (releases == 1 && standing != 0) {
            findings.violations.push(format!(
                "order {order}: {sku} was reserved {reserves} times and released {releases} times under {key}"
            ));
        }
        if standing != 0 {
            *holdings
                .entry(order)
                .or_default()
                .reserved
                .entry(sku)
                .or_default() += standing;
        }
    }
    let mut statement = db.prepare("SELECT sku, on_hand FROM item")?;
    let items = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(items.collect::<Result<_, _>>()?)
}

/// The balance of each account per order. A key may charge once, and refund once; the whole ledger
/// adds up to nothing.
fn read_payments(
    path: &Path,
    holdings: &mut HashMap<String, Holding>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let db = read_only(path)?;
    let mut statement = db.prepare(
        "SELECT order_id, effect_key, account,
                count(*) FILTER (WHERE kind = 'charge'),
                count(*) FILTER (WHERE kind = 'refund'),
                sum(cents)
         FROM posting GROUP BY order_id, effect_key, account",
    )?;
    let mut rows = statement.query([])?;
    let mut ledger = 0;
    while let Some(row) = rows.next()? {
        let (order, key, account): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let (charges, refunds, cents): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
        if charges != 1 || refunds > 1 || (refunds == 1 && cents != 0) {
            findings.violations.push(format!(
                "order {order}: {account} was charged {charges} times and refunded {refunds} times under {key}"
            ));
        }
        ledger += cents;
        if account.starts_with("shop/") {
            findings.banked_cents += cents;
        }
        if cents != 0 {
            *holdings
                .entry(order)
                .or_default()
                .accounts
                .entry(account)
                .or_default() += cents;
        }
    }
    if ledger != 0 {
        findings
            .violations
            .push(format!("the ledger is out of balance by {ledger} cents"));
    }
    Ok(())
}

fn read_parcels(path: &Path, holdings: &mut HashMap<String, Holding>) -> Result<(), Error> {
    let db = read_only(path)?;
    let mut statement = db.prepare("SELECT order_id, city, pieces FROM booking")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let holding = holdings.entry(row.get(0)?).or_default();
        holding.parcels.push((row.get(1)?, row.get(2)?));
    }
    let mut statement = db.prepare("SELECT order_id FROM message")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        holdings.entry(row.get(0)?).or_default().messages += 1;
    }
    Ok(())
}

/// Falsifies one entry of one book, so that one can see the audit fail.
pub(crate) fn sabotage(books: &Books<'_>) -> Result<(), Error> {
    let db = Connection::open(books.payments)?;
    db.execute(
        "UPDATE posting SET cents = cents + 1 WHERE id = (SELECT max(id) FROM posting)",
        [],
    )?;
    Ok(())
}

fn read_only(path: &Path) -> Result<Connection, Error> {
    Ok(Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )?)
}
