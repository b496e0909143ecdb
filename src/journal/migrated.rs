//! How a run came to another definition.

use std::collections::{BTreeMap, VecDeque};

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
    /// `fulfil/pack` is `deliver/pack`, unless it has a name of its own. The items of a fan-out are named
    /// together: `reserve[]/pack` is the `pack` of each.
    #[must_use]
    pub fn new_name(&self, old: &str) -> Option<String> {
        let (plain, mut items) = without_items(old);
        let mut part = plain.as_str();
        let plain = loop {
            if let Some(new) = self.renamed.get(part) {
                break format!("{new}{}", &plain[part.len()..]);
            }
            if self.dropped.iter().any(|dropped| dropped == part) {
                return None;
            }
            match part.rfind(['/', '[']) {
                Some(end) if end > 0 => part = &part[..end],
                _ => break plain,
            }
        };
        let mut name = String::with_capacity(plain.len() + 2 * items.len());
        for c in plain.chars() {
            name.push(c);
            if c == '[' {
                name.push_str(&items.pop_front().unwrap_or_default());
            }
        }
        Some(name)
    }

    /// What a step inside of `at` is called now among the steps inside of `now_at`; nothing where it is no
    /// more, or is elsewhere. Both are paths in definitions, empty for the saga itself.
    pub(crate) fn name_inside(&self, at: &str, now_at: &str, name: &str) -> Option<String> {
        if at.is_empty() {
            return self.new_name(name).filter(|name| is_one_part(name));
        }
        let now = self.new_name(&format!("{at}/{name}"))?;
        let last = now.strip_prefix(now_at)?.strip_prefix('/')?;
        is_one_part(last).then(|| last.to_owned())
    }
}

fn is_one_part(name: &str) -> bool {
    !name.contains(['/', '['])
}

/// A path with all items of a fan-out as one, and which they were.
fn without_items(path: &str) -> (String, VecDeque<String>) {
    let (mut plain, mut items) = (String::with_capacity(path.len()), VecDeque::new());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        plain.push('[');
        let (item, after) = after.split_once(']').unwrap_or((after, ""));
        items.push_back(item.to_owned());
        plain.push(']');
        rest = after;
    }
    plain.push_str(rest);
    (plain, items)
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
    fn items_are_named_together() {
        let renamed = [("ship[]/pack", "ship[]/wrap"), ("ship", "send")];
        let moves = StepMoves {
            renamed: renamed
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into(),
            dropped: Vec::new(),
        };
        assert_eq!(moves.new_name("ship[2]/pack").unwrap(), "ship[2]/wrap");
        assert_eq!(moves.new_name("ship[2]/weigh").unwrap(), "send[2]/weigh");
        assert_eq!(moves.new_name("ship[2]").unwrap(), "send[2]");
        // `ship` has another name: its `pack` would be elsewhere.
        assert_eq!(moves.name_inside("ship[]", "send[]", "pack"), None);
        assert_eq!(
            moves.name_inside("ship[]", "send[]", "weigh").unwrap(),
            "weigh"
        );
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
