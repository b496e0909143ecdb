//! What a PostgreSQL store becomes with a million runs, and how long looking for work takes in it.
//!
//! `cargo bench --bench postgres_size --features postgres,testkit [-- --runs N --open N]`: a private server is filled with
//! ended runs and with open ones of nobody, three appends a run, 256 in flight, while another session holds a
//! transaction open; then that transaction ends, and autovacuum has its turn. Before and after it prints how many rows are dead
//! in each table, how large tables and their indices are, and how long a claim of 64 runs, and a look that finds
//! none, take.
#![allow(clippy::unwrap_used, missing_docs)] // A bench.
#![allow(clippy::cast_precision_loss, reason = "numbers far below 2^52")]

#[path = "../tests/common/guard.rs"]
mod guard;
#[path = "../tests/common/postgres.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::journal::Standing;
use amends::store::{Fleet as _, PostgresStore, Store as _, Worker};
use amends::testkit::conformance::Sample;
use tokio::task::JoinSet;
use tokio_postgres::Client;

const IN_FLIGHT: usize = 256;

fn option(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).map_or(default, |value| value.parse().unwrap())
}

/// Appends so many runs: open ones are of nobody, and have nothing in flight but their start.
async fn fill(store: &Arc<PostgresStore>, prefix: &str, runs: u64, ends: bool) -> Duration {
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..IN_FLIGHT as u64 {
        let (store, prefix) = (Arc::clone(store), prefix.to_owned());
        writers.spawn(async move {
            let mut run = writer;
            while run < runs {
                let mut sample = Sample::new(format!("{prefix}-{run:09}")).by("");
                store.append(sample.start()).await.unwrap();
                if ends {
                    store.append(sample.step("some output")).await.unwrap();
                    store
                        .append(sample.stand(Standing::Completed))
                        .await
                        .unwrap();
                }
                run += IN_FLIGHT as u64;
            }
        });
    }
    writers.join_all().await;
    began.elapsed()
}

async fn tell_sizes(client: &Client, when: &str) {
    let sql = "SELECT relname, n_live_tup, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid)
               FROM pg_stat_user_tables WHERE schemaname = 'amends' AND n_live_tup + n_dead_tup > 100 ORDER BY relname";
    // Statistics are written half a second late.
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "\n{when}\n{:<12} {:>10} {:>10} {:>9} {:>9}",
        "table", "rows", "dead", "MiB", "indices"
    );
    for row in client.query(sql, &[]).await.unwrap() {
        let [rows, dead, table, indices] = [1, 2, 3, 4].map(|at| row.get::<_, i64>(at));
        let mib = |bytes: i64| bytes as f64 / 1_048_576.0;
        let name: &str = row.get(0);
        println!(
            "{name:<12} {rows:>10} {dead:>10} {:>9.1} {:>9.1}",
            mib(table),
            mib(indices)
        );
    }
}

/// Says how long claims of 64 runs take, and looks that find nothing.
async fn tell_claims(store: &PostgresStore, when: &str) {
    let worker =
        Worker::new(format!("bench-{}", amends::RunId::random()), "bench").drives("sample", 1);
    store.join(&worker).await.unwrap();
    for (what, definitions) in [
        ("claim of 64", vec![("sample".to_owned(), 1)]),
        ("look that finds none", vec![("sample".to_owned(), 2)]),
    ] {
        let mut took = Vec::new();
        let mut given = 0;
        for _ in 0..200 {
            let began = Instant::now();
            given += store
                .claim_due(&worker.id, &definitions, 64)
                .await
                .unwrap()
                .len();
            took.push(began.elapsed());
        }
        took.sort();
        println!(
            "{when}: {what}: p50 {:.2?}, p99 {:.2?}, {given} runs given",
            took[100], took[198]
        );
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (runs, open) = (option("--runs", 1_000_000), option("--open", 200_000));
    let server = postgres::Server::own(&[]).await;
    let client = server.connect().await;
    let store = PostgresStore::options().lease(Duration::from_secs(600));
    let store = Arc::new(store.connect(&text(&server)).await.unwrap());

    let held = server.connect().await;
    held.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM amends.runs")
        .await
        .unwrap();
    let took = fill(&store, "open", open, false).await;
    println!("{open} open runs after {took:.1?}");
    let took = fill(&store, "ended", runs, true).await;
    println!(
        "{runs} ended runs after {took:.1?}: {:.0} runs/s",
        runs as f64 / took.as_secs_f64()
    );
    tell_sizes(&client, "with a transaction held open in another session").await;
    tell_claims(&store, "held open").await;

    held.batch_execute("COMMIT").await.unwrap();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sql = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = 'amends'";
        let dead: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        if dead < 20_000 {
            break;
        }
    }
    tell_sizes(&client, "after that, with autovacuum's defaults").await;
    tell_claims(&store, "after vacuum").await;
    store.close().await;
}

fn text(server: &postgres::Server) -> String {
    server.address_by(server.port())
}
