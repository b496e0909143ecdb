//! What a store keeps of a definition whose steps have steps inside, and how a change in there is told.
#![cfg(all(feature = "sqlite", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[path = "diagram/nested.rs"]
mod nested;
#[path = "diagram/scripted.rs"]
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use amends::saga::{OutlineForm, OutlineWait};
use amends::store::{MemoryStore, SqliteStore, Store};
use amends::{Outline, Saga, SagaBuilder, StepSpec, delay, diagram, first_of, step, wait_for};
use nested::{deal, shop};
use scripted::{Cast, Script};

fn cast() -> Cast {
    Cast::new(Script::default())
}

fn work(name: &str) -> StepSpec<u64, u64> {
    cast().step(name)
}

/// A parcel with these steps, each after the one before.
fn parcel(steps: &[&str]) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("parcel");
    let mut last = saga.add(work(steps[0]), saga.input());
    for step in &steps[1..] {
        last = saga.add(work(step), last);
    }
    saga.returns(last).unwrap()
}

fn outline(build: impl FnOnce(&mut SagaBuilder<u64>)) -> Outline {
    let mut saga = Saga::builder::<u64>("s");
    build(&mut saga);
    saga.returns::<()>(()).unwrap().outline()
}

#[tokio::test]
async fn every_store_keeps_and_recalls_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    for (saga, pictured) in [
        (
            shop(&cast()).outline(),
            diagram::text(shop(&cast()).graph()),
        ),
        (
            deal(&cast()).outline(),
            diagram::text(deal(&cast()).graph()),
        ),
    ] {
        let sqlite = SqliteStore::open(&file).unwrap();
        let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(sqlite)];
        for store in &stores {
            store.remember(&saga).await.unwrap();
            let kept = store.recall(&saga.saga, 1, &saga.fingerprint).await;
            assert_eq!(kept.unwrap().as_ref(), Some(&saga));
        }
        for store in stores {
            store.close().await;
        }
        // As it is in the file, opened again.
        let reader = SqliteStore::open_reader(&file).unwrap();
        let kept = reader.recall(&saga.saga, 1, &saga.fingerprint).await;
        let kept = kept.unwrap().unwrap();
        reader.close().await;
        assert_eq!(kept, saga);
        assert!(pictured.contains("inside"));
    }
    let outline = shop(&cast()).outline();
    let form = |name: &str| {
        let step = outline.steps.iter().find(|step| step.name == name).unwrap();
        step.inside.as_ref().map(|inside| inside.gathers)
    };
    assert_eq!(form("carrier"), Some(OutlineForm::FirstOf));
    assert_eq!(form("reserve"), Some(OutlineForm::Each));
    assert_eq!(form("pay"), Some(OutlineForm::Fallback));
    assert_eq!(form("insure"), None);
    let waits = outline.steps.iter().filter_map(|step| step.waits);
    assert_eq!(
        waits.collect::<Vec<_>>(),
        [OutlineWait::Signal, OutlineWait::Time]
    );
    let conditional: Vec<&str> = outline
        .steps
        .iter()
        .filter(|step| step.conditional)
        .map(|step| step.name.as_str())
        .collect();
    assert_eq!(conditional, ["insure"]);
    // Three deep: the label of a parcel of all that are shipped.
    let ship = outline
        .steps
        .iter()
        .find(|step| step.name == "ship")
        .unwrap();
    let parcel = ship.inside.as_ref().unwrap().steps[0]
        .inside
        .as_ref()
        .unwrap();
    let label = parcel.steps[1].inside.as_ref().unwrap();
    assert_eq!(
        (
            parcel.saga.as_str(),
            label.gathers,
            label.steps[0].name.as_str()
        ),
        ("parcel", OutlineForm::Each, "label")
    );
}

#[test]
fn a_change_inside_a_step_is_told_with_the_step() {
    let ship = |steps: &[&str]| {
        let parcel = parcel(steps);
        outline(|saga| {
            let n = saga.input();
            let parcels = step("ship", &parcel).for_each();
            saga.add(parcels, n.map(|n| vec![*n]));
        })
    };
    let before = ship(&["pack", "send"]);
    assert_eq!(before.differences(&before), Vec::<String>::new());
    assert_eq!(
        before.differences(&ship(&["pack", "weigh", "send"])),
        [
            "in `ship`: the input of `send` was (pack) and is (weigh)",
            "in `ship`: `send` came after [pack] and comes after [weigh]",
            "in `ship`: step `weigh` is new",
        ]
    );
    assert_eq!(
        before.differences(&ship(&["pack"])),
        ["in `ship`: step `send` is gone"]
    );
}

#[test]
fn a_step_that_becomes_another_kind_of_step_is_told_in_words() {
    let forms = |index: usize| {
        outline(|saga| {
            let n = saga.input();
            match index {
                0 => drop(saga.add(work("x"), n)),
                1 => drop(saga.add(step("x", &parcel(&["pack"])), n)),
                2 => drop(saga.add(work("x").for_each(), n.map(|n| vec![*n]))),
                3 => drop(saga.add(work("x").fallback(work("other")), n)),
                4 => drop(saga.add(first_of("x", [work("a"), work("b")]), n)),
                5 => drop(saga.add(wait_for::<u64>("x"), ())),
                6 => drop(saga.add(delay("x", Duration::from_secs(1)), ())),
                _ => drop(saga.add(work("x").only_if(n.map(|_| true)), n)),
            }
        })
    };
    let told = |from: usize, to: usize| {
        let lines = forms(from).differences(&forms(to));
        let lines = lines.into_iter();
        let form = lines.filter(|line| line.contains(" was ") && !line.contains("input"));
        form.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(0, 1), "`x` was a plain step and is a sub-saga");
    assert_eq!(told(1, 2), "`x` was a sub-saga and is a fan-out");
    assert_eq!(
        told(2, 3),
        "`x` was a fan-out and is a step with a fallback"
    );
    assert_eq!(told(3, 4), "`x` was a step with a fallback and is a race");
    assert_eq!(told(5, 6), "`x` was a wait for a signal and is a delay");
    assert_eq!(told(0, 7), "step `x` was not on a condition and is");
    assert_eq!(
        told(0, 5),
        "step `x` was compensatable and is read-only; `x` was no wait and is a wait for a signal"
    );
    for index in 0..8 {
        let outline = forms(index);
        assert_eq!(outline.differences(&forms(index)), Vec::<String>::new());
        let written = serde_json::to_string(&outline).unwrap();
        let read: Outline = serde_json::from_str(&written).unwrap();
        assert_eq!(read, outline);
    }
}

/// What older versions wrote, they go on to write and to understand.
#[test]
fn an_outline_without_steps_inside_is_written_as_it_always_was() {
    let flat = outline(|saga| {
        let n = saga.input();
        saga.add(work("x"), n);
    });
    let written = serde_json::to_string(&flat).unwrap();
    for new in ["gathers", "inside", "conditional", "waits", "undone_by"] {
        assert!(!written.contains(new), "{written}");
    }
}
