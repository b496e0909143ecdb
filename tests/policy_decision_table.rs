//! What the machine decides under each preset, for every mode and how far the run has come: the full table
//! is `tests/snapshots/decisions.txt`, and `docs/decisions.md` is made of it for people.
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod snapshot;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use amends::failure::{FailedEffect, Failure};
use amends::journal::{Decision, Event};
use amends::machine::{State, Todo};
use amends::policy::GiveUp;
use amends::*;

/// Done and all steps.
const COMPLETIONS: [(usize, usize); 8] = [
    (0, 4),
    (1, 4),
    (2, 4),
    (3, 4),
    (1, 5),
    (2, 8),
    (6, 8),
    (9, 10),
];

type Preset = (&'static str, fn() -> RecoveryPolicy);

const PRESETS: [Preset; 2] = [
    ("saga", RecoveryPolicy::saga),
    ("by_progress", RecoveryPolicy::by_progress),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pivot {
    Before,
    Past,
}

const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A chain of steps, of which this one is the pivot.
fn chain(total: usize, pivot: usize, policy: RecoveryPolicy) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("table").policy(policy);
    let mut last = saga.input();
    for step in 0..total {
        let spec = step_fn(
            format!("s{step}"),
            async |_cx, n: &u64| Ok(*n),
            async |_cx, _n, _effect| Ok(()),
        );
        let spec = if step == pivot { spec.pivot() } else { spec };
        last = saga.add(spec, last);
    }
    saga.returns(last).unwrap()
}

/// What the machine decides when `done` steps of a chain are done and the next one fails for good.
///
/// Past the pivot, the pivot is the first step; where that is the one that fails, it is in doubt.
fn decision(
    preset: fn() -> RecoveryPolicy,
    mode: &FailureMode,
    pivot: Pivot,
    (done, total): (usize, usize),
    recoveries_left: bool,
) -> Decision {
    let policy = preset().max_recoveries(if recoveries_left { 3 } else { 0 });
    let place = match pivot {
        Pivot::Before => total - 1,
        Pivot::Past => 0,
    };
    let saga = chain(total, place, policy);
    let graph = saga.graph();
    let started = serde_json::from_value(serde_json::json!({
        "saga": "table", "version": 1, "fingerprint": graph.fingerprint(), "worker": "w", "input": 1,
        "uid": "00000000000000000000000000000001", "trace_id": "00000000000000000000000000000002",
    }));
    let mut state = State::begin(graph, &started.unwrap(), AT);
    for index in 0..=done {
        let step = StepIx(graph.step_named(&format!("s{index}")).unwrap().0);
        let start = state.start_event(graph, step, Vec::new(), None);
        state.apply(graph, &start, AT);
        let end = if index < done {
            Event::StepDone {
                step,
                output: Value::typed(Arc::new(1_u64)),
                partial: None,
                asks: false,
                took_us: 0,
            }
        } else {
            let in_doubt = pivot == Pivot::Past && done == 0;
            let effect = if in_doubt {
                FailedEffect::InDoubt
            } else {
                FailedEffect::NotDone
            };
            Event::StepFailed {
                step,
                failure: Box::new(Failure::new(mode.clone(), "no").effect(effect)),
                retry_at: None,
                gave_up: Some(GiveUp::AttemptsUsedUp),
                took_us: 0,
            }
        };
        state.apply(graph, &end, AT.after(Duration::from_secs(1)));
    }
    match state.decide(graph, AT.after(Duration::from_secs(1))) {
        Todo::Append(Event::Decided(decision)) => Arc::unwrap_or_clone(decision),
        other => panic!("{other:?}"),
    }
}

/// The strategy; with a star where the policy says another, which is not available.
fn word(decision: &Decision) -> String {
    let overruled = decision.why.iter().any(|why| why.overruled.is_some());
    format!("{}{}", decision.strategy, if overruled { "*" } else { "" })
}

/// The answers of a mode, in the order of the columns.
fn row(
    preset: fn() -> RecoveryPolicy,
    mode: &FailureMode,
    pivot: Pivot,
    left: bool,
) -> Vec<String> {
    COMPLETIONS
        .iter()
        .map(|&completion| {
            let decision = decision(preset, mode, pivot, completion, left);
            let saw = &decision.why[0].saw;
            assert_eq!((saw.completed as usize, saw.total as usize), completion);
            assert_eq!(saw.past_pivot, pivot == Pivot::Past);
            assert_eq!(saw.used_up(), !left);
            word(&decision)
        })
        .collect()
}

fn cases() -> impl Iterator<Item = (Pivot, bool)> {
    [
        (Pivot::Before, true),
        (Pivot::Before, false),
        (Pivot::Past, true),
        (Pivot::Past, false),
    ]
    .into_iter()
}

fn pivot_word(pivot: Pivot) -> &'static str {
    match pivot {
        Pivot::Before => "before",
        Pivot::Past => "past",
    }
}

fn left_word(left: bool) -> &'static str {
    if left { "left" } else { "used up" }
}

#[test]
fn the_full_table_of_decisions_is_kept() {
    let mut text = String::from(
        "# What the machine decides, by preset, mode, place and completion. A star: the policy says\n\
         # another strategy, which is not available. Written by the test, with AMENDS_UPDATE=1.\n",
    );
    let mut cells = 0;
    for (preset, make) in PRESETS {
        let heads: Vec<String> = COMPLETIONS
            .iter()
            .map(|(done, total)| format!("{:<22}", format!("{done}/{total}")))
            .collect();
        let line = format!(
            "\n{preset:<22} {:<7} {:<10} {}",
            "pivot",
            "recoveries",
            heads.join(" ")
        );
        writeln!(text, "{}", line.trim_end()).unwrap();
        for mode in FailureMode::BUILT_IN {
            for (pivot, left) in cases() {
                let row = row(make, &mode, pivot, left);
                cells += row.len();
                let row: Vec<String> = row.iter().map(|word| format!("{word:<22}")).collect();
                let line = format!(
                    "{mode:<22} {:<7} {:<10} {}",
                    pivot_word(pivot),
                    left_word(left),
                    row.join(" ")
                );
                writeln!(text, "{}", line.trim_end()).unwrap();
            }
        }
    }
    assert_eq!(cells, 25 * 2 * 8 * 2 * 2);
    snapshot::is("tests/snapshots/decisions.txt", &text);
}

/// Modes with equal answers everywhere, in the order of their first.
fn classes() -> Vec<Vec<FailureMode>> {
    let mut classes: Vec<(Vec<Vec<String>>, Vec<FailureMode>)> = Vec::new();
    for mode in FailureMode::BUILT_IN {
        let mut answers = Vec::new();
        for (_, make) in PRESETS {
            for (pivot, left) in cases() {
                answers.push(row(make, &mode, pivot, left));
            }
        }
        match classes.iter_mut().find(|(known, _)| *known == answers) {
            Some((_, modes)) => modes.push(mode),
            None => classes.push((answers, vec![mode])),
        }
    }
    classes.into_iter().map(|(_, modes)| modes).collect()
}

/// The columns of equal answers, as people say them: in the order of completion.
fn spans(row: &[String]) -> String {
    let mut by_word: Vec<(&str, Vec<String>)> = Vec::new();
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by_key(|&index| {
        let (done, total) = COMPLETIONS[index];
        (done * 1_000 / total, total)
    });
    for index in order {
        let (done, total) = COMPLETIONS[index];
        let completion = format!("{done}/{total}");
        match by_word.last_mut().filter(|(word, _)| *word == row[index]) {
            Some((_, completions)) => completions.push(completion),
            None => by_word.push((&row[index], vec![completion])),
        }
    }
    if let [(word, _)] = by_word.as_slice() {
        return code(word);
    }
    let spans: Vec<String> = by_word
        .iter()
        .map(|(word, completions)| format!("{}: {}", completions.join(", "), code(word)))
        .collect();
    spans.join("<br>")
}

fn code(word: &str) -> String {
    match word.strip_suffix('*') {
        Some(word) => format!("`{word}`*"),
        None => format!("`{word}`"),
    }
}

fn name(modes: &[FailureMode]) -> &'static str {
    if modes.iter().all(FailureMode::is_terminal) {
        "terminal"
    } else if modes.iter().all(FailureMode::is_retryable) {
        "retryable"
    } else if modes
        .iter()
        .all(|mode| !mode.is_retryable() && !mode.is_terminal())
    {
        "not retryable"
    } else {
        panic!("modes of different kinds are answered alike: {modes:?}")
    }
}

#[test]
fn the_page_of_decisions_is_made_of_the_table() {
    let classes = classes();
    assert_eq!(classes.iter().map(Vec::len).sum::<usize>(), 25);
    let mut page = String::from(
        "# Decisions\n\n\
         What becomes of a run when a step has failed for good, under each preset policy: the answers of the \
         machine, and not only of the policy. Written by `tests/policy_decision_table.rs`, which asks the \
         machine for every mode and each place; the table with a row for each mode is \
         `tests/snapshots/decisions.txt`. [policies.md](policies.md) says how to decide otherwise.\n\n\
         A star: the policy says another strategy, which is not available there, so that the run is parked.\n\n\
         ## The modes\n\n\
         The presets ask of a mode only whether it is retryable, terminal, or neither.\n\n\
         | Class | Modes |\n|---|---|\n",
    );
    for modes in &classes {
        let words: Vec<String> = modes.iter().map(|mode| format!("`{mode}`")).collect();
        writeln!(page, "| {} | {} |", name(modes), words.join(", ")).unwrap();
    }
    page.push_str(
        "\nA step can say of a single failure whether it is retryable; then that counts, and not its mode. A \
         failure that nobody knows is `agent_logic`: not retryable.\n",
    );
    for (preset, make) in PRESETS {
        write!(
            page,
            "\n## `{preset}`\n\n\
             | Class | Pivot | Recoveries | Decided, by steps done of all |\n|---|---|---|---|\n"
        )
        .unwrap();
        for modes in &classes {
            // Places with equal answers share a row.
            let mut rows: Vec<(String, Vec<(Pivot, bool)>)> = Vec::new();
            for (pivot, left) in cases() {
                let answer = spans(&row(make, &modes[0], pivot, left));
                match rows.iter_mut().find(|(known, _)| *known == answer) {
                    Some((_, places)) => places.push((pivot, left)),
                    None => rows.push((answer, vec![(pivot, left)])),
                }
            }
            for (answer, places) in rows {
                for (pivot, lefts) in whole_places(&places) {
                    writeln!(page, "| {} | {pivot} | {lefts} | {answer} |", name(modes)).unwrap();
                }
            }
        }
    }
    page.push_str(
        "\nTwo more things are the same under every policy. A step that runs at most once and is in doubt is \
         not repeated: a strategy that would is overruled. A cancel is put to no policy: before the pivot it \
         undoes, past it it comes too late.\n",
    );
    snapshot::is("docs/decisions.md", &page);
}

/// Places as few rows: `any` where both are there.
fn whole_places(places: &[(Pivot, bool)]) -> Vec<(&'static str, &'static str)> {
    let mut by_pivot: BTreeMap<Pivot, Vec<bool>> = BTreeMap::new();
    for &(pivot, left) in places {
        by_pivot.entry(pivot).or_default().push(left);
    }
    let words = |lefts: &[bool]| match lefts {
        [one] => left_word(*one),
        _ => "any",
    };
    let mut rows: Vec<(&str, &str)> = by_pivot
        .iter()
        .map(|(pivot, lefts)| (pivot_word(*pivot), words(lefts)))
        .collect();
    if let [(_, one), (_, other)] = rows.as_slice()
        && one == other
    {
        rows = vec![("any", *one)];
    }
    rows
}

#[test]
fn boundaries_belong_to_the_upper_band_in_whole_numbers() {
    let network = FailureMode::SystemNetwork;
    let answer = |completion| {
        let make = RecoveryPolicy::by_progress;
        decision(make, &network, Pivot::Before, completion, true).strategy
    };
    for (completion, expected) in [
        ((0, 4), RecoveryStrategy::RetryAll),
        ((1, 5), RecoveryStrategy::RetryAll),
        ((1, 4), RecoveryStrategy::RetryFromCheckpoint),
        ((2, 8), RecoveryStrategy::RetryFromCheckpoint),
        ((2, 4), RecoveryStrategy::RetryFromCheckpoint),
        ((3, 4), RecoveryStrategy::RetryFailed),
        ((6, 8), RecoveryStrategy::RetryFailed),
        ((9, 10), RecoveryStrategy::RetryFailed),
    ] {
        assert_eq!(answer(completion), expected, "{completion:?}");
    }
}
