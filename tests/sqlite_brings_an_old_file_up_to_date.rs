//! A file of schema 1 is brought up to date by its owner, with all that runs are found by; nobody else
//! touches it.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amends::journal::{Command, Verb};
use amends::operator::Operator;
use amends::store::{RunFilter, SqliteStore, Store as _, StoreError};

/// A copy of the file that version 1 wrote, since an owner changes it.
fn old_file(dir: &Path) -> PathBuf {
    let file = dir.join("v1.db");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1.db");
    std::fs::copy(fixture, &file).unwrap();
    file
}

fn version(file: &Path) -> i32 {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}

async fn found(store: &SqliteStore, filter: RunFilter) -> Vec<String> {
    let found = store.scan(&filter, None, 10).await.unwrap();
    found.iter().map(|entry| entry.run.to_string()).collect()
}

#[tokio::test]
async fn an_owner_brings_it_up_to_date_and_finds_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let file = old_file(dir.path());
    assert_eq!(version(&file), 1);
    let store = SqliteStore::open(&file).unwrap();
    let labelled = found(&store, RunFilter::all().label("customer", "42")).await;
    assert_eq!(labelled, ["order-1 completed \u{1f980}"]);
    assert_eq!(
        found(&store, RunFilter::all().label("customer", "4")).await,
        Vec::<String>::new()
    );
    let compensated = amends::journal::Standing::Compensated;
    assert_eq!(
        found(&store, RunFilter::all().standing(compensated)).await,
        ["order-2 compensated"]
    );
    assert_eq!(
        found(&store, RunFilter::all().saga("place-order"))
            .await
            .len(),
        4
    );
    // What the new tables are for works.
    let command = Command::new("order-4 parked", Verb::Cancel).token("t");
    store.submit(&command).await.unwrap();
    assert_eq!(store.open_commands(None, 9).await.unwrap().len(), 1);
    store.close().await;
    assert_eq!(version(&file), 3);
    let again = SqliteStore::open(&file).unwrap();
    assert_eq!(
        found(&again, RunFilter::all().label("customer", "42"))
            .await
            .len(),
        1
    );
    let kept = again.find_command("t").await.unwrap().unwrap().command;
    assert!(kept.asks_the_same_as(&command));
    let what_is_odd = again.oddities().await.unwrap();
    assert_eq!(what_is_odd, Vec::<String>::new());
    again.close().await;
}

#[tokio::test]
async fn a_reader_refuses_it_with_what_to_do_and_leaves_it_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = old_file(dir.path());
    let before = std::fs::read(&file).unwrap();
    let error = SqliteStore::open_reader(&file).unwrap_err();
    let StoreError::Foreign { what } = error else {
        panic!("{error:?}")
    };
    assert!(what.contains("schema version 1"), "{what}");
    assert!(
        what.contains("amends doctor") && what.contains("brings it to version 3"),
        "{what}"
    );
    assert!(std::fs::read(&file).unwrap() == before);
    SqliteStore::open(&file).unwrap().close().await;
    let reader = SqliteStore::open_reader(&file).unwrap();
    assert_eq!(found(&reader, RunFilter::all()).await.len(), 4);
    reader.close().await;
}

#[tokio::test]
async fn an_export_of_an_old_file_is_word_for_word_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let file = old_file(dir.path());
    let store = Arc::new(SqliteStore::open(&file).unwrap());
    let mut text = Vec::new();
    let failed = |run: &amends::RunId, what: &str| panic!("{run}: {what}");
    Operator::new(store.clone())
        .export(&RunFilter::all(), &mut text, failed)
        .await
        .unwrap();
    store.close().await;
    let text = String::from_utf8(text).unwrap();
    let conn = rusqlite::Connection::open(&file).unwrap();
    let mut rows = conn
        .prepare("SELECT form, lower(hex(append_id)), at, events FROM journal")
        .unwrap();
    let rows = rows
        .query_map([], |row| {
            Ok((
                row.get::<_, u32>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, String>(3)?,
            ))
        })
        .unwrap();
    let mut count = 0;
    for row in rows {
        let (form, id, at, events) = row.unwrap();
        let record = format!(r#""form":{form},"append_id":"{id}","at":{at},"events":{events}}}"#);
        assert!(text.contains(&record), "{record}");
        count += 1;
    }
    assert_eq!(count, 18);
}
