//! How far a step has come, and that it did a part, are in the partial result and in what the command line shows;
//! progress is hidden as payloads are.

// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;

use amends::*;
use common::*;

/// A first step that reports and is done, a second that reports a secret and fails.
fn saga(policy: RecoveryStrategy) -> Saga<u64, u64> {
    let copy = step_fn(
        "copy",
        async |cx: &StepContext, n: &u64| {
            cx.report_progress(*n);
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    );
    let mail = step_fn(
        "mail",
        async |cx: &StepContext, _: &u64| {
            cx.report_progress(("ada@example.org".to_owned(), 3_u8));
            Err::<u64, _>(StepError::rejected("no such address"))
        },
        async |_, _, _| Ok(()),
    );
    let mut saga = Saga::builder::<u64>("news").policy(RecoveryPolicy::new("p", policy));
    let n = saga.input();
    let copied = saga.add(copy, n);
    let mailed = saga.add(mail, copied);
    saga.returns(mailed).unwrap()
}

fn progress(partial: &PartialResult, step: &str) -> Option<String> {
    let progress = partial.step(step).unwrap().progress.as_ref()?;
    Some(progress.to_json().unwrap().get().to_owned())
}

#[test]
fn the_partial_result_has_the_last_progress_of_each_step_and_leaves_it_out_where_there_is_none() {
    let world = World::new();
    let partial = world
        .run_to_rest(&saga(RecoveryStrategy::Manual), 12)
        .partial();
    assert_eq!(progress(&partial, "copy").as_deref(), Some("12"));
    assert_eq!(
        progress(&partial, "mail").as_deref(),
        Some(r#"["ada@example.org",3]"#)
    );
    let json = serde_json::to_string(&partial).unwrap();
    assert!(json.contains(r#""progress":12"#), "{json}");
    let read: PartialResult = serde_json::from_str(&json).unwrap();
    assert_eq!(read, partial);

    let hidden = partial.without_payloads();
    assert_eq!(progress(&hidden, "copy"), None);
    let json = serde_json::to_string(&hidden).unwrap();
    assert!(!json.contains(r#""progress""#), "{json}");
    assert!(!json.contains("ada@"), "{json}");
}

#[test]
fn what_was_undone_has_come_no_way() {
    let world = World::new();
    let outcome = world.run_to_rest(&saga(RecoveryStrategy::Compensate), 12);
    assert_eq!(outcome.word(), "compensated");
    let partial = outcome.partial();
    assert_eq!(progress(&partial, "copy"), None);
    // What refused did nothing, and nothing was undone: how far it came is still to be seen.
    assert!(progress(&partial, "mail").is_some());
}

#[test]
fn a_reader_of_the_journal_sees_what_the_run_sees() {
    let world = World::new();
    let live = world
        .run_to_rest(&saga(RecoveryStrategy::Manual), 12)
        .partial();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let view = runtime.block_on(async {
        let operator = amends::operator::Operator::new(Arc::clone(&world.store) as _);
        operator.view(&"r".into()).await.unwrap().unwrap()
    });
    assert_eq!(progress(&view.partial(), "mail"), progress(&live, "mail"));
}

#[test]
fn an_events_progress_is_hidden_with_its_length() {
    use amends::journal::Event;
    use amends::operator::hide_payloads;

    let value = Value::typed(Arc::new("ada@example.org".to_owned()));
    let step = "mail".to_owned();
    let hidden = hide_payloads(Event::Progress { step, value });
    assert_eq!(
        serde_json::to_string(&hidden).unwrap(),
        r#"{"progress":{"step":"mail","value":"(hidden: 17 bytes)"}}"#
    );
}

#[cfg(feature = "cli")]
#[tokio::test]
async fn the_command_line_shows_progress_where_payloads_are_asked_for() {
    use amends::store::SqliteStore;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sagas.db");
    let saga = saga(RecoveryStrategy::Manual);
    let coordinator = Coordinator::builder(SqliteStore::open(&file).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", 12).await.unwrap();
    run.outcome().await.unwrap();
    coordinator.shutdown().await;

    let says = |arguments: &[&str]| {
        let told = std::process::Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(arguments)
            .env_clear()
            .env("AMENDS_STORE", format!("sqlite:{}", file.display()))
            .output()
            .unwrap();
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    };
    let shown = says(&["show", "r", "--payloads"]);
    let part = shown
        .split("\n\n")
        .find(|part| part.starts_with("Progress"));
    assert_eq!(
        part,
        Some("Progress\ncopy  12\nmail  [\"ada@example.org\",3]")
    );
    for arguments in [
        &["show", "r"][..],
        &["show", "r", "--json"],
        &["journal", "r"],
    ] {
        let hidden = says(arguments);
        assert!(!hidden.contains("ada@"), "{arguments:?}: {hidden}");
        assert!(!hidden.contains("Progress"), "{arguments:?}: {hidden}");
    }
    let journal = says(&["journal", "r", "--payloads"]);
    assert!(journal.contains("… copy comes on: 12\n"), "{journal}");
    assert!(says(&["journal", "r"]).contains("… copy comes on\n"));
}

#[cfg(feature = "cli")]
#[tokio::test]
async fn the_command_line_says_which_steps_are_done_in_part_and_why_that_was_acted_on() {
    use amends::failure::{FailedEffect, PartialSuccess};
    use amends::policy::{Condition, Rule};
    use amends::store::SqliteStore;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sagas.db");
    let rule = Rule::new("half is none", RecoveryStrategy::Manual)
        .when(Condition::Effect(FailedEffect::Done));
    let reserve = step_fn(
        "reserve",
        async |cx: &StepContext, n: &u64| {
            cx.did_part(PartialSuccess::new(7, 10, "3 lines are out of stock"));
            Ok(*n)
        },
        async |_, _, _| Ok(()),
    );
    let mut saga = Saga::builder::<u64>("order").policy(RecoveryPolicy::saga().first(rule));
    let n = saga.input();
    let reserved = saga.add(reserve, n);
    let saga = saga.returns(reserved).unwrap();
    let coordinator = Coordinator::builder(SqliteStore::open(&file).unwrap())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", 12).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "parked");
    coordinator.shutdown().await;

    let says = |arguments: &[&str]| {
        let told = std::process::Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(arguments)
            .env_clear()
            .env("AMENDS_STORE", format!("sqlite:{}", file.display()))
            .env("COLUMNS", "200")
            .output()
            .unwrap();
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    };
    let note = "7 of 10: 3 lines are out of stock (partial_step_failures)";
    let shown = says(&["show", "r"]);
    assert!(
        shown.contains(&format!("Done in part\nreserve: {note}\n")),
        "{shown}"
    );
    let journal = says(&["journal", "r"]);
    // A long line is wrapped.
    let journal = journal.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(journal.contains(&format!(", in part, {note}")), "{journal}");
    let decided = "decided manual, because of what is done in part";
    assert!(journal.contains(decided), "{journal}");
    let why = says(&["why", "r"]);
    for line in [
        "Decided: manual, because `reserve` is done in part.",
        "Step `reserve` is done in part, with partial_step_failures",
        "effect done.",
        "by the rule `half is none`",
    ] {
        assert!(why.contains(line), "{line}: {why}");
    }
}
