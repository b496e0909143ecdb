//! What goes over the wire between the steps of the saga and the three services.
//!
//! Every request is `POST /<verb>` with a JSON body and an `Idempotency-Key`. A request that has an
//! effect may be repeated under its key as often as its sender likes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Address, Line};

/// The header that carries the key of a call.
pub(crate) const KEY_HEADER: &str = "idempotency-key";

/// `stock/reserve`: set these goods aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reserve {
    pub(crate) order_id: String,
    pub(crate) lines: Vec<Line>,
}

/// The answer to [`Reserve`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) pieces: u32,
}

/// `payments/charge`: take goods and freight from the customer's card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) order_id: String,
    pub(crate) customer_id: String,
    pub(crate) goods_cents: i64,
    pub(crate) freight_cents: i64,
}

/// The answer to [`Charge`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) charged_cents: i64,
}

/// `parcels/book`: a parcel for the carrier, who can't be called back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) order_id: String,
    pub(crate) ship_to: Address,
    pub(crate) pieces: u32,
}

/// The answer to [`Book`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) tracking: String,
}

/// `parcels/confirm`: tell the customer that the parcel is on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confirm {
    pub(crate) order_id: String,
    pub(crate) tracking: String,
}

/// The answer to [`Confirm`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    pub(crate) message_id: String,
}

/// `release`, `refund` and `void` (undo what was done under this key, and let nothing be done under
/// it any more), and `look` (say what became of it).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ByKey {
    pub(crate) order_id: String,
    pub(crate) effect_key: String,
}

/// The answer to `look`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It was done, and this was the answer.
    Standing { answer: Value },
    /// It was refused or withdrawn, and will be refused if it arrives again.
    Never,
    /// The service has not seen it; it may still be on its way.
    Unknown,
}

/// Why a service did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// Another order was faster; the next delivery may help.
    #[error("{sku} is sold out: {wanted} wanted, {on_hand} on hand")]
    SoldOut {
        sku: String,
        wanted: u32,
        on_hand: i64,
    },
    /// Nothing of the order is made any more.
    #[error("nothing of this order is made any more")]
    Discontinued,
    /// The bank said no.
    #[error("card declined: {reason}")]
    Declined { reason: String },
    /// No carrier goes there. This is the service's last word on the key.
    #[error("no carrier takes a parcel to {city}")]
    NotServed { city: String },
    /// The key was withdrawn by `void` or by an undo before this request arrived.
    #[error("the request was withdrawn before it arrived")]
    Withdrawn,
    /// The key belongs to a request with another body.
    #[error("the key was used for another request")]
    KeyReused,
    /// An undo named an effect that was never made.
    #[error("there is no such effect")]
    NoSuchEffect,
    /// Too busy; nothing was done.
    #[error("busy, try again in {retry_after_ms} ms")]
    Busy { retry_after_ms: u64 },
    /// Something broke on the way; nobody knows what was done.
    #[error("internal error")]
    Broken,
}

impl Refusal {
    /// The HTTP status under which the refusal travels.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Declined { .. } => 402,
            Self::NoSuchEffect => 404,
            Self::SoldOut { .. } | Self::Discontinued | Self::NotServed { .. } => 409,
            Self::Withdrawn => 410,
            Self::KeyReused => 422,
            Self::Broken => 500,
            Self::Busy { .. } => 503,
        }
    }
}
