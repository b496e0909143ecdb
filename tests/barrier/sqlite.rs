//! The service on a file of SQLite.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use amends::barrier::{Asked, Compensate, Execute, sqlite as barrier};
use async_trait::async_trait;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tempfile::TempDir;

use super::{Answer, Asks, Crash, Gate, Service, Work, compensated, executed, probed};

pub struct Sqlite {
    folder: TempDir,
    /// Open all the time: the last connection that closes would tidy the log up, which takes long.
    open_always: Mutex<Option<Connection>>,
}

impl Sqlite {
    pub fn new() -> Self {
        let file = Sqlite {
            folder: tempfile::tempdir().unwrap(),
            open_always: Mutex::new(None),
        };
        let connection = file.open();
        connection
            .pragma_update(None, "journal_mode", "wal")
            .unwrap();
        barrier::create(&connection).unwrap();
        // Again, as a service that makes its tables at each start would.
        barrier::create(&connection).unwrap();
        let sql = "create table effects (key text not null, what text not null)";
        connection.execute_batch(sql).unwrap();
        *file.open_always.lock().unwrap() = Some(connection);
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("service.db")
    }

    pub fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        // No crash here is one of the machine.
        connection
            .pragma_update(None, "synchronous", "off")
            .unwrap();
        connection
    }
}

/// What the service does in the transaction; `None` where it rejects the call.
fn work(tx: &Transaction<'_>, asks: &Asks) -> Option<Answer> {
    let key = asks.call.effect_key();
    let gate = || tokio::runtime::Handle::current().block_on(Gate::pass(asks.gate.as_ref()));
    Some(match asks.asked() {
        Asked::Execute => {
            let answer = barrier::execute(tx, &asks.call, &asks.request);
            let word = executed(&answer);
            if let Ok(Execute::Fresh(fresh)) = answer {
                gate();
                if asks.work == Work::Rejects {
                    return None;
                }
                let sql = "insert into effects values (?1, ?2)";
                tx.execute(sql, [key, &asks.result]).unwrap();
                if asks.work == Work::Done {
                    barrier::record(tx, fresh, &asks.result).unwrap();
                }
            }
            word
        }
        Asked::Compensate => {
            let answer = barrier::compensate(tx, &asks.call, &asks.request);
            let word = compensated(&answer);
            if let Ok(Compensate::Undo(undo)) = answer {
                gate();
                if asks.work == Work::Rejects {
                    return None;
                }
                let sql = "delete from effects where key = ?1";
                tx.execute(sql, [key]).unwrap();
                if asks.work == Work::Done {
                    barrier::record_undo(tx, undo, &asks.result).unwrap();
                }
            }
            word
        }
        _ => probed(&barrier::probe(tx, &asks.call)),
    })
}

#[async_trait]
impl Service for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    async fn ask(&self, asks: Asks) -> Answer {
        let mut connection = self.open();
        let asked = tokio::task::spawn_blocking(move || {
            let tx = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .unwrap();
            let Some(word) = work(&tx, &asks) else {
                tx.rollback().unwrap();
                return "rejected".to_owned();
            };
            if asks.crash == Crash::BeforeCommit {
                return word;
            }
            match tx.commit() {
                Ok(()) => word,
                Err(error) => format!("commit: {:?}", error.sqlite_error_code().unwrap()),
            }
        });
        asked.await.unwrap()
    }

    async fn stands(&self, key: &str) -> i64 {
        let sql = "select count(*) from effects where key = ?1";
        self.open().query_row(sql, [key], |row| row.get(0)).unwrap()
    }

    async fn prune(&self, seconds: u64, most: u32) -> u64 {
        barrier::prune(&mut self.open(), Duration::from_secs(seconds), most).unwrap()
    }

    async fn age(&self, run: &str, seconds: u64) {
        for table in ["amends_barrier", "amends_barrier_runs"] {
            let sql =
                format!("update {table} set touched_at = unixepoch() - {seconds} where run = ?1");
            self.open().execute(&sql, [run]).unwrap();
        }
    }

    async fn state(&self, key: &str) -> Option<String> {
        let sql = "select state from amends_barrier where effect_key = ?1";
        let open = self.open();
        let mut select = open.prepare(sql).unwrap();
        let mut rows = select.query([key]).unwrap();
        rows.next().unwrap().map(|row| row.get(0).unwrap())
    }

    async fn waiting(&self) -> Option<u64> {
        None
    }
}
