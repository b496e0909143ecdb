//! The warehouse: sets goods aside for an order, all of them or none.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde_json::json;

use super::desk::{Trade, Verdict};
use crate::Error;
use crate::api::{Refusal, Reserve};
use crate::model::StockItem;

/// The tables of the warehouse. `movement` tells how `on_hand` came to be what it is.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS item (
        sku          TEXT PRIMARY KEY,
        on_hand      INTEGER NOT NULL CHECK (on_hand >= 0),
        discontinued INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS movement (
        id         INTEGER PRIMARY KEY,
        effect_key TEXT NOT NULL,
        order_id   TEXT NOT NULL,
        sku        TEXT NOT NULL REFERENCES item,
        kind       TEXT NOT NULL CHECK (kind IN ('reserve', 'release')),
        quantity   INTEGER NOT NULL CHECK (quantity > 0)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS movement_by_key ON movement (effect_key);";

/// Fills the shelves, unless that has been done before.
pub(crate) fn fill(db: &mut Connection, stock: &[StockItem]) -> Result<(), Error> {
    let tx = db.transaction()?;
    for item in stock {
        tx.prepare_cached("INSERT OR IGNORE INTO item VALUES (?1, ?2, ?3)")?
            .execute(params![item.sku, item.on_hand, item.discontinued])?;
    }
    Ok(tx.commit()?)
}

/// The warehouse.
pub(crate) struct Warehouse;

impl Trade for Warehouse {
    const DOES: &'static [&'static str] = &["reserve"];
    const UNDOES: &'static str = "release";

    fn perform(
        &self,
        tx: &Transaction<'_>,
        _: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Verdict, Error> {
        let request: Reserve = serde_json::from_slice(body)?;
        let mut shortage = None;
        let mut hopeless = true;
        for line in request.lines.iter().filter(|line| line.quantity > 0) {
            let known = tx
                .prepare_cached("SELECT on_hand, discontinued FROM item WHERE sku = ?1")?
                .query_row([&line.sku], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            // What the warehouse has never heard of is not made any more either.
            let (on_hand, discontinued): (i64, bool) = known.unwrap_or((0, true));
            let missing = on_hand < i64::from(line.quantity);
            hopeless &= missing && discontinued;
            if missing && shortage.is_none() {
                let (sku, wanted) = (line.sku.clone(), line.quantity);
                shortage = Some(Refusal::SoldOut {
                    sku,
                    wanted,
                    on_hand,
                });
            }
        }
        match shortage {
            Some(_) if hopeless => return Ok(Verdict::Refused(Refusal::Discontinued)),
            Some(refusal) => return Ok(Verdict::Refused(refusal)),
            None => {}
        }
        let mut pieces = 0;
        for line in request.lines.iter().filter(|line| line.quantity > 0) {
            tx.prepare_cached("UPDATE item SET on_hand = on_hand - ?2 WHERE sku = ?1")?
                .execute(params![line.sku, line.quantity])?;
            tx.prepare_cached(
                "INSERT INTO movement (effect_key, order_id, sku, kind, quantity)
                 VALUES (?1, ?2, ?3, 'reserve', ?4)",
            )?
            .execute(params![key, request.order_id, line.sku, line.quantity])?;
            pieces += line.quantity;
        }
        Ok(Verdict::Done(json!({ "pieces": pieces })))
    }

    fn undo(&self, tx: &Transaction<'_>, key: &str) -> Result<(), Error> {
        tx.prepare_cached(
            "UPDATE item SET on_hand = on_hand + movement.quantity FROM movement
             WHERE movement.sku = item.sku AND effect_key = ?1",
        )?
        .execute([key])?;
        tx.prepare_cached(
            "INSERT INTO movement (effect_key, order_id, sku, kind, quantity)
             SELECT effect_key, order_id, sku, 'release', quantity FROM movement
             WHERE effect_key = ?1",
        )?
        .execute([key])?;
        Ok(())
    }
}
