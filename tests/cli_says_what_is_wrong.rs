//! What the program says where it can't do what it was asked, and the exit codes that scripts go by.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;

use std::fs;

use cli_store::{Runs, Said};

/// What is asked, the exit code, and what the standard error has to say.
const CASES: [(&str, i32, &[&str]); 19] = [
    (
        "show order-47",
        3,
        &[
            "there is no run `order-47`",
            "did you mean `order-4711` or `order-4710`?",
        ],
    ),
    ("show oder-4711", 3, &["did you mean `order-4711`"]),
    (
        "why trip-99x",
        3,
        &["there is no run `trip-99x`", "did you mean"],
    ),
    ("journal zzz", 3, &["there is no run `zzz`", "amends list"]),
    ("graph zzz", 3, &["there is no run `zzz`"]),
    ("watch zzz", 3, &["there is no run `zzz`"]),
    (
        "graph --saga place-ordr",
        3,
        &[
            "no run of a saga `place-ordr`",
            "did you mean `place-order`?",
        ],
    ),
    (
        "graph --saga zzz",
        3,
        &["its newest runs are of book-trip, place-order"],
    ),
    (
        "list --mode system_netwrk",
        2,
        &["did you mean `system_network`"],
    ),
    ("list --mode zzz", 2, &["`custom:zzz`", "system_network"]),
    ("list --status parkd", 2, &["parked"]),
    ("list --older-than tomorrow", 2, &["`90s`"]),
    ("list --label customer", 2, &["`customer=42`"]),
    ("shwo order-4711", 2, &["show"]),
    (
        "list --store other.txt",
        2,
        &["`other.txt` is not a store", "--store sqlite:PATH"],
    ),
    (
        "list --store postgres://127.0.0.1:1/sagas",
        5,
        &[if cfg!(feature = "postgres") {
            "is the server running"
        } else {
            "PostgreSQL is not in this build"
        }],
    ),
    (
        "migrate --apply --store sqlite:nowhere.db",
        5,
        &["there is no store at `nowhere.db`"],
    ),
    ("workers", 2, &["has no workers", "`amends doctor`"]),
    (
        "list --store sqlite:nowhere/sagas.db",
        5,
        &["there is no store at `nowhere/sagas.db`, and no folder `nowhere`"],
    ),
];

#[tokio::test]
async fn errors_name_what_was_meant_and_what_to_do() {
    let runs = Runs::of_each_kind().await;
    for (arguments, code, words) in CASES {
        let said = runs.says(arguments);
        assert_eq!(
            (said.code, said.out.as_str()),
            (code, ""),
            "{arguments}: {said:?}"
        );
        for word in words {
            assert!(said.err.contains(word), "{arguments}: {}", said.err);
        }
    }
}

#[tokio::test]
async fn errors_are_json_where_programs_read() {
    let runs = Runs::of_each_kind().await;
    let said = runs.says("show order-471x --json");
    assert_eq!((said.code, said.out.as_str()), (3, ""));
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    let error = &error["error"];
    assert_eq!(error["code"], "not_found");
    assert_eq!(error["exit"], 3);
    assert_eq!(
        error["message"],
        "there is no run `order-471x` in this store"
    );
    assert_eq!(
        error["hints"][0],
        "did you mean `order-4711` or `order-4710`?"
    );
}

#[tokio::test]
async fn a_store_is_needed_and_one_that_is_none_is_left_alone() {
    let runs = Runs::of_each_kind().await;
    let said = Said::from(
        runs.amends("list")
            .env_remove("AMENDS_STORE")
            .output()
            .unwrap(),
    );
    assert_eq!(said.code, 2);
    let postgres = if cfg!(feature = "postgres") {
        " or `--store postgres://USER@HOST/DB`"
    } else {
        ""
    };
    assert_eq!(
        said.err,
        format!(
            "amends: which store?\n  say which with `--store sqlite:PATH`{postgres}, or once for all with AMENDS_STORE\n"
        )
    );

    let other = runs.dir.path().join("notes.db");
    fs::write(&other, "these are notes").unwrap();
    for subcommand in ["list", "doctor", "doctor --upgrade"] {
        let said = runs.says(&format!("{subcommand} --store {}", other.display()));
        assert_eq!(said.code, 5, "{said:?}");
        assert!(
            said.err.contains("is not a SQLite database"),
            "{}",
            said.err
        );
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "these are notes");
    assert!(!runs.dir.path().join("notes.db.lock").exists());

    let mistyped = runs.dir.path().join("saga.db");
    let said = runs.says(&format!("list --store {}", mistyped.display()));
    assert_eq!(said.code, 5);
    assert!(!mistyped.exists(), "a mistyped path makes no store");
}

#[tokio::test]
async fn a_damaged_journal_is_shown_up_to_the_damage() {
    let runs = Runs::of_each_kind().await;
    let conn = rusqlite::Connection::open(&runs.path).unwrap();
    let changed = conn.execute(
        "UPDATE journal SET events = replace(events, 'bank', 'rank')
         WHERE run = (SELECT run FROM runs WHERE id = 'order-4711') AND seq = 3",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    drop(conn);

    let shown = runs.says("show order-4711").well();
    let second = shown.lines().nth(1).unwrap();
    assert!(
        second.starts_with("Damaged: record 3 of run `order-4711`"),
        "{shown}"
    );
    assert!(shown.contains("reserve-stock  ✓ done"), "{shown}");

    let journal = runs.says("journal order-4711");
    assert_eq!(journal.code, 1);
    assert!(
        journal.out.contains("▶ charge-card starts"),
        "{}",
        journal.out
    );
    assert!(!journal.out.contains("failed"), "{}", journal.out);
    assert!(
        journal.err.contains("its checksum does not match"),
        "{}",
        journal.err
    );

    let doctor = runs.says("doctor");
    assert_eq!(doctor.code, 6);
    assert!(
        doctor
            .out
            .contains("1 damaged of the newest 4 open runs: order-4711"),
        "{}",
        doctor.out
    );
}
