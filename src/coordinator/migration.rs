//! What a binary declares about runs of a definition that it hasn't any more.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::journal::StepMoves;
use crate::saga::{Definition, Outline, OutlineForm, OutlineStep, Saga, StepKind};

/// How runs of one definition of a saga go on with another one of it.
///
/// It is declared when a coordinator is built ([`CoordinatorBuilder::migrate`](crate::CoordinatorBuilder::migrate)),
/// and carried out run by run, by [`Coordinator::migrate`](crate::Coordinator::migrate) or the verb
/// `migrate`. Steps are matched by their names; here is said what names alone don't tell.
/// See `docs/evolution.md`.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Migration, Saga, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("sale").version(2);
/// let n = saga.input();
/// let paid = saga.add(step_fn("charge-card", async |_cx, n: &u64| Ok(*n), async |_cx, _n, _effect| Ok(())), n);
/// let saga = saga.returns(paid)?;
///
/// // Version 1 had `charge`, and then `log-it`.
/// let migration = Migration::from_version(1).to(&saga).rename("charge", "charge-card").drop("log-it");
/// let store = MemoryStore::new();
/// let coordinator = Coordinator::builder(store).register(&saga).migrate(migration).build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a migration does nothing until a coordinator is told of it"]
pub struct Migration {
    from: Origin,
    definition: Arc<Definition>,
    moves: StepMoves,
    /// What can't be said in a map any more.
    said_twice: Vec<String>,
}

/// Where a [`Migration`] begins.
#[derive(Clone, Debug)]
#[must_use = "a migration has to say where it goes to"]
pub struct MigrationFrom(Origin);

#[derive(Clone, Debug)]
enum Origin {
    /// Whatever structures a store knows of this version.
    Version(u32),
    /// This structure and no other.
    Outline(Box<Outline>),
}

impl Migration {
    /// A migration of the runs of this version, as the store knows its structure. Where a store knows
    /// several, because the version was changed under one number, each has to fit: else declare one for
    /// each [outline](Self::from_outline).
    pub fn from_version(version: u32) -> MigrationFrom {
        MigrationFrom(Origin::Version(version))
    }

    /// A migration of the runs of exactly this definition, as the binary before had it: outlines can be
    /// written down as JSON. It is checked even where a store knows nothing of it.
    pub fn from_outline(outline: &Outline) -> MigrationFrom {
        MigrationFrom(Origin::Outline(Box::new(outline.clone())))
    }

    /// This old step has another name now. What is inside of it (`old/..`, `old[3]`) goes along.
    pub fn rename(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        let (old, new) = (old.into(), new.into());
        if let Some(before) = self.moves.renamed.insert(old.clone(), new.clone())
            && before != new
        {
            self.said_twice.push(format!(
                "`{old}` is renamed twice, to `{before}` and to `{new}`"
            ));
        }
        self
    }

    /// This old step is no more. A run in which its effect stands is not migrated.
    pub fn drop(mut self, old: impl Into<String>) -> Self {
        self.moves.dropped.push(old.into());
        self
    }

    pub(super) fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    pub(super) fn to_version(&self) -> u32 {
        self.definition.graph.version
    }

    pub(super) fn moves(&self) -> &StepMoves {
        &self.moves
    }

    /// The structure that it begins at, where it says.
    pub(super) fn outline(&self) -> Option<&Outline> {
        match &self.from {
            Origin::Outline(outline) => Some(outline),
            Origin::Version(_) => None,
        }
    }

    pub(super) fn leaves(&self) -> u32 {
        match &self.from {
            Origin::Outline(outline) => outline.version,
            Origin::Version(version) => *version,
        }
    }

    /// Whether it is for runs of this definition.
    pub(super) fn is_from(&self, outline: &Outline) -> bool {
        let graph = &self.definition.graph;
        *graph.saga == *outline.saga
            && (graph.version, &*graph.fingerprint) != (outline.version, &*outline.fingerprint)
            && match &self.from {
                Origin::Version(version) => *version == outline.version,
                Origin::Outline(from) => {
                    (from.version, &from.fingerprint) == (outline.version, &outline.fingerprint)
                }
            }
    }

    /// All that is wrong with it for runs of this definition, whatever they have done.
    pub(super) fn faults(&self, old: &Outline) -> Vec<String> {
        let mut faults = self.said_twice.clone();
        let new = Outline::of(&self.definition.graph);
        if old.saga != new.saga {
            faults.push(format!(
                "it leads from saga `{}` to saga `{}`: a run stays one of its saga",
                old.saga, new.saga
            ));
            return faults;
        }
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        let order = add_steps(old, "", &mut before);
        add_steps(&new, "", &mut after);
        for (was, is) in &self.moves.renamed {
            if !before.contains_key(was) {
                faults.push(format!(
                    "`{was}` is renamed, and no step of before is called so"
                ));
            }
            if !after.contains_key(is) {
                faults.push(format!(
                    "`{was}` is renamed to `{is}`, and no step is called so"
                ));
            } else if around(was).map(|of| self.moves.new_name(of))
                != around(is).map(|of| Some(of.to_owned()))
            {
                faults.push(format!(
                    "`{was}` is renamed to `{is}`: a step stays inside of what it is inside of"
                ));
            }
            if self.moves.dropped.contains(was) {
                faults.push(format!("`{was}` is renamed, and dropped"));
            }
        }
        for dropped in &self.moves.dropped {
            if !before.contains_key(dropped) {
                faults.push(format!(
                    "`{dropped}` is dropped, and no step of before is called so"
                ));
            }
        }
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for path in &order {
            let Some(now) = self.moves.new_name(path) else {
                continue;
            };
            match after.get(&now) {
                Some(step) => faults.extend(becomes_another_kind(path, before[path], &now, step)),
                // A name that is given and doesn't exist has been told, and so has what it is inside of.
                None if now == *path && self.is_inside_a_counterpart(path, &before, &after) => {
                    faults.push(format!(
                        "`{now}` has no counterpart: say `.rename(\"{now}\", ..)` or `.drop(\"{now}\")`"
                    ));
                }
                None => {}
            }
            if let Some(other) = taken.insert(now.clone(), path) {
                faults.push(format!("`{other}` and `{path}` both become `{now}`"));
            }
        }
        faults
    }

    /// Whether what a step is inside of is there, and of the same form: else it is that which has changed.
    fn is_inside_a_counterpart(
        &self,
        path: &str,
        before: &BTreeMap<String, &OutlineStep>,
        after: &BTreeMap<String, &OutlineStep>,
    ) -> bool {
        let Some(of) = around(path) else {
            return true;
        };
        let now = self.moves.new_name(of);
        let form = |step: &&OutlineStep| step.inside.as_ref().map(|inside| inside.gathers);
        let was = before.get(of).map(form);
        now.is_some_and(|now| was == after.get(&now).map(form))
    }
}

/// All steps of a definition by their paths, in which all items of a fan-out are one; and their order.
fn add_steps<'a>(
    outline: &'a Outline,
    at: &str,
    steps: &mut BTreeMap<String, &'a OutlineStep>,
) -> Vec<String> {
    let mut order = Vec::new();
    for step in &outline.steps {
        let path = match outline.gathers {
            OutlineForm::Each => format!("{at}[]"),
            _ if at.is_empty() => step.name.clone(),
            _ => format!("{at}/{}", step.name),
        };
        steps.insert(path.clone(), step);
        order.push(path.clone());
        if let Some(inside) = &step.inside {
            order.extend(add_steps(inside, &path, steps));
        }
    }
    order
}

/// The path of what a step is inside of.
fn around(path: &str) -> Option<&str> {
    let end = path.rfind(['/', '['])?;
    Some(&path[..end])
}

/// What a read-only step has read is no effect, and can't be undone as one.
fn becomes_another_kind(
    was: &str,
    old: &OutlineStep,
    is: &str,
    new: &OutlineStep,
) -> Option<String> {
    let turns = old.kind == StepKind::ReadOnly && new.kind != StepKind::ReadOnly;
    turns.then(|| {
        format!(
            "`{was}` is read-only, and `{is}` is {}: what was read would be taken for an effect",
            new.kind
        )
    })
}

impl MigrationFrom {
    /// The definition that the runs go on with. It has to be registered, too.
    pub fn to<I, O>(self, saga: &Saga<I, O>) -> Migration {
        Migration {
            from: self.0,
            definition: Arc::clone(&saga.definition),
            moves: StepMoves::default(),
            said_twice: Vec::new(),
        }
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("saga", &self.definition.graph.saga)
            .field("from", &self.leaves())
            .field("to", &self.to_version())
            .field("moves", &self.moves)
            .finish_non_exhaustive()
    }
}
