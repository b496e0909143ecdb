//! Steps that are calls of services, which take part in sagas without this crate (feature `http`).
//!
//! An [`HttpParticipant`] is a service at a base URL. Each of its URLs that does something is an
//! [`HttpAction`], ready for [`read_only`](crate::read_only) or [`irreversible`](crate::irreversible); with
//! a URL that undoes it, it is an [`HttpStep`]; and an [`HttpProbe`] asks what became of a call.
//!
//! ```
//! use std::time::Duration;
//! use amends::participant::HttpParticipant;
//! use amends::{Retry, Saga, SagaError, irreversible, step};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Order { id: u64, cents: u64 }
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Payment { id: String }
//!
//! let payments = HttpParticipant::new("http://payments:8080/v1")?.header("authorization", "Bearer s3cret")?;
//! let parcels = HttpParticipant::new("http://parcels:8080")?;
//!
//! let mut saga = Saga::builder::<Order>("place-order");
//! let order = saga.input();
//! let charge = payments.call::<Order, Payment>("/charges").compensate("/refunds");
//! let payment = saga.add(
//!     step("charge-card", charge)
//!         .probe(payments.probe("/charges/status"))
//!         .retry(Retry::exponential().max_attempts(4))
//!         .timeout(Duration::from_secs(5)),
//!     order,
//! );
//! let ship = parcels.call::<(Order, Payment), String>("/parcels");
//! let parcel = saga.add(irreversible("ship", ship).pivot(), (order, payment));
//! let saga: Saga<Order, String> = saga.returns(parcel)?;
//! assert!(!format!("{payments:?}").contains("s3cret"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A step that needs more than this, a `PUT` say, or a key in the URL, is a [`Step`](crate::Step) of your own
//! with a client of your own: [`failure::HttpFailure`](crate::failure::HttpFailure) classifies what it is answered.
//!
//! What is sent and what the answers mean is a protocol that is easily spoken in any language:
//!
#![doc = include_str!("../../docs/participants.md")]

mod body;
mod call;
mod error;
mod http;
mod steps;

pub use error::{HttpError, SetUpError};
pub use http::HttpParticipant;
pub use steps::{HttpAction, HttpProbe, HttpStep};
