//! What real errors of tokio-postgres mean, of a real server.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "tokio-postgres", unix))]

use std::error::Error;
use std::net::SocketAddr;

use amends::FailureMode;
use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::failure::{Classifier, FailedEffect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, IsolationLevel};

#[path = "common/postgres.rs"]
mod postgres;
use postgres::{Server, connect, count};

type Answer = (FailureMode, FailedEffect, bool);

const REFUSED: Answer = (FailureMode::StepValidation, NotDone, false);
const DISTURBED: Answer = (FailureMode::StepState, NotDone, true);
const LATE: Answer = (FailureMode::SystemTimeout, NotDone, true);
const FORBIDDEN: Answer = (FailureMode::PermissionDenied, NotDone, false);
const UNAVAILABLE: Answer = (FailureMode::ApiUnavailable, NotDone, true);
const ENDED: Answer = (FailureMode::ApiUnavailable, InDoubt, true);
const LOST: Answer = (FailureMode::SystemNetwork, InDoubt, true);
const WRONG: Answer = (FailureMode::StepLogic, NotDone, false);
const UNREADABLE: Answer = (FailureMode::StepContract, InDoubt, false);
const UNKNOWN: Answer = (FailureMode::StepLogic, InDoubt, false);

fn answer(error: &(dyn Error + 'static)) -> Answer {
    let known = Classifier::new().classify(error);
    (known.mode, known.effect, known.retryable)
}

/// What the error means, which has to be of that SQLSTATE. Wrapped, it means the same.
fn of_state(error: tokio_postgres::Error, state: &str) -> Answer {
    assert_eq!(error.code().map(SqlState::code), Some(state), "{error:?}");
    let plain = answer(&error);
    let wrapped = std::io::Error::other(std::io::Error::other(error));
    assert_eq!(answer(&wrapped), plain);
    plain
}

#[tokio::test]
async fn a_violated_constraint_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let client = server.connect().await;
            let insert = async |values: &str| {
                let sql = format!("insert into {table} values {values}");
                client.execute(&sql, &[]).await
            };
            insert("(1, 10)").await.unwrap();
            for (values, state) in [
                // The first row is taken back with the second.
                ("(2, 10), (1, 10)", "23505"),
                ("(3, 0)", "23514"),
                ("(null, 10)", "23502"),
                ("(4, 1 / 0)", "22012"),
                ("('x', 10)", "22P02"),
            ] {
                let error = insert(values).await.unwrap_err();
                assert_eq!(of_state(error, state), REFUSED);
            }
            let raise = "do $$ begin raise exception 'not today'; end $$";
            let error = client.batch_execute(raise).await.unwrap_err();
            assert_eq!(of_state(error, "P0001"), REFUSED);
            assert_eq!(count(&client, table).await, 1);
        })
        .await;
}

#[tokio::test]
async fn a_commit_that_a_deferred_constraint_refuses_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let mut client = server.connect().await;
            let sql = format!(
                "alter table {table} add foreign key (amount) references {table} deferrable initially deferred"
            );
            client.batch_execute(&sql).await.unwrap();
            let transaction = client.transaction().await.unwrap();
            let sql = format!("insert into {table} values (1, 99)");
            transaction.execute(&sql, &[]).await.unwrap();
            let error = transaction.commit().await.unwrap_err();
            assert_eq!(of_state(error, "23503"), REFUSED);
            assert_eq!(count(&client, table).await, 0);
        })
        .await;
}

#[tokio::test]
async fn a_deadlock_of_two_transactions_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let (mut one, mut two) = (server.connect().await, server.connect().await);
            let sql = format!("insert into {table} values (1, 10), (2, 10)");
            one.batch_execute(&sql).await.unwrap();
            for client in [&one, &two] {
                let sql = "set deadlock_timeout = '10ms'";
                client.batch_execute(sql).await.unwrap();
            }
            let lock = |id: u32| format!("update {table} set amount = 20 where id = {id}");
            let first = one.transaction().await.unwrap();
            let second = two.transaction().await.unwrap();
            first.execute(&lock(1), &[]).await.unwrap();
            second.execute(&lock(2), &[]).await.unwrap();
            let (crossed, lock_first) = (lock(2), lock(1));
            let ends = tokio::join!(
                async { (first.execute(&crossed, &[]).await, first.commit().await) },
                async {
                    (
                        second.execute(&lock_first, &[]).await,
                        second.commit().await,
                    )
                },
            );
            // One of them is sacrificed, and which one is the server's choice.
            let (ends, mut errors) = (<[_; 2]>::from(ends), Vec::new());
            for (update, _) in ends {
                errors.extend(update.err());
            }
            assert_eq!(errors.len(), 1);
            assert_eq!(of_state(errors.remove(0), "40P01"), DISTURBED);
            let sql = format!("select sum(amount) from {table}");
            let sum: i64 = one.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(sum, 40);
        })
        .await;
}

#[tokio::test]
async fn a_serialization_failure_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let (mut one, mut two) = (server.connect().await, server.connect().await);
            let first = one
                .build_transaction()
                .isolation_level(IsolationLevel::Serializable)
                .start()
                .await
                .unwrap();
            let second = two
                .build_transaction()
                .isolation_level(IsolationLevel::Serializable)
                .start()
                .await
                .unwrap();
            // Each reads what the other is about to write.
            for (transaction, id) in [(&first, 1), (&second, 2)] {
                let sql = format!("select count(*) from {table}");
                transaction.query_one(&sql, &[]).await.unwrap();
                let sql = format!("insert into {table} values ({id}, 10)");
                transaction.execute(&sql, &[]).await.unwrap();
            }
            first.commit().await.unwrap();
            let error = second.commit().await.unwrap_err();
            assert_eq!(of_state(error, "40001"), DISTURBED);
            assert_eq!(count(&one, table).await, 1);
        })
        .await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let client = server.connect().await;
            client
                .batch_execute("set statement_timeout = '10ms'")
                .await
                .unwrap();
            let sql = format!("insert into {table} select 1, 10 from pg_sleep(3600)");
            let error = client.execute(&sql, &[]).await.unwrap_err();
            assert_eq!(of_state(error, "57014"), LATE);
            assert_eq!(count(&client, table).await, 0);
        })
        .await;
}

#[tokio::test]
async fn a_lock_that_is_not_had_in_time_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let (mut holder, client) = (server.connect().await, server.connect().await);
            let transaction = holder.transaction().await.unwrap();
            let sql = format!("lock table {table}");
            transaction.batch_execute(&sql).await.unwrap();
            client
                .batch_execute("set lock_timeout = '10ms'")
                .await
                .unwrap();
            let sql = format!("insert into {table} values (1, 10)");
            let error = client.execute(&sql, &[]).await.unwrap_err();
            assert_eq!(of_state(error, "55P03"), LATE);
        })
        .await;
}

#[tokio::test]
async fn a_session_that_is_ended_is_in_doubt() {
    let server = Server::shared().await;
    let (client, other) = (server.connect().await, server.connect().await);
    let row = client.query_one("select pg_backend_pid()", &[]).await;
    let pid: i32 = row.unwrap().get(0);
    let (error, ()) = tokio::join!(
        async {
            client
                .batch_execute("select pg_sleep(3600)")
                .await
                .unwrap_err()
        },
        async {
            // Until the server has the statement.
            let active = "select count(*) from pg_stat_activity \
                          where pid = $1 and state = 'active' and wait_event = 'PgSleep'";
            while other
                .query_one(active, &[&pid])
                .await
                .unwrap()
                .get::<_, i64>(0)
                == 0
            {}
            let end = "select pg_terminate_backend($1)";
            assert!(
                other
                    .query_one(end, &[&pid])
                    .await
                    .unwrap()
                    .get::<_, bool>(0)
            );
        },
    );
    assert_eq!(of_state(error, "57P01"), ENDED);

    // From then on the client has no connection.
    let error = client.batch_execute("select 1").await.unwrap_err();
    assert!(error.is_closed());
    assert_eq!(answer(&error), LOST);
}

/// Where the proxy cuts the connection.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// With the `COMMIT` in its hands.
    Before,
    /// With the server's word of the commit in its hands.
    After,
}

/// A proxy before the server that cuts a connection at its first `COMMIT`.
async fn proxy(server: &Server, cut: Cut) -> Config {
    trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
    impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server.config();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = config.get_hosts().first().unwrap().clone();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server: Box<dyn Both> = match host {
            Host::Unix(folder) => {
                let socket = folder.join(format!(".s.PGSQL.{port}"));
                Box::new(UnixStream::connect(socket).await.unwrap())
            }
            Host::Tcp(host) => Box::new(TcpStream::connect((host, port)).await.unwrap()),
        };
        let (mut asked, mut answered) = (vec![0; 4096], vec![0; 4096]);
        loop {
            tokio::select! {
                length = client.read(&mut asked) => {
                    let asked = &asked[..length.unwrap()];
                    let is_commit = asked.windows(6).any(|it| it == b"COMMIT");
                    if is_commit && matches!(cut, Cut::Before) {
                        return;
                    }
                    server.write_all(asked).await.unwrap();
                    if is_commit {
                        assert_ne!(server.read(&mut answered).await.unwrap(), 0);
                        return;
                    }
                }
                length = server.read(&mut answered) => {
                    client.write_all(&answered[..length.unwrap()]).await.unwrap();
                }
            }
        }
    });
    let mut through = Config::new();
    through
        .host("127.0.0.1")
        .port(address.port())
        .user(config.get_user().unwrap())
        .password(config.get_password().unwrap_or_default())
        .dbname(config.get_dbname().unwrap_or("postgres"));
    through
}

/// One and the same error, and both truths behind it.
#[tokio::test]
async fn a_connection_that_is_dropped_at_the_commit_is_in_doubt() {
    let server = Server::shared().await;
    for (cut, rows) in [(Cut::Before, 0), (Cut::After, 1)] {
        server
            .with_table(async |server, table| {
                let config = proxy(server, cut).await;
                let mut client = connect(&config).await.unwrap();
                let transaction = client.transaction().await.unwrap();
                let sql = format!("insert into {table} values (1, 10)");
                transaction.execute(&sql, &[]).await.unwrap();
                let error = transaction.commit().await.unwrap_err();
                assert_eq!(answer(&error), LOST, "{cut:?}: {error:?}");

                // A lock that waits for the dropped session, so that it is over.
                let client = server.connect().await;
                let sql = format!("begin; lock table {table}; end");
                client.batch_execute(&sql).await.unwrap();
                assert_eq!(count(&client, table).await, rows, "{cut:?}");
            })
            .await;
    }
}

#[tokio::test]
async fn a_wrong_password_role_or_database_is_not_done() {
    let server = Server::shared().await;
    let mut wrong = server.config();
    wrong.password("not the password");
    let error = connect(&wrong).await.unwrap_err();
    assert_eq!(of_state(error, "28P01"), FORBIDDEN);

    let mut wrong = server.config();
    wrong.user("nobody-of-that-name");
    let error = connect(&wrong).await.unwrap_err();
    assert_eq!(of_state(error, "28P01"), FORBIDDEN);

    let mut wrong = server.config();
    wrong.dbname("no database");
    let error = connect(&wrong).await.unwrap_err();
    assert_eq!(
        of_state(error, "3D000"),
        (FailureMode::ServiceMissing, NotDone, true)
    );
}

#[tokio::test]
async fn a_server_that_takes_no_more_connections_is_not_done() {
    let server = Server::shared().await;
    let client = server.connect().await;
    let role = format!("amends_{}_crowded", std::process::id());
    let sql = format!("create role {role} login password 'x' connection limit 0");
    client.batch_execute(&sql).await.unwrap();
    let mut crowded = server.config();
    crowded.user(&role).password("x");
    let refused = connect(&crowded).await;
    let sql = format!("drop role {role}");
    client.batch_execute(&sql).await.unwrap();
    assert_eq!(of_state(refused.unwrap_err(), "53300"), UNAVAILABLE);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_not_done() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(socket.local_addr().unwrap().port())
        .user("amends");
    let error = connect(&config).await.unwrap_err();
    assert_eq!(answer(&error), UNAVAILABLE, "{error:?}");
}

#[tokio::test]
async fn a_statement_that_may_not_or_cannot_run_is_not_done() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let client = server.connect().await;
            for (sql, state, expected) in [
                ("insert or else".to_owned(), "42601", WRONG),
                ("insert into nowhere values (1)".to_owned(), "42P01", WRONG),
                (
                    format!("set role pg_monitor; insert into {table} values (1, 10)"),
                    "42501",
                    FORBIDDEN,
                ),
                (
                    format!("reset role; begin read only; insert into {table} values (1, 10)"),
                    "25006",
                    UNAVAILABLE,
                ),
                // The transaction of the line before has failed.
                (
                    format!("insert into {table} values (1, 10)"),
                    "25P02",
                    (FailureMode::StepState, NotDone, false),
                ),
            ] {
                let error = client.batch_execute(&sql).await.unwrap_err();
                assert_eq!(of_state(error, state), expected, "{sql}");
            }
            client.batch_execute("rollback").await.unwrap();
            assert_eq!(count(&client, table).await, 0);
        })
        .await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_in_doubt_and_the_statement_ran() {
    let server = Server::shared().await;
    server
        .with_table(async |server, table| {
            let client = server.connect().await;
            let sql = format!("insert into {table} values (1, null) returning amount");
            let row = client.query_one(&sql, &[]).await.unwrap();
            let error = row.try_get::<_, i32>(0).unwrap_err();
            assert_eq!(answer(&error), UNREADABLE, "{error:?}");

            // The client says nothing of when it found these, so nobody knows them.
            let error = row.try_get::<_, String>(0).unwrap_err();
            assert_eq!(answer(&error), UNKNOWN, "{error:?}");
            let sql = format!("insert into {table} values (2, 10), (3, 10) returning id");
            let error = client.query_one(&sql, &[]).await.unwrap_err();
            assert_eq!(answer(&error), UNKNOWN, "{error:?}");
            assert_eq!(count(&client, table).await, 3);
        })
        .await;
}

/// Speaks just enough of the protocol to report any error to a real client.
async fn reporting(severity: &'static str, state: &'static str) -> SocketAddr {
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let length = client.read_u32().await.unwrap();
        client
            .read_exact(&mut vec![0; length as usize - 4])
            .await
            .unwrap();
        let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        client.write_all(&welcome).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'Q');
        let report = format!("S{severity}\0V{severity}\0C{state}\0Mas asked for\0\0");
        client
            .write_all(&message(b'E', report.as_bytes()))
            .await
            .unwrap();
    });
    address
}

async fn reported(severity: &'static str, state: &'static str) -> Answer {
    let address = reporting(severity, state).await;
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(address.port())
        .user("amends")
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    let client = connect(&config).await.unwrap();
    let error = client.batch_execute("commit").await.unwrap_err();
    of_state(error, state)
}

/// What a server reports that no test can bring about.
#[tokio::test]
async fn errors_of_a_server_in_trouble() {
    const DISK: FailureMode = FailureMode::SystemDisk;
    for (severity, state, expected) in [
        ("ERROR", "53100", (DISK, NotDone, false)),
        // It dies while it writes the commit.
        ("PANIC", "53100", (DISK, InDoubt, false)),
        ("PANIC", "40001", (FailureMode::StepState, InDoubt, true)),
        ("ERROR", "40003", LOST),
        ("ERROR", "40002", DISTURBED),
        ("ERROR", "53200", UNAVAILABLE),
        (
            "ERROR",
            "53400",
            (FailureMode::QuotaExceeded, NotDone, false),
        ),
        ("ERROR", "58030", (DISK, InDoubt, false)),
        ("ERROR", "XX001", (DISK, InDoubt, false)),
        ("ERROR", "XX000", UNKNOWN),
        ("FATAL", "57P02", ENDED),
        ("FATAL", "57P03", UNAVAILABLE),
        ("FATAL", "25P03", LATE),
        (
            "FATAL",
            "25P04",
            (FailureMode::SystemTimeout, InDoubt, true),
        ),
        ("ERROR", "08006", LOST),
        ("ERROR", "08007", LOST),
        ("FATAL", "08004", UNAVAILABLE),
        ("ERROR", "55006", (FailureMode::StepState, NotDone, false)),
        ("ERROR", "ZZZZZ", UNKNOWN),
    ] {
        assert_eq!(
            reported(severity, state).await,
            expected,
            "{severity} {state}"
        );
    }
}
