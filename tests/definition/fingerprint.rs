//! The structural fingerprint (rule I2), the outline, and the words for what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends::{
    Node, OnStop, Outline, RecoveryPolicy, Retry, Saga, SagaBuilder, Siblings, SomeNode,
    StepContext, StepSpec, UndoOrder, UndoRule, irreversible_fn, read_only_fn, step_fn,
};

use crate::{builder, built, work};

/// `reserve`, then `charge` and the checkpoint `pack` beside each other, then the pivot `ship`.
fn shop(add: impl FnOnce(&mut SagaBuilder<u64>) -> Option<SomeNode>) -> Saga<u64, (u64, u64)> {
    let mut saga = Saga::builder::<u64>("shop");
    let order = saga.input();
    let reserve = saga.add(count("reserve"), order);
    let charge = saga.add(count("charge"), reserve.map(|n| n + 1));
    let pack = saga.add(count("pack").checkpoint(), reserve);
    let extra = add(&mut saga);
    let mut ship = irreversible_fn(
        "ship",
        async |_: &StepContext, n: &(u64, u64)| Ok(n.0 + n.1),
    )
    .pivot();
    if let Some(extra) = extra {
        ship = ship.after(extra);
    }
    let ship = saga.add(ship, (charge, pack));
    saga.returns((ship, pack)).unwrap()
}

fn count(name: &str) -> StepSpec<u64, u64> {
    step_fn(
        name,
        async |_: &StepContext, n: &u64| Ok(*n),
        async |_, _, _| Ok(()),
    )
}

/// These values are in the journals of users: if this test fails, every run in flight is about to be
/// parked by an upgrade. Change the code, not the values.
#[test]
fn the_fingerprint_of_a_definition_is_the_same_for_ever() {
    assert_eq!(
        shop(|_| None).fingerprint(),
        "46ddc2cdcd432dc63eeb8f6a5addb9e6"
    );
    // Where Rust's own escapes could differ from one compiler to the next.
    assert_eq!(
        built(Saga::builder("é")).fingerprint(),
        "c23a64389142df30d2fa14d39166bf6e"
    );
}

#[test]
fn the_fingerprint_does_not_depend_on_the_order_of_adding_nor_on_settings_and_types() {
    let two = |swap: bool, settings: bool| {
        let mut saga = Saga::builder::<u64>("two");
        if settings {
            saga = saga
                .version(7)
                .siblings(Siblings::Stop {
                    grace: Duration::from_secs(1),
                })
                .undo_order(UndoOrder::Sequential)
                .on_stop(OnStop::Compensate)
                .deadline(Duration::from_secs(60))
                .policy(RecoveryPolicy::by_progress());
        }
        let n = saga.input();
        let named = |name| {
            let step = count(name);
            if settings {
                step.retry(Retry::none())
                    .compensation_retry(Retry::none())
                    .timeout(Duration::from_secs(1))
                    .compensation_timeout(Duration::from_secs(2))
                    .undo_failing(UndoRule::Always)
                    .max_in_flight(3)
                    .atomic()
                    .at_most_once()
            } else {
                step
            }
        };
        let (left, right) = if swap {
            let right = saga.add(named("right"), n);
            (saga.add(named("left"), n), right)
        } else {
            (saga.add(named("left"), n), saga.add(named("right"), n))
        };
        saga.returns::<(u64, u64)>((left, right))
            .unwrap()
            .fingerprint()
            .to_owned()
    };
    let plain = two(false, false);
    assert_eq!(two(true, false), plain);
    assert_eq!(two(false, true), plain);

    // The same structure over another type.
    let mut texts = Saga::builder::<String>("two");
    let text = texts.input();
    let echo = |name| {
        step_fn(
            name,
            async |_: &StepContext, text: &String| Ok(text.clone()),
            async |_, _, _| Ok(()),
        )
    };
    let left = texts.add(echo("left"), text);
    let right = texts.add(echo("right"), text);
    let texts = texts.returns::<(String, String)>((left, right)).unwrap();
    assert_eq!(texts.fingerprint(), plain);
}

#[test]
fn the_fingerprint_changes_with_everything_that_is_structure() {
    type Pair = (u64, u64);
    let both = |name: &str| {
        step_fn(
            name,
            async |_: &StepContext, n: &Pair| Ok(n.0),
            async |_, _, _| Ok(()),
        )
    };
    let define = |saga: &str, with: &dyn Fn(&mut SagaBuilder<u64>) -> Node<u64>| {
        let mut saga = Saga::builder::<u64>(saga);
        let node = with(&mut saga);
        saga.returns::<u64>(node).unwrap().fingerprint().to_owned()
    };
    let first_two = |saga: &mut SagaBuilder<u64>| {
        let n = saga.input();
        (saga.add(count("a"), n), saga.add(count("b"), n))
    };
    let prints: BTreeMap<&str, String> = [
        (
            "plain",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c"), (a, b))
            }),
        ),
        (
            "saga's name",
            define("t", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c"), (a, b))
            }),
        ),
        (
            "step's name",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("d"), (a, b))
            }),
        ),
        (
            "order of wiring",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c"), (b, a))
            }),
        ),
        (
            "map",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c"), (a, b.map(|n| *n)))
            }),
        ),
        (
            "data edge for order edge",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(count("c").after(b), a)
            }),
        ),
        (
            "no edge",
            define("s", &|saga| {
                let (a, _) = first_two(saga);
                saga.add(count("c"), a)
            }),
        ),
        (
            "same node twice",
            define("s", &|saga| {
                let (a, _) = first_two(saga);
                saga.add(both("c"), (a, a))
            }),
        ),
        (
            "pivot",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c").pivot(), (a, b))
            }),
        ),
        (
            "checkpoint",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c").checkpoint(), (a, b))
            }),
        ),
        (
            "read-only",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(
                    read_only_fn("c", async |_: &StepContext, n: &Pair| Ok(n.0)),
                    (a, b),
                )
            }),
        ),
        (
            "irreversible pivot",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(
                    irreversible_fn("c", async |_: &StepContext, n: &Pair| Ok(n.0)).pivot(),
                    (a, b),
                )
            }),
        ),
        (
            "returns another",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(both("c"), (a, b));
                a
            }),
        ),
        (
            "one step more",
            define("s", &|saga| {
                let (a, b) = first_two(saga);
                saga.add(count("e"), b);
                saga.add(both("c"), (a, b))
            }),
        ),
    ]
    .into();
    let distinct: BTreeSet<&String> = prints.values().collect();
    assert_eq!(distinct.len(), prints.len(), "{prints:#?}");
    assert_eq!(prints.len(), 14);
}

/// `returns` is wired like a step: a `map` there counts, its order too.
#[test]
fn the_fingerprint_changes_with_what_is_returned() {
    let returning = |which: u8| {
        let mut saga = Saga::builder::<u64>("s");
        let n = saga.input();
        let a = saga.add(count("a"), n);
        let saga = match which {
            0 => saga.returns::<(u64, u64)>((a, n)),
            1 => saga.returns::<(u64, u64)>((n, a)),
            _ => saga.returns::<(u64, u64)>((a.map(|n| *n), n)),
        };
        saga.unwrap()
    };
    let (one, two, three) = (returning(0), returning(1), returning(2));
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_ne!(one.fingerprint(), three.fingerprint());
    assert_ne!(two.fingerprint(), three.fingerprint());
    assert_eq!(
        one.outline().differences(&two.outline()),
        ["what `returns` gives is wired otherwise"]
    );
}

/// A step that is called `input`, and one whose name looks like a `map`, must not pass for what they are not.
#[test]
fn names_that_look_like_wiring_do_not_deceive_the_fingerprint() {
    let by_data = {
        let mut saga = builder();
        let step = saga.add(work("input"), ());
        saga.add(work("next"), step);
        built(saga)
    };
    let by_order = {
        let mut saga = builder();
        let step = saga.add(work("input"), ());
        let input = saga.input();
        saga.add(work("next").after(step), input);
        built(saga)
    };
    assert_ne!(by_data.fingerprint(), by_order.fingerprint());
    assert_eq!(by_data.outline().steps[1].wired, [r#""input""#]);
    assert_eq!(by_order.outline().steps[1].wired, ["input"]);

    let mapped = |crossed: bool| {
        let mut saga = builder();
        let a = saga.add(work("a"), ());
        let named = saga.add(work("map(a)"), ());
        if crossed {
            saga.add(work("next").after(named), a.map(|()| ()));
        } else {
            saga.add(work("next").after(a), named);
        }
        built(saga)
    };
    assert_ne!(mapped(true).fingerprint(), mapped(false).fingerprint());
}

#[test]
fn an_outline_survives_its_written_form() {
    let outline = shop(|_| None).outline();
    let written = serde_json::to_string_pretty(&outline).unwrap();
    assert_eq!(serde_json::from_str::<Outline>(&written).unwrap(), outline);
    assert_eq!(
        serde_json::to_string(&outline.steps).unwrap(),
        concat!(
            r#"[{"name":"reserve","kind":"compensatable","wired":["input"],"dependencies":[]},"#,
            r#"{"name":"charge","kind":"compensatable","wired":["map(reserve)"],"dependencies":["reserve"]},"#,
            r#"{"name":"pack","kind":"compensatable","wired":["reserve"],"dependencies":["reserve"],"checkpoint":true},"#,
            r#"{"name":"ship","kind":"irreversible","wired":["charge","pack"],"dependencies":["charge","pack"],"pivot":true}]"#,
        )
    );
    assert_eq!((outline.saga.as_str(), outline.version), ("shop", 1));
    assert_eq!(outline.fingerprint, shop(|_| None).fingerprint());
}

#[test]
fn differences_between_outlines_are_told_in_words() {
    let before = shop(|_| None).outline();
    assert_eq!(before.differences(&before), Vec::<String>::new());

    let with_extra = shop(|saga| Some(saga.add(work("sign"), ()).into())).outline();
    assert_eq!(
        before.differences(&with_extra),
        [
            "`ship` came after [charge, pack] and comes after [charge, pack, sign]",
            "step `sign` is new",
        ]
    );
    assert_eq!(
        with_extra.differences(&before),
        [
            "`ship` came after [charge, pack, sign] and comes after [charge, pack]",
            "step `sign` is gone",
        ]
    );

    let mut changed = Saga::builder::<u64>("shop");
    let order = changed.input();
    let reserve = changed.add(
        read_only_fn("reserve", async |_: &StepContext, n: &u64| Ok(*n)),
        order,
    );
    let charge = changed.add(count("charge").checkpoint().pivot(), reserve);
    let pack = changed.add(count("pack").after(charge), reserve);
    let ship = changed.add(
        irreversible_fn("ship", async |_: &StepContext, n: &(u64, u64)| Ok(n.0)),
        (charge, pack),
    );
    let changed = changed
        .returns::<(u64, u64)>((ship, pack))
        .unwrap()
        .outline();
    assert_eq!(
        before.differences(&changed),
        [
            "the input of `charge` was (map(reserve)) and is (reserve)",
            "step `charge` was not the pivot and is",
            "step `charge` was not a checkpoint and is",
            "`pack` came after [reserve] and comes after [charge, reserve]",
            "step `pack` was a checkpoint and is not",
            "step `reserve` was compensatable and is read-only",
            "step `ship` was the pivot and is not",
        ]
    );

    let renamed = Outline {
        saga: "store".to_owned(),
        ..before.clone()
    };
    assert_eq!(
        before.differences(&renamed),
        ["the saga was `shop` and is `store`"]
    );
}
