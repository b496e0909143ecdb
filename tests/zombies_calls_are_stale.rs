//! A call of a frozen worker that was on its way already: it reaches the participant after the new owner's, and
//! the participant's barrier refuses it (rule W4), for an execute and for an undo.
#![cfg(feature = "sqlite")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/line.rs"]
mod line;
#[path = "common/undo.rs"]
mod undo;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::barrier::{BarrierError, Call, Compensate, Execute, Request, sqlite};
use amends::{Retry, Saga, StepContext, StepError, step_with};
use line::{Line, shared_store};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;
use undo::{Process, World};

type Answer = Result<String, BarrierError>;

/// A service with a database of its own, and the way to it: calls lie there until they are delivered.
struct Service {
    db: Mutex<Connection>,
    way: Mutex<VecDeque<(Call, oneshot::Sender<Answer>)>>,
    /// Calls are delivered at once.
    quick: Mutex<bool>,
}

impl Service {
    fn new() -> Arc<Self> {
        let db = Connection::open_in_memory().unwrap();
        sqlite::create(&db).unwrap();
        db.execute_batch("create table effects (key text not null)")
            .unwrap();
        Arc::new(Service {
            db: Mutex::new(db),
            way: Mutex::default(),
            quick: Mutex::new(true),
        })
    }

    async fn call(&self, cx: &StepContext) -> Result<String, StepError> {
        let call = Call::of(cx).unwrap();
        let (answer, answered) = oneshot::channel();
        self.way.lock().unwrap().push_back((call, answer));
        if *self.quick.lock().unwrap() {
            self.deliver();
        }
        Ok(answered.await.unwrap()?)
    }

    /// Lets the service have the call that has been on its way for longest.
    fn deliver(&self) -> Option<String> {
        let (call, answer) = self.way.lock().unwrap().pop_front()?;
        let served = self.serve(&call);
        let told = match &served {
            Ok(result) => result.clone(),
            Err(refused) => refused.code().to_owned(),
        };
        // Whoever called may have gone.
        drop(answer.send(served));
        Some(told)
    }

    fn serve(&self, call: &Call) -> Answer {
        let mut db = self.db.lock().unwrap();
        let tx = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let request = Request::of(&()).unwrap();
        let result = match call.asked() {
            amends::barrier::Asked::Compensate => match sqlite::compensate(&tx, call, &request)? {
                Compensate::Undo(undo) => {
                    tx.execute("delete from effects where key = ?1", [call.effect_key()])
                        .unwrap();
                    sqlite::record_undo(&tx, undo, &())?;
                    "undone"
                }
                Compensate::Nothing | Compensate::Duplicate(_) => "nothing to undo",
            },
            _ => match sqlite::execute(&tx, call, &request)? {
                Execute::Fresh(fresh) => {
                    tx.execute("insert into effects values (?1)", [call.effect_key()])
                        .unwrap();
                    sqlite::record(&tx, fresh, "done")?;
                    "done"
                }
                Execute::Duplicate(_) => "done before",
            },
        };
        tx.commit().unwrap();
        Ok(result.to_owned())
    }

    fn effects(&self) -> i64 {
        let db = self.db.lock().unwrap();
        db.query_row("select count(*) from effects", [], |row| row.get(0))
            .unwrap()
    }
}

/// `charge`, then something that fails where that is asked for.
fn saga(service: &Arc<Service>, fails: bool) -> Saga<(), String> {
    let mut b = Saga::builder::<()>("order");
    let charge = b.add(
        step_with(
            "charge",
            Arc::clone(service),
            async |service, cx, (): &()| service.call(cx).await,
            async |service, cx, (): &(), _| service.call(cx).await.map(drop),
        ),
        (),
    );
    let ship = b.add(
        step_with(
            "ship",
            fails,
            async |fails, _cx, charged: &String| {
                if *fails {
                    Err(StepError::rejected("no"))
                } else {
                    Ok(charged.clone())
                }
            },
            async |_fails, _cx, _charged, _effect| Ok(()),
        )
        .retry(Retry::none()),
        charge,
    );
    b.returns(ship).unwrap()
}

/// Freezes a worker with its call on the way, lets another one take over and end the run, and then delivers the
/// call. Says what became of it, how the run ended, and how many effects stand.
fn late(fails: bool, is_held: fn(&Call) -> bool) -> (String, &'static str, i64) {
    let world = World::new();
    let (service, store) = (Service::new(), shared_store(&world));
    let order = saga(&service, fails);
    let line = Line::to(&store);
    let mut zombie = Process::new();
    let coordinator = zombie.run(&world, async || {
        let here = world
            .coordinator(&line)
            .register(&order)
            .build()
            .await
            .unwrap();
        *service.quick.lock().unwrap() = false;
        let (starts, order) = (here.clone(), order.clone());
        tokio::spawn(async move { drop(starts.start(&order, "r", ()).await) });
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let way = service.way.lock().unwrap();
            let held = way.front().map(|(call, _)| is_held(call));
            drop(way);
            match held {
                Some(true) => return here,
                Some(false) => drop(service.deliver()),
                None => {}
            }
        }
    });

    *service.quick.lock().unwrap() = true;
    let frozen = service.way.lock().unwrap().pop_front().unwrap();
    let mut other = Process::new();
    let (end, taken) = other.run(&world, async || {
        let there = world
            .coordinator(&Line::to(&store))
            .register(&order)
            .build()
            .await
            .unwrap();
        let run = there.attach(&order, &"r".into()).await.unwrap().unwrap();
        (run.outcome().await.unwrap().word(), there)
    });

    service.way.lock().unwrap().push_back(frozen);
    let told = service.deliver().unwrap();
    let written = line.sent().len();
    zombie.run(&world, async || {
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    assert_eq!(
        line.sent().len(),
        written,
        "it wrote nothing of what it was told"
    );
    drop((coordinator, taken));
    (told, end, service.effects())
}

#[test]
fn w4_an_execute_that_was_on_its_way_is_stale() {
    let held = |call: &Call| call.asked() == amends::barrier::Asked::Execute;
    assert_eq!(late(false, held), ("stale".to_owned(), "completed", 1));
    assert_eq!(late(true, held), ("stale".to_owned(), "compensated", 0));
}

#[test]
fn w4_an_undo_that_was_on_its_way_is_stale() {
    let held = |call: &Call| call.asked() == amends::barrier::Asked::Compensate;
    assert_eq!(late(true, held), ("stale".to_owned(), "compensated", 0));
}
