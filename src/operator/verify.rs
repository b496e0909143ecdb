//! Checks every journal of a store, and whether the store's lists say what the journals say.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::RunId;
use crate::journal::{Event, Journal, RunStarted, Standing};
use crate::machine::{State, audit};
use crate::operator::Operator;
use crate::saga::Graph;
use crate::store::{LoadError, RunEntry, RunFilter, Store, StoreError, TroubleChange};

/// So many runs are read in one go, and so many journals are in memory at most, twice: while some are
/// checked, the next are read.
const PAGE: usize = 256;

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A record can't be read: its checksum, its place, or its form is wrong.
    Damaged,
    /// The journal can be read, and says what no run can do.
    Broken,
    /// The store lacks the definition that the run was started with.
    NoDefinition,
    /// The list says something else than the journal.
    List,
    /// It concerns the store, and no run.
    Store,
}

impl FindingKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Damaged => "damaged",
            FindingKind::Broken => "broken",
            FindingKind::NoDefinition => "no-definition",
            FindingKind::List => "list",
            FindingKind::Store => "store",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The run; nothing where it is the store's own.
    pub run: Option<RunId>,
    /// What kind of thing.
    pub kind: FindingKind,
    /// What exactly, for people.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.run {
            Some(run) => write!(f, "run `{run}` ({}): {}", self.kind, self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// How far a verification has come, and in the end what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Runs that were looked at.
    pub runs: u64,
    /// Those of them that have not ended.
    pub open: u64,
    /// Records that were read.
    pub records: u64,
    /// Runs with which something is wrong.
    pub bad_runs: u64,
    /// All that is wrong.
    pub findings: u64,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings == 0
    }
}

/// Definitions by saga, version and fingerprint; nothing where the store doesn't have one.
#[derive(Debug, Default)]
pub(super) struct Graphs(HashMap<(String, u32, String), Option<Arc<Graph>>>);

impl Graphs {
    /// The graph that a run goes on with.
    pub(super) async fn of(
        &mut self,
        store: &dyn Store,
        (saga, version, fingerprint): (&str, u32, &str),
    ) -> Result<Option<Arc<Graph>>, StoreError> {
        let key = (saga.to_owned(), version, fingerprint.to_owned());
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let outline = store.recall(&key.0, key.1, &key.2).await?;
        let graph = outline.map(|outline| Arc::new(outline.to_graph()));
        self.0.insert(key, graph.clone());
        Ok(graph)
    }
}

/// How a run began, where its journal tells.
fn started(journal: &Journal) -> Option<&RunStarted> {
    match journal.records.first()?.events.first()? {
        Event::RunStarted(started) => Some(started),
        _ => None,
    }
}

impl Operator {
    /// Checks the runs that match: that every record can be read, that the journal follows the rules, that
    /// the store has the definition, and that the list says what the journal says. Where the filter is the
    /// one for all runs, the store checks itself too.
    ///
    /// Nothing is changed, and other processes may go on meanwhile. It needs memory for some hundred
    /// journals, however many there are.
    ///
    /// # Errors
    ///
    /// Where the store fails. What is wrong with a run is no error of this: it is told to `found`.
    pub async fn verify(
        &self,
        filter: &RunFilter,
        mut found: impl FnMut(&Finding),
        mut progress: impl FnMut(&Verified),
    ) -> Result<Verified, StoreError> {
        let mut done = Verified::default();
        let mut graphs = Graphs::default();
        let mut after = None;
        let mut page = self.store.scan_journals(filter, after, PAGE).await?;
        while let Some((last, _)) = page.last() {
            after = Some(last.number);
            let mut runs = Vec::with_capacity(page.len());
            for (entry, journal) in page {
                // Forgotten meanwhile: there is nothing to check.
                let Some(journal) = readable(journal)? else {
                    continue;
                };
                let started = match &journal {
                    Ok(journal) => journal.definition(),
                    Err((_, before)) => before.definition(),
                };
                let graph = match started {
                    Some(started) => graphs.of(&*self.store, started).await?,
                    None => None,
                };
                runs.push((entry, journal, graph));
            }
            let looking = tokio::task::spawn_blocking(move || look_at(&runs));
            page = self.store.scan_journals(filter, after, PAGE).await?;
            let looked = looking
                .await
                .map_err(|error| StoreError::failed("checking journals", error))?;
            done.runs += looked.runs;
            done.open += looked.open;
            done.records += looked.records;
            for findings in looked.findings {
                done.bad_runs += 1;
                done.findings += findings.len() as u64;
                findings.iter().for_each(&mut found);
            }
            progress(&done);
        }
        if *filter == RunFilter::all() {
            for what in self.store.oddities().await? {
                done.findings += 1;
                let (run, kind) = (None, FindingKind::Store);
                found(&Finding { run, kind, what });
            }
        }
        Ok(done)
    }
}

impl Operator {
    /// Checks one run; nothing where there is no such run.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn verify_run(&self, run: &RunId) -> Result<Option<Vec<Finding>>, StoreError> {
        // Its list entry and its journal are of one moment, as for all.
        let filter = RunFilter::all().prefix(run.as_str());
        let Some(entry) = self.store.find(run).await? else {
            return Ok(None);
        };
        let before = entry.number.checked_sub(1);
        let page = self.store.scan_journals(&filter, before, 1).await?;
        let found = page.into_iter().find(|(found, _)| found.run == *run);
        let Some((entry, journal)) = found else {
            return Ok(None);
        };
        let Some(journal) = readable(journal)? else {
            return Ok(None);
        };
        let started = match &journal {
            Ok(journal) => journal.definition(),
            Err((_, before)) => before.definition(),
        };
        let graph = match started {
            Some(started) => Graphs::default().of(&*self.store, started).await?,
            None => None,
        };
        let looked = look_at(&[(entry, journal, graph)]);
        Ok(Some(looked.findings.into_iter().flatten().collect()))
    }
}

/// A journal, or what is wrong with it and what comes before that.
type Read = Result<Journal, (String, Box<Journal>)>;

fn readable(loaded: Result<Option<Journal>, LoadError>) -> Result<Option<Read>, StoreError> {
    match loaded {
        Ok(journal) => Ok(journal.map(Ok)),
        Err(LoadError::Unreadable {
            seq, what, before, ..
        }) => Ok(Some(Err((
            format!("record {seq} can't be read: {what}"),
            before,
        )))),
        Err(LoadError::Store(error)) => Err(error),
    }
}

/// What a page of runs gave.
#[derive(Default)]
struct Looked {
    runs: u64,
    open: u64,
    records: u64,
    /// Of each run with which something is wrong.
    findings: Vec<Vec<Finding>>,
}

fn look_at(runs: &[(RunEntry, Read, Option<Arc<Graph>>)]) -> Looked {
    let mut looked = Looked::default();
    for (entry, read, graph) in runs {
        looked.runs += 1;
        looked.open += u64::from(!entry.standing.is_end());
        let findings = match read {
            Ok(journal) => {
                looked.records += journal.records.len() as u64;
                inspect(entry, journal, graph.as_deref())
            }
            Err((what, before)) => {
                looked.records += before.records.len() as u64;
                vec![finding(entry, FindingKind::Damaged, what.clone())]
            }
        };
        if !findings.is_empty() {
            looked.findings.push(findings);
        }
    }
    looked
}

fn finding(entry: &RunEntry, kind: FindingKind, what: String) -> Finding {
    let run = Some(entry.run.clone());
    Finding { run, kind, what }
}

/// All that is wrong with a run whose journal could be read.
pub(super) fn inspect(entry: &RunEntry, journal: &Journal, graph: Option<&Graph>) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(started) = started(journal) else {
        let what = "its journal doesn't begin with its start".to_owned();
        return vec![finding(entry, FindingKind::Broken, what)];
    };
    for what in listed_start(entry, journal, started) {
        found.push(finding(entry, FindingKind::List, what));
    }
    let Some(graph) = graph else {
        let (saga, version) = (&started.saga, started.version);
        let what = format!("the store lacks the definition of `{saga}` version {version}");
        found.push(finding(entry, FindingKind::NoDefinition, what));
        return found;
    };
    if let Err(what) = audit::check(graph, journal) {
        found.push(finding(entry, FindingKind::Broken, what));
        // What a journal means that breaks the rules is anybody's guess.
        return found;
    }
    let last = journal.records.last().map(|record| record.at);
    match State::replay(graph, journal.clone()) {
        Err(error) => found.push(finding(entry, FindingKind::Broken, error.to_string())),
        Ok(state) => {
            for what in listed_end(graph, entry, &state, last) {
                found.push(finding(entry, FindingKind::List, what));
            }
        }
    }
    found
}

/// What the list says otherwise than the run's start.
fn listed_start(entry: &RunEntry, journal: &Journal, started: &RunStarted) -> Vec<String> {
    let mut differs = Vec::new();
    let version = journal
        .definition()
        .map_or(started.version, |(_, version, _)| version);
    if (entry.saga.as_str(), entry.version) != (&*started.saga, version) {
        differs.push(format!(
            "it is listed as a run of `{}` version {}, and is one of `{}` version {version}",
            entry.saga, entry.version, started.saga
        ));
    }
    if entry.labels != started.labels {
        differs.push(format!(
            "it is listed with the labels {:?}, and has {:?}",
            entry.labels, started.labels
        ));
    }
    let at = journal.records.first().map(|record| record.at);
    if at != Some(entry.started_at) {
        differs.push(format!(
            "it is listed as started at {}, and was at {}",
            entry.started_at,
            at.unwrap_or_default()
        ));
    }
    differs
}

/// What the list says otherwise than the run's last records.
fn listed_end(
    graph: &Graph,
    entry: &RunEntry,
    state: &State,
    last: Option<crate::Timestamp>,
) -> Vec<String> {
    let mut differs = Vec::new();
    let stands = state.standing(state.rests_until(graph));
    let agrees = match entry.standing {
        // A run that waits is running as far as its journal goes; so is one that was paused while a probe
        // was under way, which no journal has. Whoever takes it up puts the list right.
        Standing::Running => {
            matches!(
                stands,
                Standing::Running | Standing::Waiting { .. } | Standing::Paused
            )
        }
        Standing::Waiting { .. } => {
            matches!(stands, Standing::Running | Standing::Waiting { .. }) && !state.has_in_flight()
        }
        listed => listed == stands,
    };
    if !agrees {
        differs.push(format!(
            "it is listed as {}, and is {stands}",
            entry.standing
        ));
    }
    if stands.is_end() && entry.standing.is_end() && entry.ended_at != last {
        differs.push(format!(
            "it is listed as ended at {}, and did at {}",
            entry.ended_at.unwrap_or_default(),
            last.unwrap_or_default()
        ));
    }
    if stands.is_end() || stands == Standing::Parked {
        // A run of an older schema may have none in the list: it is found by it after its next change.
        let listed = entry.trouble.as_ref();
        let wrong = match (state.trouble(), listed) {
            (TroubleChange::Now(is), Some(listed)) if is != *listed => {
                Some((listed, format!("`{}` with {}", is.step, is.mode)))
            }
            (TroubleChange::Gone, Some(listed)) => Some((listed, "nothing".to_owned())),
            _ => None,
        };
        if let Some((listed, is)) = wrong {
            differs.push(format!(
                "what went wrong is listed as `{}` with {}, and was {is}",
                listed.step, listed.mode
            ));
        }
    }
    differs
}
