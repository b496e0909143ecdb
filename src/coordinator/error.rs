//! What can go wrong around a run: errors per kind of call.

use crate::ids::RunId;
use crate::journal::VerbName;
use crate::machine::Refused;
use crate::step::PayloadError;
use crate::store::{LoadError, StoreError};

/// A coordinator could not be built.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two different definitions have one name and version.
    #[error(
        "saga `{saga}` version {version} is registered twice with different structures: give one of them another version"
    )]
    TwoDefinitions {
        /// The saga's name.
        saga: String,
        /// The version.
        version: u32,
    },
    /// Policies were given for a saga that is not registered, or they are faulty.
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    /// A migration can't be carried out on any run.
    #[error("the migration of saga `{saga}` from version {from} to {to}: {}", faults.join("; "))]
    Migration {
        /// The saga it leads to.
        saga: String,
        /// The version it leads from.
        from: u32,
        /// The version it leads to.
        to: u32,
        /// All that is wrong with it.
        faults: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The policies of a saga could not be replaced: those that it had stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoliciesError {
    /// This coordinator doesn't have the saga.
    #[error(
        "policies for saga `{saga}`: it is not registered with this coordinator, which has {}",
        listed(registered)
    )]
    NotRegistered {
        /// The saga's name.
        saga: String,
        /// The names of those that are registered.
        registered: Vec<String>,
    },
    /// The policies make no sense, or name steps that the saga doesn't have.
    #[error("policies for saga `{saga}`: {}", faults.join("; "))]
    Faulty {
        /// The saga's name.
        saga: String,
        /// All that is wrong with them.
        faults: Vec<String>,
    },
}

fn listed(registered: &[String]) -> String {
    if registered.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", registered.join("`, `"))
    }
}

/// A run could not be started. Unless the error says otherwise, nothing was written and no step was called.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The id is empty or too long.
    #[error(
        "a run's id has 1 to {} bytes, and this one has {length}",
        RunId::MAX_LEN
    )]
    BadId {
        /// How long it is.
        length: usize,
    },
    /// This coordinator doesn't have the saga.
    #[error(
        "saga `{saga}` version {version} is not registered with this coordinator: `.register(&saga)` it before `build`"
    )]
    NotRegistered {
        /// The saga's name.
        saga: String,
        /// Its version.
        version: u32,
    },
    /// The id belongs to a run of another saga.
    #[error("run `{run}` is a run of saga `{found}`, not of `{wanted}`: choose another id")]
    OtherSaga {
        /// The run.
        run: RunId,
        /// Its saga.
        found: String,
        /// The saga that was to be started.
        wanted: String,
    },
    /// The id belongs to a run with another input.
    #[error("run `{run}` was started with another input: a new input needs a new id")]
    OtherInput {
        /// The run.
        run: RunId,
    },
    /// The input can't be written.
    #[error("the input of run `{run}`: {cause}")]
    Payload {
        /// The run.
        run: RunId,
        /// What serde said.
        #[source]
        cause: PayloadError,
    },
    /// The coordinator is shutting down, or its store has stopped.
    #[error(
        "run `{run}` was not started: {why}. Start it again with the same id later: if it was written after all, that gives the same run"
    )]
    Closed {
        /// The run.
        run: RunId,
        /// Which of the two.
        why: String,
    },
    /// The journal that has this id can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A run's outcome can't be given.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutcomeError {
    /// The coordinator has shut down, or its store has stopped: the run goes on with the next one.
    #[error(
        "the coordinator stopped driving run `{run}` ({why}): the next coordinator on this store goes on with it"
    )]
    Closed {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// Somebody else drives the run now.
    #[error("run `{run}` belongs to another coordinator now")]
    Lost {
        /// The run.
        run: RunId,
    },
    /// The run has completed, and its output is not what the saga returns any more.
    #[error("the output of run `{run}`: {cause}")]
    Payload {
        /// The run.
        run: RunId,
        /// What serde said.
        #[source]
        cause: PayloadError,
    },
    /// The run can't be read.
    #[error(transparent)]
    Get(#[from] GetError),
}

/// A run can't be looked at.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// Neither the coordinator nor the store knows the run's definition.
    #[error(
        "run `{run}` is of saga `{saga}` version {version}, which is not registered here and not in the store"
    )]
    NoDefinition {
        /// The run.
        run: RunId,
        /// Its saga.
        saga: String,
        /// The version.
        version: u32,
    },
    /// The journal names a step that the definition doesn't have.
    #[error("run `{run}`: the journal names step `{step}`, which its definition doesn't have")]
    NoSuchStep {
        /// The run.
        run: RunId,
        /// The step.
        step: String,
    },
    /// The journal doesn't begin with a start.
    #[error("run `{run}`: its journal doesn't begin with its start")]
    NoStart {
        /// The run.
        run: RunId,
    },
    /// The journal can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A command was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such run.
    #[error("there is no run `{run}`")]
    NoSuchRun {
        /// The run.
        run: RunId,
    },
    /// The run's state doesn't allow it.
    #[error("run `{run}`: {why}{}", now_legal(legal))]
    Refused {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        why: Refused,
        /// What the run takes now.
        legal: Vec<VerbName>,
    },
    /// The coordinator is shutting down, its store has stopped, or the run belongs to somebody else.
    #[error("the command about run `{run}` was not carried out: {why}")]
    Closed {
        /// The run.
        run: RunId,
        /// Which of these.
        why: String,
    },
    /// The run can't be read.
    #[error(transparent)]
    Get(#[from] GetError),
}

impl CommandError {
    pub(super) fn refused(run: &RunId, why: Refused, legal: Vec<VerbName>) -> Self {
        let run = run.clone();
        CommandError::Refused { run, why, legal }
    }
}

/// The end of a refusal: what could be asked instead.
fn now_legal(legal: &[VerbName]) -> String {
    let words: Vec<&str> = legal.iter().map(|verb| verb.as_str()).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!(" (it takes now: {})", words.join(", "))
    }
}
