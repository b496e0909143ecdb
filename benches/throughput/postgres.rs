//! Runs in PostgreSQL with `synchronous_commit=on`, by one worker or several, and bare inserts of the same rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::Coordinator;
use amends::store::{PostgresStore, Store as _};
use tokio::runtime::Runtime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::cells::{Cell, Counted, Limit, Options, Store};
use crate::load::{self, Load, Loops, Work};
use crate::w3::{self, Ids, Runs};

#[path = "../../tests/common/postgres.rs"]
mod server;

pub(crate) fn cells() -> Vec<Cell> {
    let cell = |variant, in_flight, workers, failing| Cell {
        store: Store::Postgres,
        variant,
        in_flight,
        place: load::Place::Task,
        failing,
        ids: Ids::Ordered,
        workers,
    };
    vec![
        cell("successful", 1, 1, 0),
        cell("successful", 16, 1, 0),
        cell("successful", 256, 1, 0),
        cell("successful", 256, 4, 0),
        cell("successful", 1_024, 1, 0),
        cell("successful", 1_024, 4, 0),
        cell("10 % failing", 256, 1, 10),
        cell("failing", 1, 1, 100),
        cell("failing", 256, 1, 100),
    ]
}

/// The server: one that was named, or a private one with the server's own defaults, its folder in that for temporary
/// files.
pub(crate) struct Place {
    address: String,
    _private: Option<server::Server>,
}

impl Place {
    pub(crate) fn find(runtime: &Runtime, options: &Options) -> Self {
        let place = runtime.block_on(async {
            if let Some(address) = options.postgres.clone() {
                return Place {
                    address,
                    _private: None,
                };
            }
            // What the tests turn off or make small.
            let settings = [("fsync", "on"), ("shared_buffers", "128MB")];
            let private = server::Server::own(&settings).await;
            Place {
                address: private.address_by(private.port()),
                _private: Some(private),
            }
        });
        runtime.block_on(async {
            let client = place.connect().await;
            for (setting, wanted) in [("fsync", "on"), ("synchronous_commit", "on")] {
                let sql = format!("SHOW {setting}");
                let row = client.query_one(&sql, &[]).await.expect("a setting");
                let found: String = row.get(0);
                assert_eq!(found, wanted, "{setting}");
            }
        });
        place
    }

    async fn connect(&self) -> Client {
        let config = self.address.parse().expect("an address");
        server::connect(&config).await.expect("a connection")
    }
}

pub(crate) fn measure(
    runtime: &Runtime,
    cell: &Cell,
    options: &Options,
    place: &Place,
) -> (Counted, Limit) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let schema = format!("throughput_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let admin = runtime.block_on(place.connect());
    runtime.block_on(async {
        let sql = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CHECKPOINT");
        admin.batch_execute(&sql).await.expect("a clean place");
    });
    let syncs_before = runtime.block_on(syncs(&admin));

    let saga = w3::saga();
    let workers: Vec<(Arc<PostgresStore>, Coordinator)> = (0..cell.workers)
        .map(|worker| {
            runtime.block_on(async {
                let store = PostgresStore::options().schema(&schema);
                let store = store.connect(&place.address).await.expect("a store");
                let store = Arc::new(store);
                let coordinator = Coordinator::builder_shared(store.clone())
                    .worker(format!("worker-{worker}"))
                    .register(&saga)
                    .build()
                    .await
                    .expect("a coordinator");
                (store, coordinator)
            })
        })
        .collect();
    let work: Vec<Runs> = workers
        .iter()
        .map(|(_, coordinator)| Runs::new(coordinator, &saga, cell.ids, cell.failing))
        .collect();
    let counts = || {
        let stores = workers.iter().map(|(store, _)| store);
        stores.fold((0, 0), |(appends, commits), store| {
            (appends + store.appends(), commits + store.commits())
        })
    };
    let loops = Loops::new(runtime, cell.place, cell.in_flight);
    // So that there are rows to copy, and connections are there.
    let warm = loops.drive(options.lasts / 10, &work).runs;

    let bare = runtime.block_on(Bare::prepare(place, &schema, cell.in_flight > 1));
    let theirs = Loops::new(runtime, cell.place, 1);
    let (mut load, mut limit) = (Load::default(), Load::default());
    let (mut appends, mut commits) = (0, 0);
    for slice in options.slices() {
        let before = counts();
        load = load.and(loops.drive(slice, &work));
        let after = counts();
        appends += after.0 - before.0;
        commits += after.1 - before.1;
        bare.batch((appends / commits.max(1)).max(1));
        limit = limit.and(theirs.drive(slice, std::slice::from_ref(&bare)));
    }
    let rows = bare.rows();
    drop(bare);
    drop(work);
    runtime.block_on(async {
        for (store, coordinator) in workers {
            coordinator.shutdown().await;
            drop(coordinator);
            store.close().await;
        }
    });
    // Sessions tell what they have synced when they end.
    let syncs = runtime.block_on(async {
        others_are_gone(&admin).await;
        let all = syncs(&admin).await - syncs_before;
        let sql = format!("DROP SCHEMA {schema} CASCADE");
        admin.batch_execute(&sql).await.expect("a clean place");
        // A bare commit is a sync, since no other session commits meanwhile.
        all.saturating_sub(limit.runs)
    });
    let counted = Counted {
        appends: Some(appends),
        commits: Some(commits),
        // Those of the runs before the first slice are taken out by their share.
        syncs: Some(syncs * load.runs / (load.runs + warm)),
        ..Counted::of(load)
    };
    let limit = if cell.in_flight == 1 {
        Limit::Commit(limit.quantile(500))
    } else {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        Limit::Rows(rows as f64 / limit.took.as_secs_f64())
    };
    (counted, limit)
}

/// How many syncs of its log the server has made.
async fn syncs(client: &Client) -> u64 {
    let version = client.query_one("SELECT current_setting('server_version_num')::int", &[]);
    let version: i32 = version.await.expect("a version").get(0);
    // What flushes of the log did was moved, and PostgreSQL 13 doesn't tell.
    let sql = match version {
        180_000.. => {
            "SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_io WHERE object = 'wal' AND context = 'normal'"
        }
        140_000.. => "SELECT wal_sync FROM pg_stat_wal",
        _ => "SELECT 0::bigint",
    };
    let syncs: i64 = client.query_one(sql, &[]).await.expect("a count").get(0);
    u64::try_from(syncs).unwrap_or_default()
}

async fn others_are_gone(client: &Client) {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()";
    for _ in 0..500 {
        let others: i64 = client.query_one(sql, &[]).await.expect("a count").get(0);
        if others == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eprintln!("other sessions stay, so that syncs may be counted wrongly");
}

/// One connection that inserts the same rows: one to a commit, or as many as the store has on average. As many runs
/// are interleaved as a commit has rows.
#[derive(Clone)]
struct Bare(Arc<Inside>);

struct Inside {
    client: Client,
    insert: Statement,
    records: Vec<String>,
    /// Whether there are batches.
    batches: bool,
    at: Mutex<At>,
}

#[derive(Default)]
struct At {
    batch: usize,
    rows: u64,
    begun: i64,
    /// The runs in flight, and how many records of each are written.
    runs: Vec<(i64, usize)>,
}

impl At {
    /// The runs of the next commit's rows, and their places in them.
    fn next(&mut self, records: usize) -> (Vec<i64>, Vec<i64>) {
        // A run is at another record than its neighbours, so that each commit has all kinds of rows.
        while self.runs.len() < self.batch {
            self.begun += 1;
            self.runs.push((self.begun, self.runs.len() % records));
        }
        self.rows += self.batch as u64;
        let (batch, begun) = (self.batch, &mut self.begun);
        let places = self.runs.iter_mut().take(batch).map(|(run, written)| {
            if *written == records {
                *begun += 1;
                (*run, *written) = (*begun, 0);
            }
            *written += 1;
            (*run, i64::try_from(*written).expect("few records"))
        });
        places.unzip()
    }
}

impl Bare {
    async fn prepare(place: &Place, schema: &str, batches: bool) -> Self {
        let client = place.connect().await;
        let sql = format!(
            "SELECT events FROM {schema}.journal WHERE run = (SELECT max(run) FROM {schema}.ended_runs) ORDER BY seq"
        );
        let rows = client.query(&sql, &[]).await.expect("a run");
        let records: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let insert = if batches {
            let sql = format!(
                "CREATE TABLE {schema}.bare_journal (LIKE {schema}.journal INCLUDING ALL); SET search_path TO {schema}"
            );
            client.batch_execute(&sql).await.expect("a table");
            let types = [
                Type::INT8_ARRAY,
                Type::INT8_ARRAY,
                Type::BYTEA_ARRAY,
                Type::INT8_ARRAY,
                Type::TEXT_ARRAY,
                Type::BYTEA_ARRAY,
            ];
            let sql = "INSERT INTO bare_journal (run, seq, form, append_id, at, events, checksum)
                       SELECT i.run, i.seq, 1, i.append_id, i.at, i.events, i.checksum
                       FROM unnest($1, $2, $3, $4, $5, $6) AS i (run, seq, append_id, at, events, checksum)";
            client.prepare_typed(sql, &types).await
        } else {
            let sql = format!(
                "CREATE TABLE {schema}.bare (at bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, events text NOT NULL);
                 SET search_path TO {schema}"
            );
            client.batch_execute(&sql).await.expect("a table");
            client
                .prepare("INSERT INTO bare (events) VALUES ($1)")
                .await
        };
        Bare(Arc::new(Inside {
            insert: insert.expect("a statement"),
            client,
            records,
            batches,
            at: Mutex::default(),
        }))
    }

    fn batch(&self, rows: u64) {
        self.0.at.lock().expect("no panic").batch = usize::try_from(rows).expect("few rows");
    }

    fn rows(&self) -> u64 {
        self.0.at.lock().expect("no panic").rows
    }
}

impl Work for Bare {
    async fn once(&self, _number: u64) {
        let Inside {
            client,
            insert,
            records,
            batches,
            at,
        } = &*self.0;
        if !*batches {
            let written = client.execute(insert, &[&records[1]]).await;
            assert_eq!(written.expect("a commit"), 1);
            return;
        }
        let (runs, seqs) = at.lock().expect("no panic").next(records.len());
        let texts: Vec<&str> = seqs
            .iter()
            .map(|seq| &*records[usize::try_from(seq - 1).expect("a place")])
            .collect();
        let ids = vec![&[7_u8; 16][..]; runs.len()];
        let ats = vec![1_700_000_000_000_000_i64; runs.len()];
        let checksums = vec![&[7_u8; 8][..]; runs.len()];
        let written = client
            .execute(insert, &[&runs, &seqs, &ids, &ats, &texts, &checksums])
            .await;
        assert_eq!(written.expect("a commit"), runs.len() as u64);
    }
}
