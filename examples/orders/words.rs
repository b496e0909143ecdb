//! What the coordinator process, or a worker, tells its parent: one JSON object a line on standard output.

use serde::{Deserialize, Serialize};

/// A line of the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(crate) enum Word {
    /// It has opened its store, and found so many runs that an earlier process left open.
    Ready { resumed: u64 },
    /// A run has ended, now or in an earlier life of the coordinator.
    Ended(Ended),
    /// A worker has started a run, or has found it started.
    Started { order_id: String },
    /// A worker can't do now what it was told to do about an order.
    NotNow { order_id: String },
    /// A worker was told to wait for a run that is not there.
    Missing { order_id: String },
    /// An append of a worker was refused, because the run belongs to another one by now.
    StaleAppend,
    /// An append was not answered: for the time being nobody knows whether it is durable.
    UnknownCommit,
}

/// How a run ended, in the words of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) order_id: String,
    pub(crate) end: End,
    /// Why it ended so, in a few words that many orders share.
    pub(crate) why: String,
    /// Attempts that left an effect in doubt, over all lives of the coordinator.
    pub(crate) in_doubt: usize,
}

/// The ends of a run, and the one that is not an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Completed,
    Compensated,
    Stopped,
    Parked,
}

impl End {
    /// The word for it in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stopped => "stopped",
            Self::Parked => "parked",
        }
    }
}
