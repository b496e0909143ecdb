//! The failure modes and their properties: one table, read by everything else.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::category::{Category, Severity};
use super::custom::CustomMode;

/// The class of what went wrong.
///
/// A mode carries its properties with it: whether a retry may help, whether it is terminal, whether
/// a part of the work may have been done, and how bad it is. Retry and recovery decide by them.
///
/// A built-in mode is written as its [wire value](FailureMode::wire), a custom one as an object with
/// all its properties, so that a reader who lacks the declaration still knows how to treat it. A wire
/// value that nobody knows is refused on reading.
///
/// ```
/// use amends::failure::FailureMode;
///
/// let mode: FailureMode = serde_json::from_str("\"system_network\"")?;
/// assert_eq!(mode, FailureMode::SystemNetwork);
/// assert!(mode.is_retryable());
/// assert_eq!(FailureMode::SystemOutOfMemory.to_string(), "system_oom");
/// assert!(serde_json::from_str::<FailureMode>("\"system_gremlins\"").is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FailureMode {
    /// The step's input did not pass its validation.
    StepValidation,
    /// The step took longer than its own time limit.
    StepTimeout,
    /// The step's code went wrong: a panic, say. Also the mode of every error that no classifier knows.
    StepLogic,
    /// The step's input or output broke its contract: a payload that does not decode, say.
    StepContract,
    /// The step met a state in which it can't act.
    StepState,
    /// The network failed, on the way there or on the way back.
    SystemNetwork,
    /// Something below the step took too long: a connect, a read, a lock.
    SystemTimeout,
    /// A process died. A crash of the coordinator's own process is no failure at all, only an interrupted attempt.
    SystemCrash,
    /// There was no memory left.
    SystemOutOfMemory,
    /// The disk is full, read-only or failing.
    SystemDisk,
    /// A service that the step needs is not there.
    ServiceMissing,
    /// An API is down: it refuses connections, or says that it can't serve.
    ApiUnavailable,
    /// A memory store is full: a cache or a database that keeps its data in memory. The process's own memory is [`SystemOutOfMemory`](FailureMode::SystemOutOfMemory).
    MemoryFull,
    /// A quota is used up; waiting a moment will not help.
    QuotaExceeded,
    /// A circuit breaker is open, so that the call was not even made.
    CircuitOpen,
    /// It would break a rule of security.
    SecurityViolation,
    /// It would exceed the budget.
    BudgetExceeded,
    /// It is not on the list of what is allowed.
    AllowlistViolation,
    /// Too many calls in too short a time; often with a time after which to come back.
    RateLimited,
    /// A person gave input that can't be used.
    InvalidInput,
    /// A person called it off. The cancel of a whole run is a command and not a failure; this is a step that reports one.
    Cancelled,
    /// Whoever asks may not do this.
    PermissionDenied,
    /// Some of the services that the step called failed, others did their part.
    PartialServiceFailures,
    /// Some of the step's inner steps failed, others are done.
    PartialStepFailures,
    /// Time ran out with a part of the work done.
    PartialTimeout,
    /// A mode of your own, with the properties that it declares.
    Custom(CustomMode),
}

impl FailureMode {
    /// Every built-in mode, in the order of the reference table.
    pub const BUILT_IN: [FailureMode; 25] = [
        Self::StepValidation,
        Self::StepTimeout,
        Self::StepLogic,
        Self::StepContract,
        Self::StepState,
        Self::SystemNetwork,
        Self::SystemTimeout,
        Self::SystemCrash,
        Self::SystemOutOfMemory,
        Self::SystemDisk,
        Self::ServiceMissing,
        Self::ApiUnavailable,
        Self::MemoryFull,
        Self::QuotaExceeded,
        Self::CircuitOpen,
        Self::SecurityViolation,
        Self::BudgetExceeded,
        Self::AllowlistViolation,
        Self::RateLimited,
        Self::InvalidInput,
        Self::Cancelled,
        Self::PermissionDenied,
        Self::PartialServiceFailures,
        Self::PartialStepFailures,
        Self::PartialTimeout,
    ];

    /// The built-in mode that is written as `wire`, if there is one.
    ///
    /// ```
    /// use amends::failure::FailureMode;
    ///
    /// assert_eq!(FailureMode::built_in("policy_budget"), Some(FailureMode::BudgetExceeded));
    /// assert_eq!(FailureMode::built_in("Policy_Budget"), None);
    /// ```
    #[must_use]
    pub fn built_in(wire: &str) -> Option<Self> {
        Self::BUILT_IN.into_iter().find(|mode| mode.wire() == wire)
    }

    /// The word by which journals, policies and people know the mode; the name of a custom one.
    #[must_use]
    pub fn wire(&self) -> &str {
        self.properties().wire
    }

    /// Where failures of this mode come from.
    #[must_use]
    pub fn category(&self) -> Category {
        self.properties().category
    }

    /// Whether another attempt may help. Never true of a terminal mode.
    ///
    /// It says nothing about safety: whether the effect may already be in the world is the
    /// [`FailedEffect`](super::FailedEffect) of the failure.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.properties().reaction == Reaction::Retry
    }

    /// Whether no attempt may follow, whatever the retry policy says.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.properties().reaction == Reaction::Terminal
    }

    /// Whether the failed attempt may have achieved a part of its work.
    #[must_use]
    pub fn has_partial_results(&self) -> bool {
        self.properties().partial_results
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.properties().severity
    }

    /// What the mode means, as a short lower-case phrase for people.
    #[must_use]
    pub fn meaning(&self) -> &str {
        self.properties().meaning
    }

    /// Whether both are the same mode: the same built-in one, or custom ones of the same name.
    ///
    /// Filters and policies compare by this and not by `==`, so that a failure in an old journal still
    /// meets the rule for its mode after a property of the mode was declared anew.
    ///
    /// ```
    /// use amends::failure::{Category, CustomMode, FailureMode};
    ///
    /// let before = FailureMode::from(CustomMode::new("fraud", Category::Policy));
    /// let after = FailureMode::from(CustomMode::new("fraud", Category::Policy).retryable(true));
    /// assert!(before.is_same_mode(&after));
    /// assert_ne!(before, after);
    /// ```
    #[must_use]
    pub fn is_same_mode(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Custom(one), Self::Custom(other)) => one.name() == other.name(),
            (one, other) => one == other,
        }
    }

    /// The table. Each row is said and none is derived from another or from the wire value, so that a
    /// new mode has to answer every question.
    #[rustfmt::skip]
    fn properties(&self) -> Properties<'_> {
        use Category::{Policy, Resource, Step, System, User};
        use PartialResults::{Likely, Unlikely};
        use Reaction::{Neither, Retry, Terminal};
        use Severity::{Critical, High, Low, Medium};
        match self {
            Self::StepValidation => row("agent_validation", Step, Neither, Unlikely, Low, "the step's input did not pass its validation"),
            Self::StepTimeout => row("agent_timeout", Step, Retry, Likely, Low, "the step took longer than its own time limit"),
            Self::StepLogic => row("agent_logic", Step, Neither, Unlikely, Low, "the step's code went wrong, or nobody knows what did"),
            Self::StepContract => row("agent_contract", Step, Terminal, Unlikely, Critical, "the step's input or output broke its contract"),
            Self::StepState => row("agent_state", Step, Neither, Unlikely, Low, "the step met a state in which it can't act"),
            Self::SystemNetwork => row("system_network", System, Retry, Unlikely, High, "the network failed"),
            Self::SystemTimeout => row("system_timeout", System, Retry, Likely, High, "something below the step took too long"),
            Self::SystemCrash => row("system_crash", System, Terminal, Unlikely, Critical, "a process died"),
            Self::SystemOutOfMemory => row("system_oom", System, Terminal, Unlikely, Critical, "there was no memory left"),
            Self::SystemDisk => row("system_disk", System, Neither, Unlikely, High, "the disk is full, read-only or failing"),
            Self::ServiceMissing => row("resource_tool", Resource, Retry, Unlikely, Medium, "a service that the step needs is not there"),
            Self::ApiUnavailable => row("resource_api", Resource, Retry, Unlikely, Medium, "an API is down"),
            Self::MemoryFull => row("resource_memory", Resource, Neither, Unlikely, Medium, "a memory store is full"),
            Self::QuotaExceeded => row("resource_quota", Resource, Neither, Likely, Medium, "a quota is used up"),
            Self::CircuitOpen => row("resource_circuit", Resource, Retry, Unlikely, Medium, "a circuit breaker is open"),
            Self::SecurityViolation => row("policy_security", Policy, Terminal, Unlikely, Critical, "it would break a rule of security"),
            Self::BudgetExceeded => row("policy_budget", Policy, Terminal, Unlikely, Critical, "it would exceed the budget"),
            Self::AllowlistViolation => row("policy_allowlist", Policy, Terminal, Unlikely, Critical, "it is not on the list of what is allowed"),
            Self::RateLimited => row("policy_rate_limit", Policy, Retry, Unlikely, Medium, "too many calls in too short a time"),
            Self::InvalidInput => row("user_invalid_input", User, Neither, Unlikely, Low, "a person gave input that can't be used"),
            Self::Cancelled => row("user_cancelled", User, Terminal, Unlikely, Critical, "a person called it off"),
            Self::PermissionDenied => row("user_permission", User, Neither, Unlikely, Low, "whoever asks may not do this"),
            Self::PartialServiceFailures => row("partial_tool_failures", Step, Retry, Likely, Low, "some of the services failed, some did their part"),
            Self::PartialStepFailures => row("partial_step_failures", Step, Retry, Likely, Low, "some of the inner steps failed, some are done"),
            Self::PartialTimeout => row("partial_timeout", Step, Retry, Likely, Low, "time ran out with a part of the work done"),
            Self::Custom(custom) => custom.properties(),
        }
    }
}

/// What the mode alone lets a run do next. One of three, so that nothing is retryable and terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reaction {
    Retry,
    Neither,
    Terminal,
}

#[derive(Clone, Copy)]
enum PartialResults {
    Likely,
    Unlikely,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Properties<'a> {
    pub(super) wire: &'a str,
    pub(super) category: Category,
    pub(super) reaction: Reaction,
    pub(super) partial_results: bool,
    pub(super) severity: Severity,
    pub(super) meaning: &'a str,
}

fn row(
    wire: &'static str,
    category: Category,
    reaction: Reaction,
    partial_results: PartialResults,
    severity: Severity,
    meaning: &'static str,
) -> Properties<'static> {
    Properties {
        wire,
        category,
        reaction,
        partial_results: matches!(partial_results, PartialResults::Likely),
        severity,
        meaning,
    }
}

impl fmt::Display for FailureMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.wire())
    }
}

impl From<CustomMode> for FailureMode {
    fn from(mode: CustomMode) -> Self {
        Self::Custom(mode)
    }
}

impl Serialize for FailureMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Custom(custom) => custom.serialize(serializer),
            built_in => serializer.serialize_str(built_in.wire()),
        }
    }
}

impl<'de> Deserialize<'de> for FailureMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModeVisitor)
    }
}

struct ModeVisitor;

impl<'de> Visitor<'de> for ModeVisitor {
    type Value = FailureMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a failure mode: its wire value, or an object with `custom` and `category`")
    }

    fn visit_str<E: Error>(self, wire: &str) -> Result<FailureMode, E> {
        FailureMode::built_in(wire).ok_or_else(|| {
            let known = FailureMode::BUILT_IN.map(|mode| mode.wire().to_owned());
            E::custom(format_args!(
                "unknown failure mode `{wire}`, expected one of {}",
                known.join(", ")
            ))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FailureMode, A::Error> {
        CustomMode::deserialize(MapAccessDeserializer::new(map)).map(FailureMode::Custom)
    }
}

#[cfg(test)]
mod tests;
