//! What an exploration says: how much it did, or what went wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::ops::AddAssign;

use crate::journal::Journal;
use crate::testkit::store::StoreFault;

/// What an exploration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// Scenarios that were explored.
    pub scenarios: u64,
    /// Places at which a process was killed: an append, before or after, of a run or of a recovery.
    pub crash_points: u64,
    /// Runs that were killed and recovered, or whose store failed.
    pub runs: u64,
    /// How the runs came to rest, by their [words](crate::Outcome::word).
    pub rests: BTreeMap<&'static str, u64>,
}

impl AddAssign for Explored {
    fn add_assign(&mut self, more: Explored) {
        self.scenarios += more.scenarios;
        self.crash_points += more.crash_points;
        self.runs += more.runs;
        for (word, times) in more.rests {
            *self.rests.entry(word).or_default() += times;
        }
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} scenarios, {} crash points, {} crash-and-recover runs",
            self.scenarios, self.crash_points, self.runs
        )?;
        let rests: Vec<String> = self
            .rests
            .iter()
            .map(|(word, times)| format!("{times} {word}"))
            .collect();
        if rests.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", rests.join(", "))
    }
}

/// Something that must not happen, with all that is needed to see why it did.
pub struct Violation {
    pub(super) name: String,
    pub(super) points: Vec<(u64, StoreFault)>,
    pub(super) what: String,
    pub(super) story: String,
}

impl Violation {
    /// Which promise was broken, and how.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The store's faults on the way there: the number of the append in its process, and the fault.
    #[must_use]
    pub fn points(&self) -> &[(u64, StoreFault)] {
        &self.points
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<String> = self
            .points
            .iter()
            .map(|(append, fault)| format!("{fault} append {append}"))
            .collect();
        let points = if points.is_empty() {
            "undisturbed".to_owned()
        } else {
            points.join(", then ")
        };
        write!(
            f,
            "`{}`, {points}: {}\n{}",
            self.name, self.what, self.story
        )
    }
}

/// As people read it: `unwrap` on an exploration prints what happened.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

/// One line per event.
pub(super) fn journal_in_words(journal: &Journal) -> String {
    let mut words = String::new();
    for record in &journal.records {
        for event in &record.events {
            let event = event
                .clone()
                .map_step(|step| journal.steps.name(step).to_string());
            // Writing to a String can't fail.
            let _ = writeln!(words, "  {:>3} {} {event:?}", record.seq, record.at);
        }
    }
    words
}
