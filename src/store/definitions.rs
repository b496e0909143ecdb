//! What a store knows of definitions, and of who can finish their runs.

use serde::{Deserialize, Serialize};

use crate::saga::Outline;

/// What the coordinator that was built last over a store does with the runs of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Handling {
    /// It has the code, and drives them.
    Runs,
    /// It has declared how they go on with another version, and moves them there when it is told to.
    MigratesTo(u32),
}

/// A definition that a store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownDefinition {
    /// Its structure.
    pub outline: Outline,
    /// What the coordinator that was built last does with its runs; nothing where it does not know it.
    pub handling: Option<Handling>,
}

impl KnownDefinition {
    /// A definition, with what a coordinator does with its runs.
    #[must_use]
    pub fn new(outline: Outline, handling: Option<Handling>) -> Self {
        KnownDefinition { outline, handling }
    }

    /// What no two definitions of a store have in common.
    pub(crate) fn key(&self) -> DefinitionKey {
        key_of(&self.outline)
    }
}

/// The saga, its version and its fingerprint.
pub(crate) type DefinitionKey = (String, u32, String);

pub(crate) fn key_of(outline: &Outline) -> DefinitionKey {
    (
        outline.saga.clone(),
        outline.version,
        outline.fingerprint.clone(),
    )
}
