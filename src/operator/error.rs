//! What an operator's work can fail with.

use crate::coordinator::GetError;
use crate::ids::RunId;
use crate::journal::VerbName;
use crate::machine::Refused;
use crate::store::{StoreError, SubmitError};

/// An operator's request was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no such run.
    #[error("there is no run `{run}`")]
    NoSuchRun {
        /// The run.
        run: RunId,
    },
    /// The run's state doesn't allow it; nothing was handed in.
    #[error("run `{run}`: {why}")]
    Refused {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        why: Refused,
        /// What the run takes now.
        legal: Vec<VerbName>,
    },
    /// The run can't be read.
    #[error(transparent)]
    Get(#[from] GetError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not keep the command.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}
