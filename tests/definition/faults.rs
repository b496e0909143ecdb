//! Every fault alone, all of them at once, and what is unusual but sound.

use std::time::Duration;

use amends::{
    Fault, Probe, Probed, RecoveryPolicy, Retry, Saga, SagaBuilder, SomeNode, StepContext,
    StepError, StepKind, UndoRule,
};

use crate::{builder, built, look, send, work};

fn faults(builder: SagaBuilder<()>) -> Vec<Fault> {
    builder.returns::<()>(()).unwrap_err().faults().to_vec()
}

/// The definition has this one fault, and these are its words.
#[track_caller]
fn only(builder: SagaBuilder<()>, fault: Fault, words: &str) {
    let found = faults(builder);
    assert_eq!(found, [fault]);
    assert_eq!(found[0].to_string(), words);
}

struct AskNobody;

impl Probe for AskNobody {
    type Input = ();
    type Output = ();

    async fn probe(&self, _: &StepContext, (): &()) -> Result<Probed<()>, StepError> {
        Ok(Probed::Unknown)
    }
}

#[test]
fn a_saga_has_a_name() {
    for name in ["", " ", "\u{2003}"] {
        only(
            Saga::builder::<()>(name),
            Fault::SagaWithoutName,
            "the saga's name is empty",
        );
    }
}

#[test]
fn versions_start_at_one() {
    only(
        builder().version(0),
        Fault::VersionZero,
        "version 0: versions start at 1",
    );
}

#[test]
fn a_step_without_a_name_is_told_by_its_position() {
    let mut saga = builder();
    saga.add(work("first"), ());
    saga.add(work(" "), ());
    only(
        saga,
        Fault::StepWithoutName { position: 2 },
        "step 2: the name is empty",
    );
}

#[test]
fn a_name_is_taken_once() {
    let mut saga = builder();
    for name in ["pay", "ship", "pay", "pay"] {
        saga.add(work(name), ());
    }
    only(
        saga,
        Fault::DuplicateName {
            step: "pay".to_owned(),
            times: 3,
        },
        "`pay`: 3 steps have this name",
    );
}

#[test]
fn names_have_no_characters_that_spell_paths_or_cannot_be_read() {
    for (name, character, words) in [
        ("a/b", '/', r#""a/b": a name may not contain '/'"#),
        ("a[1", '[', r#""a[1": a name may not contain '['"#),
        ("a]", ']', r#""a]": a name may not contain ']'"#),
        ("a\nb/", '\n', r#""a\nb/": a name may not contain '\n'"#),
        (
            "a\u{7f}",
            '\u{7f}',
            r#""a\u{7f}": a name may not contain '\u{7f}'"#,
        ),
    ] {
        let mut saga = builder();
        saga.add(work(name), ());
        let step = name.to_owned();
        only(saga, Fault::BadName { step, character }, words);
    }
}

#[test]
fn the_name_of_a_saga_may_have_slashes_but_no_control_characters() {
    assert_eq!(
        built(Saga::builder("shop/order[1]")).name(),
        "shop/order[1]"
    );
    only(
        Saga::builder("a\tb"),
        Fault::BadName {
            step: "a\tb".to_owned(),
            character: '\t',
        },
        r#""a\tb": a name may not contain '\t'"#,
    );
}

#[test]
fn a_name_has_255_bytes_at_most() {
    let long = "é".repeat(128);
    let words = format!(
        "`{}..`: the name has 256 bytes, and 255 is the most",
        "é".repeat(32)
    );
    let fault = Fault::LongName {
        step: long.clone(),
        bytes: 256,
    };
    let mut saga = builder();
    saga.add(work(&long), ());
    only(saga, fault.clone(), &words);
    only(Saga::builder(long.as_str()), fault, &words);

    let longest = "x".repeat(255);
    let mut saga = Saga::builder(longest.as_str());
    saga.add(work(&longest), ());
    assert_eq!(built(saga).graph().steps()[0].name(), longest);
}

#[test]
fn ten_thousand_steps_are_fine_and_more_than_a_hundred_thousand_are_refused() {
    let chain = |length: usize| {
        let mut saga = builder();
        let mut last: SomeNode = saga.input().into();
        for index in 0..length {
            last = saga.add(work(&index.to_string()).after(last), ()).into();
        }
        saga
    };
    assert_eq!(built(chain(10_000)).graph().steps().len(), 10_000);
    only(
        chain(100_001),
        Fault::TooManySteps {
            steps: 100_001,
            most: 100_000,
        },
        "100001 steps: 100000 is the most",
    );
}

#[test]
fn a_node_of_another_builder_is_found_wherever_it_is_used() {
    let mut other = builder();
    let stranger = other.add(work("stranger"), ());
    let fault = |step: &str, role| Fault::ForeignNode {
        step: step.to_owned(),
        role,
    };

    let mut saga = builder();
    saga.add(work("pay"), stranger);
    only(
        saga,
        fault("pay", "one of its inputs"),
        "`pay`: one of its inputs is a node of another builder",
    );

    let mut saga = builder();
    saga.add(work("pay"), stranger.map(|()| ()));
    assert_eq!(faults(saga), [fault("pay", "one of its inputs")]);

    let mut saga = builder();
    saga.add(work("pay"), other.input());
    assert_eq!(faults(saga), [fault("pay", "one of its inputs")]);

    let mut saga = builder();
    saga.add(work("pay").after(stranger), ());
    only(
        saga,
        fault("pay", "one of its `after`s"),
        "`pay`: one of its `after`s is a node of another builder",
    );

    let error = builder().returns::<()>(stranger).unwrap_err();
    assert_eq!(error.faults(), [fault("returns", "one of its nodes")]);
    assert_eq!(
        error.to_string(),
        "the definition of saga `saga` has 1 fault:\n\
         - `returns`: one of its nodes is a node of another builder"
    );
}

#[test]
fn there_is_one_point_of_no_return_at_most() {
    let mut saga = builder();
    let pay = saga.add(work("pay").pivot(), ());
    saga.add(send("ship").pivot().after(pay), ());
    saga.add(send("mail"), ());
    only(
        saga,
        Fault::ManyPivots {
            steps: vec!["pay".to_owned(), "ship".to_owned()],
        },
        "2 steps are marked as the pivot (`pay`, `ship`): a saga has one point of no return at most",
    );
}

#[test]
fn what_changes_nothing_is_not_the_point_of_no_return() {
    let mut saga = builder();
    saga.add(look("look").pivot(), ());
    only(
        saga,
        Fault::ReadOnlyPivot {
            step: "look".to_owned(),
        },
        "`look` is read-only and can't be the pivot: it changes nothing",
    );
}

#[test]
fn nothing_irreversible_runs_before_the_point_of_no_return() {
    let fault = |why: &str| Fault::IrreversibleBeforePivot {
        step: "mail".to_owned(),
        why: why.to_owned(),
    };
    let cure = "mark it `.pivot()`, or let it come `.after(..)` the pivot";

    let mut saga = builder();
    saga.add(send("mail"), ());
    only(
        saga,
        fault("this saga has no pivot"),
        &format!("`mail` is irreversible, and this saga has no pivot: {cure}"),
    );

    let mut saga = builder();
    let mail = saga.add(send("mail"), ());
    let look = saga.add(look("look").after(mail), ());
    saga.add(work("pay").pivot().after(look), ());
    only(
        saga,
        fault("comes before the pivot `pay`"),
        &format!("`mail` is irreversible, and comes before the pivot `pay`: {cure}"),
    );

    let mut saga = builder();
    saga.add(send("mail"), ());
    saga.add(work("pay").pivot(), ());
    only(
        saga,
        fault("is not ordered after the pivot `pay`"),
        &format!("`mail` is irreversible, and is not ordered after the pivot `pay`: {cure}"),
    );
}

#[test]
fn nothing_that_could_be_undone_stands_beside_the_point_of_no_return() {
    let mut saga = builder();
    let first = saga.add(work("first"), ());
    let pay = saga.add(work("pay").pivot().after(first), ());
    // After an ancestor of the pivot, but neither before nor after the pivot itself.
    saga.add(work("beside").after(first), ());
    saga.add(look("watch").after(first), ());
    saga.add(work("last").after(pay), ());
    only(
        saga,
        Fault::BesidePivot {
            step: "beside".to_owned(),
            pivot: "pay".to_owned(),
        },
        "`beside` neither comes before the pivot `pay` nor after it: \
         order them by data or with `.after(..)`",
    );
}

#[test]
fn settings_that_a_kind_of_step_has_no_use_for_are_refused() {
    let retry = Retry::default();
    let second = Duration::from_secs(1);
    let no_undo = "it has no undo";
    let no_doubt = "a read-only step is never in doubt";
    for (part, setting, why) in [
        (
            look("x").compensation_retry(retry.clone()),
            "compensation_retry",
            no_undo,
        ),
        (
            look("x").compensation_timeout(second),
            "compensation_timeout",
            no_undo,
        ),
        (
            look("x").undo_failing(UndoRule::Always),
            "undo_failing",
            no_undo,
        ),
        (look("x").at_most_once(), "at_most_once", no_doubt),
        (look("x").atomic(), "atomic", no_doubt),
        (look("x").probe(AskNobody), "probe", no_doubt),
        (
            send("x").pivot().compensation_retry(retry),
            "compensation_retry",
            no_undo,
        ),
        (
            send("x").pivot().compensation_timeout(second),
            "compensation_timeout",
            no_undo,
        ),
        (
            send("x").pivot().undo_failing(UndoRule::Never),
            "undo_failing",
            no_undo,
        ),
    ] {
        let mut saga = builder();
        saga.add(part, ());
        let step = "x".to_owned();
        only(
            saga,
            Fault::MeaninglessSetting { step, setting, why },
            &format!("`x`: `{setting}` makes no sense here: {why}"),
        );
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let never = Retry::constant().max_attempts(0);
    let zero = "no call can end within 0 s";
    let calls = "max_attempts is 0: it counts calls, so that 1 is no retry";
    for (part, setting, why) in [
        (work("x").timeout(Duration::ZERO), "timeout", zero),
        (
            work("x").compensation_timeout(Duration::ZERO),
            "compensation_timeout",
            zero,
        ),
        (
            work("x").max_in_flight(0),
            "max_in_flight",
            "with 0 the step could never start",
        ),
        (work("x").retry(never.clone()), "retry", calls),
        (
            work("x").compensation_retry(never),
            "compensation_retry",
            calls,
        ),
    ] {
        let mut saga = builder();
        saga.add(part, ());
        let fault = Fault::BadSetting {
            step: "x".to_owned(),
            setting,
            why: why.to_owned(),
        };
        only(saga, fault, &format!("`x`: {setting}: {why}"));
    }

    only(
        builder().deadline(Duration::ZERO),
        Fault::BadSetting {
            step: "saga".to_owned(),
            setting: "deadline",
            why: "no run can end within 0 s".to_owned(),
        },
        "`saga`: deadline: no run can end within 0 s",
    );
    let vanishes = "backoff: the factor is 0: waits would vanish; 1 keeps them as they are";
    only(
        builder().policy(RecoveryPolicy::saga().backoff(Retry::exponential().factor(0))),
        Fault::BadSetting {
            step: "saga".to_owned(),
            setting: "policy",
            why: vanishes.to_owned(),
        },
        &format!("`saga`: policy: {vanishes}"),
    );
}

/// Everything that can be wrong at once: a saga with several pivots has a test of its own, because what
/// depends on the pivot isn't checked there.
#[test]
fn all_faults_of_a_definition_are_told_at_once() {
    let mut other = builder();
    let stranger = other.add(work("stranger"), ());
    let mut saga = Saga::builder::<()>("")
        .version(0)
        .deadline(Duration::ZERO)
        .policy(RecoveryPolicy::saga().backoff(Retry::exponential().factor(0)));
    saga.add(work(""), ());
    saga.add(work("twice"), stranger);
    saga.add(work("twice").after(stranger), ());
    saga.add(work("a/b").timeout(Duration::ZERO).max_in_flight(0), ());
    saga.add(look(&"long".repeat(64)), ());
    let mail = saga.add(send("mail").undo_failing(UndoRule::Always), ());
    saga.add(send("tweet"), ());
    saga.add(look("watch").pivot().at_most_once().after(mail), ());
    let error = saga.returns::<()>(stranger).unwrap_err();
    assert_eq!(error.saga(), "");
    assert_eq!(
        error.to_string(),
        r#"the definition of saga `` has 22 faults:
- the saga's name is empty
- version 0: versions start at 1
- step 1: the name is empty
- "a/b": a name may not contain '/'
- `longlonglonglonglonglonglonglong..`: the name has 256 bytes, and 255 is the most
- `twice`: 2 steps have this name
- `twice`: one of its inputs is a node of another builder
- `twice`: one of its `after`s is a node of another builder
- `returns`: one of its nodes is a node of another builder
- `a/b`: timeout: no call can end within 0 s
- `a/b`: max_in_flight: with 0 the step could never start
- `mail`: `undo_failing` makes no sense here: it has no undo
- `watch`: `at_most_once` makes no sense here: a read-only step is never in doubt
- `watch` is read-only and can't be the pivot: it changes nothing
- ``: deadline: no run can end within 0 s
- ``: policy: backoff: the factor is 0: waits would vanish; 1 keeps them as they are
- `` neither comes before the pivot `watch` nor after it: order them by data or with `.after(..)`
- `twice` neither comes before the pivot `watch` nor after it: order them by data or with `.after(..)`
- `twice` neither comes before the pivot `watch` nor after it: order them by data or with `.after(..)`
- `a/b` neither comes before the pivot `watch` nor after it: order them by data or with `.after(..)`
- `mail` is irreversible, and comes before the pivot `watch`: mark it `.pivot()`, or let it come `.after(..)` the pivot
- `tweet` is irreversible, and is not ordered after the pivot `watch`: mark it `.pivot()`, or let it come `.after(..)` the pivot"#
    );
}

#[test]
fn what_is_unusual_but_sound_is_built() {
    assert_eq!(built(builder()).graph().steps().len(), 0);

    let mut readers = builder();
    readers.add(look("one"), ());
    readers.add(look("two"), ());
    assert!(
        built(readers)
            .graph()
            .steps()
            .iter()
            .all(|step| !step.can_be_undone())
    );

    let mut first = builder();
    let pivot = first.add(send("pivot").pivot(), ());
    first.add(work("later").after(pivot), ());
    first.add(send("last").after(pivot), ());
    assert!(built(first).graph().steps()[0].is_pivot());

    let mut last = builder();
    let one = last.add(work("one"), ());
    let two = last.add(work("two"), ());
    last.add(look("beside"), ());
    last.add(send("pivot").pivot().after(one).after(two), ());
    assert!(built(last).graph().steps()[3].is_pivot());

    let mut lone = builder();
    lone.add(work("pivot").pivot(), ());
    assert_eq!(
        built(lone).graph().steps()[0].kind(),
        StepKind::Compensatable
    );

    let names = [
        "Bestellung prüfen",
        "出荷",
        "🚚",
        " a",
        "a",
        "A",
        "input",
        "map(a)",
        "50%",
        "`",
    ];
    let mut odd = Saga::builder("заказ №1");
    for name in names {
        odd.add(work(name), ());
    }
    let odd = built(odd);
    let built_names: Vec<&str> = odd
        .graph()
        .steps()
        .iter()
        .map(amends::GraphStep::name)
        .collect();
    assert_eq!(built_names, names);
    assert_eq!(odd.name(), "заказ №1");
    assert!(
        names
            .iter()
            .all(|name| odd.graph().step_named(name).is_some())
    );
    assert_eq!(odd.graph().step_named("b"), None);
}

/// A loop that chains steps may begin with the input, and may say twice what the data says already.
#[test]
fn order_that_is_said_twice_or_said_of_the_input_adds_no_edge() {
    let mut plain = builder();
    let one = plain.add(work("one"), ());
    plain.add(work("two"), one);
    let plain = built(plain);

    let mut wordy = builder();
    let input = wordy.input();
    let one = wordy.add(work("one").after(input), ());
    wordy.add(work("two").after(one).after(one).after(input), one);
    let wordy = built(wordy);

    assert_eq!(wordy.outline(), plain.outline());
    assert_eq!(wordy.outline().steps[1].dependencies, ["one"]);
}
