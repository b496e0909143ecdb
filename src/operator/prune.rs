//! Forgets runs that ended long ago, a few at a time, beside whoever works with the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::operator::{ArchiveError, Operator};
use crate::store::{PruneFilter, Pruned, RunEntry, RunFilter, StoreError};

/// How runs are forgotten.
///
/// ```
/// use amends::Timestamp;
/// use amends::operator::Retention;
/// use amends::store::PruneFilter;
/// use std::time::Duration;
///
/// let month_ago = Timestamp::from_micros(Timestamp::now().as_micros() - 30 * 86_400_000_000);
/// let retention = Retention::new(PruneFilter::ended_before(month_ago)).pause(Duration::from_millis(10));
/// assert_eq!(retention.batch, 200);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Which runs.
    pub filter: PruneFilter,
    /// How many are forgotten in one go, while other writers wait.
    pub batch: usize,
    /// How long other writers have to themselves after that.
    pub pause: Duration,
    /// A file that doesn't exist yet, to which each run is written before it is forgotten.
    pub export_first: Option<PathBuf>,
}

impl Retention {
    /// Forgets what matches, with all defaults.
    #[must_use]
    pub fn new(filter: PruneFilter) -> Self {
        Retention {
            filter,
            batch: 200,
            pause: Duration::from_millis(20),
            export_first: None,
        }
    }

    /// How many runs are forgotten in one go. Default 200; at least 1.
    #[must_use]
    pub fn batch(mut self, runs: usize) -> Self {
        self.batch = runs.max(1);
        self
    }

    /// How long other writers have to themselves between two goes. Default 20 ms.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Writes each run to this new file, in the form of an export, before it is forgotten. Nothing is
    /// forgotten that is not on the disk there. Default: forgotten runs are gone.
    #[must_use]
    pub fn export_first(mut self, file: impl Into<PathBuf>) -> Self {
        self.export_first = Some(file.into());
        self
    }
}

/// How far pruning has come, and in the end what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneTotals {
    /// Runs that were forgotten; in a dry run those that would be.
    pub runs: u64,
    /// The same, by the word for how they ended. Only a dry run and a pruning that exports first tell.
    pub by_standing: BTreeMap<&'static str, u64>,
    /// Runs that were kept because they could not be exported, and why.
    pub kept: Vec<(crate::RunId, String)>,
}

impl PruneTotals {
    fn count(&mut self, entry: &RunEntry) {
        self.runs += 1;
        *self.by_standing.entry(entry.standing.as_str()).or_default() += 1;
    }
}

impl Operator {
    /// Says how many runs a pruning would forget now. Nothing is changed.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn prune_dry_run(&self, filter: &PruneFilter) -> Result<PruneTotals, StoreError> {
        const PAGE: usize = 1_000;
        let mut totals = PruneTotals::default();
        let newest = self.newest().await?;
        let mut after = None;
        loop {
            let page = self.list(&RunFilter::all(), after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(totals);
            };
            after = Some(last.number);
            for entry in &page {
                if filter.matches(entry) && Some(entry.number) != newest {
                    totals.count(entry);
                }
            }
        }
    }

    /// Forgets ended runs for ever, with their commands: a batch, a pause, the next batch, from any process.
    /// Runs that are open are never forgotten, nor are the newest of all and those that are started meanwhile.
    ///
    /// A run that is forgotten is unknown: its id can be started again.
    ///
    /// # Errors
    ///
    /// Where the store fails, or the file of an export that was asked for. What was forgotten stays so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops it between two batches.
    pub async fn prune(
        &self,
        retention: &Retention,
        progress: impl FnMut(&PruneTotals),
    ) -> Result<PruneTotals, ArchiveError> {
        match &retention.export_first {
            None => self.prune_only(retention, progress).await,
            Some(file) => self.export_and_prune(retention, file, progress).await,
        }
    }

    async fn prune_only(
        &self,
        retention: &Retention,
        mut progress: impl FnMut(&PruneTotals),
    ) -> Result<PruneTotals, ArchiveError> {
        let mut totals = PruneTotals::default();
        let mut after = None;
        // What is started meanwhile is left for the next time: it may come faster than runs are forgotten.
        let newest = self.newest().await?;
        loop {
            let piece = self.store.prune(&retention.filter, after, retention.batch);
            let Pruned { runs, next } = piece.await?;
            totals.runs += runs;
            progress(&totals);
            if next.is_none() || next >= newest {
                return Ok(totals);
            }
            after = next;
            if runs > 0 {
                tokio::time::sleep(retention.pause).await;
            }
        }
    }

    async fn export_and_prune(
        &self,
        retention: &Retention,
        file: &Path,
        mut progress: impl FnMut(&PruneTotals),
    ) -> Result<PruneTotals, ArchiveError> {
        let mut totals = PruneTotals::default();
        let mut export = self.export_to(BufWriter::new(File::create_new(file)?))?;
        sync_folder_of(file)?;
        let newest = self.newest().await?;
        let mut after = None;
        loop {
            let page = RunFilter::all();
            let page = self.store.scan(&page, after, retention.batch).await?;
            let Some(last) = page.last() else { break };
            let before = after.unwrap_or_default();
            after = Some(last.number);
            let mut chosen = Vec::new();
            for entry in page {
                if !retention.filter.matches(&entry) || Some(entry.number) >= newest {
                    continue;
                }
                match export.run(&entry).await? {
                    Ok(()) => chosen.push(entry),
                    Err(why) => totals.kept.push((entry.run, why)),
                }
            }
            if chosen.is_empty() {
                continue;
            }
            let out = export.to();
            out.flush()?;
            out.get_ref().sync_data()?;
            // Others may match by now, and are not in the export: only those that are.
            let numbers = chosen.iter().map(|entry| entry.number);
            let these = retention.filter.clone().numbers(numbers);
            let mut from = Some(before);
            loop {
                let Pruned { next, .. } = self.store.prune(&these, from, chosen.len()).await?;
                match next {
                    Some(next) if Some(next) < after => from = Some(next),
                    _ => break,
                }
            }
            for entry in &chosen {
                totals.count(entry);
            }
            progress(&totals);
            tokio::time::sleep(retention.pause).await;
        }
        let (out, _) = export.end()?;
        out.get_ref().sync_all()?;
        Ok(totals)
    }
}

/// Makes the name of a new file durable, where the system has a way to.
fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
