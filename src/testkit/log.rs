//! What happened to the world and to the journal, in one order.

use std::fmt;

use crate::ids::RunId;

/// One line of what happened, to the world or to the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    World(WorldEvent),
    /// A record was acknowledged.
    Acknowledged {
        run: RunId,
        seq: u64,
    },
    /// The process that drove the runs is gone.
    Crash(String),
    /// A new one takes over.
    Process,
}

/// One thing that happened at a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorldEvent {
    /// The step.
    pub step: String,
    /// The key under which the effect was made.
    pub key: String,
    /// What happened.
    pub what: Happened,
}

/// What can happen at a participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Happened {
    /// `execute` called.
    Called,
    /// The effect took place.
    TookEffect,
    /// The effect had taken place under this key before: nothing happened.
    Duplicate,
    /// The effect was undone before it arrived, or before it arrived again: it was refused.
    Refused,
    /// The caller was told that nothing happened.
    ToldNotDone,
    /// `compensate` called, under this key of its own.
    UndoCalled {
        /// The key of the undo.
        undo_key: String,
    },
    /// The effect was there, and is gone.
    Undone,
    /// There was nothing to undo; the key is closed.
    NothingToUndo,
    /// A probe was asked, and this is the word of its answer.
    Probed(&'static str),
    /// A read-only step looked.
    Looked,
}

impl fmt::Display for WorldEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, key) = (&self.step, &self.key);
        match &self.what {
            Happened::Called => write!(f, "{step}: execute called under {key}"),
            Happened::TookEffect => write!(f, "{step}: took effect under {key}"),
            Happened::Duplicate => write!(f, "{step}: duplicate under {key}, nothing happened"),
            Happened::Refused => write!(f, "{step}: refused, {key} was undone"),
            Happened::ToldNotDone => write!(f, "{step}: told that nothing happened under {key}"),
            Happened::UndoCalled { undo_key } => {
                write!(f, "{step}: compensate of {key} called under {undo_key}")
            }
            Happened::Undone => write!(f, "{step}: undone under {key}"),
            Happened::NothingToUndo => write!(f, "{step}: nothing to undo under {key}"),
            Happened::Probed(answer) => write!(f, "{step}: probe of {key} says {answer}"),
            Happened::Looked => write!(f, "{step}: looked under {key}"),
        }
    }
}
