//! A row that was changed between the step that read it and the one that writes it is not overwritten.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "sqlite", feature = "testkit"))]

use std::sync::{Arc, Mutex};

use amends::failure::FailedEffect::NotDone;
use amends::isolation::{Changed, Fingerprint, Versioned, expect_unchanged, fingerprint_of};
use amends::policy::{Condition, Rule};
use amends::store::MemoryStore;
use amends::testkit::VirtualClock;
use amends::{
    Action, Coordinator, FailureMode, Outcome, RecoveryPolicy, RecoveryStrategy, Saga, StepContext,
    StepError, read_only, step_with,
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tempfile::TempDir;

/// An article with a price, and somebody who changes it behind the saga's back.
struct Shop {
    folder: TempDir,
    /// What is executed after the saga has read, each once.
    meanwhile: Mutex<Vec<&'static str>>,
    log: Mutex<Vec<String>>,
}

impl Shop {
    fn new(meanwhile: &[&'static str]) -> Arc<Self> {
        let shop = Shop {
            folder: tempfile::tempdir().unwrap(),
            meanwhile: Mutex::new(meanwhile.iter().rev().copied().collect()),
            log: Mutex::default(),
        };
        shop.open()
            .execute_batch(
                "create table article (id integer primary key, price integer, version integer);
                 insert into article values (1, 200, 7);",
            )
            .unwrap();
        Arc::new(shop)
    }

    fn open(&self) -> Connection {
        Connection::open(self.folder.path().join("shop.db")).unwrap()
    }

    fn row(&self) -> Option<(i64, i64)> {
        self.open()
            .query_row("select price, version from article", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .unwrap()
    }

    fn say(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }
}

type Seen = Versioned<i64>;

/// Reads the article; then its price changes, or it vanishes.
struct ReadPrice(Arc<Shop>);

impl Action for ReadPrice {
    type Input = ();
    type Output = (Seen, Fingerprint);

    async fn execute(&self, _cx: &StepContext, (): &()) -> Result<Self::Output, StepError> {
        let (price, version) = self.0.row().unwrap();
        self.0.say(format!("read {price}"));
        if let Some(sql) = self.0.meanwhile.lock().unwrap().pop() {
            self.0.open().execute(sql, ()).unwrap();
        }
        Ok((Versioned::new(price, version), fingerprint_of(&price)?))
    }
}

/// Raises the price that was read by a half, unless the row has changed.
fn raise(shop: &Shop, (seen, content): &(Seen, Fingerprint)) -> Result<i64, StepError> {
    let mut connection = shop.open();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: Option<i64> = transaction
        .query_row("select version from article where id = 1", (), |row| {
            row.get(0)
        })
        .optional()?;
    let price = seen.unchanged(&version)?;
    // The content of the row tells the same, where a row has no version.
    let current: i64 = transaction.query_row("select price from article", (), |row| row.get(0))?;
    expect_unchanged(content, &fingerprint_of(&current)?)?;
    let raised = price * 3 / 2;
    transaction.execute(
        "update article set price = ?1, version = version + 1",
        [raised],
    )?;
    transaction.commit()?;
    shop.say(format!("wrote {raised}"));
    Ok(raised)
}

/// Runs `announce` (a checkpoint), `read-price`, `raise-price`.
async fn run(shop: &Arc<Shop>, policy: RecoveryPolicy) -> Outcome<i64> {
    let mut saga = Saga::builder::<()>("raise");
    let announce = step_with(
        "announce",
        Arc::clone(shop),
        async |shop, _cx, (): &()| {
            shop.say("announced");
            Ok(())
        },
        async |shop, _cx, (), _effect| {
            shop.say("denied");
            Ok(())
        },
    );
    let announced = saga.add(announce.checkpoint(), ());
    let seen = saga.add(
        read_only("read-price", ReadPrice(Arc::clone(shop))),
        announced,
    );
    let raised = step_with(
        "raise-price",
        Arc::clone(shop),
        async |shop, _cx, seen: &(Seen, Fingerprint)| raise(shop, seen),
        async |shop, _cx, _seen, _effect| {
            shop.say("lowered");
            Ok(())
        },
    );
    let raised = saga.add(raised.atomic(), seen);
    let saga = saga.policy(policy).returns(raised).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .clock(VirtualClock::new())
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "run", ()).await.unwrap();
    run.outcome().await.unwrap()
}

/// The rule of docs/isolation.md.
fn read_again() -> RecoveryPolicy {
    RecoveryPolicy::saga().first(
        Rule::new("read again", RecoveryStrategy::RetryFromCheckpoint)
            .when(Condition::Step("raise-price".into()))
            .when(Condition::Mode(vec![FailureMode::StepState]))
            .when(Condition::NotUsedUp),
    )
}

const DEARER: &str = "update article set price = 300, version = version + 1";

#[tokio::test(start_paused = true)]
async fn a_row_that_nobody_else_changed_is_written() {
    let shop = Shop::new(&[]);
    let outcome = run(&shop, RecoveryPolicy::saga()).await;
    assert_eq!(outcome.completed(), Some(300));
    assert_eq!(shop.row(), Some((300, 8)));
}

#[tokio::test(start_paused = true)]
async fn a_concurrent_change_is_not_overwritten_and_the_run_compensates() {
    let shop = Shop::new(&[DEARER]);
    let outcome = run(&shop, RecoveryPolicy::saga()).await;
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(shop.row(), Some((300, 8)));
    assert_eq!(
        *shop.log.lock().unwrap(),
        ["announced", "read 200", "denied"]
    );
    let partial = outcome.partial();
    assert_eq!(partial.failing_step.as_deref(), Some("raise-price"));
    let raise = partial.step("raise-price").unwrap();
    assert_eq!(
        raise.attempts, 1,
        "the same attempt would meet the same change"
    );
    let failure = raise.failure.clone().unwrap();
    assert_eq!(failure.mode, FailureMode::StepState);
    assert_eq!((failure.effect, failure.retryable), (NotDone, false));
    assert_eq!(
        failure.message,
        "version 7 was read, and now there is version 8"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_leaves_the_version_alone_is_found_by_the_content() {
    let shop = Shop::new(&["update article set price = 201"]);
    let outcome = run(&shop, RecoveryPolicy::saga()).await;
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(shop.row(), Some((201, 7)));
    let expected: Changed = expect_unchanged(
        &fingerprint_of(&200).unwrap(),
        &fingerprint_of(&201).unwrap(),
    )
    .unwrap_err();
    let failure = outcome
        .partial()
        .step("raise-price")
        .unwrap()
        .failure
        .clone();
    assert_eq!(failure.unwrap().message, expected.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_rule_lets_the_run_read_again_from_the_checkpoint_before_the_read() {
    let shop = Shop::new(&[DEARER]);
    let outcome = run(&shop, read_again()).await;
    assert_eq!(outcome.completed(), Some(450));
    assert_eq!(shop.row(), Some((450, 9)));
    assert_eq!(
        *shop.log.lock().unwrap(),
        ["announced", "read 200", "read 300", "wrote 450"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_each_time_is_given_up_once_the_recoveries_are_used_up() {
    let shop = Shop::new(&[
        DEARER,
        "update article set price = 400, version = version + 1",
        "update article set price = 500, version = version + 1",
        "delete from article",
    ]);
    let outcome = run(&shop, read_again()).await;
    assert_eq!(outcome.word(), "compensated");
    assert_eq!(shop.row(), None);
    assert_eq!(
        *shop.log.lock().unwrap(),
        [
            "announced",
            "read 200",
            "read 300",
            "read 400",
            "read 500",
            "denied"
        ]
    );
    let partial = outcome.partial();
    let failure = partial.step("raise-price").unwrap().failure.clone();
    assert_eq!(
        failure.unwrap().message,
        "version 10 was read, and now there is nothing"
    );
}

#[cfg(feature = "toml")]
#[test]
fn the_policy_file_of_the_page_says_the_same_as_the_rule() {
    let page = include_str!("../docs/isolation.md");
    let (_, file) = page.split_once("```toml\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let set = amends::policy::PolicySet::from_toml(file).unwrap();
    let same = amends::policy::PolicySet::new().recovery(read_again().named("read again"));
    assert_eq!(set, same);
}
