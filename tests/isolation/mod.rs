//! One account in a real SQLite file, and a saga that pays from it with a semantic lock in its row.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::isolation::{SemanticLock, TakenHow};
use amends::store::MemoryStore;
use amends::testkit::VirtualClock;
use amends::{
    Clock, Coordinator, Effect, RecoveryPolicy, Retry, Saga, Step, StepContext, StepError,
    Timestamp, step,
};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub const MS: fn(u64) -> Duration = Duration::from_millis;

/// What a run is to do. Times are in virtual milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pay {
    pub amount: i64,
    /// How long the lock is taken for.
    pub lock_for: u64,
    /// How long the call of `approve` takes before it looks at the row.
    pub approve_after: u64,
    /// `approve` refuses then.
    pub refuse: bool,
    /// `withdraw` is slow before it looks at the row, where its fence is this one.
    pub slow_fence: u64,
    /// The first attempt of `withdraw` loses its answer after the commit.
    pub lose_answer: bool,
}

impl Pay {
    pub fn new(amount: i64) -> Self {
        Pay {
            amount,
            lock_for: 600_000,
            approve_after: 0,
            refuse: false,
            slow_fence: 0,
            lose_answer: false,
        }
    }
}

/// The account, and what happened to it.
pub struct Bank {
    folder: TempDir,
    clock: Mutex<VirtualClock>,
    log: Mutex<Vec<String>>,
}

impl Bank {
    /// 100 on the account. Call it in a paused runtime: virtual time begins.
    pub fn new() -> Arc<Self> {
        let bank = Bank {
            folder: tempfile::tempdir().unwrap(),
            clock: Mutex::new(VirtualClock::new()),
            log: Mutex::default(),
        };
        bank.open()
            .execute_batch(
                "create table account (id integer primary key, balance integer not null, lock text);
                 create table moves (key text primary key, amount integer not null);
                 insert into account values (1, 100, null);",
            )
            .unwrap();
        Arc::new(bank)
    }

    /// Virtual time goes on in another runtime.
    pub fn goes_on_at(&self, millis: u64) {
        let at = VirtualClock::START.after(MS(millis));
        *self.clock.lock().unwrap() = VirtualClock::starting_at(at);
    }

    pub fn clock(&self) -> VirtualClock {
        *self.clock.lock().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.clock().now()
    }

    pub fn open(&self) -> Connection {
        Connection::open(self.folder.path().join("bank.db")).unwrap()
    }

    pub fn balance(&self) -> i64 {
        self.open()
            .query_row("select balance from account", (), |row| row.get(0))
            .unwrap()
    }

    pub fn lock(&self) -> Option<SemanticLock> {
        let mut connection = self.open();
        let transaction = connection.transaction().unwrap();
        read_lock(&transaction)
    }

    /// All that happened, as `millis run what`.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn say(&self, run: impl std::fmt::Display, what: &str) {
        let millis = self.now().since(VirtualClock::START).as_millis();
        self.log
            .lock()
            .unwrap()
            .push(format!("{millis} {run} {what}"));
    }

    pub async fn coordinator(&self, store: &Arc<MemoryStore>, saga: &Saga<Pay, ()>) -> Coordinator {
        Coordinator::builder_shared(Arc::clone(store) as _)
            .register(saga)
            .clock(self.clock())
            .build()
            .await
            .unwrap()
    }

    /// Withdraw and approve, the first retried for long; nothing is recovered.
    pub fn saga(self: &Arc<Self>, retry: Retry) -> Saga<Pay, ()> {
        let mut saga = Saga::builder::<Pay>("pay");
        let pay = saga.input();
        let withdraw = step("withdraw", Withdraw(Arc::clone(self)));
        let withdrawn = saga.add(withdraw.atomic().retry(retry), pay);
        let approve = step("approve", Approve(Arc::clone(self)));
        let approved = saga.add(approve.atomic().after(withdrawn), pay);
        saga.policy(RecoveryPolicy::saga().max_recoveries(0))
            .returns(approved)
            .unwrap()
    }
}

/// A wait of 100 ms, and more patience than any test needs.
pub fn patient() -> Retry {
    Retry::constant().initial(MS(100)).max_attempts(1_000)
}

pub fn read_lock(transaction: &Transaction<'_>) -> Option<SemanticLock> {
    let json: Option<String> = transaction
        .query_row("select lock from account", (), |row| row.get(0))
        .unwrap();
    json.map(|json| serde_json::from_str(&json).unwrap())
}

pub fn write_lock(transaction: &Transaction<'_>, lock: Option<&SemanticLock>) {
    let json = lock.map(|lock| serde_json::to_string(lock).unwrap());
    transaction
        .execute("update account set lock = ?1", [json])
        .unwrap();
}

/// Takes the lock and the money in one transaction; a key takes it once.
struct Withdraw(Arc<Bank>);

impl Step for Withdraw {
    type Input = Pay;
    type Output = ();

    async fn execute(&self, cx: &StepContext, pay: &Pay) -> Result<(), StepError> {
        let Withdraw(bank) = self;
        if cx.fence() == pay.slow_fence {
            tokio::time::sleep(MS(5_000)).await;
        }
        let mut connection = bank.open();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let current = read_lock(&transaction);
        let taken = SemanticLock::take(current.as_ref(), cx, MS(pay.lock_for), bank.now())
            .inspect_err(|error| bank.say(cx.run(), &format!("refused: {error}")))?;
        write_lock(&transaction, Some(&taken.lock));
        let new = transaction.execute(
            "insert or ignore into moves values (?1, ?2)",
            (cx.effect_key(), pay.amount),
        )?;
        if new == 1 {
            transaction.execute("update account set balance = balance - ?1", [pay.amount])?;
        }
        transaction.commit()?;
        let how = match taken.how {
            TakenHow::Expired(was) => format!("took over from {}", was.run),
            how => format!("took {how:?}").to_lowercase(),
        };
        bank.say(cx.run(), &format!("{how}, moved {}", new == 1));
        if pay.lose_answer && cx.attempt() == 1 {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        }
        Ok(())
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        _: &Pay,
        effect: Effect<&()>,
    ) -> Result<(), StepError> {
        let Withdraw(bank) = self;
        let mut connection = bank.open();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let current = read_lock(&transaction);
        let released = SemanticLock::release(current.as_ref(), cx)?;
        let what = format!("{released:?}");
        let what = what.split_once('(').map_or(what.as_str(), |(what, _)| what);
        write_lock(&transaction, released.clone().left().as_ref());
        // The key stays, so that an attempt that arrives late finds it used.
        let key = [cx.effect_key()];
        transaction.execute("insert or ignore into moves values (?1, 0)", key)?;
        let amount: i64 =
            transaction.query_row("select amount from moves where key = ?1", key, |row| {
                row.get(0)
            })?;
        transaction.execute("update moves set amount = 0 where key = ?1", key)?;
        transaction.execute("update account set balance = balance + ?1", [amount])?;
        transaction.commit()?;
        let effect = if effect == Effect::InDoubt {
            "in doubt"
        } else {
            "done"
        };
        bank.say(
            cx.run(),
            &format!("undid {effect}, lock {what}, moved back {amount}"),
        );
        Ok(())
    }
}

/// Makes sure of the lock some time later, and lets go of it.
struct Approve(Arc<Bank>);

impl Step for Approve {
    type Input = Pay;
    type Output = ();

    async fn execute(&self, cx: &StepContext, pay: &Pay) -> Result<(), StepError> {
        let Approve(bank) = self;
        tokio::time::sleep(MS(pay.approve_after)).await;
        if pay.refuse {
            return Err(StepError::rejected("not approved"));
        }
        let mut connection = bank.open();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let current = read_lock(&transaction);
        let kept = SemanticLock::keep(current.as_ref(), cx, Duration::ZERO, bank.now())
            .inspect_err(|error| bank.say(cx.run(), &format!("refused: {error}")))?;
        let released = SemanticLock::release(Some(&kept), cx)?;
        write_lock(&transaction, released.left().as_ref());
        transaction.commit()?;
        bank.say(cx.run(), "approved");
        Ok(())
    }

    async fn compensate(&self, cx: &StepContext, _: &Pay, _: Effect<&()>) -> Result<(), StepError> {
        self.0.say(cx.run(), "undid the approval");
        Ok(())
    }
}
