//! Which runs are meant: the flags that `list` and the verbs share.

use std::time::Duration;

use amends::FailureMode;
use amends::Timestamp;
use amends::journal::Standing;
use amends::operator::Operator;
use amends::store::{RunEntry, RunFilter, StoreError};
use clap::{Args, ValueEnum};

use crate::instants::now;
use crate::near;
use crate::span;

/// Runs by what is known of them. Several flags narrow: a run has to match all.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which runs")]
pub(crate) struct Which {
    /// Runs that stand so; several words, with commas between, mean any of them
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) status: Vec<Status>,
    /// Short for `--status parked`
    #[arg(long, conflicts_with_all = ["status", "open"])]
    pub(crate) parked: bool,
    /// Runs that have not ended
    #[arg(long, conflicts_with = "status")]
    pub(crate) open: bool,
    /// Runs of this saga
    #[arg(long, value_name = "NAME")]
    pub(crate) saga: Option<String>,
    /// Runs in trouble at this step
    #[arg(long = "step", id = "trouble_step", value_name = "NAME")]
    pub(crate) step: Option<String>,
    /// Runs in trouble of this failure mode, such as `system_network`; one of your own is `custom:NAME`
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<String>,
    /// Runs that were started longer ago than this, such as `90s`, `2h` or `7d`
    #[arg(long, value_name = "AGE", value_parser = span::parse)]
    pub(crate) older_than: Option<Duration>,
    /// Runs that were started within this time
    #[arg(long, value_name = "AGE", value_parser = span::parse)]
    pub(crate) newer_than: Option<Duration>,
    /// Runs whose id begins so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Runs with this label; said again, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
}

/// How a run stands, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    Running,
    Waiting,
    Paused,
    Parked,
    Completed,
    Compensated,
    Stopped,
    Abandoned,
}

impl Status {
    pub(crate) fn standing(self) -> Standing {
        match self {
            Status::Running => Standing::Running,
            Status::Waiting => Standing::Waiting {
                until: Timestamp::default(),
            },
            Status::Paused => Standing::Paused,
            Status::Parked => Standing::Parked,
            Status::Completed => Standing::Completed,
            Status::Compensated => Standing::Compensated,
            Status::Stopped => Standing::Stopped,
            Status::Abandoned => Standing::Abandoned,
        }
    }
}

impl Which {
    /// Whether nothing was said: then all runs are meant.
    pub(crate) fn is_all(&self) -> bool {
        self.status.is_empty()
            && !self.parked
            && !self.open
            && self.saga.is_none()
            && self.step.is_none()
            && self.mode.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
            && self.prefix.is_none()
            && self.label.is_empty()
    }

    /// What a store is asked for, as of now.
    pub(crate) fn selection(&self, newest_first: bool) -> Selection {
        let now = now();
        let ago = |span: Duration| {
            let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
            Timestamp::from_micros(now.as_micros().saturating_sub(micros))
        };
        let mut base = RunFilter::all();
        base.open = self.open;
        base.saga.clone_from(&self.saga);
        base.step.clone_from(&self.step);
        base.mode.clone_from(&self.mode);
        base.prefix.clone_from(&self.prefix);
        base.labels.clone_from(&self.label);
        base.started_before = self.older_than.map(ago);
        base.started_from = self.newer_than.map(ago);
        base.newest_first = newest_first;
        let mut words = self.status.clone();
        if self.parked {
            words.push(Status::Parked);
        }
        let filters = if words.is_empty() {
            vec![base]
        } else {
            words
                .iter()
                .enumerate()
                .filter(|(at, word)| !words[..*at].contains(word))
                .map(|(_, word)| base.clone().standing(word.standing()))
                .collect()
        };
        Selection { filters }
    }
}

/// Runs that match one of several filters, which differ in the standing only.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    filters: Vec<RunFilter>,
}

impl Selection {
    /// The filters, no two of which match the same run.
    pub(crate) fn filters(&self) -> &[RunFilter] {
        &self.filters
    }

    /// The next `limit` runs at most, after the run with the number `after`.
    pub(crate) async fn page(
        &self,
        operator: &Operator,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        let mut found = Vec::new();
        for filter in &self.filters {
            found.extend(operator.list(filter, after, limit).await?);
        }
        // Each filter gave its next ones, so the next of all are among them.
        if self.filters.iter().any(|filter| filter.newest_first) {
            found.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        } else {
            found.sort_by_key(|entry| entry.number);
        }
        // A run whose standing changes between two of the scans would be there twice.
        found.dedup_by_key(|entry| entry.number);
        found.truncate(limit);
        Ok(found)
    }
}

/// A failure mode by its wire value, and not a misspelt one, which would match nothing and look like good
/// news.
pub(crate) fn mode(text: &str) -> Result<String, String> {
    if let Some(own) = text.strip_prefix("custom:") {
        return Ok(own.to_owned());
    }
    if FailureMode::built_in(text).is_some() {
        return Ok(text.to_owned());
    }
    let known = FailureMode::BUILT_IN;
    let near = near::near(text, known.iter().map(FailureMode::wire));
    if near.is_empty() {
        let words: Vec<&str> = known.iter().map(FailureMode::wire).collect();
        Err(format!(
            "there is no failure mode `{text}`; a mode of your own is `custom:{text}`, and the built-in ones are {}",
            words.join(", ")
        ))
    } else {
        Err(format!(
            "there is no failure mode `{text}`: did you mean {}? A mode of your own is `custom:{text}`",
            near::either(&near)
        ))
    }
}

/// `KEY=VALUE`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("a label is written as `customer=42`, not `{text}`")),
    }
}
