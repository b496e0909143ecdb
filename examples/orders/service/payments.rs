//! The bank: a double-entry ledger in whole cents.
//!
//! A charge takes from the account of the customer's card and gives to the shop's accounts for goods
//! and freight; a refund posts the same amounts the other way round. The sum over all postings is
//! zero at any time.

use rusqlite::{Transaction, params};
use serde_json::json;

use super::desk::{Trade, Verdict};
use super::weather::{Weather, dice};
use crate::Error;
use crate::api::{Charge, Refusal};

/// The ledger.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS posting (
        id         INTEGER PRIMARY KEY,
        effect_key TEXT NOT NULL,
        order_id   TEXT NOT NULL,
        account    TEXT NOT NULL,
        kind       TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
        cents      INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS posting_by_key ON posting (effect_key);
    CREATE INDEX IF NOT EXISTS visit_by_key ON visit (key);";

/// The bank. The seed decides whose cards have no cover.
pub(crate) struct Bank {
    pub(crate) seed: u64,
}

impl Bank {
    fn decline(&self, tx: &Transaction<'_>, key: &str, request: &Charge) -> Result<bool, Error> {
        if dice(self.seed, &("card", &request.customer_id)).u8(0..14) == 0 {
            return Ok(true);
        }
        // Banks dislike a charge that looks like one still under way. For the saga this is the
        // nastiest refusal: the first request is in doubt, and still to be carried out.
        let under_way: bool = tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM visit
                                WHERE key = ?1 AND weather = ?2 AND status IS NULL)",
            )?
            .query_row([key, Weather::Late.label()], |row| row.get(0))?;
        Ok(under_way && dice(self.seed, &("again", &request.order_id)).bool())
    }
}

impl Trade for Bank {
    const DOES: &'static [&'static str] = &["charge"];
    const UNDOES: &'static str = "refund";

    fn perform(
        &self,
        tx: &Transaction<'_>,
        _: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Verdict, Error> {
        let request: Charge = serde_json::from_slice(body)?;
        if self.decline(tx, key, &request)? {
            let reason = "not covered".to_owned();
            return Ok(Verdict::Refused(Refusal::Declined { reason }));
        }
        let total = request.goods_cents + request.freight_cents;
        let card = format!("card/{}", request.customer_id);
        for (account, cents) in [
            (card.as_str(), -total),
            ("shop/goods", request.goods_cents),
            ("shop/freight", request.freight_cents),
        ] {
            tx.prepare_cached(
                "INSERT INTO posting (effect_key, order_id, account, kind, cents)
                 VALUES (?1, ?2, ?3, 'charge', ?4)",
            )?
            .execute(params![key, request.order_id, account, cents])?;
        }
        Ok(Verdict::Done(json!({ "charged_cents": total })))
    }

    fn undo(&self, tx: &Transaction<'_>, key: &str) -> Result<(), Error> {
        tx.prepare_cached(
            "INSERT INTO posting (effect_key, order_id, account, kind, cents)
             SELECT effect_key, order_id, account, 'refund', -cents FROM posting
             WHERE effect_key = ?1",
        )?
        .execute([key])?;
        Ok(())
    }
}
