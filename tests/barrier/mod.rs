//! The three databases of the barrier, behind one face: a service that counts what it does.
//!
//! Each call is one transaction of a connection of its own. A crash drops the connection.

// Helper functions of tests aren't test functions, and no test file uses all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amends::Probed;
use amends::barrier::{Asked, BarrierError, Call, Compensate, Execute, Request};
use async_trait::async_trait;
use tokio::sync::Semaphore;

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "tokio-postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// When a call's connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crash {
    /// It isn't.
    Never,
    /// The work is done and recorded, and not committed.
    BeforeCommit,
    /// It is committed, and its answer lost.
    AfterCommit,
}

/// What the service does once the barrier has let a call in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It does its work, and records it.
    Done,
    /// It refuses for a reason of its own, and rolls back.
    Rejects,
    /// It does its work, and commits without recording it.
    Forgets,
}

/// One call of the service.
#[derive(Clone, Debug)]
pub struct Asks {
    pub call: Call,
    pub request: Request,
    /// The result that the service records.
    pub result: String,
    pub work: Work,
    pub crash: Crash,
    /// Held by the service while it works: a call that is let in takes a permit of it, and tells before that it
    /// is in.
    pub gate: Option<Gate>,
}

/// Where a call waits in the middle of its transaction.
#[derive(Clone, Debug)]
pub struct Gate {
    pub entered: Arc<Semaphore>,
    pub leave: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Gate {
            entered: Arc::new(Semaphore::new(0)),
            leave: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until so many calls are in.
    pub async fn entered(&self, calls: u32) {
        self.entered.acquire_many(calls).await.unwrap().forget();
    }

    /// Lets all go on.
    pub fn open(&self) {
        self.leave.add_permits(1000);
    }

    /// What a call does at the gate.
    pub async fn pass(gate: Option<&Gate>) {
        if let Some(gate) = gate {
            gate.entered.add_permits(1);
            gate.leave.acquire().await.unwrap().forget();
        }
    }
}

/// What came of a call, in the words of the page.
pub type Answer = String;

/// A service with its database.
#[async_trait]
pub trait Service: Send + Sync {
    fn name(&self) -> &'static str;

    /// Makes the call in a transaction of its own.
    async fn ask(&self, asks: Asks) -> Answer;

    /// How often the effect of a key stands, by the service's own rows.
    async fn stands(&self, key: &str) -> i64;

    /// Forgets runs that nobody has touched for so many seconds.
    async fn prune(&self, seconds: u64, most: u32) -> u64;

    /// Lets a run look as if it had been touched so many seconds ago.
    async fn age(&self, run: &str, seconds: u64);

    /// The state of a key, where there is one.
    async fn state(&self, key: &str) -> Option<String>;

    /// How many calls wait for others, where the database has more than one writer and tells.
    async fn waiting(&self) -> Option<u64>;
}

/// Returns once so many calls wait.
pub async fn until_waiting(service: &dyn Service, calls: u64) {
    while service.waiting().await.is_some_and(|now| now < calls) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Every database that this build knows.
pub async fn each(test: impl AsyncFn(Arc<dyn Service>)) {
    #[cfg(feature = "sqlite")]
    test(Arc::new(sqlite::Sqlite::new())).await;
    #[cfg(feature = "tokio-postgres")]
    {
        // For as long as the process lives: with it, they go.
        static SERVER: tokio::sync::OnceCell<Arc<postgres::server::Server>> =
            tokio::sync::OnceCell::const_new();
        let server = SERVER.get_or_init(postgres::server::Server::shared).await;
        server
            .with_database(async |config| {
                test(Arc::new(postgres::Postgres::new(config).await)).await;
            })
            .await;
    }
    #[cfg(feature = "mysql")]
    test(Arc::new(mysql::MySql::new().await)).await;
}

/// A run's uid that nobody else has.
pub fn run() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}{next:024x}", std::process::id())
}

pub fn request(of: &str) -> Request {
    Request::of_bytes(of.as_bytes())
}

fn asks(call: Call) -> Asks {
    Asks {
        call,
        request: request("the same"),
        result: "the result".to_owned(),
        work: Work::Done,
        crash: Crash::Never,
        gate: None,
    }
}

pub fn execute(key: &str, fence: u64) -> Asks {
    asks(Call::execute(key, fence).unwrap())
}

pub fn compensate(key: &str, fence: u64) -> Asks {
    asks(Call::compensate(key, fence).unwrap())
}

pub fn probe(key: &str, fence: u64) -> Asks {
    asks(Call::probe(key, fence).unwrap())
}

impl Asks {
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.call = self.call.attempt(attempt);
        self
    }

    pub fn request(mut self, of: &str) -> Self {
        self.request = request(of);
        self
    }

    pub fn work(mut self, work: Work) -> Self {
        self.work = work;
        self
    }

    pub fn crash(mut self, crash: Crash) -> Self {
        self.crash = crash;
        self
    }

    pub fn gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    pub fn asked(&self) -> Asked {
        self.call.asked()
    }

    pub fn result(mut self, result: &str) -> Self {
        result.clone_into(&mut self.result);
        self
    }
}

/// The words of the page for what the barrier answers.
pub fn executed(answer: &Result<Execute, BarrierError>) -> Answer {
    match answer {
        Ok(Execute::Fresh(_)) => "fresh".to_owned(),
        Ok(Execute::Duplicate(stored)) => {
            format!("duplicate: {}", stored.read::<String>().unwrap())
        }
        Err(error) => refused(error),
    }
}

pub fn compensated(answer: &Result<Compensate, BarrierError>) -> Answer {
    match answer {
        Ok(Compensate::Undo(undo)) => format!("undo: {}", undo.stored().read::<String>().unwrap()),
        Ok(Compensate::Nothing) => "nothing".to_owned(),
        Ok(Compensate::Duplicate(stored)) => {
            format!("duplicate: {}", stored.read::<String>().unwrap())
        }
        Err(error) => refused(error),
    }
}

pub fn probed(answer: &Result<Probed<amends::barrier::Stored>, BarrierError>) -> Answer {
    match answer {
        Ok(Probed::Done(stored)) => format!("done: {}", stored.read::<String>().unwrap()),
        Ok(Probed::Never) => "never".to_owned(),
        Ok(Probed::Unknown) => "unknown".to_owned(),
        Err(error) => refused(error),
    }
}

fn refused(error: &BarrierError) -> Answer {
    match error {
        BarrierError::Database(source) => format!("database: {source}"),
        error => error.code().to_owned(),
    }
}
