//! A mode that the user declares, with the same properties as the built-in ones.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::category::{Category, Severity};
use super::mode::{Properties, Reaction};

/// A failure mode of your own, for what none of the 25 built-in ones says.
///
/// | Property | Default |
/// |---|---|
/// | [`retryable`](CustomMode::retryable) | no |
/// | [`terminal`](CustomMode::terminal) | no |
/// | [`partial_results`](CustomMode::partial_results) | no |
/// | [`severity`](CustomMode::severity) | by the rule of [`Severity`] |
///
/// The name is the identity of the mode: keep it when a property changes, since journals hold it.
/// Two values are equal only if all their properties are; [`FailureMode::is_same_mode`] compares names.
/// A clone is cheap.
///
/// ```
/// use amends::failure::{Category, CustomMode, FailureMode, Severity};
///
/// let mode = FailureMode::from(CustomMode::new("fraud_suspected", Category::Policy).terminal(true));
/// assert_eq!(mode.wire(), "fraud_suspected");
/// assert!(mode.is_terminal());
/// assert_eq!(mode.severity(), Severity::Critical);
/// ```
///
/// [`FailureMode::is_same_mode`]: super::FailureMode::is_same_mode
#[derive(Clone, Debug)]
pub struct CustomMode(Arc<Declared>);

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    category: Category,
    retryable: bool,
    terminal: bool,
    partial_results: bool,
    /// `None` until it is said, so that the rule still sees a later `terminal(true)`.
    severity: Option<Severity>,
}

impl CustomMode {
    /// A mode that is neither retried nor terminal, has no partial results, and a severity by rule.
    ///
    /// Choose a name that no built-in mode has; people tell modes apart by it.
    #[must_use]
    pub fn new(name: impl Into<String>, category: Category) -> Self {
        Self(Arc::new(Declared {
            name: name.into(),
            category,
            retryable: false,
            terminal: false,
            partial_results: false,
            severity: None,
        }))
    }

    /// Whether another attempt may help. Default: no.
    ///
    /// A mode can't be both retryable and terminal: where both are said, in whichever order,
    /// terminal wins.
    #[must_use]
    pub fn retryable(self, retryable: bool) -> Self {
        self.with(|declared| declared.retryable = retryable)
    }

    /// Whether nothing automatic may follow: never retried, and by the default policies put before
    /// an operator. Default: no. Wins over [`retryable`](CustomMode::retryable).
    #[must_use]
    pub fn terminal(self, terminal: bool) -> Self {
        self.with(|declared| declared.terminal = terminal)
    }

    /// Whether the failed attempt may have achieved a part of its work. Default: no.
    #[must_use]
    pub fn partial_results(self, partial_results: bool) -> Self {
        self.with(|declared| declared.partial_results = partial_results)
    }

    /// How bad it is. Default: by the rule of [`Severity`]; what is said here wins over the rule.
    #[must_use]
    pub fn severity(self, severity: Severity) -> Self {
        self.with(|declared| declared.severity = Some(severity))
    }

    /// The name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    fn with(mut self, change: impl FnOnce(&mut Declared)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    pub(super) fn properties(&self) -> Properties<'_> {
        let declared = &*self.0;
        Properties {
            wire: &declared.name,
            category: declared.category,
            reaction: match (declared.terminal, declared.retryable) {
                (true, _) => Reaction::Terminal,
                (false, true) => Reaction::Retry,
                (false, false) => Reaction::Neither,
            },
            partial_results: declared.partial_results,
            severity: declared
                .severity
                .unwrap_or_else(|| Severity::by_rule(declared.category, declared.terminal)),
            meaning: "a mode that this application declares",
        }
    }
}

// Compared as they act: a severity by rule equals the same severity said aloud, so that what comes
// back from a journal equals what went in.
impl PartialEq for CustomMode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.properties() == other.properties()
    }
}

impl Eq for CustomMode {}

impl Hash for CustomMode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.properties().hash(state);
    }
}

/// The written form. All fields are written; on reading, all but the first two may be missing.
#[derive(Serialize, Deserialize)]
struct Written {
    custom: String,
    category: Category,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    partial_results: bool,
    #[serde(default)]
    severity: Option<Severity>,
}

impl Serialize for CustomMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let properties = self.properties();
        Written {
            custom: self.0.name.clone(),
            category: properties.category,
            retryable: properties.reaction == Reaction::Retry,
            terminal: properties.reaction == Reaction::Terminal,
            partial_results: properties.partial_results,
            severity: Some(properties.severity),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CustomMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Ok(Self(Arc::new(Declared {
            name: written.custom,
            category: written.category,
            retryable: written.retryable,
            terminal: written.terminal,
            partial_results: written.partial_results,
            severity: written.severity,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::FailureMode;
    use super::*;

    #[test]
    fn the_defaults_promise_nothing() {
        let mode = FailureMode::from(CustomMode::new("odd", Category::Resource));
        assert!(!mode.is_retryable());
        assert!(!mode.is_terminal());
        assert!(!mode.has_partial_results());
        assert_eq!(mode.severity(), Severity::Medium);
        assert_eq!(mode.category(), Category::Resource);
        assert_eq!(mode.to_string(), "odd");
    }

    #[test]
    fn terminal_wins_over_retryable_in_either_order() {
        for mode in [
            CustomMode::new("odd", Category::User)
                .retryable(true)
                .terminal(true),
            CustomMode::new("odd", Category::User)
                .terminal(true)
                .retryable(true),
        ] {
            let mode = FailureMode::from(mode);
            assert!(mode.is_terminal());
            assert!(!mode.is_retryable());
            assert_eq!(mode.severity(), Severity::Critical);
        }
    }

    #[test]
    fn a_severity_that_was_said_wins_over_the_rule() {
        let mode = CustomMode::new("odd", Category::System)
            .severity(Severity::Low)
            .terminal(true);
        assert_eq!(FailureMode::from(mode).severity(), Severity::Low);
    }

    #[test]
    fn a_changed_clone_leaves_the_original_alone() {
        let original = CustomMode::new("odd", Category::User);
        let changed = original.clone().retryable(true);
        assert!(!FailureMode::from(original).is_retryable());
        assert!(FailureMode::from(changed).is_retryable());
    }
}
