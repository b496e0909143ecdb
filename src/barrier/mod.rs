//! The participant's side: a service whose step works in its own database refuses duplicates, late
//! executes, stale fences and changed requests, inside that very transaction.
//!
//! It stands apart: a service needs nothing else of this crate, and what calls it may be in another
//! process, or in another language. The adapters are `postgres` (feature `tokio-postgres`), `sqlite`
//! (feature `sqlite`) and `mysql` (feature `mysql`, MariaDB too).
//!
#![doc = include_str!("../../docs/barrier.md")]

mod answer;
mod call;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "tokio-postgres")]
pub mod postgres;
mod request;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use crate::failure::barrier::{BarrierError, CallError};
pub use answer::{Compensate, Execute, Fresh, Stored, Undo};
pub use call::{Asked, Call, header};
pub use request::Request;
