//! Every verb at every stage, with real runs: taken or refused as the one table says (rule O1), and where it leads.
//!
//! `docs/verbs.md` has the table; `AMENDS_UPDATE=1` writes it anew.
// Helper functions aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, ResolvedEffect, SkippedEffect, Standing, Verb, VerbName};
use amends::machine::{Refused, Stage, Verdict, verdict};
use amends::policy::Jitter;
use amends::step::Value;
use amends::store::{MemoryStore, Store};
use amends::testkit::{Fault, VirtualClock, World};
use amends::{
    CommandError, Coordinator, Migration, PartialResult, RecoveryPolicy, RecoveryStrategy, Retry,
    RunId, Saga, Timestamp, wait_for,
};

/// Longer than anything that a test waits for before it asks.
const LONG: Duration = Duration::from_secs(1_000);

/// The input of a run that waits for `paid` in the end; others have no use for the signal.
const WAITS: u64 = 2;

/// A run held somewhere.
struct Place {
    name: &'static str,
    stage: Stage,
    /// What goes wrong on the way there.
    faults: fn(World) -> World,
    policy: RecoveryStrategy,
    /// What is said on the way there.
    said: &'static [fn() -> Verb],
    /// How it stands once it is there.
    standing: Standing,
    /// Where each verb that is taken leads: how the run stands in the end, and which effects do.
    leads_to: &'static [(VerbName, &'static str)],
}

/// `reserve`; then `charge` and `pack` side by side; then `ship`; then perhaps a wait for `paid`.
fn order(world: &World, policy: RecoveryStrategy) -> Saga<u64, String> {
    version(world, policy, 1, "ship")
}

/// The same, with its last step called otherwise.
fn version(world: &World, policy: RecoveryStrategy, version: u32, ship: &str) -> Saga<u64, String> {
    let slow = |most| {
        Retry::constant()
            .initial(LONG)
            .jitter(Jitter::None)
            .max_attempts(most)
    };
    let mut saga = Saga::builder::<u64>("order").policy(RecoveryPolicy::new("table", policy));
    saga = saga.version(version);
    let n = saga.input();
    let reserve = saga.add(world.step::<u64>("reserve"), n);
    let charge = world
        .step::<String>("charge")
        .retry(slow(2))
        .timeout(10 * LONG);
    let charge = charge
        .compensation_retry(slow(2))
        .compensation_timeout(10 * LONG);
    let charge = saga.add(charge, reserve);
    let pack = saga.add(world.step::<String>("pack").retry(Retry::none()), reserve);
    let ship = world.step::<(String, String)>(ship).retry(Retry::none());
    let ship = saga.add(ship, (charge, pack));
    let waits = n.map(|n| *n == WAITS);
    saga.add(wait_for::<u64>("paid").after(ship).only_if(waits), ());
    saga.returns(ship).unwrap()
}

fn places() -> Vec<Place> {
    use VerbName::{
        Abandon, Cancel, Compensate, MarkCompensated, Pause, Resolve, Resume, Retry, Signal, Skip,
    };

    let manual = RecoveryStrategy::Manual;
    let back = RecoveryStrategy::Compensate;
    vec![
        Place {
            name: "forward, an attempt in flight",
            stage: Stage::Forward,
            faults: |world| world.fail_at("charge", 1, Fault::Slow(LONG)),
            policy: manual,
            said: &[],
            standing: Standing::Running,
            leads_to: &[
                (Cancel, "compensated: "),
                (Signal, "completed: reserve pack charge ship"),
                (Pause, "paused: reserve pack charge"),
                (Abandon, "abandoned: reserve pack charge"),
            ],
        },
        Place {
            name: "forward, a retry sleeps",
            stage: Stage::Forward,
            faults: |world| world.fail_at("charge", 1, Fault::NotDone),
            policy: manual,
            said: &[],
            standing: Standing::Running,
            leads_to: &[
                (Cancel, "compensated: "),
                (Signal, "completed: reserve pack charge ship"),
                (Pause, "paused: reserve pack"),
                (Abandon, "abandoned: reserve pack"),
            ],
        },
        Place {
            name: "forward, it waits for the signal",
            stage: Stage::Forward,
            faults: |world| world,
            policy: manual,
            said: &[],
            standing: Standing::Waiting {
                until: Timestamp::NEVER,
            },
            leads_to: &[
                (Cancel, "compensated: "),
                (Signal, "completed: reserve charge pack ship"),
                (Pause, "paused: reserve charge pack ship"),
                (Abandon, "abandoned: reserve charge pack ship"),
            ],
        },
        Place {
            name: "settling",
            stage: Stage::Settling,
            faults: |world| {
                world
                    .fail_at("charge", 1, Fault::Slow(LONG))
                    .fail_at("pack", 1, Fault::Rejected)
            },
            policy: manual,
            said: &[],
            standing: Standing::Running,
            leads_to: &[
                (Cancel, "compensated: "),
                (Signal, "parked: reserve charge"),
                (Pause, "parked: reserve charge"),
                (Abandon, "abandoned: reserve charge"),
            ],
        },
        Place {
            name: "undoing, an undo in flight",
            stage: Stage::Undoing,
            faults: |world| {
                world.fail_at("ship", 1, Fault::Rejected).fail_undo_at(
                    "charge",
                    1,
                    Fault::Slow(LONG),
                )
            },
            policy: back,
            said: &[],
            standing: Standing::Running,
            leads_to: &[
                (Retry, "compensated: "),
                (Cancel, "compensated: "),
                (Signal, "compensated: "),
                (Pause, "paused: reserve"),
                (Abandon, "abandoned: reserve"),
            ],
        },
        Place {
            name: "undoing, an undo sleeps",
            stage: Stage::Undoing,
            faults: |world| {
                world
                    .fail_at("ship", 1, Fault::Rejected)
                    .fail_undo_at("charge", 1, Fault::NotDone)
            },
            policy: back,
            said: &[],
            standing: Standing::Running,
            leads_to: &[
                (Retry, "compensated: "),
                (Cancel, "compensated: "),
                (Signal, "compensated: "),
                (Pause, "paused: reserve charge"),
                (Abandon, "abandoned: reserve charge"),
            ],
        },
        Place {
            name: "paused going forward",
            stage: Stage::Paused,
            faults: |world| world.fail_at("charge", 1, Fault::NotDone),
            policy: manual,
            said: &[|| Verb::Pause],
            standing: Standing::Paused,
            leads_to: &[
                (Cancel, "paused: reserve pack"),
                (Signal, "paused: reserve pack"),
                (Resume, "completed: reserve pack charge ship"),
                (Abandon, "abandoned: reserve pack"),
            ],
        },
        Place {
            name: "paused settling",
            stage: Stage::Paused,
            faults: |world| {
                world
                    .fail_at("charge", 1, Fault::Slow(LONG))
                    .fail_at("pack", 1, Fault::Rejected)
            },
            policy: back,
            said: &[|| Verb::Pause],
            standing: Standing::Running,
            leads_to: &[
                (Cancel, "paused: reserve charge"),
                (Signal, "paused: reserve charge"),
                (Resume, "compensated: "),
                (Abandon, "abandoned: reserve charge"),
            ],
        },
        Place {
            name: "paused undoing",
            stage: Stage::Paused,
            faults: |world| {
                world.fail_at("ship", 1, Fault::Rejected).fail_undo_at(
                    "charge",
                    1,
                    Fault::Slow(LONG),
                )
            },
            policy: back,
            said: &[|| Verb::Pause],
            standing: Standing::Running,
            leads_to: &[
                (Cancel, "paused: reserve"),
                (Signal, "paused: reserve"),
                (Resume, "compensated: "),
                (Abandon, "abandoned: reserve"),
            ],
        },
        Place {
            name: "given up",
            stage: Stage::GivenUp,
            faults: |world| world.fail_at("charge", 1, Fault::Slow(LONG)),
            policy: manual,
            said: &[|| Verb::Abandon],
            standing: Standing::Running,
            leads_to: &[],
        },
        Place {
            name: "parked",
            stage: Stage::Parked,
            faults: |world| {
                world
                    .fail_at("charge", 1, Fault::LostReply)
                    .fail_at("ship", 1, Fault::Rejected)
                    .fail_at("pack", 1, Fault::Rejected)
            },
            policy: manual,
            said: &[],
            standing: Standing::Parked,
            leads_to: &[
                (Retry, "parked: reserve charge pack"),
                (Compensate, "compensated: "),
                (Cancel, "compensated: "),
                (Skip, "parked: reserve charge"),
                (MarkCompensated, "parked: reserve charge"),
                (Resolve, "parked: reserve charge"),
                (Signal, "parked: reserve charge"),
                (Abandon, "abandoned: reserve charge"),
            ],
        },
        Place {
            name: "parked while being undone",
            stage: Stage::ParkedUndoing,
            faults: |world| {
                world
                    .fail_at("charge", 1, Fault::LostReply)
                    .fail_at("pack", 1, Fault::Rejected)
                    .fail_undo_at("charge", 1, Fault::Rejected)
            },
            policy: back,
            said: &[],
            standing: Standing::Parked,
            leads_to: &[
                (Retry, "compensated: "),
                (Compensate, "compensated: "),
                (Cancel, "compensated: "),
                (MarkCompensated, "parked: reserve charge"),
                (Resolve, "parked: reserve charge"),
                (Signal, "parked: reserve charge"),
                (Abandon, "abandoned: reserve charge"),
            ],
        },
        Place {
            name: "completed",
            stage: Stage::Ended,
            faults: |world| world,
            policy: manual,
            said: &[],
            standing: Standing::Completed,
            leads_to: &[],
        },
        Place {
            name: "compensated",
            stage: Stage::Ended,
            faults: |world| world.fail_at("ship", 1, Fault::Rejected),
            policy: back,
            said: &[],
            standing: Standing::Compensated,
            leads_to: &[],
        },
        Place {
            name: "stopped",
            stage: Stage::Ended,
            faults: |world| world.fail_at("ship", 1, Fault::Stop),
            policy: manual,
            said: &[],
            standing: Standing::Stopped,
            leads_to: &[],
        },
        Place {
            name: "abandoned",
            stage: Stage::Ended,
            faults: |world| world.fail_at("ship", 1, Fault::Rejected),
            policy: manual,
            said: &[|| Verb::Abandon],
            standing: Standing::Abandoned,
            leads_to: &[],
        },
    ]
}

/// The verb as it would be taken wherever its stage takes it.
fn asked(verb: VerbName) -> Verb {
    match verb {
        VerbName::Retry => Verb::Retry {
            strategy: None,
            edits: Vec::new(),
        },
        VerbName::Compensate => Verb::Compensate,
        VerbName::Cancel => Verb::Cancel,
        VerbName::Skip => Verb::Skip {
            step: "pack".to_owned(),
            effect: SkippedEffect::None,
            output: Value::typed(Arc::new("by hand".to_owned())),
        },
        VerbName::MarkCompensated => Verb::MarkCompensated {
            step: "charge".to_owned(),
        },
        VerbName::Resolve => Verb::Resolve {
            step: "charge".to_owned(),
            effect: ResolvedEffect::NotDone,
        },
        VerbName::Signal => Verb::Signal {
            name: "paid".to_owned(),
            payload: Value::typed(Arc::new(1_u64)),
        },
        VerbName::Pause => Verb::Pause,
        VerbName::Resume => Verb::Resume,
        VerbName::Abandon => Verb::Abandon,
        VerbName::Migrate => Verb::Migrate { to: None },
        other => panic!("no example of {other}"),
    }
}

/// One run in a world and a store of its own.
struct Held {
    world: World,
    store: Arc<MemoryStore>,
    coordinator: Coordinator,
    saga: Saga<u64, String>,
    run: RunId,
}

impl Held {
    async fn at(place: &Place) -> Held {
        let world = (place.faults)(World::new());
        let saga = order(&world, place.policy);
        let store = Arc::new(MemoryStore::new());
        let coordinator = Coordinator::builder_shared(store.clone())
            .clock(VirtualClock::new())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = RunId::new("order-1");
        let waits = matches!(place.standing, Standing::Waiting { .. });
        let input = if waits { WAITS } else { 1 };
        coordinator.start(&saga, run.clone(), input).await.unwrap();
        tokio::time::sleep(LONG / 10).await;
        let held = Held {
            world,
            store,
            coordinator,
            saga,
            run,
        };
        for verb in place.said {
            held.coordinator
                .command(&held.command(verb()))
                .await
                .unwrap();
            tokio::time::sleep(LONG / 10).await;
        }
        held
    }

    fn command(&self, verb: Verb) -> Command {
        Command::new(self.run.clone(), verb)
            .by("ann")
            .reason("because")
    }

    async fn partial(&self) -> PartialResult {
        self.coordinator.get(&self.run).await.unwrap().unwrap()
    }

    /// The journal as it would be written, record by record.
    async fn journal(&self) -> Vec<String> {
        let journal = self.store.load(&self.run).await.unwrap().unwrap();
        let steps = journal.steps;
        let records = journal.records.into_iter().map(|record| {
            let name = |step| steps.name(step).to_string();
            let mut line = format!("{} {} {:?}", record.seq, record.at, record.append_id);
            for event in record.events {
                let event = event.map_step(name);
                write!(line, " {}", serde_json::to_string(&event).unwrap()).unwrap();
            }
            line
        });
        records.collect()
    }

    /// How the run stands once nothing happens any more, and which effects do.
    async fn at_rest(&self) -> String {
        tokio::time::sleep(100 * LONG).await;
        let standing = self.partial().await.standing;
        format!("{standing}: {}", self.world.standing().join(" "))
    }
}

#[tokio::test(start_paused = true)]
async fn every_verb_at_every_stage_is_taken_or_refused_as_the_table_says() {
    let places = places();
    let mut cells = 0;
    for place in &places {
        let legal: Vec<VerbName> = place.leads_to.iter().map(|(verb, _)| *verb).collect();
        for verb in VerbName::ALL {
            let cell = format!("{verb} of a run that is {}", place.name);
            let held = Held::at(place).await;
            let partial = held.partial().await;
            assert_eq!(partial.standing, place.standing, "{cell}");
            assert_eq!(partial.legal, legal, "{cell}");
            let before = held.journal().await;
            let command = held.command(asked(verb));
            let told = held.coordinator.command(&command).await;
            cells += 1;
            match verdict(verb, place.stage) {
                // Where the code of the run is, nothing is to be migrated.
                Verdict::Taken(_) if verb == VerbName::Migrate => {
                    let Err(CommandError::Refused {
                        why, legal: takes, ..
                    }) = told
                    else {
                        panic!("{cell} is taken: {told:?}")
                    };
                    assert!(matches!(why, Refused::Unavailable(_)), "{cell}: {why}");
                    assert_eq!(takes, legal, "{cell}");
                    assert_eq!(held.journal().await, before, "{cell}");
                    migrated(held, place, &command, &cell).await;
                }
                Verdict::Taken(_) => {
                    assert!(told.is_ok(), "{cell}: {told:?}");
                    let after = held.journal().await;
                    assert_eq!(after[..before.len()], before, "{cell}");
                    let record = after[before.len()..]
                        .iter()
                        .find(|record| record.contains(&command.token))
                        .unwrap_or_else(|| panic!("{cell}: not in the journal"));
                    assert!(
                        record.contains(r#""by":"ann","reason":"because""#),
                        "{cell}: {record}"
                    );
                    let (_, leads_to) = place
                        .leads_to
                        .iter()
                        .find(|(taken, _)| *taken == verb)
                        .unwrap();
                    assert_eq!(held.at_rest().await, *leads_to, "{cell}");
                }
                Verdict::Refused(why) => {
                    let Err(CommandError::Refused {
                        why: told,
                        legal: takes,
                        ..
                    }) = told
                    else {
                        panic!("{cell} is taken: {told:?}")
                    };
                    let expected = match place.stage {
                        Stage::Ended => Refused::Ended,
                        stage => Refused::NotNow { verb, stage, why },
                    };
                    assert_eq!(told, expected, "{cell}");
                    assert_eq!(takes, legal, "{cell}");
                    // A byte for byte comparison: not even a claim was written.
                    assert_eq!(held.journal().await, before, "{cell}");
                }
            }
        }
    }
    assert_eq!(cells, places.len() * VerbName::ALL.len());
    for stage in Stage::ALL {
        assert!(
            places.iter().any(|place| place.stage == stage),
            "no run is {stage}"
        );
    }
}

/// The next coordinator has no code for the run, but a migration to what it has: then the run is parked.
async fn migrated(held: Held, place: &Place, command: &Command, cell: &str) {
    let Held {
        world,
        store,
        coordinator,
        ..
    } = held;
    drop(coordinator);
    tokio::time::sleep(LONG / 10).await;
    let saga = version(&world, place.policy, 2, "send");
    let next = Coordinator::builder_shared(store.clone())
        .clock(VirtualClock::new())
        .register(&saga)
        .migrate(Migration::from_version(1).to(&saga).rename("ship", "send"));
    let next = next.build().await.unwrap();
    assert_eq!(next.all_resumed().await, 0, "{cell}");
    let told = next.command(command).await;
    assert!(told.is_ok(), "{cell}: {told:?}");
    let held = Held {
        world,
        store,
        coordinator: next,
        saga,
        run: command.run.clone(),
    };
    let partial = held.partial().await;
    assert_eq!(
        (partial.version, partial.standing),
        (2, Standing::Parked),
        "{cell}"
    );
    let journal = held.journal().await;
    let record = journal.last().unwrap();
    for word in [
        command.token.as_str(),
        r#""migrated":"#,
        r#""by":"ann","reason":"because""#,
    ] {
        assert!(record.contains(word), "{cell}: {record}");
    }
    assert!(held.at_rest().await.starts_with("parked: "), "{cell}");
}

#[tokio::test(start_paused = true)]
async fn what_a_paused_run_was_told_it_does_once_it_is_resumed() {
    for place in places() {
        for (verb, leads_to) in place
            .leads_to
            .iter()
            .filter(|(_, to)| to.starts_with("paused"))
        {
            let held = Held::at(&place).await;
            held.coordinator
                .command(&held.command(asked(*verb)))
                .await
                .unwrap();
            assert_eq!(held.at_rest().await, *leads_to);
            // Nobody drives it, and the next coordinator leaves it alone, too.
            assert_eq!(held.coordinator.driving(), 0);
            let next = Coordinator::builder_shared(held.store.clone())
                .clock(VirtualClock::new())
                .register(&held.saga)
                .build()
                .await
                .unwrap();
            assert_eq!(next.all_resumed().await, 0);
            let before = held.journal().await;
            tokio::time::sleep(LONG).await;
            assert_eq!(held.journal().await, before);
            held.coordinator
                .command(&held.command(Verb::Resume))
                .await
                .unwrap();
            let undone = *verb == VerbName::Cancel || place.policy == RecoveryStrategy::Compensate;
            let resumed = place
                .leads_to
                .iter()
                .find(|(verb, _)| *verb == VerbName::Resume);
            let end = if let (VerbName::Signal, Some((_, end))) = (verb, resumed) {
                // Nothing waits for it, so the run does what it would have done without.
                (*end).to_owned()
            } else if let Standing::Waiting { .. } = place.standing {
                leads_to.replace("paused", "waiting")
            } else if undone {
                "compensated: ".to_owned()
            } else {
                let ship = leads_to.replace("paused", "completed");
                let charge = if ship.contains("charge") {
                    ""
                } else {
                    " charge"
                };
                format!("{ship}{charge} ship")
            };
            assert_eq!(
                held.at_rest().await,
                end,
                "{verb} of a run that is {}",
                place.name
            );
        }
    }
}

/// A table of what is taken, and for each verb what it does or why it is refused.
fn rendered() -> String {
    let mut page = String::from("| Verb |");
    for stage in Stage::ALL {
        write!(page, " {stage} |").unwrap();
    }
    writeln!(page, "\n|---|{}", "---|".repeat(Stage::ALL.len())).unwrap();
    for verb in VerbName::ALL {
        write!(page, "| `{verb}` |").unwrap();
        for stage in Stage::ALL {
            let taken = match verdict(verb, stage) {
                Verdict::Taken(_) => "**taken**",
                Verdict::Refused(_) => "refused",
            };
            write!(page, " {taken} |").unwrap();
        }
        page.push('\n');
    }
    page.push_str("\n| Verb | Stage | What it does, or why it is refused |\n|---|---|---|\n");
    for verb in VerbName::ALL {
        let mut rows: Vec<(Verdict, Vec<Stage>)> = Vec::new();
        // What holds of every verb is said once, below the table.
        let stages = Stage::ALL
            .into_iter()
            .filter(|stage| !matches!(stage, Stage::Ended | Stage::GivenUp));
        for stage in stages {
            let cell = verdict(verb, stage);
            match rows.iter_mut().find(|(same, _)| *same == cell) {
                Some((_, stages)) => stages.push(stage),
                None => rows.push((cell, vec![stage])),
            }
        }
        for (cell, stages) in rows {
            let stages: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
            let cell = match cell {
                Verdict::Taken(what) => what.to_owned(),
                Verdict::Refused(why) => format!("refused: {why}"),
            };
            writeln!(page, "| `{verb}` | {} | {cell} |", stages.join(", ")).unwrap();
        }
    }
    for stage in [Stage::GivenUp, Stage::Ended] {
        let Verdict::Refused(why) = verdict(VerbName::Cancel, stage) else {
            panic!("a run that is {stage} takes something")
        };
        write!(page, "\nA run that is {stage} refuses every verb: {why}.\n").unwrap();
    }
    page
}

#[test]
fn the_page_has_the_table_of_the_code() {
    const BEGIN: &str = "<!-- The table is generated: AMENDS_UPDATE=1 cargo test --features testkit --test verbs_table -->\n";
    const END: &str = "<!-- End of the table. -->\n";
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs/verbs.md"]
        .iter()
        .collect();
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the table's first marker");
    let (table, after) = rest.split_once(END).expect("the table's second marker");
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", rendered())).unwrap();
        return;
    }
    assert_eq!(table, rendered(), "AMENDS_UPDATE=1 writes the table anew");
}

#[test]
fn the_page_has_a_section_for_each_verb() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs/verbs.md"]
        .iter()
        .collect();
    let page = std::fs::read_to_string(path).unwrap();
    let sections: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    let verbs: Vec<&str> = VerbName::ALL.iter().map(|verb| verb.as_str()).collect();
    assert_eq!(sections, verbs);
}
