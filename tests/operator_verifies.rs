//! `verify` finds what is wrong with a store, and nothing where nothing is.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod operating;

use std::path::Path;
use std::sync::Arc;

use amends::operator::{Finding, FindingKind, Operator, Verified};
use amends::store::{RunFilter, SqliteStore, Store as _};
use operating::one_of_each;

/// A file with one run of each kind, changed by hand, and what is found there then.
async fn found_after(change: &str) -> (Verified, Vec<(FindingKind, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    one_of_each(Arc::new(SqliteStore::open(&path).unwrap())).await;
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(change)
        .unwrap();
    look(&path).await
}

async fn look(path: &Path) -> (Verified, Vec<(FindingKind, String)>) {
    let store = Arc::new(SqliteStore::open_reader(path).unwrap());
    let operator = Operator::new(store.clone());
    let mut all: Vec<Finding> = Vec::new();
    let verified = operator
        .verify(
            &RunFilter::all(),
            |finding| all.push(finding.clone()),
            |_| (),
        )
        .await
        .unwrap();
    assert_eq!(verified.findings, all.len() as u64);
    assert_eq!(verified.is_good(), all.is_empty());
    for finding in &all {
        // Looked at alone, each run is found to be the same.
        if let Some(run) = &finding.run {
            let alone = operator.verify_run(run).await.unwrap().unwrap();
            assert!(alone.contains(finding), "{alone:?}");
        }
    }
    store.close().await;
    (
        verified,
        all.iter()
            .map(|finding| (finding.kind, finding.to_string()))
            .collect(),
    )
}

async fn one_finding(change: &str) -> (FindingKind, String) {
    let (verified, mut found) = found_after(change).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((verified.runs, verified.open), (7, 3));
    found.remove(0)
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let (verified, found) = found_after("").await;
    assert_eq!(found, []);
    assert_eq!((verified.runs, verified.open, verified.bad_runs), (7, 3, 0));
    assert!(verified.records > 20, "{verified:?}");
}

#[tokio::test]
async fn a_changed_row_is_found_by_its_checksum_and_a_missing_one_by_its_gap() {
    let (kind, what) = one_finding(
        "UPDATE journal SET events = replace(events, '1', '2') WHERE run = 2 AND seq = 2",
    )
    .await;
    assert_eq!(kind, FindingKind::Damaged);
    assert_eq!(
        what,
        "run `run-2` (damaged): record 2 can't be read: its checksum does not match, so the row was changed or damaged"
    );
    let (kind, what) = one_finding("DELETE FROM journal WHERE run = 2 AND seq = 2").await;
    assert_eq!(kind, FindingKind::Damaged);
    assert_eq!(
        what,
        "run `run-2` (damaged): record 2 can't be read: it is missing"
    );
}

#[tokio::test]
async fn a_list_that_says_something_else_than_the_journal_is_found() {
    for (change, says) in [
        (
            "UPDATE open_runs SET standing = 'running' WHERE run = 2",
            "run `run-2` (list): it is listed as running, and is parked",
        ),
        (
            "UPDATE ended_runs SET standing = 'compensated' WHERE run = 1",
            "run `run-1` (list): it is listed as compensated, and is completed",
        ),
        (
            "UPDATE open_runs SET standing = 'parked' WHERE run = 6",
            "run `run-6` (list): it is listed as parked, and is running",
        ),
        (
            "UPDATE labels SET value = '9' WHERE run = 1",
            r#"run `run-1` (list): it is listed with the labels {"kind": "9"}, and has {"kind": "0"}"#,
        ),
        (
            "UPDATE troubles SET mode = 'system_timeout' WHERE run = 4",
            "run `run-4` (list): what went wrong is listed as `charge` with system_timeout, and was `charge` with system_network",
        ),
        (
            "UPDATE runs SET saga = 'other' WHERE run = 1",
            "run `run-1` (list): it is listed as a run of `other` version 1, and is one of `place-order` version 1",
        ),
    ] {
        let (kind, what) = one_finding(change).await;
        assert_eq!((kind, what.as_str()), (FindingKind::List, says), "{change}");
    }
}

#[tokio::test]
async fn a_missing_definition_is_found_for_each_run_that_needs_it() {
    let (verified, found) = found_after("DELETE FROM definitions WHERE saga = 'book-trip'").await;
    assert_eq!(verified.bad_runs, 2);
    let wanted = |run| {
        let what = format!(
            "run `{run}` (no-definition): the store lacks the definition of `book-trip` version 1"
        );
        (FindingKind::NoDefinition, what)
    };
    assert_eq!(found, [wanted("run-5"), wanted("run-7")]);
}

#[tokio::test]
async fn rows_that_belong_to_nothing_are_the_store_s_own_trouble() {
    let change = "DELETE FROM ended_runs WHERE run = 1;
                  INSERT INTO ended_runs (run, standing, ended_at) VALUES (2, 'stopped', 0);
                  INSERT INTO open_runs (run, standing) VALUES (99, 'parked');
                  INSERT INTO labels (key, value, run) VALUES ('a', 'b', 98);
                  UPDATE journal SET run = 97 WHERE run = 3;";
    let (_, found) = found_after(change).await;
    let own: Vec<&str> = found
        .iter()
        .filter(|(kind, _)| *kind == FindingKind::Store)
        .map(|(_, what)| what.as_str())
        .collect();
    let wanted = [
        "records of a run that is not in the list: number 97",
        "a run that is neither open nor ended: run-1",
        "a run that is both open and ended: run-2",
        "a standing without a run: number 99",
        "what can be searched for without a run: number 98",
    ];
    assert_eq!(own, wanted);
    let of_runs: Vec<&str> = found
        .iter()
        .filter(|(kind, _)| *kind != FindingKind::Store)
        .map(|(_, what)| what.as_str())
        .collect();
    let wanted = [
        "run `run-1` (list): it is listed as running, and is completed",
        "run `run-3` (damaged): record 1 can't be read: it is missing",
    ];
    assert_eq!(of_runs, wanted);
}

#[tokio::test]
async fn a_file_that_is_damaged_between_its_rows_is_found_by_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    one_of_each(Arc::new(SqliteStore::open(&path).unwrap())).await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    let page: i64 = conn
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'troubles_by_step'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    // The page of an index that no journal is read by says that it has more cells than fit.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = usize::try_from((page - 1) * 4096).unwrap();
    bytes[at + 3..at + 5].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    drop(conn);
    let (_, found) = look(&path).await;
    assert!(!found.is_empty());
    for (kind, what) in &found {
        assert_eq!(*kind, FindingKind::Store, "{what}");
        assert!(what.starts_with("SQLite's own check:"), "{what}");
    }
}

#[tokio::test]
async fn a_verification_beside_a_coordinator_that_works_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sagas.db");
    let mended = Arc::default();
    let coordinator =
        operating::coordinator(Arc::new(SqliteStore::open(&path).unwrap()), &mended).await;
    let order = operating::order(&mended);
    let working = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                let kind = number % 4;
                let id = format!("run-{number}");
                coordinator.start(&order, id.as_str(), kind).await.unwrap();
            }
        })
    };
    let mut looks = 0;
    while !working.is_finished() || looks == 0 {
        let (_, found) = look(&path).await;
        assert_eq!(found, []);
        looks += 1;
    }
    working.await.unwrap();
    coordinator.shutdown().await;
}
