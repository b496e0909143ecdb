//! A store in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::journal::{Event, Journal, Standing};
use crate::operator::Operator;
use crate::step::{StepIx, items_as_one};
use crate::store::{Counts, LoadError, RunEntry, RunFilter, StoreError};

/// So many runs are read in one go.
const PAGE: usize = 256;

/// A store in numbers, from its lists: no journal is read for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many runs stand how, and what went wrong with the parked ones.
    pub counts: Counts,
    /// The oldest run that has not ended.
    pub oldest_open: Option<RunEntry>,
    /// The oldest run that is parked: by its start, not by when it was parked.
    pub oldest_parked: Option<RunEntry>,
}

/// What journals say about the work itself, from a sample of the newest runs that match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStats {
    /// Runs whose journals were read.
    pub runs: u64,
    /// Runs whose journals can't be read, or not wholly: they count for nothing below.
    pub unreadable: u64,
    /// Records that were read.
    pub records: u64,
    /// Recoveries that were decided.
    pub recoveries: u64,
    /// From start to end, of the runs that have ended.
    pub runs_took: Durations,
    /// Each step, by saga and path, in which all items of a fan-out are one: `reserve[]`.
    pub steps: BTreeMap<(String, String), StepStats>,
}

/// One step of one saga in a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepStats {
    /// Calls of its `execute`.
    pub attempts: u64,
    /// Calls that were not the first of their run.
    pub retries: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls of its `compensate`.
    pub undos: u64,
    /// How long the calls of `execute` took that succeeded.
    pub took: Durations,
}

/// Durations, for their quantiles. It keeps counts by size, so that it stays small: a quantile is right to
/// one part in sixteen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many there are of each size, by [`bucket`].
    buckets: BTreeMap<u16, u64>,
    count: u64,
    longest: u64,
}

/// The sixteenth of its power of two that a number is in.
fn bucket(micros: u64) -> u16 {
    if micros < 16 {
        return u16::try_from(micros).unwrap_or(15);
    }
    let power = micros.ilog2();
    let sixteenth = (micros >> (power - 4)) & 15;
    u16::try_from(u64::from(power - 3) * 16 + sixteenth).unwrap_or(u16::MAX)
}

/// The greatest number that is in a bucket.
fn top(bucket: u16) -> u64 {
    let (power, sixteenth) = (u32::from(bucket) / 16, u64::from(bucket) % 16);
    if power == 0 {
        return sixteenth;
    }
    let unit = 1_u64 << (power - 1);
    (16 + sixteenth)
        .saturating_mul(unit)
        .saturating_add(unit - 1)
}

impl Durations {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
        self.count += 1;
        self.longest = self.longest.max(micros);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_micros(self.longest))
    }

    /// A duration that so many of a hundred were not longer than, a sixteenth too long at most. Nothing where
    /// there are none.
    ///
    /// ```
    /// use amends::operator::Durations;
    /// use std::time::Duration;
    ///
    /// let mut took = Durations::default();
    /// for millis in 1..=100 {
    ///     took.add(Duration::from_millis(millis));
    /// }
    /// let median = took.percentile(50).expect("there are some");
    /// assert!((50..=54).contains(&median.as_millis()));
    /// assert_eq!(took.percentile(100), took.longest());
    /// ```
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let wanted = (self.count * u64::from(percent.min(100)))
            .div_ceil(100)
            .max(1);
        let mut seen = 0;
        let found = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        let micros = found.map_or(self.longest, |(bucket, _)| top(*bucket).min(self.longest));
        Some(Duration::from_micros(micros))
    }
}

impl Operator {
    /// The store in numbers, from its lists.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let oldest = async |filter: RunFilter| {
            let found = self.list(&filter, None, 1).await?;
            Ok::<_, StoreError>(found.into_iter().next())
        };
        Ok(Stats {
            counts: self.store.counts().await?,
            oldest_open: oldest(RunFilter::open()).await?,
            oldest_parked: oldest(RunFilter::all().standing(Standing::Parked)).await?,
        })
    }

    /// What the journals say of the newest `sample` runs at most that match. It needs memory for some
    /// hundred journals, however large the sample.
    ///
    /// # Errors
    ///
    /// Where the store fails. A journal that can't be read is counted.
    pub async fn journal_stats(
        &self,
        filter: &RunFilter,
        sample: u64,
        mut progress: impl FnMut(u64),
    ) -> Result<JournalStats, StoreError> {
        let filter = filter.clone().newest_first();
        let mut stats = JournalStats::default();
        let mut after = None;
        while stats.runs + stats.unreadable < sample {
            let room = sample - stats.runs - stats.unreadable;
            let limit = usize::try_from(room).unwrap_or(PAGE).min(PAGE);
            let page = self.store.scan_journals(&filter, after, limit).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.number);
            for (entry, journal) in page {
                match journal {
                    Ok(Some(journal)) => stats.add(&entry, &journal),
                    Ok(None) => {}
                    Err(LoadError::Store(error)) => return Err(error),
                    Err(_) => stats.unreadable += 1,
                }
            }
            progress(stats.runs + stats.unreadable);
        }
        Ok(stats)
    }
}

impl JournalStats {
    fn add(&mut self, entry: &RunEntry, journal: &Journal) {
        self.runs += 1;
        self.records += journal.records.len() as u64;
        if let Some(ended_at) = entry.ended_at {
            self.runs_took.add(ended_at.since(entry.started_at));
        }
        let name = |step: &StepIx| {
            let path = items_as_one(&journal.steps.name(*step)).into_owned();
            (entry.saga.clone(), path)
        };
        for event in journal.records.iter().flat_map(|record| &record.events) {
            match event {
                Event::StepStarted { step, attempt, .. } => {
                    let step = self.steps.entry(name(step)).or_default();
                    step.attempts += 1;
                    step.retries += u64::from(*attempt > 1);
                }
                Event::StepDone { step, took_us, .. } => {
                    let step = self.steps.entry(name(step)).or_default();
                    step.took.add(Duration::from_micros(*took_us));
                }
                Event::StepFailed { step, .. } => {
                    self.steps.entry(name(step)).or_default().failures += 1;
                }
                Event::UndoStarted { step, .. } => {
                    self.steps.entry(name(step)).or_default().undos += 1;
                }
                Event::Decided(decision) => self.recoveries += u64::from(decision.recovery > 0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bucket_and_a_sixteenth_below_its_top_at_most() {
        for micros in (0..5_000).chain([1 << 20, (1 << 40) + 12_345, u64::MAX / 3, u64::MAX]) {
            let top = top(bucket(micros));
            assert!(top >= micros, "{micros} is above {top}");
            assert!(top - micros <= micros / 16, "{micros} is far below {top}");
            assert_eq!(bucket(top), bucket(micros));
        }
    }
}
