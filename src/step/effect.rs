//! What an `execute` left in the world, as its undo and its probe speak of it.

use serde::{Deserialize, Serialize};

/// What is known of an effect when it has to be undone.
///
/// There is no third case: a step that is known to have done nothing isn't undone, unless its definition
/// says [`UndoRule::Always`](crate::UndoRule::Always); then it gets [`Effect::InDoubt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<T> {
    /// The step succeeded, and this is its output.
    Done(T),
    /// Nobody knows: the attempt timed out, crashed, panicked, or lost its reply.
    InDoubt,
}

/// A probe's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probed<T> {
    /// The effect happened, and this is the output that the step would have returned.
    Done(T),
    /// It did not happen, and will be refused if the request still arrives.
    Never,
    /// The participant can't tell. Absence alone is this.
    Unknown,
}
