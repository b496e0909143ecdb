//! The service on MariaDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amends::barrier::{Asked, Compensate, Execute, mysql as barrier};
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, TxOpts};
use tokio::sync::OnceCell;

#[path = "../common/mariadb.rs"]
pub mod server;
use server::MariaDb;

use super::{Answer, Asks, Crash, Gate, Service, Work, compensated, executed, probed};

pub struct MySql {
    server: Arc<MariaDb>,
    database: String,
}

impl MySql {
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // For as long as the process lives: with it, it goes.
        static SERVER: OnceCell<Arc<MariaDb>> = OnceCell::const_new();
        let server = Arc::clone(SERVER.get_or_init(MariaDb::shared).await);
        let database = format!("service_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut first = connect(&server.url(server::DATABASE)).await;
        let sql = format!("create database {database}");
        first.query_drop(sql).await.unwrap();
        let service = MySql { server, database };
        let mut connection = service.open().await;
        barrier::create(&mut connection).await.unwrap();
        // Again, as a service that makes its tables at each start would.
        barrier::create(&mut connection).await.unwrap();
        let sql = "create table effects (
            `key` varchar(500) not null, what text not null, index (`key`))";
        connection.query_drop(sql).await.unwrap();
        first.disconnect().await.unwrap();
        connection.disconnect().await.unwrap();
        service
    }

    pub async fn open(&self) -> Conn {
        connect(&self.server.url(&self.database)).await
    }

    /// Ends a connection as a cut does, and waits until the server has rolled back what it held.
    async fn cut(&self, id: u32) {
        let mut other = self.open().await;
        other.query_drop(format!("kill {id}")).await.unwrap();
        let sql = "select count(*) from information_schema.processlist where id = ?";
        while other.exec_first::<u64, _, _>(sql, (id,)).await.unwrap() != Some(0) {
            tokio::task::yield_now().await;
        }
        other.disconnect().await.unwrap();
    }
}

pub async fn connect(url: &str) -> Conn {
    Conn::new(Opts::from_url(url).unwrap()).await.unwrap()
}

#[async_trait]
impl Service for MySql {
    fn name(&self) -> &'static str {
        "MariaDB"
    }

    async fn ask(&self, asks: Asks) -> Answer {
        let mut connection = self.open().await;
        let id = connection.id();
        let mut tx = connection
            .start_transaction(TxOpts::default())
            .await
            .unwrap();
        let key = asks.call.effect_key();
        let word = match asks.asked() {
            Asked::Execute => {
                let answer = barrier::execute(&mut tx, &asks.call, &asks.request).await;
                let word = executed(&answer);
                if let Ok(Execute::Fresh(fresh)) = answer {
                    Gate::pass(asks.gate.as_ref()).await;
                    if asks.work == Work::Rejects {
                        tx.rollback().await.unwrap();
                        return "rejected".to_owned();
                    }
                    let sql = "insert into effects values (?, ?)";
                    tx.exec_drop(sql, (key, &asks.result)).await.unwrap();
                    if asks.work == Work::Done {
                        let recorded = barrier::record(&mut tx, fresh, &asks.result).await;
                        recorded.unwrap();
                    }
                }
                word
            }
            Asked::Compensate => {
                let answer = barrier::compensate(&mut tx, &asks.call, &asks.request).await;
                let word = compensated(&answer);
                if let Ok(Compensate::Undo(undo)) = answer {
                    Gate::pass(asks.gate.as_ref()).await;
                    if asks.work == Work::Rejects {
                        tx.rollback().await.unwrap();
                        return "rejected".to_owned();
                    }
                    let sql = "delete from effects where `key` = ?";
                    tx.exec_drop(sql, (key,)).await.unwrap();
                    if asks.work == Work::Done {
                        let recorded = barrier::record_undo(&mut tx, undo, &asks.result).await;
                        recorded.unwrap();
                    }
                }
                word
            }
            _ => probed(&barrier::probe(&mut tx, &asks.call).await),
        };
        if asks.crash == Crash::BeforeCommit {
            self.cut(id).await;
            return word;
        }
        if let Err(error) = tx.commit().await {
            return format!("commit: {error}");
        }
        if asks.crash == Crash::AfterCommit {
            self.cut(id).await;
        } else {
            connection.disconnect().await.unwrap();
        }
        word
    }

    async fn stands(&self, key: &str) -> i64 {
        let mut connection = self.open().await;
        let sql = "select count(*) from effects where `key` = ?";
        connection.exec_first(sql, (key,)).await.unwrap().unwrap()
    }

    async fn prune(&self, seconds: u64, most: u32) -> u64 {
        let mut connection = self.open().await;
        let pruned = barrier::prune(&mut connection, Duration::from_secs(seconds), most);
        pruned.await.unwrap()
    }

    async fn age(&self, run: &str, seconds: u64) {
        let mut connection = self.open().await;
        for table in ["amends_barrier", "amends_barrier_runs"] {
            let sql = format!(
                "update {table} set touched_at = unix_timestamp() - {seconds} where run = ?"
            );
            connection.exec_drop(sql, (run,)).await.unwrap();
        }
    }

    async fn state(&self, key: &str) -> Option<String> {
        let mut connection = self.open().await;
        let sql = "select state from amends_barrier where effect_key = ?";
        connection.exec_first(sql, (key,)).await.unwrap()
    }

    async fn waiting(&self) -> Option<u64> {
        let mut connection = self.open().await;
        // The server tells of waits for locks from a cache that goes stale while it is read often. What has run for
        // so long waits, or is slow: then a test meets an easier order.
        let sql = "select count(*) from information_schema.processlist
            where db = database() and command = 'Execute' and time_ms > 100 and id <> connection_id()";
        connection.query_first(sql).await.unwrap()
    }
}
