//! What the barrier's refusals mean to a run, by real errors of its databases.

#![allow(clippy::unwrap_used, missing_docs)]

use amends::FailureMode::{StepContract, StepLogic, StepState};
use amends::barrier::{BarrierError, Call, CallError};
use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::failure::{Classifier, FailedEffect, Stale};
use amends::{FailureMode, StepError};

type Answer = (FailureMode, FailedEffect, bool);

fn answer(error: &(dyn std::error::Error + 'static)) -> Answer {
    let known = Classifier::new().classify(error);
    (known.mode, known.effect, known.retryable)
}

fn key() -> String {
    "5f0a/pay/1".to_owned()
}

#[test]
fn each_refusal_has_its_word_its_status_and_its_meaning() {
    let missing = CallError::Missing {
        what: "amends-fence",
    };
    let unwritable = serde_json::from_str::<u8>("x").unwrap_err();
    let stale = || BarrierError::Stale {
        run: "5f0a".to_owned(),
        fence: 1,
        seen: 3,
    };
    let refusals: [(BarrierError, &str, u16, Answer); 6] = [
        (stale(), "stale", 409, (StepState, NotDone, false)),
        (
            BarrierError::Closed { key: key() },
            "closed",
            409,
            (StepContract, NotDone, false),
        ),
        (
            BarrierError::OtherRequest { key: key() },
            "other-request",
            422,
            (StepContract, NotDone, false),
        ),
        (
            BarrierError::Unrecorded { key: key() },
            "unrecorded",
            409,
            (StepContract, InDoubt, false),
        ),
        (
            BarrierError::Call(missing),
            "bad-call",
            400,
            (StepLogic, NotDone, false),
        ),
        (
            BarrierError::Result(unwritable),
            "bad-result",
            500,
            (StepContract, NotDone, false),
        ),
    ];
    for (refusal, code, status, means) in refusals {
        assert_eq!((refusal.code(), refusal.status()), (code, status));
        assert_eq!(refusal.is_stale(), code == "stale");
        assert_eq!(answer(&refusal), means, "{code}");
        assert_eq!(answer(&std::io::Error::other(refusal)), means, "{code}");
    }
    assert!(StepContract.is_terminal());
    assert_eq!(Stale::find(&stale()), Some(Stale::new(1).seen(3)));
    // By `?` a step keeps it.
    let failed = || -> Result<(), StepError> { Err(stale())? };
    assert_eq!(
        failed().unwrap_err().to_string(),
        "fence 1 of run 5f0a is stale: fence 3 has been here"
    );
    let malformed = Call::execute("no run", 1).unwrap_err();
    assert_eq!(answer(&malformed), (StepLogic, NotDone, false));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_deferred_transaction_works_where_the_barrier_comes_first_and_is_busy_where_it_read_before() {
    use amends::barrier::{Execute, Request, sqlite};
    use rusqlite::Connection;

    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let connection = Connection::open(folder.path().join("service.db")).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        connection
    };
    let (mut one, other) = (open(), open());
    one.pragma_update(None, "journal_mode", "wal").unwrap();
    sqlite::create(&one).unwrap();
    one.execute_batch("create table notes (note text)").unwrap();
    let (call, request) = (Call::execute(key(), 1).unwrap(), Request::of_bytes(b""));

    // Deferred: it has no lock yet, and takes it by its first statement.
    let tx = one.transaction().unwrap();
    let Execute::Fresh(fresh) = sqlite::execute(&tx, &call, &request).unwrap() else {
        unreachable!("nobody has done it")
    };
    sqlite::record(&tx, fresh, "paid").unwrap();
    tx.commit().unwrap();

    let tx = one.transaction().unwrap();
    tx.query_row("select count(*) from notes", [], |row| row.get::<_, i64>(0))
        .unwrap();
    other.execute("insert into notes values ('x')", []).unwrap();
    let busy = sqlite::execute(&tx, &call, &request).unwrap_err();
    assert_eq!(busy.code(), "database");
    assert_eq!(answer(&busy), (FailureMode::SystemTimeout, NotDone, true));
    drop(tx);

    // A right that is brought to another transaction is none.
    let second = Call::execute("5f0a/pay/2", 1).unwrap();
    let tx = one.transaction().unwrap();
    let Execute::Fresh(fresh) = sqlite::execute(&tx, &second, &request).unwrap() else {
        unreachable!("nobody has done it")
    };
    tx.rollback().unwrap();
    let tx = one.transaction().unwrap();
    let late = sqlite::record(&tx, fresh, "paid").unwrap_err();
    assert_eq!(late.code(), "unrecorded");

    // A call of another kind than the function's is refused before it touches anything.
    let taken = sqlite::compensate(&tx, &call, &request).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "the call is an execute, and was taken for a compensate"
    );

    // Twice in one transaction is a mistake of the service, and not a duplicate.
    let Ok(Execute::Fresh(_)) = sqlite::execute(&tx, &second, &request) else {
        unreachable!("nobody has done it")
    };
    let twice = sqlite::execute(&tx, &second, &request).unwrap_err();
    assert_eq!(twice.code(), "unrecorded");
}

#[cfg(feature = "mysql")]
#[path = "common/mariadb.rs"]
mod mariadb;

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_mariadb_are_known_by_their_number() {
    use mysql_async::prelude::Queryable;
    use mysql_async::{Conn, Opts};

    let server = mariadb::MariaDb::shared().await;
    let connect = async |url: String| Conn::new(Opts::from_url(&url).unwrap()).await;
    let mut one = connect(server.url(mariadb::DATABASE)).await.unwrap();
    let mut other = connect(server.url(mariadb::DATABASE)).await.unwrap();
    let failed = async |connection: &mut Conn, sql: &str| {
        let error = connection.query_drop(sql).await.unwrap_err();
        answer(&BarrierError::Database(error.into()))
    };
    let refused = (FailureMode::StepValidation, NotDone, false);
    let wrong = (StepLogic, NotDone, false);
    assert_eq!(failed(&mut one, "selekt 1").await, wrong);
    assert_eq!(failed(&mut one, "select * from nowhere").await, wrong);
    let sql = "create table numbers (n int primary key check (n > 0), m int not null)";
    one.query_drop(sql).await.unwrap();
    one.query_drop("insert into numbers values (1, 1), (2, 2)")
        .await
        .unwrap();
    assert_eq!(
        failed(&mut one, "insert into numbers values (1, 1)").await,
        refused
    );
    assert_eq!(
        failed(&mut one, "insert into numbers values (0, 1)").await,
        refused
    );
    assert_eq!(
        failed(&mut one, "insert into numbers values (3, null)").await,
        refused
    );

    other.query_drop("begin").await.unwrap();
    other
        .query_drop("update numbers set m = 0 where n = 2")
        .await
        .unwrap();
    one.query_drop("set innodb_lock_wait_timeout = 1")
        .await
        .unwrap();
    let late = (FailureMode::SystemTimeout, NotDone, true);
    assert_eq!(
        failed(&mut one, "update numbers set m = 0 where n = 2").await,
        late
    );

    one.query_drop("set innodb_lock_wait_timeout = 50")
        .await
        .unwrap();
    one.query_drop("begin").await.unwrap();
    one.query_drop("update numbers set m = 0 where n = 1")
        .await
        .unwrap();
    let (waits, ends) = tokio::join!(
        one.query_drop("update numbers set m = 0 where n = 2"),
        other.query_drop("update numbers set m = 0 where n = 1"),
    );
    // Which of the two is chosen is the server's affair.
    let deadlock = waits.err().or(ends.err()).unwrap();
    let meant = answer(&BarrierError::Database(deadlock.into()));
    assert_eq!(meant, (StepState, NotDone, true));

    let none = connect(server.url("nowhere")).await.unwrap_err();
    assert_eq!(answer(&none), (FailureMode::ServiceMissing, NotDone, true));
    let id = one.id();
    let mut third = connect(server.url(mariadb::DATABASE)).await.unwrap();
    third.query_drop(format!("kill {id}")).await.unwrap();
    let killed = one.query_drop("select 1").await.unwrap_err();
    let lost = answer(&killed);
    assert_eq!((lost.1, lost.2), (InDoubt, true), "{killed:?}");
    let closed = one.query_drop("select 1").await.unwrap_err();
    assert_eq!(
        answer(&closed),
        (FailureMode::SystemNetwork, InDoubt, true),
        "{closed:?}"
    );
}
