//! The events of a run, and their written form.
//!
//! The journal is the only truth about a run. It is a list of [`Record`]s, numbered from 1; a record is
//! what one atomic append wrote: one or more [`Event`]s and the time. Records are never changed.
//! `docs/format.md` describes the written form, which is versioned: a reader refuses a version that it
//! does not know, and names it.

mod command;
mod digest;
mod event;
mod form;
mod migrated;
mod record;
mod why;

pub use crate::ids::{RunId, Timestamp};
pub use command::{
    Command, CommandAnswer, InputEdit, ResolvedEffect, SkippedEffect, Verb, VerbName,
};
pub(crate) use digest::{digest, digest_of};
pub use event::{
    CancelTold, Cause, Decision, End, Event, ParkReason, Parking, RunStarted, Signalled,
};
pub use form::{FORM_VERSION, FormError, Interner, decode_events, encode_events, form_of};
pub use migrated::{Migrated, StepMoves};
pub use record::{AppendId, Journal, Record, Standing};
pub(crate) use why::what_happened;
