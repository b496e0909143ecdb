//! What the barrier answers, and how a row says so. Pure: the adapters only ask the database.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::step::PayloadError;

/// What an `execute` is to do.
#[derive(Debug)]
#[must_use = "a fresh call has to be recorded, and a duplicate answered"]
pub enum Execute {
    /// Nobody has done it: do the work, and record its result, in the same transaction.
    Fresh(Fresh),
    /// It is done: this is the recorded result. Do nothing.
    Duplicate(Stored),
}

/// What a `compensate` is to do.
#[derive(Debug)]
#[must_use = "an undo has to be recorded, and a duplicate answered"]
pub enum Compensate {
    /// The effect stands: undo it, and record that, in the same transaction.
    Undo(Undo),
    /// There is no effect, and there will be none: the execute is refused if it still arrives. Do
    /// nothing, and commit, because only then it is so.
    Nothing,
    /// It is undone: this is what the undo recorded. Do nothing.
    Duplicate(Stored),
}

/// The right to do the work of an execute, once. It is good for the transaction that it was given in.
///
/// Let go without a record, it leaves a call that is begun: a commit then fails on PostgreSQL and
/// SQLite, and on MySQL every later call gets [`Unrecorded`](super::BarrierError::Unrecorded). A rollback leaves nothing, and
/// the key open.
#[derive(Debug)]
#[must_use = "what came of the work has to be recorded before the transaction commits"]
pub struct Fresh {
    pub(super) key: Arc<str>,
}

/// The right to undo an effect, once. It is good for the transaction that it was given in, and has to be
/// recorded as [`Fresh`] has.
#[derive(Debug)]
#[must_use = "the undo has to be recorded before the transaction commits"]
pub struct Undo {
    pub(super) key: Arc<str>,
    stored: Stored,
}

impl Fresh {
    /// The key of the effect.
    #[must_use]
    pub fn effect_key(&self) -> &str {
        &self.key
    }
}

impl Undo {
    /// The key of the effect.
    #[must_use]
    pub fn effect_key(&self) -> &str {
        &self.key
    }

    /// The result that the execute recorded. It is what happened, whether or not the coordinator
    /// has ever heard of it.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }
}

/// A result that was recorded, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored(String);

impl Stored {
    /// The JSON as it was recorded.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Decode`] where the JSON is no `T` any more.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_str(&self.0).map_err(|error| PayloadError::Decode {
            type_name: std::any::type_name::<T>(),
            // The category and the place; serde's own words may quote the value.
            message: format!(
                "{:?} at line {}, column {}",
                error.classify(),
                error.line(),
                error.column()
            ),
        })
    }
}

#[cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]
pub(super) use entered::{Entered, Entry, unrecorded};

/// Between the calls and the table.
#[cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]
mod entered {
    use super::{Compensate, Execute, Fresh, Stored, Undo};
    use crate::barrier::{BarrierError, Call, Request};
    use crate::step::Probed;

    /// What a call writes where its key is new; the statement `enter` says what becomes of a known one.
    pub(in crate::barrier) struct Entry<'a> {
        pub(in crate::barrier) state: &'static str,
        pub(in crate::barrier) request: Option<&'a str>,
        pub(in crate::barrier) undo_request: Option<&'a str>,
        pub(in crate::barrier) unrecorded: Option<i32>,
    }

    impl<'a> Entry<'a> {
        pub(in crate::barrier) fn execute(request: &'a Request) -> Self {
            Entry {
                state: "open",
                request: Some(request.as_str()),
                undo_request: None,
                unrecorded: Some(1),
            }
        }

        pub(in crate::barrier) fn compensate(request: &'a Request) -> Self {
            Entry {
                state: "void",
                request: None,
                undo_request: Some(request.as_str()),
                unrecorded: None,
            }
        }

        pub(in crate::barrier) fn probe() -> Self {
            Entry {
                state: "never",
                request: None,
                undo_request: None,
                unrecorded: None,
            }
        }
    }

    /// A key's row, after the statement `enter`.
    pub(in crate::barrier) struct Entered {
        pub(in crate::barrier) state: String,
        pub(in crate::barrier) request: Option<String>,
        pub(in crate::barrier) result: Option<String>,
        pub(in crate::barrier) undo_request: Option<String>,
        pub(in crate::barrier) undo_result: Option<String>,
    }

    impl Entered {
        pub(in crate::barrier) fn execute(
            self,
            call: &Call,
            request: &Request,
        ) -> Result<Execute, BarrierError> {
            let key = call.effect_key();
            match &*self.state {
                "open" => Ok(Execute::Fresh(Fresh { key: call.key() })),
                "done" => {
                    same(self.request.as_deref(), request, key)?;
                    Ok(Execute::Duplicate(stored(self.result, key)?))
                }
                "undone" | "void" | "never" => Err(BarrierError::Closed {
                    key: key.to_owned(),
                }),
                _ => Err(unrecorded(key)),
            }
        }

        pub(in crate::barrier) fn compensate(
            self,
            call: &Call,
            request: &Request,
        ) -> Result<Compensate, BarrierError> {
            let key = call.effect_key();
            match &*self.state {
                "undoing" => Ok(Compensate::Undo(Undo {
                    key: call.key(),
                    stored: stored(self.result, key)?,
                })),
                "undone" => {
                    same(self.undo_request.as_deref(), request, key)?;
                    Ok(Compensate::Duplicate(stored(self.undo_result, key)?))
                }
                "void" => {
                    same(self.undo_request.as_deref(), request, key)?;
                    Ok(Compensate::Nothing)
                }
                _ => Err(unrecorded(key)),
            }
        }

        pub(in crate::barrier) fn probe(self, call: &Call) -> Result<Probed<Stored>, BarrierError> {
            let key = call.effect_key();
            match &*self.state {
                "done" => Ok(Probed::Done(stored(self.result, key)?)),
                // An effect that was undone is as absent as one that never was, and its key is as closed.
                "undone" | "void" | "never" => Ok(Probed::Never),
                _ => Err(unrecorded(key)),
            }
        }
    }

    fn same(known: Option<&str>, request: &Request, key: &str) -> Result<(), BarrierError> {
        if known == Some(request.as_str()) {
            return Ok(());
        }
        Err(BarrierError::OtherRequest {
            key: key.to_owned(),
        })
    }

    fn stored(result: Option<String>, key: &str) -> Result<Stored, BarrierError> {
        result.map(Stored).ok_or_else(|| unrecorded(key))
    }

    pub(in crate::barrier) fn unrecorded(key: &str) -> BarrierError {
        BarrierError::Unrecorded {
            key: key.to_owned(),
        }
    }
}
