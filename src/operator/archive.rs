//! Runs as lines of JSON, to be kept elsewhere or taken into another store. `docs/format.md` describes
//! the lines.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{BufRead, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{RunId, Timestamp};
use crate::journal::{
    AppendId, Event, Interner, Journal, Record, Standing, decode_events, encode_events, form_of,
};
use crate::operator::Operator;
use crate::operator::verify::inspect;
use crate::saga::{Graph, Outline};
use crate::store::{
    Append, AppendError, Appending, LoadError, RunEntry, RunFilter, StoreError, Trouble,
    TroubleChange,
};

/// The version of the lines.
const VERSION: u32 = 1;

/// So many runs are read in one go.
const PAGE: usize = 256;

/// So many runs may be on their way into a store at once.
const UNDER_WAY: usize = 128;

/// An export or an import could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error("the export could not be read or written")]
    Io(#[from] std::io::Error),
    /// A line is none of an export that this version knows. All before it was taken.
    #[error("line {line} is no line of an export: {what}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// An export in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Runs that were written.
    pub runs: u64,
    /// Runs that can't be exported, because their journals can't be read.
    pub failed: u64,
}

/// What became of one run of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// It is in the store now.
    Imported,
    /// A part of it was there, from an import that was interrupted; the rest is there now, too.
    Finished,
    /// All of it was there already.
    Skipped,
    /// It was not taken: another run has its id, or something is wrong with its line.
    Refused(String),
}

/// An import in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportTotals {
    /// Runs that are in the store now and weren't before, or not wholly.
    pub imported: u64,
    /// Runs that were there already.
    pub skipped: u64,
    /// Runs that were not taken.
    pub refused: u64,
    /// Whether the export's last line was met: without it, the export was cut short.
    pub complete: bool,
}

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first.
    AmendsExport {
        version: u32,
    },
    /// A definition, before the first run that was started with it.
    Definition(Outline),
    Run(Box<WrittenRun>),
    /// The last.
    End {
        runs: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenRun {
    id: RunId,
    saga: String,
    version: u32,
    started_at: Timestamp,
    standing: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<WrittenTrouble>,
    records: Vec<WrittenRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenTrouble {
    step: String,
    mode: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenRecord {
    seq: u64,
    form: u32,
    append_id: String,
    at: Timestamp,
    events: Box<RawValue>,
}

impl WrittenRun {
    fn of(entry: &RunEntry, journal: &Journal) -> Result<Self, String> {
        let record = |record: &Record| {
            let events = encode_events(&record.events, &journal.steps);
            let events = events.map_err(|error| error.to_string())?;
            Ok(WrittenRecord {
                seq: record.seq,
                form: form_of(&record.events),
                append_id: record.append_id.to_string(),
                at: record.at,
                events: RawValue::from_string(events).map_err(|error| error.to_string())?,
            })
        };
        let wake_at = match entry.standing {
            Standing::Waiting { until } => Some(until).filter(|until| *until != Timestamp::NEVER),
            _ => None,
        };
        Ok(WrittenRun {
            id: entry.run.clone(),
            saga: entry.saga.clone(),
            version: entry.version,
            started_at: entry.started_at,
            standing: entry.standing.as_str().to_owned(),
            wake_at,
            ended_at: entry.ended_at,
            labels: entry.labels.clone(),
            trouble: entry
                .trouble
                .clone()
                .map(|Trouble { step, mode }| WrittenTrouble { step, mode }),
            records: journal
                .records
                .iter()
                .map(record)
                .collect::<Result<_, String>>()?,
        })
    }

    /// The run as a store would have it.
    fn read(self) -> Result<(RunEntry, Journal), String> {
        let until = self.wake_at.unwrap_or(Timestamp::NEVER);
        let standing = Standing::from_word(&self.standing, until)
            .ok_or_else(|| format!("`{}` is no standing", self.standing))?;
        let mut entry = RunEntry::new(0, self.id, self.saga, self.version, self.started_at);
        entry.standing = standing;
        entry.ended_at = self.ended_at;
        entry.labels = self.labels;
        entry.trouble = self
            .trouble
            .map(|trouble| Trouble::new(trouble.step, trouble.mode));
        let mut names = Interner::default();
        let mut records = Vec::with_capacity(self.records.len());
        for record in self.records {
            let seq = record.seq;
            let id = u128::from_str_radix(&record.append_id, 16)
                .ok()
                .filter(|_| record.append_id.len() == 32)
                .ok_or_else(|| format!("record {seq}: `{}` is no append id", record.append_id))?;
            let events = decode_events(record.form, record.events.get(), &mut names)
                .map_err(|error| format!("record {seq}: {error}"))?;
            records.push(Record {
                seq,
                append_id: AppendId::from_bytes(id.to_be_bytes()),
                at: record.at,
                events,
            });
        }
        let run = entry.run.clone();
        let steps = names.into_table();
        let journal = Journal {
            run,
            steps,
            records,
        };
        Ok((entry, journal))
    }
}

/// An export that is being written: run by run, or all that match a filter. Made by
/// [`Operator::export_to`]; unless it is [ended](Export::end), whoever imports it is told that it was cut short.
#[derive(Debug)]
pub struct Export<'o, W> {
    operator: &'o Operator,
    to: W,
    /// Definitions that are in it, by saga, version and fingerprint.
    defined: HashSet<(String, u32, String)>,
    done: Exported,
}

impl<W: Write> Export<'_, W> {
    /// Writes one run. Says what keeps it from being written, if something does: its journal can't be read.
    ///
    /// # Errors
    ///
    /// Where the store or the writer fails.
    pub async fn run(&mut self, entry: &RunEntry) -> Result<Result<(), String>, ArchiveError> {
        let journal = self.operator.store.load(&entry.run).await;
        self.write(entry, journal).await
    }

    /// Writes all runs that match. A run whose journal can't be read is told to `failed` and left out.
    ///
    /// # Errors
    ///
    /// Where the store or the writer fails.
    pub async fn matching(
        &mut self,
        filter: &RunFilter,
        mut failed: impl FnMut(&RunId, &str),
        mut progress: impl FnMut(&Exported),
    ) -> Result<(), ArchiveError> {
        let mut filter = filter.clone();
        filter.newest_first = false;
        let mut after = None;
        loop {
            let page = self.operator.store.scan_journals(&filter, after, PAGE);
            let page = page.await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.number);
            for (entry, journal) in page {
                if let Err(what) = self.write(&entry, journal).await? {
                    failed(&entry.run, &what);
                }
            }
            progress(&self.done);
        }
    }

    async fn write(
        &mut self,
        entry: &RunEntry,
        journal: Result<Option<Journal>, LoadError>,
    ) -> Result<Result<(), String>, ArchiveError> {
        let journal = match journal {
            Ok(Some(journal)) => journal,
            // Forgotten meanwhile.
            Ok(None) => return Ok(Ok(())),
            Err(LoadError::Store(error)) => return Err(error.into()),
            Err(error) => {
                self.done.failed += 1;
                return Ok(Err(error.to_string()));
            }
        };
        if let Some((saga, version, fingerprint)) = journal.definition() {
            let key = (saga.to_owned(), version, fingerprint.to_owned());
            if !self.defined.contains(&key) {
                let store = &self.operator.store;
                if let Some(outline) = store.recall(&key.0, key.1, &key.2).await? {
                    write_line(&mut self.to, &Line::Definition(outline))?;
                }
                self.defined.insert(key);
            }
        }
        match WrittenRun::of(entry, &journal) {
            Ok(run) => write_line(&mut self.to, &Line::Run(Box::new(run)))?,
            Err(what) => {
                self.done.failed += 1;
                return Ok(Err(what));
            }
        }
        self.done.runs += 1;
        Ok(Ok(()))
    }

    /// How far it has come.
    #[must_use]
    pub fn done(&self) -> Exported {
        self.done
    }

    /// What it writes to.
    pub(super) fn to(&mut self) -> &mut W {
        &mut self.to
    }

    /// Writes the last line, and hands the writer back, flushed.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn end(mut self) -> Result<(W, Exported), ArchiveError> {
        let runs = self.done.runs;
        write_line(&mut self.to, &Line::End { runs })?;
        self.to.flush()?;
        Ok((self.to, self.done))
    }
}

fn write_line(to: &mut impl Write, line: &Line) -> Result<(), ArchiveError> {
    serde_json::to_writer(&mut *to, line).map_err(std::io::Error::from)?;
    to.write_all(b"\n")?;
    Ok(())
}

impl Operator {
    /// Writes the runs that match as lines of JSON, each with its journal. A run whose journal can't be read
    /// is told to `failed` and left out.
    ///
    /// It reads while others write, and needs memory for some hundred journals. An open run that is exported
    /// is as it was at that moment: import it elsewhere only if nobody drives it here any more, or two will
    /// do its work.
    ///
    /// Writing blocks the thread: hand in something buffered.
    ///
    /// # Errors
    ///
    /// Where the store or the writer fails.
    pub async fn export(
        &self,
        filter: &RunFilter,
        to: impl Write,
        failed: impl FnMut(&RunId, &str),
    ) -> Result<Exported, ArchiveError> {
        let mut export = self.export_to(to)?;
        export.matching(filter, failed, |_| ()).await?;
        Ok(export.end()?.1)
    }

    /// Begins an export, for more than one filter, or for runs that you name.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn export_to<W: Write>(&self, mut to: W) -> Result<Export<'_, W>, ArchiveError> {
        write_line(&mut to, &Line::AmendsExport { version: VERSION })?;
        Ok(Export {
            operator: self,
            to,
            defined: HashSet::new(),
            done: Exported::default(),
        })
    }

    /// Takes the runs of an export into this store, which has to be owned: opened for appends, and used by
    /// nobody else meanwhile. Each run comes as it was, with the ids and times of its records, and stands as it
    /// stood: the next coordinator takes up what is open.
    ///
    /// A run that is there already with the same journal is skipped, and one whose id belongs to another is
    /// refused, as is one whose journal no run can have. Until the last of its records is there, a run is
    /// listed as parked, so that nobody takes it up; an import that was interrupted is finished by repeating it.
    ///
    /// Reading blocks the thread.
    ///
    /// # Errors
    ///
    /// Where the store or the reader fails, and at a line that is none of an export. What was taken before stays.
    pub async fn import(
        &self,
        from: impl BufRead,
        each: impl FnMut(&RunId, &ImportOutcome),
        progress: impl FnMut(&ImportTotals),
    ) -> Result<ImportTotals, ArchiveError> {
        self.take(from, false, each, progress).await
    }

    /// Says what an import would do, and writes nothing: the store may belong to somebody else.
    ///
    /// # Errors
    ///
    /// As [`import`](Self::import).
    pub async fn import_dry_run(
        &self,
        from: impl BufRead,
        each: impl FnMut(&RunId, &ImportOutcome),
    ) -> Result<ImportTotals, ArchiveError> {
        self.take(from, true, each, |_| ()).await
    }

    async fn take(
        &self,
        from: impl BufRead,
        dry_run: bool,
        mut each: impl FnMut(&RunId, &ImportOutcome),
        mut progress: impl FnMut(&ImportTotals),
    ) -> Result<ImportTotals, ArchiveError> {
        let mut import = Import {
            operator: self,
            dry_run,
            graphs: HashMap::new(),
            under_way: VecDeque::new(),
            totals: ImportTotals::default(),
        };
        let mut lines = Lines {
            from,
            number: 0,
            text: String::new(),
        };
        let result = loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let number = lines.number;
            let wrong = |what: &str| {
                let what = what.to_owned();
                Err(ArchiveError::Line { line: number, what })
            };
            let first = number == 1;
            match line {
                Line::AmendsExport { version: VERSION } if first => {}
                Line::AmendsExport { version } => {
                    break wrong(&format!("an export of version {version} begins there"));
                }
                _ if first => break wrong("an export begins with its version"),
                Line::Definition(outline) => {
                    if let Err(error) = import.define(&outline).await {
                        break Err(error);
                    }
                }
                Line::Run(run) => {
                    if let Err(error) = import.run(*run, &mut each).await {
                        break Err(error);
                    }
                    progress(&import.totals);
                }
                Line::End { .. } => import.totals.complete = true,
            }
        };
        // What is on its way is told in any case.
        let settled = import.settle(0, &mut each).await;
        result?;
        settled?;
        progress(&import.totals);
        Ok(import.totals)
    }
}

/// The lines of an export.
struct Lines<R> {
    from: R,
    number: u64,
    text: String,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Line>, ArchiveError> {
        self.text.clear();
        if self.from.read_line(&mut self.text)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        match serde_json::from_str(&self.text) {
            Ok(line) => Ok(Some(line)),
            // The last line of an export that was cut short.
            Err(_) if !self.text.ends_with('\n') => Ok(None),
            Err(error) => Err(ArchiveError::Line {
                line: self.number,
                what: error.to_string(),
            }),
        }
    }
}

/// An import that is under way.
struct Import<'o> {
    operator: &'o Operator,
    dry_run: bool,
    graphs: HashMap<(String, u32, String), Option<Arc<Graph>>>,
    under_way: VecDeque<Taking>,
    totals: ImportTotals,
}

/// A run on its way into the store, or one that is only to be reported.
struct Taking {
    run: RunId,
    became: ImportOutcome,
    appends: Vec<Appending>,
}

impl Import<'_> {
    async fn define(&mut self, outline: &Outline) -> Result<(), ArchiveError> {
        if !self.dry_run {
            self.operator.store.remember(outline).await?;
        }
        let key = (
            outline.saga.clone(),
            outline.version,
            outline.fingerprint.clone(),
        );
        self.graphs.insert(key, Some(Arc::new(outline.to_graph())));
        Ok(())
    }

    async fn run(
        &mut self,
        run: WrittenRun,
        each: &mut impl FnMut(&RunId, &ImportOutcome),
    ) -> Result<(), ArchiveError> {
        let id = run.id.clone();
        let (became, appends) = match self.plan(run).await? {
            Ok((became, appends)) => (became, appends),
            Err(why) => (ImportOutcome::Refused(why), Vec::new()),
        };
        let store = &self.operator.store;
        // In order, and without waiting for one another: a store keeps the order of one run's appends.
        let appends = if self.dry_run { Vec::new() } else { appends };
        let appends = appends.into_iter().map(|append| store.append(append));
        self.under_way.push_back(Taking {
            run: id,
            became,
            appends: appends.collect(),
        });
        self.settle(UNDER_WAY, each).await
    }

    /// Waits for the oldest runs until no more than so many are on their way.
    async fn settle(
        &mut self,
        most: usize,
        each: &mut impl FnMut(&RunId, &ImportOutcome),
    ) -> Result<(), ArchiveError> {
        while self.under_way.len() > most {
            let Some(mut taking) = self.under_way.pop_front() else {
                break;
            };
            for append in taking.appends {
                match append.await {
                    Ok(()) => {}
                    Err(AppendError::Dead(why)) => {
                        let what = why.to_string();
                        return Err(StoreError::Dead { what }.into());
                    }
                    Err(error) => {
                        let why = std::error::Error::source(&error)
                            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
                        taking.became = ImportOutcome::Refused(why);
                        break;
                    }
                }
            }
            let count = match taking.became {
                ImportOutcome::Imported | ImportOutcome::Finished => &mut self.totals.imported,
                ImportOutcome::Skipped => &mut self.totals.skipped,
                ImportOutcome::Refused(_) => &mut self.totals.refused,
            };
            *count += 1;
            each(&taking.run, &taking.became);
        }
        Ok(())
    }

    /// The appends that a run needs, or why it is not taken.
    async fn plan(
        &mut self,
        run: WrittenRun,
    ) -> Result<Result<(ImportOutcome, Vec<Append>), String>, ArchiveError> {
        let (entry, journal) = match run.read() {
            Ok(read) => read,
            Err(what) => return Ok(Err(what)),
        };
        if let Some(what) = self.what_is_wrong(&entry, &journal).await? {
            return Ok(Err(what));
        }
        // The same id twice in one export would not be seen before it is written.
        if self.under_way.iter().any(|taking| taking.run == entry.run) {
            return Ok(Err("the export has it twice".to_owned()));
        }
        let there = match self.operator.store.load(&entry.run).await {
            Ok(there) => there,
            Err(LoadError::Store(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let known = there.as_ref().map_or(0, |there| there.records.len());
        if let Some(there) = &there
            && !is_beginning_of_the_other(there, &journal)
        {
            let why = "the store has another run with this id, or one that has gone on otherwise";
            return Ok(Err(why.to_owned()));
        }
        let became = match known {
            0 => ImportOutcome::Imported,
            known if known < journal.records.len() => ImportOutcome::Finished,
            _ => return Ok(Ok((ImportOutcome::Skipped, Vec::new()))),
        };
        Ok(Ok((became, appends(&entry, journal, known))))
    }

    async fn what_is_wrong(
        &mut self,
        entry: &RunEntry,
        journal: &Journal,
    ) -> Result<Option<String>, ArchiveError> {
        if entry.run.as_str().is_empty() || entry.run.as_str().len() > RunId::MAX_LEN {
            return Ok(Some("its id is empty or too long".to_owned()));
        }
        let Some((saga, version, fingerprint)) = journal.definition() else {
            return Ok(Some("its journal doesn't begin with its start".to_owned()));
        };
        let key = (saga.to_owned(), version, fingerprint.to_owned());
        if !self.graphs.contains_key(&key) {
            let known = self.operator.store.recall(&key.0, key.1, &key.2).await?;
            let graph = known.map(|outline| Arc::new(outline.to_graph()));
            self.graphs.insert(key.clone(), graph);
        }
        let graph = self.graphs.get(&key).and_then(Option::as_deref);
        let found = inspect(entry, journal, graph);
        Ok(found.into_iter().next().map(|finding| finding.what))
    }
}

/// What has to be appended to a journal that has so many records already.
fn appends(entry: &RunEntry, journal: Journal, known: usize) -> Vec<Append> {
    let last = journal.records.len();
    let append = |(index, record): (usize, Record)| {
        let ends = index + 1 == last;
        let standing = if ends {
            entry.standing
        } else {
            Standing::Parked
        };
        let run = entry.run.clone();
        let mut append = Append::new(run, record, journal.steps.clone(), standing);
        append.standing_changed = ends || index == 0;
        if let (true, Some(trouble)) = (ends, &entry.trouble) {
            append.trouble = TroubleChange::Now(trouble.clone());
        }
        append
    };
    let records = journal.records.into_iter().enumerate();
    records.skip(known).map(append).collect()
}

/// Whether one of two journals is how the other begins.
fn is_beginning_of_the_other(one: &Journal, other: &Journal) -> bool {
    let mut pairs = one.records.iter().zip(&other.records);
    pairs.all(|(mine, theirs)| {
        (mine.seq, mine.append_id, mine.at) == (theirs.seq, theirs.append_id, theirs.at)
            && written(&mine.events, one) == written(&theirs.events, other)
    })
}

/// Events as they are written: the values of a store that keeps them as they are have no other likeness.
fn written(events: &[Event], journal: &Journal) -> Option<String> {
    encode_events(events, &journal.steps).ok()
}
