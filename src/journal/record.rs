//! What one append wrote, and what a store hands back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{RunId, Timestamp, random_u128};
use crate::journal::{Event, Migrated};
use crate::step::{StepIx, StepTable};

/// The name of one append: with it an append whose answer was lost can be sent again (rule W2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendId(u128);

impl AppendId {
    /// A new name that no other append has.
    #[must_use]
    pub fn random() -> Self {
        AppendId(random_u128())
    }

    /// A name made of bits that nobody else has.
    pub(crate) fn of(bits: u128) -> Self {
        AppendId(bits)
    }

    /// The name that follows: appends of one owner are numbered from one random start.
    #[must_use]
    pub fn next(self) -> Self {
        AppendId(self.0.wrapping_add(1))
    }

    /// The name's bytes, as stores keep them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The name that has these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        AppendId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How a run stands after a record: what a store needs to know to find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Somebody drives it, or has to.
    Running,
    /// Nothing is to be done before this instant.
    Waiting {
        /// When it goes on; [`Timestamp::NEVER`] where only a signal lets it, which is `null` in JSON.
        #[serde(with = "until")]
        until: Timestamp,
    },
    /// An operator paused it: nothing starts until it is resumed.
    Paused,
    /// It waits for an operator.
    Parked,
    /// It ended: all is done.
    Completed,
    /// It ended: nothing stands.
    Compensated,
    /// It ended early, by a step's word.
    Stopped,
    /// It ended by an operator's word.
    Abandoned,
}

/// That a run waits for ever is no instant that anybody should read.
mod until {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ids::Timestamp;

    // The signature is serde's.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(until: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let until = Some(*until).filter(|until| *until != Timestamp::NEVER);
        until.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let until = Option::deserialize(from)?;
        Ok(until.unwrap_or(Timestamp::NEVER))
    }
}

impl Standing {
    /// Whether this is an end.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Standing::Running | Standing::Waiting { .. } | Standing::Paused | Standing::Parked => {
                false
            }
            Standing::Completed
            | Standing::Compensated
            | Standing::Stopped
            | Standing::Abandoned => true,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Running => "running",
            Standing::Waiting { .. } => "waiting",
            Standing::Paused => "paused",
            Standing::Parked => "parked",
            Standing::Completed => "completed",
            Standing::Compensated => "compensated",
            Standing::Stopped => "stopped",
            Standing::Abandoned => "abandoned",
        }
    }

    /// The standing that a word says; `until` is used where it is `waiting`.
    #[must_use]
    pub fn from_word(word: &str, until: Timestamp) -> Option<Self> {
        Some(match word {
            "running" => Standing::Running,
            "waiting" => Standing::Waiting { until },
            "paused" => Standing::Paused,
            "parked" => Standing::Parked,
            "completed" => Standing::Completed,
            "compensated" => Standing::Compensated,
            "stopped" => Standing::Stopped,
            "abandoned" => Standing::Abandoned,
            _ => return None,
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One atomic append.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place in the run's journal, from 1.
    pub seq: u64,
    /// Its name.
    pub append_id: AppendId,
    /// When it was made, by the writer's clock.
    pub at: Timestamp,
    /// What happened, in order.
    pub events: Vec<Event<StepIx>>,
}

/// A run's whole journal, as loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// The run.
    pub run: RunId,
    /// The names behind the step numbers of all its records.
    pub steps: StepTable,
    /// The records, gapless from 1.
    pub records: Vec<Record>,
}

impl Record {
    /// The last change of definition that the record tells.
    #[must_use]
    pub fn migrated(&self) -> Option<&Migrated> {
        let mut events = self.events.iter().rev();
        events.find_map(|event| match event {
            Event::Migrated(migrated) => Some(&**migrated),
            _ => None,
        })
    }
}

impl Journal {
    /// The definition that the run goes on with: its saga, version and fingerprint. Nothing where the
    /// journal doesn't begin with a start.
    #[must_use]
    pub fn definition(&self) -> Option<(&str, u32, &str)> {
        let Some(Event::RunStarted(started)) = self.records.first()?.events.first() else {
            return None;
        };
        let migrated = self.records.iter().rev().find_map(Record::migrated);
        let now = migrated.map(|migrated| (migrated.version, migrated.fingerprint.as_str()));
        let (version, fingerprint) = now.unwrap_or((started.version, &started.fingerprint));
        Some((&started.saga, version, fingerprint))
    }
}
