//! The carrier: books parcels, and tells customers about them.
//!
//! A parcel that is booked is on its way, and a message that was sent has been read. So the carrier
//! has a verb to take back a booking only in name: the saga must not come to that.

use rusqlite::{Transaction, params};
use serde_json::json;

use super::desk::{Trade, Verdict};
use super::weather::dice;
use crate::Error;
use crate::api::{Book, Confirm, Refusal};

/// The carrier's books.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS booking (
        id         INTEGER PRIMARY KEY,
        effect_key TEXT NOT NULL,
        order_id   TEXT NOT NULL,
        city       TEXT NOT NULL,
        pieces     INTEGER NOT NULL,
        tracking   TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS message (
        id         INTEGER PRIMARY KEY,
        effect_key TEXT NOT NULL,
        order_id   TEXT NOT NULL,
        tracking   TEXT NOT NULL
    ) STRICT;";

/// The carrier. The seed decides where it does not go.
pub(crate) struct Carrier {
    pub(crate) seed: u64,
}

impl Trade for Carrier {
    const DOES: &'static [&'static str] = &["book", "confirm"];
    const UNDOES: &'static str = "recall";

    fn perform(
        &self,
        tx: &Transaction<'_>,
        verb: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Verdict, Error> {
        if verb == "confirm" {
            let request: Confirm = serde_json::from_slice(body)?;
            tx.prepare_cached(
                "INSERT INTO message (effect_key, order_id, tracking) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![key, request.order_id, request.tracking])?;
            let message_id = format!("M{:06}", tx.last_insert_rowid());
            return Ok(Verdict::Done(json!({ "message_id": message_id })));
        }
        let request: Book = serde_json::from_slice(body)?;
        let city = request.ship_to.city;
        if dice(self.seed, &("served", &request.order_id)).u8(0..30) == 0 {
            return Ok(Verdict::Refused(Refusal::NotServed { city }));
        }
        let count: u32 = tx.query_row("SELECT count(*) FROM booking", [], |row| row.get(0))?;
        let tracking = format!("P{:06}", count + 1);
        tx.prepare_cached(
            "INSERT INTO booking (effect_key, order_id, city, pieces, tracking)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            key,
            request.order_id,
            city,
            request.pieces,
            tracking
        ])?;
        Ok(Verdict::Done(json!({ "tracking": tracking })))
    }

    fn undo(&self, _: &Transaction<'_>, _: &str) -> Result<(), Error> {
        Err("a parcel can't be called back".into())
    }
}
