//! Which stored runs a binary can finish, and which not.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::journal::{Journal, Standing};
use crate::operator::Operator;
use crate::saga::Outline;
use crate::store::{
    Counts, Handling, KnownDefinition, LoadError, RunEntry, RunFilter, Store, StoreError,
};

/// So many journals are read in one go.
const PAGE: usize = 256;

/// What becomes of the runs of one definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// Its code is here: its runs go on by themselves.
    Finishes,
    /// A migration to this version is declared: each run goes on after the verb `migrate`.
    Migrates {
        /// The version.
        to: u32,
    },
    /// The same version has another structure here: its runs are parked.
    Changed {
        /// What is different, in words.
        differences: Vec<String>,
    },
    /// The version is not here: its runs wait for a coordinator that has it (rule I3).
    NotRegistered {
        /// The versions of the saga that are.
        versions: Vec<u32>,
    },
    /// Nobody has kept its structure, so nothing can be compared: its runs can't be read.
    Unknown,
}

impl Fate {
    /// Whether runs of it go on without anybody's help.
    #[must_use]
    pub fn finishes(&self) -> bool {
        *self == Fate::Finishes
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Finishes => f.write_str("can be finished"),
            Fate::Migrates { to } => write!(f, "a migration to version {to} is declared"),
            Fate::Changed { differences } => {
                write!(
                    f,
                    "changed under the same version: {}",
                    differences.join("; ")
                )
            }
            Fate::NotRegistered { versions } if versions.is_empty() => {
                f.write_str("not registered, and no other version of it is")
            }
            Fate::NotRegistered { versions } => {
                let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
                write!(f, "not registered, only version {}", versions.join(", "))
            }
            Fate::Unknown => f.write_str("its structure is not in the store"),
        }
    }
}

/// One definition in a store, and its open runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DefinitionReport {
    /// Its structural fingerprint; empty where no run's start tells it.
    pub fingerprint: String,
    /// Runs that have not ended.
    pub open: u64,
    /// Those among them that are parked.
    pub parked: u64,
    /// What becomes of them.
    pub fate: Fate,
}

/// One version of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionReport {
    /// The saga.
    pub saga: String,
    /// The version.
    pub version: u32,
    /// Runs that have ended: they need no code any more, so they are not told apart by structure.
    pub ended: u64,
    /// Its structures: one, unless it was changed without another version.
    pub definitions: Vec<DefinitionReport>,
}

/// Which runs of a store can be finished with the definitions that somebody has.
///
/// ```
/// use amends::operator::{Fate, Operator};
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, step_fn};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("count");
/// let n = saga.input();
/// let more = saga.add(step_fn("add-one", async |_cx, n: &u64| Ok(n + 1), async |_cx, _n, _effect| Ok(())), n);
/// let saga = saga.returns(more)?;
/// let store = Arc::new(MemoryStore::new());
/// let coordinator = Coordinator::builder_shared(store.clone()).register(&saga).build().await?;
/// coordinator.start(&saga, "once", 41).await?.outcome().await?;
///
/// let report = coordinator.definitions().await?;
/// assert_eq!(report.versions[0].definitions[0].fate, Fate::Finishes);
/// assert_eq!(report.to_string(), "count version 1: 0 open, 1 ended: can be finished\n");
///
/// // What a binary could finish is known before it is deployed.
/// let next = Operator::new(store).definitions_with(&[]).await?;
/// assert!(!next.versions[0].definitions[0].fate.finishes());
/// assert!(next.all_finish(), "no run is open");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DefinitionsReport {
    /// By saga and version.
    pub versions: Vec<VersionReport>,
}

impl DefinitionsReport {
    /// How many open runs go on without anybody's help.
    #[must_use]
    pub fn finishable(&self) -> u64 {
        self.open_where(Fate::finishes)
    }

    /// How many open runs don't.
    #[must_use]
    pub fn stuck(&self) -> u64 {
        self.open_where(|fate| !fate.finishes())
    }

    /// Whether every open run goes on without anybody's help.
    #[must_use]
    pub fn all_finish(&self) -> bool {
        self.stuck() == 0
    }

    fn open_where(&self, wanted: impl Fn(&Fate) -> bool) -> u64 {
        let definitions = self
            .versions
            .iter()
            .flat_map(|version| &version.definitions);
        definitions
            .filter(|definition| wanted(&definition.fate))
            .map(|definition| definition.open)
            .sum()
    }
}

impl fmt::Display for DefinitionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for version in &self.versions {
            let VersionReport {
                saga,
                version: number,
                ended,
                definitions,
            } = version;
            for definition in definitions {
                write!(f, "{saga} version {number}")?;
                if definitions.len() > 1 {
                    let short: String = definition.fingerprint.chars().take(8).collect();
                    write!(f, " ({short})")?;
                }
                write!(f, ": {} open", definition.open)?;
                if definition.parked > 0 {
                    write!(f, " ({} parked)", definition.parked)?;
                }
                // They are not told apart by structure.
                if definitions.len() == 1 {
                    write!(f, ", {ended} ended")?;
                }
                writeln!(f, ": {}", definition.fate)?;
            }
        }
        Ok(())
    }
}

impl Operator {
    /// Which runs the coordinator can finish that was built last over this store.
    ///
    /// Ended runs are counted from the store's lists; of open runs, journals are read only where one version
    /// has had several structures.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn definitions(&self) -> Result<DefinitionsReport, StoreError> {
        let known = self.store.definitions().await?;
        let mut have = known.clone();
        have.retain(|known| known.handling.is_some());
        report(&*self.store, known, &have).await
    }

    /// Which runs a binary could finish that registers the definitions of these outlines.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn definitions_with(
        &self,
        outlines: &[Outline],
    ) -> Result<DefinitionsReport, StoreError> {
        let have: Vec<KnownDefinition> = outlines
            .iter()
            .map(|outline| KnownDefinition::new(outline.clone(), Some(Handling::Runs)))
            .collect();
        report(&*self.store, self.store.definitions().await?, &have).await
    }
}

/// The report of a store over what somebody has.
pub(crate) async fn report(
    store: &dyn Store,
    mut known: Vec<KnownDefinition>,
    have: &[KnownDefinition],
) -> Result<DefinitionsReport, StoreError> {
    let counts = store.counts().await?;
    // What was never deployed here is told, too: its runs could be finished if there were any.
    for one in have {
        if known.iter().all(|known| known.key() != one.key()) {
            known.push(one.clone());
        }
    }
    let mut versions: BTreeMap<(String, u32), BTreeMap<String, Option<Outline>>> = BTreeMap::new();
    for KnownDefinition { outline, .. } in known {
        let of_version = versions.entry((outline.saga.clone(), outline.version));
        let fingerprint = outline.fingerprint.clone();
        of_version.or_default().insert(fingerprint, Some(outline));
    }
    for (saga, of_saga) in &counts.versions {
        for version in of_saga.keys() {
            versions.entry((saga.clone(), *version)).or_default();
        }
    }
    let mut report = DefinitionsReport::default();
    for ((saga, version), mut structures) in versions {
        let tally = Tally::of(&counts, &saga, version);
        let open = match structures.len() {
            1 => structures
                .keys()
                .map(|fingerprint| (fingerprint.clone(), (tally.open, tally.parked)))
                .collect(),
            _ if tally.open == 0 => BTreeMap::new(),
            _ => by_structure(store, &saga, version).await?,
        };
        for fingerprint in open.keys() {
            structures.entry(fingerprint.clone()).or_default();
        }
        let definitions = structures.into_iter().map(|(fingerprint, outline)| {
            let (open, parked) = open.get(&fingerprint).copied().unwrap_or_default();
            DefinitionReport {
                fate: fate(outline.as_ref(), &saga, version, &fingerprint, have),
                fingerprint,
                open,
                parked,
            }
        });
        report.versions.push(VersionReport {
            definitions: definitions.collect(),
            ended: tally.ended,
            saga,
            version,
        });
    }
    Ok(report)
}

struct Tally {
    open: u64,
    parked: u64,
    ended: u64,
}

impl Tally {
    fn of(counts: &Counts, saga: &str, version: u32) -> Self {
        let (mut open, mut parked, mut ended) = (0, 0, 0);
        let of_saga = counts.versions.get(saga);
        for (word, runs) in of_saga
            .and_then(|of| of.get(&version))
            .into_iter()
            .flatten()
        {
            match Standing::from_word(word, crate::ids::Timestamp::default()) {
                Some(standing) if standing.is_end() => ended += runs,
                Some(Standing::Parked) => {
                    parked += runs;
                    open += runs;
                }
                _ => open += runs,
            }
        }
        Tally {
            open,
            parked,
            ended,
        }
    }
}

/// Open runs and parked ones among them, by the fingerprint that their journals say.
async fn by_structure(
    store: &dyn Store,
    saga: &str,
    version: u32,
) -> Result<BTreeMap<String, (u64, u64)>, StoreError> {
    let filter = RunFilter::open().saga(saga);
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.scan_journals(&filter, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.number);
        for (entry, journal) in page {
            if entry.version == version {
                let fingerprint = fingerprint(&entry, journal)?;
                let (open, parked) = found.entry(fingerprint).or_default();
                *open += 1;
                *parked += u64::from(entry.standing == Standing::Parked);
            }
        }
    }
}

/// Nothing where the journal doesn't tell, because it is damaged, or was forgotten meanwhile.
fn fingerprint(
    _: &RunEntry,
    journal: Result<Option<Journal>, LoadError>,
) -> Result<String, StoreError> {
    let of = |journal: &Journal| {
        let definition = journal.definition();
        definition.map_or_else(String::new, |(_, _, fingerprint)| fingerprint.to_owned())
    };
    match journal {
        Ok(journal) => Ok(journal.as_ref().map(of).unwrap_or_default()),
        Err(LoadError::Unreadable { before, .. }) => Ok(of(&before)),
        Err(LoadError::Store(error)) => Err(error),
    }
}

fn fate(
    outline: Option<&Outline>,
    saga: &str,
    version: u32,
    fingerprint: &str,
    have: &[KnownDefinition],
) -> Fate {
    let of_saga = || have.iter().filter(|have| have.outline.saga == saga);
    let exact = of_saga()
        .find(|have| have.outline.version == version && have.outline.fingerprint == fingerprint);
    match exact.and_then(|exact| exact.handling) {
        Some(Handling::Runs) => return Fate::Finishes,
        Some(Handling::MigratesTo(to)) => return Fate::Migrates { to },
        None => {}
    }
    let Some(outline) = outline else {
        return Fate::Unknown;
    };
    let runs = || of_saga().filter(|have| have.handling == Some(Handling::Runs));
    match runs().find(|have| have.outline.version == version) {
        Some(other) => Fate::Changed {
            differences: outline.differences(&other.outline),
        },
        None => Fate::NotRegistered {
            versions: runs().map(|have| have.outline.version).collect(),
        },
    }
}
