//! What goes over the wire between the steps of the saga and the three services.
//!
//! Every request is `POST /<verb>` with a JSON body, and the headers of a call that the barrier asks
//! for: its key, the key of the effect, the run's fence. It may be repeated as often as its sender likes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Address, Line};

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

/// `release` and `refund` (undo what was done under the effect's key, if it was, and let nothing be done
/// under it any more), and `look` (say what became of it).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OfOrder {
    pub(crate) order_id: String,
}

/// The answer to `look`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It was done, and this was the answer.
    Standing { answer: Value },
    /// It was not done, or is undone, and will be refused if it still arrives.
    Never,
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
    /// No carrier goes there.
    #[error("no carrier takes a parcel to {city}")]
    NotServed { city: String },
    /// The effect was undone, or its key closed, before this request arrived.
    #[error("the request was withdrawn before it arrived")]
    Withdrawn,
    /// The key belongs to a request with another body.
    #[error("the key was used for another request")]
    KeyReused,
    /// The sender has lost the order to another coordinator.
    #[error("fence {fence} is stale: fence {seen} has been here")]
    Stale { fence: u64, seen: u64 },
    /// The service does nothing of this name.
    #[error("no such verb")]
    NoSuchVerb,
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
            Self::NoSuchVerb => 404,
            Self::SoldOut { .. }
            | Self::Discontinued
            | Self::NotServed { .. }
            | Self::Stale { .. } => 409,
            Self::Withdrawn => 410,
            Self::KeyReused => 422,
            Self::Broken => 500,
            Self::Busy { .. } => 503,
        }
    }

    /// The barrier's word, where it was the barrier that refused.
    pub(crate) fn barrier(&self) -> Option<&'static str> {
        match self {
            Self::Stale { .. } => Some("stale"),
            Self::Withdrawn => Some("closed"),
            Self::KeyReused => Some("other-request"),
            _ => None,
        }
    }
}
