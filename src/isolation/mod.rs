//! Aids against what sagas lack: a semantic lock, and a check that what was read is still so.
//!
//! * [`SemanticLock`] is a value that you keep in your own row: which run has the row under way, and
//!   until when. Other runs see it, and wait.
//! * [`Versioned`], [`expect_unchanged`] and [`fingerprint_of`] find out whether a row that an earlier
//!   step has read is still what it was.
//!
//! Both are pure: no I/O, no clock, no task, no table of ours. They are as good as the transaction in
//! which you read the row, ask them, and write it.
//!
#![doc = include_str!("../../docs/isolation.md")]

mod reread;
mod semantic_lock;

pub use crate::failure::isolation::{Changed, LockError};
pub use reread::{Fingerprint, Versioned, expect_unchanged, fingerprint_of};
pub use semantic_lock::{Released, SemanticLock, Taken, TakenHow};
