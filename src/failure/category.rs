//! The five places a failure comes from, and the four degrees of how bad it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a failure comes from.
///
/// Rules of a recovery policy can name a category instead of each of its modes. The wire word of
/// [`Step`](Category::Step) is `agent`, that of the systems whose records can be read; the others
/// are their names in lower case.
///
/// ```
/// use amends::failure::{Category, FailureMode};
///
/// assert_eq!(FailureMode::SystemDisk.category(), Category::System);
/// assert_eq!(Category::Step.to_string(), "agent");
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// The step itself: its logic, its state, its contract, its own time limit.
    #[serde(rename = "agent")]
    Step,
    /// The machine and the network below the step.
    System,
    /// Something that the step needs and can't get now.
    Resource,
    /// A rule that forbids it.
    Policy,
    /// What a person gave, withdrew or may not do.
    User,
}

impl Category {
    /// The word under which the category is written and read.
    #[must_use]
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Step => "agent",
            Self::System => "system",
            Self::Resource => "resource",
            Self::Policy => "policy",
            Self::User => "user",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.wire())
    }
}

/// How bad a failure is, for people and for alarms. Neither retries nor the preset policies go by it; a
/// rule of your own may.
///
/// Of the built-in modes each terminal one is [`Critical`](Severity::Critical); otherwise the
/// category decides: system is high, resource and policy are medium, the rest is low.
///
/// ```
/// use amends::failure::{FailureMode, Severity};
///
/// assert_eq!(FailureMode::SystemNetwork.severity(), Severity::High);
/// assert!(Severity::Low < Severity::Critical);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Expected now and then.
    Low,
    /// Worth a look when it becomes frequent.
    Medium,
    /// Something below the saga is broken.
    High,
    /// Someone should look now.
    Critical,
}

impl Severity {
    /// The word under which the severity is written and read.
    #[must_use]
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// What a mode gets that says nothing else.
    pub(super) const fn by_rule(category: Category, terminal: bool) -> Self {
        if terminal {
            return Self::Critical;
        }
        match category {
            Category::System => Self::High,
            Category::Resource | Category::Policy => Self::Medium,
            Category::Step | Category::User => Self::Low,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_the_wire_word() {
        for category in [
            Category::Step,
            Category::System,
            Category::Resource,
            Category::Policy,
            Category::User,
        ] {
            let written = serde_json::to_string(&category).unwrap();
            assert_eq!(written, format!("\"{category}\""));
            assert_eq!(
                serde_json::from_str::<Category>(&written).unwrap(),
                category
            );
        }
        for severity in [
            Severity::Low,
            Severity::Medium,
            Severity::High,
            Severity::Critical,
        ] {
            let written = serde_json::to_string(&severity).unwrap();
            assert_eq!(written, format!("\"{severity}\""));
            assert_eq!(
                serde_json::from_str::<Severity>(&written).unwrap(),
                severity
            );
        }
    }

    #[test]
    fn severities_are_ordered_from_low_to_critical() {
        assert!(Severity::Low < Severity::Medium);
        assert!(Severity::Medium < Severity::High);
        assert!(Severity::High < Severity::Critical);
    }
}
