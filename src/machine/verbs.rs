//! Which verb is taken in which stage of a run: the one table (rule O1).
//!
//! `docs/verbs.md` is printed from it, and a test goes through it cell by cell with real runs.

use std::fmt;

use crate::journal::VerbName;
use crate::machine::scope::Phase;
use crate::machine::state::State;

/// What a run is doing, as far as verbs depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Steps start as they become ready, or wait for their retries.
    Forward,
    /// Something has gone wrong, or somebody asked: attempts in flight are awaited, then it is decided.
    Settling,
    /// Undos run, or wait for their retries.
    Undoing,
    /// An operator paused it; the direction doesn't matter.
    Paused,
    /// An operator gave it up: it ends as soon as nothing is in flight.
    GivenUp,
    /// It waits for an operator, with nothing left to undo.
    Parked,
    /// It waits for an operator in the middle of being undone.
    ParkedUndoing,
    /// It is over.
    Ended,
}

impl Stage {
    /// All of them, as the table in `docs/verbs.md` has them.
    pub const ALL: [Stage; 8] = [
        Stage::Forward,
        Stage::Settling,
        Stage::Undoing,
        Stage::Paused,
        Stage::GivenUp,
        Stage::Parked,
        Stage::ParkedUndoing,
        Stage::Ended,
    ];

    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Forward => "going forward",
            Stage::Settling => "settling",
            Stage::Undoing => "being undone",
            Stage::Paused => "paused",
            Stage::GivenUp => "given up",
            Stage::Parked => "parked",
            Stage::ParkedUndoing => "parked while being undone",
            Stage::Ended => "ended",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The verb is taken, if what it names allows it; this is what it does.
    Taken(&'static str),
    /// The verb is refused; this is why.
    Refused(&'static str),
}

/// What becomes of a verb in a stage.
///
/// ```
/// use amends::journal::VerbName;
/// use amends::machine::{Stage, Verdict, verdict};
///
/// assert!(matches!(verdict(VerbName::Cancel, Stage::Forward), Verdict::Taken(_)));
/// assert!(matches!(verdict(VerbName::Cancel, Stage::Ended), Verdict::Refused(_)));
/// ```
#[must_use]
pub fn verdict(verb: VerbName, stage: Stage) -> Verdict {
    use Stage::{Ended, Forward, GivenUp, Parked, ParkedUndoing, Paused, Settling, Undoing};
    use Verdict::{Refused, Taken};

    match (verb, stage) {
        (_, Ended) => Refused("it is over: start a new run that does it again"),
        (_, GivenUp) => Refused("it ends as soon as what is in flight has come in"),

        (VerbName::Retry, Undoing) => Taken(
            "undos that wait or failed run again; `retry_all`: begins again after all is undone",
        ),
        (VerbName::Retry, Parked) => Taken("goes on with the strategy, `retry_failed` unless said"),
        (VerbName::Retry, ParkedUndoing) => {
            Taken("open undos run again; `retry_all`: begins again after all is undone")
        }
        (VerbName::Retry, Forward | Settling | Paused) => Refused("nothing waits for an operator"),

        (VerbName::Compensate, Parked | ParkedUndoing) => {
            Taken("undoes all that is done or in doubt")
        }
        (VerbName::Compensate, Forward | Settling | Paused) => {
            Refused("`cancel` ends a run that is under way")
        }
        (VerbName::Compensate, Undoing) => {
            Refused("it is being undone: `cancel` keeps it from going forward again")
        }

        (VerbName::Cancel, Forward | Settling) => {
            Taken("nothing new starts; then what is done is undone")
        }
        (VerbName::Cancel, Undoing) => Taken("what is undone stays undone, and the rest follows"),
        (VerbName::Cancel, Paused) => Taken("decided now, undone once it is resumed"),
        (VerbName::Cancel, Parked | ParkedUndoing) => Taken("undoes what is done"),

        (VerbName::Skip, Parked) => Taken("takes the step as done, with the output that is given"),
        (VerbName::Skip, ParkedUndoing) => Refused("it is not going forward"),
        (
            VerbName::Skip | VerbName::Resolve | VerbName::MarkCompensated,
            Forward | Settling | Undoing | Paused,
        ) => Refused("the run may be at that step right now: it has to be parked"),
        (VerbName::Resolve, Parked | ParkedUndoing) => {
            Taken("settles the doubt; the run stays parked")
        }
        (VerbName::MarkCompensated, Parked | ParkedUndoing) => {
            Taken("takes the step as undone, in a new round; the run stays parked")
        }

        (VerbName::Signal, Forward) => Taken("the wait with its name takes it, now or later"),
        (VerbName::Signal, Settling | Undoing | Paused | Parked | ParkedUndoing) => {
            Taken("kept for the wait with its name, once the run goes forward")
        }

        (VerbName::Pause, Forward | Settling | Undoing) => {
            Taken("nothing starts, in either direction; attempts in flight go on")
        }
        (VerbName::Pause, Paused) => Refused("it is paused already"),
        (VerbName::Pause, Parked | ParkedUndoing) => Refused("a parked run starts nothing"),

        (VerbName::Resume, Paused) => Taken("goes on where it was"),
        (VerbName::Resume, Forward | Settling | Undoing) => Refused("it is not paused"),
        (VerbName::Resume, Parked | ParkedUndoing) => {
            Refused("it is parked, not paused: `retry` lets it go on")
        }

        (VerbName::Abandon, Forward | Settling | Undoing | Paused) => {
            Taken("attempts in flight are awaited; ends with what stands listed")
        }
        (VerbName::Abandon, Parked | ParkedUndoing) => {
            Taken("ends at once with what stands listed")
        }

        (VerbName::Migrate, Forward | Settling | Undoing | Paused) => Taken(
            "where its code is not here: parked, and goes on with another definition once it is retried",
        ),
        (VerbName::Migrate, Parked | ParkedUndoing) => {
            Taken("where its code is not here: goes on with another definition once it is retried")
        }
    }
}

impl State {
    /// What the run is doing, as far as verbs depend on it.
    #[must_use]
    pub fn stage(&self, graph: &crate::saga::Graph) -> Stage {
        match self.root().phase {
            Phase::Ended => Stage::Ended,
            Phase::Parked if self.root().is_half_undone(graph) => Stage::ParkedUndoing,
            Phase::Parked => Stage::Parked,
            _ if self.abandon.is_some() => Stage::GivenUp,
            _ if self.paused.is_some() => Stage::Paused,
            Phase::Forward { .. } => Stage::Forward,
            Phase::Draining => Stage::Settling,
            Phase::Unwinding => Stage::Undoing,
        }
    }

    /// The verbs that the run takes now, for at least one of its steps or strategies (rule S5).
    #[must_use]
    pub fn legal(&self, graph: &crate::saga::Graph) -> Vec<VerbName> {
        let stage = self.stage(graph);
        VerbName::ALL
            .into_iter()
            .filter(|&verb| {
                matches!(verdict(verb, stage), Verdict::Taken(_)) && self.could(graph, verb, stage)
            })
            .collect()
    }
}
