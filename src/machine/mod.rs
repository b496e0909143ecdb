//! The heart: what a run's journal means, and what is to be done next.
//!
//! [`State::apply`] folds events, one by one; [`State::decide`] says what to do. Both are synchronous and
//! deterministic, and know neither clock nor store nor runtime: the time is an argument, and jitter comes
//! from the run's uid. Running and recovering are the same function over the same journal.
//!
//! The cost of an event does not depend on the size of the saga: each step counts what it still waits
//! for, and what becomes possible is queued when the count reaches zero. Only a decision to unwind looks
//! at the whole graph, once.
//!
//! The rules are those of `docs/rules.md`; comments name them by number.

mod apply;
mod attempt;
pub(crate) mod audit;
mod command;
mod decide;
mod forward;
mod kept;
mod migrate;
mod part;
mod progress;
mod recovery;
mod replay;
mod scope;
mod signals;
mod state;
mod trial;
mod unwind;
mod verbs;

pub use attempt::AttemptResult;
pub use command::{Asked, Refused};
pub use decide::Todo;
pub(crate) use kept::{Call, CallEnded};
pub use kept::{Happened, Moment};
pub(crate) use migrate::graph_before;
pub use replay::ReplayError;
pub(crate) use scope::{EffectNow, NodeState, ScopeIx, Status, UndoStatus};
pub use signals::SignalTold;
pub use state::State;
pub use trial::{Trial, TrialError, Tried};
pub use verbs::{Stage, Verdict, verdict};
