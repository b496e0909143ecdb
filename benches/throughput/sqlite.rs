//! Runs in a SQLite file, with `synchronous=FULL`, and a bare writer of the same rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use amends::Coordinator;
use amends::store::{SqliteStore, Store as _};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

use crate::cells::{Cell, Counted, Limit, Options, Store};
use crate::load::{Load, Loops, Place, repeat};
use crate::syncs::SYNCS;
use crate::w3::{self, Ids, Runs};

pub(crate) fn cells() -> Vec<Cell> {
    let cell = |variant, in_flight, ids, failing| Cell {
        store: Store::Sqlite,
        variant,
        in_flight,
        place: Place::Task,
        failing,
        ids,
        workers: 1,
    };
    vec![
        cell("successful, ordered ids", 1, Ids::Ordered, 0),
        cell("successful, ordered ids", 16, Ids::Ordered, 0),
        cell("successful, ordered ids", 256, Ids::Ordered, 0),
        cell("successful, ordered ids", 1_024, Ids::Ordered, 0),
        cell("successful, random ids", 1, Ids::Random, 0),
        cell("successful, random ids", 256, Ids::Random, 0),
        cell("10 % failing, ordered ids", 256, Ids::Ordered, 10),
        cell("failing, ordered ids", 1, Ids::Ordered, 100),
        cell("failing, ordered ids", 256, Ids::Ordered, 100),
    ]
}

pub(crate) fn measure(runtime: &Runtime, cell: &Cell, options: &Options) -> (Counted, Limit) {
    std::fs::create_dir_all(&options.folder).expect("a folder");
    let folder = tempfile::tempdir_in(&options.folder).expect("a folder of its own");
    let file = folder.path().join("sagas.db");
    let store = Arc::new(SqliteStore::open(&file).expect("a store"));
    let saga = w3::saga();
    let coordinator = runtime.block_on(async {
        Coordinator::builder_shared(store.clone())
            .register(&saga)
            .build()
            .await
            .expect("a coordinator")
    });
    let work = [Runs::new(&coordinator, &saga, cell.ids, cell.failing)];
    let loops = Loops::new(runtime, cell.place, cell.in_flight);
    // So that there are rows to copy, and connections and threads are there.
    loops.drive(options.lasts / 20, &work);

    let mut load = Load::default();
    let (mut appends, mut commits, mut syncs) = (0, 0, 0);
    let mut limit = if cell.in_flight == 1 {
        Bare::Commits(Commits::in_file(&file), Load::default())
    } else {
        Bare::Writer(Box::new(Writer::beside(&file, cell.ids)))
    };
    for slice in options.slices() {
        let before = (
            store.appends(),
            store.commits(),
            SYNCS.load(Ordering::Relaxed),
        );
        load = load.and(loops.drive(slice, &work));
        appends += store.appends() - before.0;
        commits += store.commits() - before.1;
        syncs += SYNCS.load(Ordering::Relaxed) - before.2;
        match &mut limit {
            Bare::Commits(commits, sum) => {
                *sum = std::mem::take(sum).and(commits.write(slice));
            }
            Bare::Writer(writer) => {
                let batch = usize::try_from(appends / commits.max(1)).unwrap_or_default();
                writer.write(slice, batch.max(1));
            }
        }
    }
    runtime.block_on(coordinator.shutdown());
    runtime.block_on(store.close());
    let counted = Counted {
        appends: Some(appends),
        commits: Some(commits),
        syncs: cfg!(target_os = "linux").then_some(syncs),
        ..Counted::of(load)
    };
    let limit = match limit {
        Bare::Commits(_, sum) => Limit::Commit(sum.quantile(500)),
        Bare::Writer(writer) => Limit::Rows(writer.rate()),
    };
    (counted, limit)
}

enum Bare {
    Commits(Commits, Load),
    Writer(Box<Writer>),
}

/// A connection that makes commits durable as the store's does, and copies a full log as often.
fn connect(file: &Path) -> Connection {
    let conn = Connection::open(file).expect("a connection");
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1018")
        .expect("settings");
    conn
}

/// The events of a run's records in this file, in their order.
fn records(conn: &Connection) -> Vec<String> {
    let mut rows = conn
        .prepare(
            "SELECT events FROM journal WHERE run = (SELECT max(run) FROM ended_runs) ORDER BY seq",
        )
        .expect("a query");
    let rows = rows.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// Commits of one row each, into a table with nothing else, by the same write-ahead log.
struct Commits {
    conn: Connection,
    row: String,
}

impl Commits {
    fn in_file(file: &Path) -> Self {
        let conn = connect(file);
        conn.execute_batch("CREATE TABLE bare (at INTEGER PRIMARY KEY, events TEXT NOT NULL)")
            .expect("a table");
        let row = records(&conn).swap_remove(1);
        Commits { conn, row }
    }

    fn write(&self, lasts: Duration) -> Load {
        let mut insert = self
            .conn
            .prepare_cached("INSERT INTO bare (events) VALUES (?)")
            .expect("a statement");
        repeat(lasts, || {
            insert.execute([&self.row]).expect("a commit");
        })
    }
}

/// One thread that writes the same rows into the same tables, as many to a commit as the store has on average. As
/// many runs are interleaved as a commit has rows.
struct Writer {
    conn: Connection,
    _store: tempfile::TempDir,
    ids: Ids,
    records: Vec<String>,
    runs: Vec<InFlight>,
    begun: u64,
    rows: u64,
    took: Duration,
}

#[derive(Clone, Copy)]
struct InFlight {
    run: i64,
    written: usize,
}

impl Writer {
    /// Has a file of its own, in the folder of that one.
    fn beside(file: &Path, ids: Ids) -> Self {
        let records = records(&connect(file));
        let folder = file.parent().expect("a folder");
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        let file = folder.path().join("bare.db");
        // The store makes the tables, and grows the log, which stays as it is while somebody has it open.
        let store = SqliteStore::open(&file).expect("a store");
        let conn = connect(&file);
        drop(store);
        Writer {
            conn,
            _store: folder,
            ids,
            records,
            runs: Vec::new(),
            begun: 0,
            rows: 0,
            took: Duration::ZERO,
        }
    }

    fn write(&mut self, lasts: Duration, batch: usize) {
        let prepare = |sql| self.conn.prepare(sql).expect("a statement");
        let mut record = prepare(
            "INSERT INTO journal (run, seq, form, append_id, at, events, checksum) VALUES (?, ?, 1, ?, ?, ?, ?)",
        );
        let mut insert_run =
            prepare("INSERT INTO runs (id, saga, version, started_at) VALUES (?, 'w3', 1, ?)");
        let mut open = prepare("INSERT INTO open_runs (run, standing) VALUES (?, 'running')");
        let mut close = prepare("DELETE FROM open_runs WHERE run = ?");
        let mut end =
            prepare("INSERT INTO ended_runs (run, standing, ended_at) VALUES (?, 'completed', ?)");
        let last = self.records.len() - 1;
        // A run is at another record than its neighbours, so that each commit has all kinds of rows.
        while self.runs.len() < batch {
            self.runs.push(InFlight { run: 0, written: 0 });
        }
        let began = Instant::now();
        let mut commit = 0;
        while began.elapsed() < lasts {
            self.conn.execute_batch("BEGIN IMMEDIATE").expect("a begin");
            for (at, one) in self.runs.iter_mut().enumerate().take(batch) {
                if one.run == 0 && at % self.records.len() > commit {
                    continue;
                }
                let now = 1_700_000_000_000_000_i64;
                if one.written == 0 {
                    let id = self.ids.id(self.begun);
                    self.begun += 1;
                    insert_run
                        .execute(params![id.as_str(), now])
                        .expect("a run");
                    one.run = self.conn.last_insert_rowid();
                }
                let seq = i64::try_from(one.written).expect("few records") + 1;
                record
                    .execute(params![
                        one.run,
                        seq,
                        [7_u8; 16],
                        now,
                        self.records[one.written],
                        i64::MAX / 7
                    ])
                    .expect("a record");
                self.rows += 1;
                if one.written == 0 {
                    open.execute([one.run]).expect("an open run");
                } else if one.written == last {
                    close.execute([one.run]).expect("an open run");
                    end.execute(params![one.run, now]).expect("an ended run");
                }
                one.written = (one.written + 1) % (last + 1);
            }
            self.conn.execute_batch("COMMIT").expect("a commit");
            commit += 1;
        }
        self.took += began.elapsed();
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}
