//! `amends doctor` says how a store is, who has it, and what to do.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;

use std::fs;
use std::path::Path;

use amends::journal::{Command, Verb};
use amends::store::{SqliteStore, Store as _};
use cli_store::{Runs, Said, coordinator, same_as_kept};

/// The page with its sizes, process and version taken out.
fn without_chance(said: &Said, runs: &Runs) -> String {
    let newest = SqliteStore::examine(&runs.path).unwrap().newest_schema;
    let lines = said.whole(runs);
    let lines = lines.lines().map(|line| {
        let mut words = line.split_whitespace().skip(1);
        match (words.next(), words.next()) {
            (Some("disk"), _) => "✓ disk         <n> GiB free".to_owned(),
            (Some("size"), _) => "✓ size         <n> KiB, log <n>".to_owned(),
            (Some("schema"), _) => line.replace(&format!("version {newest}"), "version <newest>"),
            (Some("sqlite"), _) => "✓ sqlite       version <n>".to_owned(),
            (Some("owner"), Some("process")) => {
                "✓ owner        process <n> drives the runs".to_owned()
            }
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}

#[tokio::test]
async fn it_says_what_waits_for_whom() {
    let runs = Runs::of_each_kind().await;
    let said = runs.says("doctor");
    assert_eq!(said.code, 0, "{said:?}");
    same_as_kept("doctor.txt", &without_chance(&said, &runs));

    let outside = SqliteStore::open_reader(&runs.path).unwrap();
    let retry = Command::new("order-4711", Verb::Cancel).by("ada");
    outside.submit(&retry).await.unwrap();
    outside.close().await;
    let form: serde_json::Value = serde_json::from_str(&runs.says("doctor --json").well()).unwrap();
    let check = |name: &str| {
        let checks = form["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["check"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(form["problems"], 0);
    assert_eq!(check("owner")["verdict"], "note");
    assert_eq!(check("parked runs")["says"], "2");
    assert_eq!(check("commands")["verdict"], "note");
    let says = check("commands")["says"].as_str().unwrap().to_owned();
    assert!(says.starts_with("1 without an answer"), "{says}");
}

#[tokio::test]
async fn it_works_beside_the_owner_and_names_it() {
    let runs = Runs::of_each_kind().await;
    let owner = coordinator(&runs.path).await;
    let said = runs.says("doctor");
    assert_eq!(said.code, 0, "{said:?}");
    let process = format!("process {} drives the runs", std::process::id());
    assert!(said.out.contains(&process), "{}", said.out);
    owner.shutdown().await;
}

#[tokio::test]
async fn an_older_store_is_told_apart_and_brought_up_to_date_on_demand() {
    let runs = Runs::of_each_kind().await;
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1.db");
    fs::copy(old, &runs.path).unwrap();
    for left in ["sagas.db-wal", "sagas.db-shm"] {
        let _ = fs::remove_file(runs.dir.path().join(left));
    }

    let said = runs.says("list");
    assert_eq!(said.code, 5);
    assert!(said.err.contains("`amends doctor"), "{}", said.err);
    let said = runs.says("doctor");
    assert_eq!(said.code, 6);
    same_as_kept("doctor-older.txt", &without_chance(&said, &runs));

    let upgraded = runs.says("doctor --upgrade");
    let newest = SqliteStore::examine(&runs.path).unwrap().newest_schema;
    assert!(
        upgraded
            .out
            .contains(&format!("brought from schema version 1 to {newest}")),
        "{}",
        upgraded.out
    );
    assert_eq!(runs.says("list").code, 0);
    let again = runs.says("doctor --upgrade");
    assert!(
        again.out.contains("there was nothing to do"),
        "{}",
        again.out
    );
    assert_eq!(
        runs.says("migrate --apply").well(),
        format!("there was nothing to do: the tables are of version {newest}\n")
    );
}

#[tokio::test]
async fn an_upgrade_waits_for_nobody_who_has_the_store() {
    let runs = Runs::of_each_kind().await;
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1.db");
    let path = runs.dir.path().join("old.db");
    fs::copy(old, &path).unwrap();
    // Who has the lock has the file, whatever is in it.
    let lock = fs::File::create(runs.dir.path().join("old.db.lock")).unwrap();
    lock.lock().unwrap();
    let said = runs.says(&format!("doctor --upgrade --store {}", path.display()));
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.contains("is in use: a coordinator owns it"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("stop the coordinator first"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn an_open_run_whose_definition_is_nowhere_is_a_problem() {
    let runs = Runs::of_each_kind().await;
    let conn = rusqlite::Connection::open(&runs.path).unwrap();
    let gone = conn.execute("DELETE FROM definitions WHERE saga = 'book-trip'", []);
    assert_eq!(gone.unwrap(), 1);
    drop(conn);
    let said = runs.says("doctor");
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.out.contains("book-trip v2 (3)"), "{}", said.out);
    let shown = runs.says("show trip-8");
    assert_eq!(shown.code, 1);
    assert!(
        shown
            .err
            .contains("`amends journal RUN` needs no definition"),
        "{}",
        shown.err
    );
    assert_eq!(runs.says("journal trip-8").code, 0);
}
