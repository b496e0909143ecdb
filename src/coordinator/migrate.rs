//! Migrations: checked when a coordinator is built, carried out on a run whose code isn't here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::coordinator::codeless::Codeless;
use crate::coordinator::commands::Told;
use crate::coordinator::error::{BuildError, CommandError, GetError};
use crate::coordinator::migration::Migration;
use crate::coordinator::shared::Registered;
use crate::coordinator::slot::{Asking, Slot};
use crate::coordinator::{Coordinator, Shared};
use crate::ids::RunId;
use crate::journal::{
    AppendId, Event, Migrated, ParkReason, Parking, Record, Standing, Verb, VerbName,
};
use crate::machine::{Refused, Verdict, graph_before, verdict};
use crate::operator::Reading;
use crate::saga::Outline;
use crate::step::StepIx;
use crate::store::{Append, Handling, KnownDefinition, Store};

impl Coordinator {
    /// Has a run go on with another definition of its saga, as a declared [`Migration`] says: one whose
    /// version isn't registered here any more, or was changed. Where migrations to several versions are
    /// declared, the newest counts.
    ///
    /// The run is parked afterwards, whatever it was before: a retry lets it go on. Nothing is called. Its
    /// rounds, outputs and keys stay: what was done is undone under the key that it was done under.
    ///
    /// # Errors
    ///
    /// Where there is no such run, it has ended, its definition is registered here, no migration is declared,
    /// or an effect that stands would lose its undo: then with all that stands in the way.
    pub async fn migrate(
        &self,
        run: &RunId,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), CommandError> {
        let verb = Verb::Migrate { to: None };
        self.ask(run, verb, by, reason).await.map(drop)
    }
}

/// What a coordinator tells its store of the definitions that it has, and of those that it can migrate.
pub(super) async fn known_definitions(
    store: &dyn Store,
    registered: &HashMap<String, BTreeMap<u32, Arc<Registered>>>,
    migrations: &[Migration],
) -> Result<Vec<KnownDefinition>, BuildError> {
    let graphs = registered.values().flat_map(BTreeMap::values);
    let outline = |registered: &Arc<Registered>| Outline::of(&registered.definition.graph);
    let mut known: Vec<KnownDefinition> = graphs
        .map(|registered| KnownDefinition::new(outline(registered), Some(Handling::Runs)))
        .collect();
    if migrations.is_empty() {
        return Ok(known);
    }
    let stored = store.definitions().await?;
    for migration in migrations {
        let graph = &migration.definition().graph;
        let mut faults = Vec::new();
        let here = registered
            .get(&*graph.saga)
            .and_then(|of| of.get(&graph.version));
        if here.is_none_or(|here| here.definition.graph.fingerprint != graph.fingerprint) {
            faults.push("what it leads to is not registered".to_owned());
        }
        let begins: Vec<&Outline> = match migration.outline() {
            Some(outline) => vec![outline],
            None => stored
                .iter()
                .map(|stored| &stored.outline)
                .filter(|outline| migration.is_from(outline))
                .collect(),
        };
        for old in begins {
            let same = |known: &&mut KnownDefinition| {
                let of = &known.outline;
                (&of.saga, of.version, &of.fingerprint)
                    == (&old.saga, old.version, &old.fingerprint)
            };
            let to = Handling::MigratesTo(graph.version);
            match known.iter_mut().find(same) {
                Some(known) => match known.handling {
                    // A version of which the store still has an older structure is not that structure.
                    Some(Handling::Runs) if migration.outline().is_none() => continue,
                    Some(Handling::Runs) => faults.push(
                        "what it leads from is registered: its runs go on as they are".to_owned(),
                    ),
                    Some(Handling::MigratesTo(other)) if other == graph.version => {
                        faults.push("it is declared twice".to_owned());
                    }
                    Some(Handling::MigratesTo(other)) if other > graph.version => {}
                    _ => known.handling = Some(to),
                },
                None => known.push(KnownDefinition::new(old.clone(), Some(to))),
            }
            for fault in migration.faults(old) {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
        if !faults.is_empty() {
            return Err(BuildError::Migration {
                saga: graph.saga.to_string(),
                from: migration.leaves(),
                to: graph.version,
                faults,
            });
        }
    }
    Ok(known)
}

/// Why a run was left as it is.
enum NotMigrated {
    Refused(Refused),
    Get(GetError),
    Closed(String),
}

impl Shared {
    /// The migration that a run of this definition would take.
    fn migration(&self, from: &Outline, to: Option<u32>) -> Option<&Migration> {
        let declared = self.migrations.iter().filter(|migration| {
            migration.is_from(from) && to.is_none_or(|to| migration.to_version() == to)
        });
        declared.max_by_key(|migration| migration.to_version())
    }

    /// What a run takes whose code is not here, of what its state takes.
    pub(super) fn legal_without_code(
        &self,
        run: &Codeless,
        need_no_code: &[VerbName],
    ) -> Vec<VerbName> {
        let mut legal = run.state.legal(&run.graph);
        legal.retain(|verb| need_no_code.contains(verb));
        let takes = verdict(VerbName::Migrate, run.state.stage(&run.graph));
        if matches!(takes, Verdict::Taken(_))
            && self.migration(&Outline::of(&run.graph), None).is_some()
        {
            legal.push(VerbName::Migrate);
        }
        legal
    }

    /// The events that a migration becomes, after the claim where there is one.
    async fn migration_events(
        &self,
        slot: &Arc<Slot>,
        run: &Codeless,
        asking: &Asking,
        to: Option<u32>,
    ) -> Result<Vec<Event<StepIx>>, NotMigrated> {
        let stage = run.state.stage(&run.graph);
        if let Verdict::Refused(why) = verdict(VerbName::Migrate, stage) {
            return Err(NotMigrated::Refused(if run.state.is_ended() {
                Refused::Ended
            } else {
                let verb = VerbName::Migrate;
                Refused::NotNow { verb, stage, why }
            }));
        }
        let from = Outline::of(&run.graph);
        let Some(migration) = self.migration(&from, to) else {
            let (saga, version) = (&from.saga, from.version);
            let to = to.map_or_else(String::new, |to| format!(" to version {to}"));
            return Err(NotMigrated::Refused(Refused::Unavailable(format!(
                "no migration of saga `{saga}` version {version}{to} is declared here"
            ))));
        };
        let new = &migration.definition().graph;
        let moves = migration.moves().clone();
        let (by, reason) = (&asking.by, &asking.reason);
        let to = (new.version, &*new.fingerprint);
        let migrated = Migrated::new(from.clone(), to, moves, by, reason);
        // Judged as a replay will have it, with what the new definition says of its steps.
        let old = graph_before(&migrated, new);
        let read = Reading::of(&*self.store, &slot.run).await;
        let read = read
            .map_err(NotMigrated::Get)?
            .filter(|read| read.last_seq() == run.seq);
        let Some(read) = read else {
            let why = "the run belongs to somebody else".to_owned();
            return Err(NotMigrated::Closed(why));
        };
        let mut folded = read.fold(&old).map_err(NotMigrated::Get)?;
        let mut events = Vec::new();
        events.extend(asking.token.as_deref().map(|token| Event::Commanded {
            token: Arc::from(token),
        }));
        let now = self.clock.now();
        if let Some(claim) = self.claim(&folded) {
            folded.apply(&old, &claim, now);
        }
        if !folded.is_parked() {
            let (saga, version) = (&from.saga, from.version);
            let message = format!("saga `{saga}` version {version} is not registered any more");
            let parking = Parking::new(ParkReason::DefinitionChanged, message);
            let parked = Event::Parked(Box::new(parking));
            folded.apply(&old, &parked, now);
            events.push(parked);
        }
        let mut reasons = migration.faults(&from);
        if reasons.is_empty() {
            reasons = folded.against_migration(&old, new, migration.moves());
        }
        if !reasons.is_empty() {
            let to = new.version;
            return Err(NotMigrated::Refused(Refused::Migration { to, reasons }));
        }
        events.push(Event::Migrated(Box::new(migrated)));
        Ok(events)
    }

    /// Carries a migration out and answers. Says whether the run has its code now.
    pub(super) async fn migrate_without_code(
        &self,
        slot: &Arc<Slot>,
        run: &Codeless,
        asking: Asking,
        to: Option<u32>,
        need_no_code: &[VerbName],
    ) -> bool {
        let closed = |why: String| CommandError::Closed {
            run: slot.run.clone(),
            why,
        };
        let answer = match self.migration_events(slot, run, &asking, to).await {
            Ok(events) => self
                .append_migration(slot, run, events)
                .await
                .map_err(|error| closed(error.to_string())),
            Err(NotMigrated::Refused(why)) => {
                let legal = self.legal_without_code(run, need_no_code);
                Err(CommandError::refused(&slot.run, why, legal))
            }
            Err(NotMigrated::Get(error)) => Err(CommandError::Get(error)),
            Err(NotMigrated::Closed(why)) => Err(closed(why)),
        };
        let migrated = answer.is_ok();
        // Whoever asked may have gone.
        drop(asking.answer.send(answer.map(|()| Told::Done)));
        migrated
    }

    /// One append: after a crash the run is migrated, or it is not.
    async fn append_migration(
        &self,
        slot: &Arc<Slot>,
        run: &Codeless,
        mut events: Vec<Event<StepIx>>,
    ) -> Result<(), crate::store::AppendError> {
        if let Some(claim) = self.claim(&run.state) {
            events.insert(0, claim);
        }
        let record = Record {
            seq: run.seq + 1,
            append_id: AppendId::random(),
            at: self.clock.now(),
            events,
        };
        let table = run.graph.table.clone();
        let append = Append::new(slot.run.clone(), record, table, Standing::Parked);
        self.store.append(append).await?;
        // All versions of a saga are counted together.
        let mut versions = self.definitions.get(&*run.graph.saga).into_iter().flatten();
        if let Some((_, registered)) = versions.next() {
            let mut counts = registered.meters.run(run.state.is_parked());
            counts.durable(true);
        }
        Ok(())
    }
}
