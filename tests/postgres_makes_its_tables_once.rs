//! Tables are made once, however many start at once; by whoever may; and those of a newer build are left alone.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::process::Command;

use amends::store::{PostgresStore, RunFilter, Store as _, StoreError};
use amends::testkit::conformance::Sample;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

fn refusal(opened: Result<PostgresStore, StoreError>) -> String {
    match opened {
        Err(StoreError::Foreign { what }) => what,
        other => panic!("{other:?}"),
    }
}

/// The version of the tables that this build makes.
fn newest() -> i32 {
    PostgresStore::migrations().last().unwrap().number
}

/// Where the one process leaves word for the other of what it shall open.
const CONFIG: &str = "AMENDS_TEST_MIGRATES_BY";
const SCHEMA: &str = "AMENDS_TEST_MIGRATES";

/// The body of a process of its own, where one is wanted.
#[tokio::test]
async fn a_process_of_its_own() {
    let Ok(schema) = std::env::var(SCHEMA) else {
        return;
    };
    let config = std::env::var(CONFIG).unwrap();
    let opened = (0..3).map(|_| {
        let (schema, config) = (schema.clone(), config.clone());
        tokio::spawn(async move {
            PostgresStore::options()
                .schema(schema)
                .connect(&config)
                .await
        })
    });
    for store in opened.collect::<Vec<_>>() {
        store.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_migrate_once() {
    Schemas::with(async |schemas| {
        let schema = schemas.name();
        let client = schemas.client().await;
        // Both wait for the lock that a migration takes, and are let go together.
        let lock = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('amends migrations of {schema}', 0))");
        client.batch_execute(&lock).await.unwrap();
        let mut processes: Vec<_> = (0..2)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "a_process_of_its_own"])
                    .env(SCHEMA, &schema)
                    .env(CONFIG, schemas.config())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) < 6 {
            let over = processes.iter_mut().any(|it| it.try_wait().unwrap().is_some());
            assert!(!over, "somebody did not wait for the lock");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        client.batch_execute("COMMIT").await.unwrap();
        for process in &mut processes {
            assert!(process.wait().unwrap().success());
        }
        let versions = format!("SELECT count(*), max(version) FROM \"{schema}\".schema_version");
        let row = client.query_one(&versions, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::from(newest()));
        assert_eq!(row.get::<_, i32>(1), newest());
    })
    .await;
}

#[tokio::test]
async fn tables_of_a_newer_build_are_refused_and_left_alone() {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        store.close().await;
        let client = schemas.client().await;
        let newer = format!(
            "INSERT INTO \"{}\".schema_version VALUES (99, 'later')",
            store.schema()
        );
        client.batch_execute(&newer).await.unwrap();
        for migrate in [true, false] {
            let options = PostgresStore::options()
                .schema(store.schema())
                .migrate(migrate);
            let what = refusal(options.connect(schemas.config()).await);
            let knows = format!("knows version {} at most", newest());
            assert!(
                what.contains("tables of version 99") && what.contains(&knows),
                "{what}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_migrate_is_told_what_to_run_and_goes_on_once_it_was() {
    Schemas::with(async |schemas| {
        let options = PostgresStore::options()
            .schema(schemas.name())
            .migrate(false);
        let what = refusal(options.connect(schemas.config()).await);
        assert!(
            what.contains("no tables yet") && what.contains("amends migrate --print"),
            "{what}"
        );
        let client = schemas.client().await;
        for migration in options.migrations() {
            client.batch_execute(&migration.to_string()).await.unwrap();
        }
        let store = options.connect(schemas.config()).await.unwrap();
        store.append(Sample::new("run").start()).await.unwrap();
        // What was made by hand is what is made otherwise: opened so, it is as it should be.
        let again = options
            .clone()
            .migrate(true)
            .connect(schemas.config())
            .await
            .unwrap();
        assert_eq!(
            again.scan(&RunFilter::open(), None, 9).await.unwrap().len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_role_that_owns_nothing_but_its_schema_can_do_everything() {
    Schemas::with(async |schemas| {
        let (schema, client) = (schemas.name(), schemas.client().await);
        let role = format!("role of {schema}");
        let made = format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'a password'; CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{role}\""
        );
        client.batch_execute(&made).await.unwrap();
        let config = format!("{} user='{role}' password='a password'", schemas.config());
        let store = PostgresStore::options().schema(&schema).connect(&config).await.unwrap();
        let owners = "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tableowner = $2";
        let owned = client.query_one(owners, &[&schema, &role]).await.unwrap();
        assert!(owned.get::<_, i64>(0) > 0);
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        store.append(sample.step("output")).await.unwrap();
        assert_eq!(store.load(sample.run()).await.unwrap().unwrap().records.len(), 2);
        store.close().await;
        let other = PostgresStore::options().schema(schemas.name());
        let error = other.connect(&config).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        let gone = format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"");
        client.batch_execute(&gone).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_in_utf8_is_refused() {
    Schemas::with(async |schemas| {
        let (name, client) = (schemas.name(), schemas.client().await);
        let make = format!(
            "CREATE DATABASE \"{name}\" ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'"
        );
        client.batch_execute(&make).await.unwrap();
        let config = format!("{} dbname='{name}'", schemas.config());
        let what = refusal(PostgresStore::connect(&config).await);
        client
            .batch_execute(&format!("DROP DATABASE \"{name}\""))
            .await
            .unwrap();
        assert!(what.contains("the encoding SQL_ASCII"), "{what}");
    })
    .await;
}

#[tokio::test]
async fn neither_its_debug_form_nor_its_errors_tell_the_password() {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        let shown = format!("{store:?}");
        assert!(
            shown.contains(store.schema()) && !shown.contains("password"),
            "{shown}"
        );
        for config in [
            "host=/nowhere password=secret",
            "host=/nowhere password=secret nonsense=1",
        ] {
            let error = PostgresStore::connect(config).await.unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    })
    .await;
}
