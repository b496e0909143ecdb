//! Rule W2 by severity: after an error the server has written nothing, so an append that got in the way of others is
//! tried again, and one that was cancelled is refused for certain.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::time::Duration;

use amends::store::{AppendError, PostgresStore, Store as _};
use amends::testkit::conformance::Sample;
use tokio_postgres::Client;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

/// A store with one lane and a run in it, whose next appends fail with this state so many times.
async fn failing(schemas: &Schemas, state: &str, times: u32) -> (PostgresStore, Client, Sample) {
    let store = PostgresStore::options()
        .schema(schemas.name())
        .lanes(1)
        .connect(schemas.config())
        .await
        .unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    let client = schemas.client().await;
    // What a sequence gives is not taken back with the transaction.
    let sql = "
        CREATE SEQUENCE {}.tries;
        CREATE FUNCTION {}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('{}.tries') <= TIMES THEN RAISE EXCEPTION 'refused' USING ERRCODE = 'STATE'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER refuse AFTER INSERT ON {}.journal FOR EACH ROW EXECUTE FUNCTION {}.refuse()";
    let sql = sql
        .replace("{}", &format!("\"{}\"", store.schema()))
        .replace("TIMES", &times.to_string())
        .replace("STATE", state);
    client.batch_execute(&sql).await.unwrap();
    (store, client, sample)
}

async fn tries(store: &PostgresStore, client: &Client) -> i64 {
    let sql = format!("SELECT last_value FROM \"{}\".tries", store.schema());
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn w2_what_got_in_the_way_of_others_is_tried_again_by_the_store() {
    Schemas::with(async |schemas| {
        for state in ["40001", "40P01", "55P03"] {
            let (store, client, mut sample) = failing(&schemas, state, 3).await;
            store.append(sample.step("output")).await.unwrap();
            assert_eq!(tries(&store, &client).await, 4, "{state}");
        }
    })
    .await;
}

#[tokio::test]
async fn w2_what_gets_in_the_way_each_time_is_refused_in_the_end() {
    Schemas::with(async |schemas| {
        let (store, client, mut sample) = failing(&schemas, "40001", 11).await;
        let next = sample.step("output");
        let answer = store.append(next.clone()).await;
        assert!(
            matches!(answer, Err(AppendError::NotWritten(_))),
            "{answer:?}"
        );
        assert_eq!(tries(&store, &client).await, 11);
        store.append(next).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn w2_a_state_that_says_that_nobody_knows_is_unknown() {
    Schemas::with(async |schemas| {
        for state in ["40003", "08007"] {
            let (store, client, mut sample) = failing(&schemas, state, 1).await;
            let next = sample.step("output");
            let answer = store.append(next.clone()).await;
            assert!(matches!(answer, Err(AppendError::Unknown(_))), "{answer:?}");
            assert_eq!(tries(&store, &client).await, 1);
            store.append(next).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn w2_a_statement_that_was_cancelled_has_not_written_and_one_that_was_ended_is_unknown() {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        let client = schemas.client().await;
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        let next = sample.step("output");
        let journal = format!("\"{}\".journal", store.schema());
        for (function, known) in [("pg_cancel_backend", true), ("pg_terminate_backend", false)] {
            client
                .batch_execute(&format!("BEGIN; LOCK TABLE {journal} IN EXCLUSIVE MODE"))
                .await
                .unwrap();
            let appending = store.append(next.clone());
            let end = format!(
                "SELECT {function}(pid) FROM pg_locks WHERE NOT granted AND relation = '{journal}'::regclass"
            );
            while client.query(&end, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let answer = appending.await;
            match answer {
                Err(AppendError::NotWritten(_)) if known => {}
                Err(AppendError::Unknown(_)) if !known => {}
                answer => panic!("{function}: {answer:?}"),
            }
            client.batch_execute("COMMIT").await.unwrap();
        }
        store.append(next).await.unwrap();
        let journal = store.load(sample.run()).await.unwrap().unwrap();
        assert_eq!(journal.records.len(), 2);
    })
    .await;
}

/// Whether a wait for a standby was cancelled can't be told from other warnings of that code.
#[tokio::test]
async fn w2_a_warning_beside_a_commit_leaves_the_append_unknown_and_spoils_no_read() {
    Schemas::with(async |schemas| {
        let store = schemas.store().await;
        let client = schemas.client().await;
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        let schema = format!("\"{}\"", store.schema());
        for (raised, known) in [
            ("NOTICE 'said'", true),
            ("WARNING 'said' USING ERRCODE = '01P01'", true),
            ("WARNING 'said'", false),
        ] {
            let say = "
                CREATE OR REPLACE FUNCTION {}.say() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                    RAISE RAISED; RETURN true;
                END $$;
                DROP POLICY IF EXISTS says ON {}.journal;
                CREATE POLICY says ON {}.journal USING ({}.say());
                ALTER TABLE {}.journal ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;";
            let say = say.replace("{}", &schema).replace("RAISED", raised);
            client.batch_execute(&say).await.unwrap();
            // Who may do everything is asked by no policy.
            let (role, config) = (format!("{} reader", store.schema()), schemas.config());
            let grant = format!(
                "DO $$ BEGIN CREATE ROLE \"{role}\" LOGIN PASSWORD 'a password'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
                 GRANT ALL ON SCHEMA {schema} TO \"{role}\"; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO \"{role}\""
            );
            client.batch_execute(&grant).await.unwrap();
            let asked = PostgresStore::options()
                .schema(store.schema())
                .connect(&format!("{config} user='{role}' password='a password'"))
                .await
                .unwrap();
            let next = sample.step("output");
            let answer = asked.append(next.clone()).await;
            match answer {
                Ok(()) if known => {}
                Err(AppendError::Unknown(_)) if !known => {}
                answer => panic!("{raised}: {answer:?}"),
            }
            let journal = asked.load(sample.run()).await.unwrap().unwrap();
            assert_eq!(journal.records.last().unwrap().seq, next.record.seq, "{raised}");
            asked.close().await;
            store.append(next).await.unwrap();
        }
        let gone = format!("DROP OWNED BY \"{0} reader\"; DROP ROLE \"{0} reader\"", store.schema());
        client.batch_execute(&gone).await.unwrap();
    })
    .await;
}
