//! A run that is started inside the user's own transaction begins to exist with it, or not at all: PostgreSQL,
//! from Rust and from SQL.
#![cfg(all(feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amends::store::{PostgresStore, Store as _};
use amends::{
    Coordinator, Outcome, RunId, Saga, StartError, StartOptions, StartedIn, StepContext, step_with,
};
use schemas::Schemas;
use serde_json::json;
use tokio_postgres::Client;

struct Shop {
    schema: String,
    store: PostgresStore,
    client: Client,
    calls: Arc<AtomicU64>,
    saga: Saga<u64, String>,
}

impl Shop {
    async fn with(test: impl AsyncFnOnce(&Schemas, Shop)) {
        Schemas::with(async |schemas| {
            let store = schemas.store().await;
            let calls = Arc::new(AtomicU64::new(0));
            let client = schemas.client().await;
            let schema = store.schema().to_owned();
            let orders = format!("CREATE TABLE {schema}.orders (id text PRIMARY KEY)");
            client.batch_execute(&orders).await.unwrap();
            let shop = Shop {
                schema,
                store,
                client,
                saga: saga("order", 1, &calls),
                calls,
            };
            test(&schemas, shop).await;
        })
        .await;
    }

    async fn coordinator(&self, schemas: &Schemas) -> Coordinator {
        let store = PostgresStore::options()
            .schema(&self.schema)
            .connect(schemas.config())
            .await
            .unwrap();
        let builder = Coordinator::builder(store).register(&self.saga);
        builder.build().await.unwrap()
    }

    async fn sql(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let sql = sql.replace("amends.", &format!("{}.", self.schema));
        self.client.batch_execute(&sql).await
    }

    /// Whether the run is new.
    async fn start(&self, arguments: &str) -> bool {
        let sql = format!("SELECT {}.start({arguments})", self.schema);
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Why SQL doesn't start it: the SQLSTATE, and what it says.
    async fn refusal(&self, arguments: &str) -> (String, String) {
        let sql = format!("SELECT {}.start({arguments})", self.schema);
        let error = self.client.query_one(&sql, &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        (error.code().code().to_owned(), error.message().to_owned())
    }

    async fn orders(&self) -> i64 {
        let sql = format!("SELECT count(*) FROM {}.orders", self.schema);
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Its output is the amount and the trace id.
fn saga(name: &str, version: u32, calls: &Arc<AtomicU64>) -> Saga<u64, String> {
    let mut saga = Saga::builder::<u64>(name).version(version);
    let amount = saga.input();
    let paid = saga.add(
        step_with(
            "pay",
            Arc::clone(calls),
            async |calls: &Arc<AtomicU64>, cx: &StepContext, amount: &u64| {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok(format!("{amount} {} {}", cx.fence(), cx.trace_id()))
            },
            async |_, _, _, _| Ok(()),
        ),
        amount,
    );
    saga.returns(paid).unwrap()
}

async fn output(coordinator: &Coordinator, saga: &Saga<u64, String>, run: &str) -> String {
    let id = RunId::new(run);
    let found = async {
        loop {
            if let Some(run) = coordinator.attach(saga, &id).await.unwrap() {
                break run.outcome().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Only so that a run that nobody takes up fails the test.
    match tokio::time::timeout(Duration::from_secs(60), found).await {
        Ok(Outcome::Completed(done)) => done.output,
        other => panic!("{run}: {other:?}"),
    }
}

#[tokio::test]
async fn a_start_from_rust_comes_and_goes_with_the_transaction() {
    Shop::with(async |schemas, mut shop| {
        let coordinator = shop.coordinator(schemas).await;
        for (id, commit) in [("order-1", false), ("order-2", true)] {
            let transaction = shop.client.transaction().await.unwrap();
            let insert = format!("INSERT INTO {}.orders VALUES ($1)", shop.schema);
            transaction.execute(&insert, &[&id]).await.unwrap();
            let options = StartOptions::new().label("shop", "7");
            let start = |options| {
                shop.store
                    .start_in(&transaction, &shop.saga, id, 7, options)
            };
            assert_eq!(start(options).await.unwrap(), StartedIn::New);
            assert_eq!(start(StartOptions::new()).await.unwrap(), StartedIn::Same);
            if commit {
                transaction.commit().await.unwrap();
            } else {
                transaction.rollback().await.unwrap();
            }
        }
        let done = output(&coordinator, &shop.saga, "order-2").await;
        assert!(done.starts_with("7 2 "), "claimed once: {done}");
        let gone = coordinator.get(&RunId::new("order-1")).await.unwrap();
        assert!(gone.is_none());
        assert_eq!((shop.calls(), shop.orders().await), (1, 1));
        let found = coordinator.get(&RunId::new("order-2")).await.unwrap();
        assert_eq!(found.unwrap().labels["shop"], "7");

        let transaction = shop.client.transaction().await.unwrap();
        let start = |saga, amount| {
            let options = StartOptions::new();
            shop.store
                .start_in(&transaction, saga, "order-2", amount, options)
        };
        assert_eq!(start(&shop.saga, 7).await.unwrap(), StartedIn::Same);
        let other = start(&shop.saga, 8).await.unwrap_err();
        assert!(matches!(other, StartError::OtherInput { .. }), "{other}");
        let another = saga("refund", 1, &shop.calls);
        let other = start(&another, 7).await.unwrap_err();
        assert!(matches!(other, StartError::OtherSaga { .. }), "{other}");
        transaction.commit().await.unwrap();
        coordinator.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_start_from_sql_comes_and_goes_with_the_transaction() {
    Shop::with(async |schemas, shop| {
        let coordinator = shop.coordinator(schemas).await;
        let order = |id: &str, end: &str| {
            format!(
                "BEGIN; INSERT INTO amends.orders VALUES ('{id}');
                 SELECT amends.start('order', '{id}', '7', labels => '{{\"shop\": \"7\"}}', deadline => '1 hour',
                     traceparent => '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01');
                 {end};"
            )
        };
        shop.sql(&order("order-1", "ROLLBACK")).await.unwrap();
        shop.sql(&order("order-2", "COMMIT")).await.unwrap();
        let done = output(&coordinator, &shop.saga, "order-2").await;
        assert_eq!(done, "7 2 4bf92f3577b34da6a3ce929d0e0e4736");
        let gone = coordinator.get(&RunId::new("order-1")).await.unwrap();
        assert!(gone.is_none());
        assert_eq!((shop.calls(), shop.orders().await), (1, 1));
        let found = coordinator.get(&RunId::new("order-2")).await.unwrap();
        let found = found.unwrap();
        assert_eq!(found.labels["shop"], "7");

        // What SQL wrote is what Rust reads, to the checksum, and starts of both kinds are the same run.
        let journal = shop.store.load(&RunId::new("order-2")).await.unwrap();
        assert_eq!(journal.unwrap().records.len(), 3);
        assert_eq!(shop.store.oddities().await.unwrap(), Vec::<String>::new());
        let handle = coordinator.start(&shop.saga, "order-2", 7).await.unwrap();
        assert!(matches!(handle.outcome().await.unwrap(), Outcome::Completed(_)));
        let refused = coordinator.start(&shop.saga, "order-2", 8).await;
        assert!(matches!(refused, Err(StartError::OtherInput { .. })));
        coordinator.start(&shop.saga, "order-3", 9).await.unwrap();
        assert!(!shop.start("'order', 'order-3', '9'").await);
        coordinator.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_start_from_sql_that_is_not_the_same_is_refused() {
    Shop::with(async |schemas, shop| {
        shop.coordinator(schemas).await.shutdown().await;
        assert!(
            shop.start("'order', 'o', '{\"a\": [1, \"x\"], \"b\": null}'")
                .await
        );
        // White space and the order of members are no part of a JSON value.
        assert!(
            !shop
                .start("'order', 'o', '{\"b\":null,  \"a\":[1,\"x\"]}'")
                .await
        );
        let taken = |message: &str| ("23505".to_owned(), message.to_owned());
        assert_eq!(
            shop.refusal("'order', 'o', '8'").await,
            taken("run \"o\" was started with another input: a new input needs a new id")
        );
        let refund = saga("refund", 1, &shop.calls);
        let store = schemas_store(schemas, &shop.schema).await;
        let builder = Coordinator::builder(store).register(&refund);
        builder.build().await.unwrap().shutdown().await;
        assert_eq!(
            shop.refusal("'refund', 'o', '8'").await,
            taken("run \"o\" is a run of saga \"order\", not of \"refund\": choose another id")
        );
    })
    .await;
}

async fn schemas_store(schemas: &Schemas, schema: &str) -> PostgresStore {
    let options = PostgresStore::options().schema(schema);
    options.connect(schemas.config()).await.unwrap()
}

#[tokio::test]
async fn a_start_from_sql_says_what_it_lacks() {
    Shop::with(async |schemas, shop| {
        let why = |state: &str, message: &str| (state.to_owned(), message.to_owned());
        assert_eq!(
            shop.refusal("'order', 'o', '1'").await,
            why("42704", "no saga \"order\" is known here")
        );
        shop.coordinator(schemas).await.shutdown().await;
        assert_eq!(
            shop.refusal("'order', 'o', '1', version => 2").await,
            why("42704", "no saga \"order\" version 2 is known here")
        );
        assert_eq!(
            shop.refusal("'order', '', '1'").await,
            why("22023", "a run's id has 1 to 512 bytes, and this one has 0")
        );
        assert_eq!(
            shop.refusal("'order', 'o', NULL").await,
            why("22004", "a start needs a saga, an id and an input")
        );
        assert_eq!(
            shop.refusal("'order', 'o', '1', labels => '{\"a\": 1}'")
                .await,
            why("22023", "the labels have to be an object of texts")
        );
        shop.sql("SET synchronous_commit = off").await.unwrap();
        let (state, _) = shop.refusal("'order', 'o', '1'").await;
        assert_eq!(state, "22023");
        assert_eq!(shop.store.find(&RunId::new("o")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_start_from_sql_takes_the_newest_version_that_somebody_handles() {
    Shop::with(async |schemas, shop| {
        // Version 3 was handled once, and is not any more.
        let sagas = [1, 2, 3].map(|version| saga("order", version, &shop.calls));
        for have in [&sagas[..], &sagas[..2]] {
            let store = schemas_store(schemas, &shop.schema).await;
            let mut builder = Coordinator::builder(store);
            for saga in have {
                builder = builder.register(saga);
            }
            builder.build().await.unwrap().shutdown().await;
        }
        let version = async |id: &str| {
            let entry = shop.store.find(&RunId::new(id)).await.unwrap();
            entry.unwrap().version
        };
        assert!(shop.start("'order', 'newest', '1'").await);
        assert_eq!(version("newest").await, 2);
        assert!(shop.start("'order', 'said', '1', version => 3").await);
        assert_eq!(version("said").await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_start_from_sql_may_do_what_its_caller_may() {
    Shop::with(async |schemas, shop| {
        shop.coordinator(schemas).await.shutdown().await;
        let role = format!("{}_teller", shop.schema);
        let as_teller = async |sql: &str| {
            let sql = format!("BEGIN; SET LOCAL ROLE {role}; {sql}; COMMIT");
            let done = shop.sql(&sql).await;
            shop.sql("ROLLBACK").await.unwrap();
            done.map_err(|error| error.as_db_error().unwrap().message().to_owned())
        };
        shop.sql(&format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA {} TO {role}", shop.schema))
            .await
            .unwrap();
        let start = "SELECT amends.start('order', 'o', '1')";
        let refused = as_teller(start).await.unwrap_err();
        assert!(refused.starts_with("permission denied for table "), "{refused}");
        let grants = "GRANT SELECT ON amends.definitions, amends.workers, amends.kinds, amends.runs, amends.journal TO";
        let more = "GRANT INSERT ON amends.runs, amends.journal, amends.kinds, amends.open_runs, amends.labels TO";
        shop.sql(&format!("{grants} {role}; {more} {role}")).await.unwrap();
        as_teller(start).await.unwrap();
        let ended = as_teller("DELETE FROM amends.open_runs").await;
        shop.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
        assert_eq!(ended.unwrap_err(), "permission denied for table open_runs");
    })
    .await;
}

#[tokio::test]
async fn a_malformed_trace_is_ignored_and_a_well_formed_one_is_kept_as_rust_keeps_it() {
    Shop::with(async |schemas, shop| {
        shop.coordinator(schemas).await.shutdown().await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let headers = [
            (format!("00-{trace}-00f067aa0ba902b7-01"), Some("01")),
            (format!(" 00-{trace}-00f067aa0ba902b7-ff\t"), Some("03")),
            (format!("01-{trace}-00f067aa0ba902b7-03-more"), Some("01")),
            (format!("00-{trace}-00f067aa0ba902b7-01-more"), None),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), None),
            (format!("00-{trace}-0000000000000000-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            ("garbled".to_owned(), None),
        ];
        for (place, (header, flags)) in headers.iter().enumerate() {
            let arguments = format!("'order', 'sql-{place}', '1', traceparent => '{header}'");
            assert!(shop.start(&arguments).await);
            let mut client = schemas.client().await;
            let transaction = client.transaction().await.unwrap();
            let options = StartOptions::new().traceparent(header);
            let id = format!("rust-{place}");
            let started = shop.store.start_in(&transaction, &shop.saga, id, 1, options);
            started.await.unwrap();
            transaction.commit().await.unwrap();

            let sql = format!(
                "SELECT ((events::json) -> 0 -> 'run_started')::text FROM {0}.journal JOIN {0}.runs ON run = number WHERE id = $1",
                shop.schema
            );
            let said = async |id: String| {
                let row = shop.client.query_one(&sql, &[&id]).await.unwrap();
                serde_json::from_str::<serde_json::Value>(row.get(0)).unwrap()
            };
            let (of_sql, of_rust) =
                (said(format!("sql-{place}")).await, said(format!("rust-{place}")).await);
            assert_eq!(of_sql.get("traceparent"), of_rust.get("traceparent"), "{header:?}");
            let kept = flags.map(|flags| json!(format!("00-{trace}-00f067aa0ba902b7-{flags}")));
            assert_eq!(of_sql.get("traceparent"), kept.as_ref(), "{header:?}");
            assert_eq!(of_sql["trace_id"] == trace, flags.is_some(), "{header:?}");
        }
    })
    .await;
}

/// PostgreSQL's own client: no code of ours is in the process that starts the run.
async fn psql(schemas: &Schemas, schema: &str, script: &str) {
    let script = script.replace("amends.", &format!("{schema}."));
    let config = schemas.config().to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut psql = std::process::Command::new(postgres::programs().join("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &script, &config]);
        psql.output().unwrap()
    })
    .await
    .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

#[tokio::test]
async fn a_run_that_psql_starts_beside_a_business_row_comes_and_goes_with_it() {
    Shop::with(async |schemas, shop| {
        let coordinator = shop.coordinator(schemas).await;
        let script = |order: &str, end: &str| {
            format!(
                "BEGIN; INSERT INTO amends.orders VALUES ('{order}'); SELECT amends.start('order', '{order}', '7'); {end};"
            )
        };
        psql(schemas, &shop.schema, &script("rolled-back", "ROLLBACK")).await;
        psql(schemas, &shop.schema, &script("committed", "COMMIT")).await;
        let ended = output(&coordinator, &shop.saga, "committed").await;
        assert!(ended.starts_with("7 2 "), "{ended}");
        assert_eq!((shop.orders().await, shop.calls()), (1, 1));
        let none = shop.store.find(&RunId::new("rolled-back")).await.unwrap();
        assert_eq!(none, None);
        coordinator.shutdown().await;
    })
    .await;
}
