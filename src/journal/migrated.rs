//! How a run came to another definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::saga::Outline;

/// A run goes on with another definition of its saga.
///
/// What comes before it in the journal names the steps of the old definition, which is here as a whole:
/// the journal stays readable by itself when nobody has the old definition any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// The definition that the run had.
    pub from: Box<Outline>,
    /// The version that it has now.
    pub version: u32,
    /// The fingerprint that it has now.
    pub fingerprint: String,
    /// What became of the old steps' names.
    #[serde(flatten)]
    pub steps: StepMoves,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Migrated {
    pub(crate) fn new(
        from: Outline,
        to: (u32, &str),
        steps: StepMoves,
        by: &str,
        why: &str,
    ) -> Self {
        Migrated {
            from: Box::new(from),
            version: to.0,
            fingerprint: to.1.to_owned(),
            steps,
            by: by.to_owned(),
            reason: why.to_owned(),
        }
    }
}

/// Old names and new ones. A step that is in neither list keeps its name; what is inside a step goes
/// where that goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepMoves {
    /// Steps that have another name now: old to new.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renamed: BTreeMap<String, String>,
    /// Steps that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

impl StepMoves {
    /// What an old step is called now; nothing where it is no more.
    ///
    /// A path follows the longest part of it that is named: where `fulfil` is renamed to `deliver`,
    /// `fulfil/pack` is `deliver/pack`, unless it has a name of its own.
    #[must_use]
    pub fn new_name(&self, old: &str) -> Option<String> {
        let mut part = old;
        loop {
            if let Some(new) = self.renamed.get(part) {
                return Some(format!("{new}{}", &old[part.len()..]));
            }
            if self.dropped.iter().any(|dropped| dropped == part) {
                return None;
            }
            match part.rfind(['/', '[']) {
                Some(end) if end > 0 => part = &part[..end],
                _ => return Some(old.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves() -> StepMoves {
        let renamed = [
            ("charge", "charge-card"),
            ("fulfil", "deliver"),
            ("fulfil/pack", "deliver/wrap"),
        ];
        StepMoves {
            renamed: renamed
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into(),
            dropped: vec!["log-it".to_owned(), "fulfil/weigh".to_owned()],
        }
    }

    fn now(old: &str) -> Option<String> {
        moves().new_name(old)
    }

    #[test]
    fn a_step_goes_where_it_is_sent_and_others_stay() {
        assert_eq!(now("charge").unwrap(), "charge-card");
        assert_eq!(now("reserve").unwrap(), "reserve");
        assert_eq!(now("log-it"), None);
    }

    #[test]
    fn what_is_inside_goes_with_what_it_is_inside_of() {
        assert_eq!(now("charge[3]").unwrap(), "charge-card[3]");
        assert_eq!(now("fulfil/ship").unwrap(), "deliver/ship");
        assert_eq!(
            now("fulfil[2]/items[0]/label").unwrap(),
            "deliver[2]/items[0]/label"
        );
        assert_eq!(now("log-it/deep[1]"), None);
    }

    #[test]
    fn the_longest_part_that_is_named_counts() {
        assert_eq!(now("fulfil/pack").unwrap(), "deliver/wrap");
        assert_eq!(now("fulfil/pack[1]").unwrap(), "deliver/wrap[1]");
        assert_eq!(now("fulfil/weigh/twice"), None);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_another() {
        assert_eq!(now("charge-back").unwrap(), "charge-back");
        assert_eq!(now("fulfilment/pack").unwrap(), "fulfilment/pack");
        assert_eq!(now("fulfil/packing").unwrap(), "deliver/packing");
    }

    #[test]
    fn names_that_are_swapped_are_not_followed_further() {
        let renamed = [("a", "b"), ("b", "a")];
        let moves = StepMoves {
            renamed: renamed
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into(),
            dropped: Vec::new(),
        };
        assert_eq!(moves.new_name("a").unwrap(), "b");
        assert_eq!(moves.new_name("b").unwrap(), "a");
    }
}
