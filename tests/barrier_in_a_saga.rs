//! Steps that use the barrier in their own process, from a run's call to its end (rule W4).

#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(feature = "tokio-postgres")]

use std::sync::Arc;

use amends::barrier::{Call, Compensate, Execute, Request, Stored, postgres as barrier};
use amends::store::MemoryStore;
use amends::{
    Coordinator, Effect, Probe, Probed, RecoveryPolicy, RecoveryStrategy, Retry, Saga, Step,
    StepContext, StepError, irreversible_fn, step,
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

#[path = "common/postgres.rs"]
mod postgres;
use postgres::{Server, connect, count};

/// A payment in a database of its own, whose answers get lost as planned.
#[derive(Clone)]
struct Pay {
    config: Config,
    /// For each execute that comes: what becomes of it.
    fates: Arc<Mutex<Vec<Fate>>>,
    log: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum Fate {
    Answers,
    LosesItsAnswer,
    NeverArrives,
}

impl Pay {
    async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn note(&self, what: &str) {
        self.log.lock().await.push(what.to_owned());
    }
}

impl Step for Pay {
    type Input = i64;
    type Output = i64;

    async fn execute(&self, cx: &StepContext, amount: &i64) -> Result<i64, StepError> {
        let fate = self.fates.lock().await.pop().unwrap_or(Fate::Answers);
        if let Fate::NeverArrives = fate {
            self.note("lost").await;
            return Err(StepError::in_doubt("the request was lost"));
        }
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let paid = match barrier::execute(&tx, &Call::of(cx)?, &Request::of(amount)?).await? {
            Execute::Duplicate(stored) => {
                self.note("duplicate").await;
                stored.read()?
            }
            Execute::Fresh(fresh) => {
                self.note("fresh").await;
                let sql = "insert into payments values ($1, $2)";
                tx.execute(sql, &[&cx.effect_key(), amount]).await?;
                barrier::record(&tx, fresh, amount).await?;
                *amount
            }
        };
        tx.commit().await?;
        match fate {
            Fate::LosesItsAnswer => Err(StepError::in_doubt("the answer was lost")
                .with_mode(amends::FailureMode::SystemNetwork)),
            Fate::Answers | Fate::NeverArrives => Ok(paid),
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        amount: &i64,
        _effect: Effect<&i64>,
    ) -> Result<(), StepError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        match barrier::compensate(&tx, &Call::of(cx)?, &Request::of(amount)?).await? {
            Compensate::Undo(undo) => {
                self.note("undo").await;
                let sql = "delete from payments where key = $1";
                tx.execute(sql, &[&undo.effect_key()]).await?;
                barrier::record_undo(&tx, undo, &()).await?;
            }
            Compensate::Nothing => self.note("nothing").await,
            Compensate::Duplicate(_) => self.note("undone").await,
        }
        tx.commit().await?;
        Ok(())
    }
}

impl Probe for Pay {
    type Input = i64;
    type Output = i64;

    async fn probe(&self, cx: &StepContext, _: &i64) -> Result<Probed<i64>, StepError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let answer = match barrier::probe(&tx, &Call::of(cx)?).await? {
            Probed::Done(stored) => Probed::Done(Stored::read(&stored)?),
            Probed::Never | Probed::Unknown => Probed::Never,
        };
        tx.commit().await?;
        self.note(if answer == Probed::Never {
            "never"
        } else {
            "done"
        })
        .await;
        Ok(answer)
    }
}

/// Pays and then ships, which succeeds where it is said so. Gives the end, what the barrier said, and how many
/// payments stand.
async fn ended(fates: &[Fate], asks: bool, ships: bool) -> (&'static str, Vec<String>, i64) {
    let server = Server::shared().await;
    let mut end = None;
    server
        .with_database(async |config| {
            let client = connect(config).await.unwrap();
            barrier::create(&client).await.unwrap();
            let sql = "create table payments (key text, amount bigint)";
            client.batch_execute(sql).await.unwrap();
            let pay = Pay {
                config: config.clone(),
                fates: Arc::new(Mutex::new(fates.iter().rev().copied().collect())),
                log: Arc::default(),
            };
            let mut saga = Saga::builder::<i64>("order");
            let amount = saga.input();
            let mut paying = step("pay", pay.clone()).retry(Retry::constant().max_attempts(1));
            if asks {
                paying = paying.probe(pay.clone());
            }
            let paid = saga.add(paying, amount);
            let ships = if ships { "yes" } else { "no" };
            let shipped = saga.add(
                irreversible_fn(format!("ship-{ships}"), async |cx, paid: &i64| {
                    match cx.step() {
                        "ship-yes" => Ok(*paid),
                        _ => Err(StepError::rejected("no lorry")),
                    }
                })
                .pivot(),
                paid,
            );
            let again = RecoveryPolicy::new("again", RecoveryStrategy::RetryFailed)
                .max_recoveries(2)
                .backoff(Retry::constant().initial(std::time::Duration::from_millis(1)));
            let undo = RecoveryPolicy::new("undo", RecoveryStrategy::Compensate);
            let policy = if ships == "yes" { again } else { undo };
            let saga = saga.policy(policy).returns(shipped).unwrap();
            let coordinator = Coordinator::builder(MemoryStore::new())
                .register(&saga)
                .build()
                .await
                .unwrap();
            let run = coordinator.start(&saga, "order-1", 120).await.unwrap();
            let word = run.outcome().await.unwrap().word();
            let log = pay.log.lock().await.clone();
            end = Some((word, log, count(&client, "payments").await));
        })
        .await;
    end.unwrap()
}

fn told(log: &[&str]) -> Vec<String> {
    log.iter().map(|&word| word.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_lost_answer_is_got_again_and_the_payment_made_once() {
    let end = ended(&[Fate::LosesItsAnswer], false, true).await;
    assert_eq!(end, ("completed", told(&["fresh", "duplicate"]), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_an_undo_of_a_doubt_knows_whether_there_is_something_to_undo() {
    let end = ended(&[Fate::LosesItsAnswer], false, false).await;
    assert_eq!(end, ("compensated", told(&["fresh", "undo"]), 0));

    let end = ended(&[Fate::NeverArrives], false, false).await;
    assert_eq!(end, ("compensated", told(&["lost", "nothing"]), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_run_whose_probe_closed_the_key_goes_forward_with_its_next_attempt() {
    let end = ended(&[Fate::NeverArrives], true, true).await;
    assert_eq!(end, ("completed", told(&["lost", "never", "fresh"]), 1));

    let end = ended(&[Fate::LosesItsAnswer], true, true).await;
    assert_eq!(end, ("completed", told(&["fresh", "done"]), 1));
}
