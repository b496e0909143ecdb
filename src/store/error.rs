//! What stores can fail with: errors per kind of call, because callers do different things about them.

use std::error::Error;
use std::sync::Arc;

use crate::ids::RunId;
use crate::journal::{FormError, Journal};

/// A cause that several runs of a batch share.
type Shared = Arc<dyn Error + Send + Sync>;

/// An append that was not acknowledged. None of these is ever a step's failure (rule W2).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another append has this place: the run exists already, or belongs to somebody else now (rule W3).
    #[error("the place in the journal is taken by another append")]
    Conflict,
    /// Nobody knows whether it was written: the same append has to be sent again.
    #[error("it is not known whether the append was written")]
    Unknown(#[source] Shared),
    /// It was definitely not written, and nothing else suffered: it may be sent again later.
    #[error("the append was not written")]
    NotWritten(#[source] Shared),
    /// The store can't go on, and this append was not acknowledged: a sync to disk failed, or it is closed.
    #[error("the store has stopped")]
    Dead(#[source] Shared),
}

impl AppendError {
    /// An [`AppendError::Unknown`] with this cause.
    pub fn unknown(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        AppendError::Unknown(cause.into().into())
    }

    /// An [`AppendError::NotWritten`] with this cause.
    pub fn not_written(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        AppendError::NotWritten(cause.into().into())
    }

    /// An [`AppendError::Dead`] with this cause.
    pub fn dead(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        AppendError::Dead(cause.into().into())
    }
}

/// A command that was not kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The store has no such run.
    #[error("there is no run `{run}`")]
    NoSuchRun {
        /// The run.
        run: RunId,
    },
    /// Another command has this token.
    #[error(
        "token `{token}` is another command's: a command that is sent again has to be the same in all but its time"
    )]
    TokenTaken {
        /// The token.
        token: String,
    },
    /// The store did not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A journal that can't be handed back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// One record of it can't be read. The others are as they were.
    #[error("record {seq} of run `{run}` can't be read: {what}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// The record's place.
        seq: u64,
        /// What is wrong with it.
        what: Damage,
        /// The records before it.
        before: Box<Journal>,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Its checksum is another than was written: the row was changed or damaged.
    #[error("its checksum does not match, so the row was changed or damaged")]
    Checksum,
    /// It is not there, though a later one is.
    #[error("it is missing")]
    Missing,
    /// Its written form can't be read.
    #[error(transparent)]
    Form(#[from] FormError),
}

/// The store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store.
    #[error("{what}")]
    InUse {
        /// Which store, and what to do.
        what: String,
    },
    /// The store was written by another version, or is not a store.
    #[error("{what}")]
    Foreign {
        /// What was found.
        what: String,
    },
    /// The store is closed, or stopped after a failed sync.
    #[error("the store has stopped: {what}")]
    Dead {
        /// Why.
        what: String,
    },
    /// Reading or writing failed.
    #[error("the store failed while {doing}")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// The cause.
        #[source]
        cause: Shared,
    },
}

impl StoreError {
    /// A [`StoreError::Failed`] with this cause.
    pub fn failed(doing: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        StoreError::Failed {
            doing,
            cause: cause.into().into(),
        }
    }
}
