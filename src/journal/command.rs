//! What operators ask of runs, as data: handed in by any process, carried out by the run's owner.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{RunId, Timestamp, random_u128};
use crate::journal::CancelTold;
use crate::policy::RecoveryStrategy;
use crate::step::{Payload, Value};

/// What somebody asks of a run.
///
/// Which of these a run takes depends on what it is doing: the table is [`machine::verdict`](crate::machine::verdict),
/// printed in `docs/verbs.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verb {
    /// Lets a parked run go on, or has undos tried again. Grants attempts and recoveries anew (rule D6).
    Retry {
        /// How; left out, what was open is tried again: `retry_failed` of a run that goes forward, the undos
        /// of one that is being undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<RecoveryStrategy>,
        /// Inputs that are replaced first, each in a new round of its step (rule K4).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<InputEdit>,
    },
    /// Undoes a parked run.
    Compensate,
    /// Ends a run: nothing new starts, and what is done is undone (rule C1).
    Cancel,
    /// Takes a step of a parked run as done, with this output, without calling it.
    Skip {
        /// The step.
        step: String,
        /// Whether there is an effect that has to be undone when the run is.
        effect: SkippedEffect,
        /// What its dependents get.
        output: Value,
    },
    /// Says that a step of a parked run was undone by hand.
    MarkCompensated {
        /// The step.
        step: String,
    },
    /// Says what became of an effect in doubt.
    Resolve {
        /// The step.
        step: String,
        /// What became of it.
        effect: ResolvedEffect,
    },
    /// Hands a signal to a run that waits for one of this name.
    Signal {
        /// The signal's name.
        name: String,
        /// What it carries.
        payload: Value,
    },
    /// Lets nothing start any more, in either direction.
    Pause,
    /// Ends a pause.
    Resume,
    /// Gives a run up: attempts in flight are awaited, then it ends `Abandoned`.
    Abandon,
    /// Has a run, whose definition its owner hasn't, go on with another, as the owner's
    /// [`Migration`](crate::Migration) declares. The run is parked then.
    Migrate {
        /// Which version it goes on with; left out, the newest to which a migration is declared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
    },
}

/// An input that an operator replaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputEdit {
    /// The step.
    pub step: String,
    /// Its new input.
    pub input: Value,
}

/// What a skipped step has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkippedEffect {
    /// Nothing: there is nothing to undo.
    None,
    /// The effect: somebody made it by hand, and it will be undone with the output that was given.
    Done,
}

/// An operator's word about an effect in doubt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedEffect {
    /// It did not happen, and will be refused if it still arrives.
    NotDone,
    /// It happened. The output is needed wherever the run may still go forward.
    Done(Option<Value>),
}

/// The verbs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VerbName {
    /// [`Verb::Retry`].
    Retry,
    /// [`Verb::Compensate`].
    Compensate,
    /// [`Verb::Cancel`].
    Cancel,
    /// [`Verb::Skip`].
    Skip,
    /// [`Verb::MarkCompensated`].
    MarkCompensated,
    /// [`Verb::Resolve`].
    Resolve,
    /// [`Verb::Signal`].
    Signal,
    /// [`Verb::Pause`].
    Pause,
    /// [`Verb::Resume`].
    Resume,
    /// [`Verb::Abandon`].
    Abandon,
    /// [`Verb::Migrate`].
    Migrate,
}

impl VerbName {
    /// All of them, as the table in `docs/verbs.md` has them.
    pub const ALL: [VerbName; 11] = [
        VerbName::Retry,
        VerbName::Compensate,
        VerbName::Cancel,
        VerbName::Skip,
        VerbName::MarkCompensated,
        VerbName::Resolve,
        VerbName::Signal,
        VerbName::Pause,
        VerbName::Resume,
        VerbName::Abandon,
        VerbName::Migrate,
    ];

    /// The word, as the command line has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            VerbName::Retry => "retry",
            VerbName::Compensate => "compensate",
            VerbName::Cancel => "cancel",
            VerbName::Skip => "skip",
            VerbName::MarkCompensated => "mark-compensated",
            VerbName::Resolve => "resolve",
            VerbName::Signal => "signal",
            VerbName::Pause => "pause",
            VerbName::Resume => "resume",
            VerbName::Abandon => "abandon",
            VerbName::Migrate => "migrate",
        }
    }
}

impl fmt::Display for VerbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Verb {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> VerbName {
        match self {
            Verb::Retry { .. } => VerbName::Retry,
            Verb::Compensate => VerbName::Compensate,
            Verb::Cancel => VerbName::Cancel,
            Verb::Skip { .. } => VerbName::Skip,
            Verb::MarkCompensated { .. } => VerbName::MarkCompensated,
            Verb::Resolve { .. } => VerbName::Resolve,
            Verb::Signal { .. } => VerbName::Signal,
            Verb::Pause => VerbName::Pause,
            Verb::Resume => VerbName::Resume,
            Verb::Abandon => VerbName::Abandon,
            Verb::Migrate { .. } => VerbName::Migrate,
        }
    }

    /// A retry with this strategy.
    #[must_use]
    pub fn retry(strategy: RecoveryStrategy) -> Self {
        Verb::Retry {
            strategy: Some(strategy),
            edits: Vec::new(),
        }
    }

    /// A signal for the wait with this path: what it carries has to be what the wait wants.
    ///
    /// To an [`approval`](crate::approval) it is an [`ApprovalVerdict`](crate::ApprovalVerdict).
    #[must_use]
    pub fn signal<T: Payload>(name: impl Into<String>, payload: T) -> Self {
        Verb::Signal {
            name: name.into(),
            payload: Value::typed(Arc::new(payload)),
        }
    }
}

/// One command to one run: what a store keeps until the run's owner has carried it out.
///
/// Its token makes it safe to send again: the same command under the same token is carried out once.
///
/// ```
/// use amends::journal::{Command, Verb};
///
/// let command = Command::new("order-7", Verb::Cancel).by("ada").reason("ordered twice");
/// assert_eq!(command.token.len(), 32, "made up where none is given");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Command {
    /// The name of this command, unique in its store.
    pub token: String,
    /// The run.
    pub run: RunId,
    /// What is asked.
    pub verb: Verb,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was handed in, by the clock of the process that did.
    pub at: Timestamp,
}

impl Command {
    /// A command by nobody in particular, with a token that no other command has.
    pub fn new(run: impl Into<RunId>, verb: Verb) -> Self {
        Command {
            token: format!("{:032x}", random_u128()),
            run: run.into(),
            verb,
            by: String::new(),
            reason: String::new(),
            at: Timestamp::now(),
        }
    }

    /// Who asks. Default: empty.
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    /// Why. Default: empty.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// A token of your own, so that you can send the command again. Default: 32 random hex digits.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Whether this asks for the same as another: all but when it was handed in.
    #[must_use]
    pub fn asks_the_same_as(&self, other: &Command) -> bool {
        (&self.token, &self.run, &self.verb, &self.by, &self.reason)
            == (
                &other.token,
                &other.run,
                &other.verb,
                &other.by,
                &other.reason,
            )
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CommandAnswer {
    /// It is in the run's journal.
    Accepted {
        /// What a cancel was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        told: Option<CancelTold>,
    },
    /// It is a signal for a wait that was over when it came: kept in the journal, and of no effect.
    Late,
    /// It was refused, and nothing was changed.
    Refused {
        /// Why, for people.
        why: String,
        /// What the run takes now.
        legal: Vec<VerbName>,
    },
}
