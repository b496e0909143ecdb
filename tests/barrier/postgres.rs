//! The service on PostgreSQL.

use amends::barrier::{Asked, Compensate, Execute, postgres as barrier};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

#[path = "../common/postgres.rs"]
pub mod server;

use super::{Answer, Asks, Crash, Gate, Service, Work, compensated, executed, probed};

pub struct Postgres {
    config: Config,
}

/// A connection that can be cut.
pub struct Line {
    pub client: Client,
    drives: JoinHandle<()>,
}

impl Line {
    pub async fn to(config: &Config) -> Self {
        let (client, connection) = config.connect(NoTls).await.unwrap();
        let drives = tokio::spawn(async move { drop(connection.await) });
        Line { client, drives }
    }
}

impl Postgres {
    pub async fn new(config: &Config) -> Self {
        let line = Line::to(config).await;
        barrier::create(&line.client).await.unwrap();
        // Again, as a service that makes its tables at each start would.
        barrier::create(&line.client).await.unwrap();
        let sql = "create table effects (key text not null, what text not null)";
        line.client.batch_execute(sql).await.unwrap();
        Postgres {
            config: config.clone(),
        }
    }
}

#[async_trait]
impl Service for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    async fn ask(&self, asks: Asks) -> Answer {
        let Line { mut client, drives } = Line::to(&self.config).await;
        let tx = client.transaction().await.unwrap();
        let key = asks.call.effect_key();
        let word = match asks.asked() {
            Asked::Execute => {
                let answer = barrier::execute(&tx, &asks.call, &asks.request).await;
                let word = executed(&answer);
                if let Ok(Execute::Fresh(fresh)) = answer {
                    Gate::pass(asks.gate.as_ref()).await;
                    if asks.work == Work::Rejects {
                        tx.rollback().await.unwrap();
                        return "rejected".to_owned();
                    }
                    let sql = "insert into effects values ($1, $2)";
                    tx.execute(sql, &[&key, &asks.result]).await.unwrap();
                    if asks.work == Work::Done {
                        barrier::record(&tx, fresh, &asks.result).await.unwrap();
                    }
                }
                word
            }
            Asked::Compensate => {
                let answer = barrier::compensate(&tx, &asks.call, &asks.request).await;
                let word = compensated(&answer);
                if let Ok(Compensate::Undo(undo)) = answer {
                    Gate::pass(asks.gate.as_ref()).await;
                    if asks.work == Work::Rejects {
                        tx.rollback().await.unwrap();
                        return "rejected".to_owned();
                    }
                    let sql = "delete from effects where key = $1";
                    tx.execute(sql, &[&key]).await.unwrap();
                    if asks.work == Work::Done {
                        let recorded = barrier::record_undo(&tx, undo, &asks.result).await;
                        recorded.unwrap();
                    }
                }
                word
            }
            _ => probed(&barrier::probe(&tx, &asks.call).await),
        };
        if asks.crash == Crash::BeforeCommit {
            // The task that holds the socket goes first, so that no word of a rollback is sent.
            drives.abort();
            let _ = drives.await;
            return word;
        }
        match tx.commit().await {
            Ok(()) if asks.crash == Crash::AfterCommit => {
                drives.abort();
                word
            }
            Ok(()) => word,
            Err(error) => format!("commit: {}", error.code().unwrap().code()),
        }
    }

    async fn stands(&self, key: &str) -> i64 {
        let line = Line::to(&self.config).await;
        let sql = "select count(*) from effects where key = $1";
        line.client.query_one(sql, &[&key]).await.unwrap().get(0)
    }

    async fn prune(&self, seconds: u64, most: u32) -> u64 {
        let mut line = Line::to(&self.config).await;
        let long = std::time::Duration::from_secs(seconds);
        barrier::prune(&mut line.client, long, most).await.unwrap()
    }

    async fn age(&self, run: &str, seconds: u64) {
        let line = Line::to(&self.config).await;
        for table in ["amends_barrier", "amends_barrier_runs"] {
            let sql = format!(
                "update {table} set touched_at = now() - make_interval(secs => {seconds}) where run = $1"
            );
            line.client.execute(&sql, &[&run]).await.unwrap();
        }
    }

    async fn state(&self, key: &str) -> Option<String> {
        let line = Line::to(&self.config).await;
        let sql = "select state from amends_barrier where effect_key = $1";
        let row = line.client.query_opt(sql, &[&key]).await.unwrap();
        row.map(|row| row.get(0))
    }

    async fn waiting(&self) -> Option<u64> {
        let line = Line::to(&self.config).await;
        let sql = "select count(*) from pg_stat_activity
            where wait_event_type = 'Lock' and datname = current_database()";
        let waiting: i64 = line.client.query_one(sql, &[]).await.unwrap().get(0);
        Some(waiting.unsigned_abs())
    }
}
