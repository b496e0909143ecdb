//! The JSON forms that the program writes; their fields are documented in `docs/cli.md`.

use std::collections::BTreeMap;

use amends::Timestamp;
use amends::journal::Standing;
use amends::store::RunEntry;
use serde::Serialize;

/// A run in a list.
#[derive(Serialize)]
pub(crate) struct RunForm<'a> {
    pub(crate) run: &'a str,
    pub(crate) saga: &'a str,
    pub(crate) version: u32,
    pub(crate) status: &'static str,
    pub(crate) started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// When a waiting run goes on; nothing where only a signal lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<&'a str>,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// The run's number in its store.
    pub(crate) number: u64,
}

impl<'a> RunForm<'a> {
    pub(crate) fn of(entry: &'a RunEntry) -> Self {
        let trouble = entry.trouble.as_ref();
        RunForm {
            run: entry.run.as_str(),
            saga: &entry.saga,
            version: entry.version,
            status: entry.standing.as_str(),
            started_at: entry.started_at.to_string(),
            ended_at: entry.ended_at.as_ref().map(Timestamp::to_string),
            until: match entry.standing {
                Standing::Waiting { until } if until != Timestamp::NEVER => Some(until.to_string()),
                _ => None,
            },
            step: trouble.map(|trouble| trouble.step.as_str()),
            mode: trouble.map(|trouble| trouble.mode.as_str()),
            labels: &entry.labels,
            number: entry.number,
        }
    }
}
