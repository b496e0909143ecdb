//! What went wrong, in one vocabulary: the mode of a failure, its whole story, and who decides both.
//!
//! * [`FailureMode`] is the class of a failure: 25 built-in ones in five [categories](Category), and
//!   [`CustomMode`] for a class of your own. It says whether a retry makes sense, whether the run is
//!   beyond help, whether partial results are likely, and how bad it is.
//! * [`Failure`] is the whole story of one failed attempt, as the journal keeps it. Its
//!   [`FailedEffect`] says whether the effect may be in the world nevertheless.
//! * [`Classifier`] turns an error into a [`Classification`], by its type and never by its words.
//!   Retry, record and recovery all read that one answer, so they can't disagree.
//!
//! This room knows no saga, no step and no clock.
//!
#![doc = include_str!("../../docs/failures.md")]

mod adapters;
pub(crate) mod barrier;
mod category;
mod classify;
mod custom;
#[expect(
    clippy::module_inception,
    reason = "the file holds `Failure`, the room is named for it"
)]
mod failure;
#[cfg(feature = "http-status")]
mod http;
pub(crate) mod isolation;
pub(crate) mod millis;
mod mode;
mod partial_success;
#[cfg(feature = "http-status")]
mod retry_after;
mod stale;
mod words;

pub use category::{Category, Severity};
pub use classify::{Classification, Classifier, Classify};
pub use custom::CustomMode;
pub use failure::{FailedEffect, Failure};
#[cfg(feature = "http-status")]
pub use http::HttpFailure;
pub use mode::FailureMode;
pub use partial_success::PartialSuccess;
#[cfg(feature = "http")]
pub(crate) use retry_after::wait as retry_after;
pub use stale::Stale;
pub use words::WordRules;
