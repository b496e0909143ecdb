//! The servers and the proxy that other tests stand on do as they say: otherwise those tests would show nothing.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "tokio-postgres", unix))]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_postgres::Client;

#[path = "common/mariadb.rs"]
mod mariadb;
#[path = "common/pgbouncer.rs"]
mod pgbouncer;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/proxy.rs"]
mod proxy;

use mariadb::MariaDb;
use pgbouncer::PgBouncer;
use postgres::{STANDBY, Server, Stop, connect, count};
use proxy::{Proxy, Trick, Wire};

const MAKE: &str = "create table kept (id int primary key)";

async fn insert(client: &Client, id: i32) -> Result<u64, tokio_postgres::Error> {
    let sql = "insert into kept values ($1)";
    client
        .execute_typed(sql, &[(&id, tokio_postgres::types::Type::INT4)])
        .await
}

#[tokio::test]
async fn a_server_keeps_its_port_and_what_was_committed_however_it_stops() {
    let server = Server::own(&[]).await;
    let config = server.config_by(server.port());
    let client = connect(&config).await.unwrap();
    client.batch_execute(MAKE).await.unwrap();
    for (id, how) in [Stop::Fast, Stop::Immediate, Stop::Kill]
        .into_iter()
        .enumerate()
    {
        let client = connect(&config).await.unwrap();
        insert(&client, i32::try_from(id).unwrap()).await.unwrap();
        server.stop(how).await;
        connect(&config).await.unwrap_err();
        server.start().await;
        insert(&client, 100).await.unwrap_err();
        let client = connect(&config).await.unwrap();
        assert_eq!(count(&client, "kept").await, 1 + i64::try_from(id).unwrap());
    }
    server.set("work_mem", "7MB").await;
    let client = connect(&config).await.unwrap();
    let now = client.query_one("show work_mem", &[]).await.unwrap();
    assert_eq!(now.get::<_, String>(0), "7MB");
}

#[tokio::test]
async fn a_commit_waits_for_the_synchronous_standby_which_takes_over_with_it() {
    let first = Server::own(&[]).await;
    first.set("synchronous_standby_names", STANDBY).await;
    let second = first.standby("second").await;
    let client = first.connect().await;
    client.batch_execute(MAKE).await.unwrap();
    insert(&client, 1).await.unwrap();

    second.stop(Stop::Immediate).await;
    let waits = insert(&client, 2);
    let waits = tokio::time::timeout(Duration::from_millis(300), waits).await;
    waits.expect_err("nobody but the primary has it");
    second.start().await;
    insert(&client, 3).await.unwrap();

    first.stop(Stop::Kill).await;
    second.promote().await;
    let client = second.connect().await;
    assert_eq!(count(&client, "kept where id in (1, 3)").await, 2);
    // Its name for a standby came with the copy: it waits for one of its own now.
    let waits = insert(&client, 5);
    let waits = tokio::time::timeout(Duration::from_millis(300), waits).await;
    waits.expect_err("nobody but the primary has it");
    let client = second.connect().await;
    let third = second.standby("third").await;
    insert(&client, 4).await.unwrap();
    assert_eq!(count(&third.connect().await, "kept where id = 4").await, 1);
}

#[tokio::test]
async fn a_pooler_gives_its_one_session_to_many_clients() {
    let server = Server::shared().await;
    let config = server.config();
    let pooler = tokio::task::spawn_blocking(move || PgBouncer::start(&config, 1));
    let pooler = pooler.await.unwrap();
    let mut sessions = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = connect(&pooler.config()).await.unwrap();
        let sql = "select pg_backend_pid()";
        let row = client.query_typed(sql, &[]).await.unwrap();
        sessions.push(row[0].get::<_, i32>(0));
        clients.push(client);
    }
    sessions.dedup();
    assert_eq!(sessions.len(), 1);
}

#[tokio::test]
async fn mariadb_answers_at_its_socket_and_its_port_and_keeps_what_was_committed() {
    let server = MariaDb::shared().await;
    let ask = |sql: &str| {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"])
            .args(["-P", &server.port().to_string(), "-u", mariadb::USER])
            .arg(format!("-p{}", mariadb::PASSWORD))
            .args(["-N", "-e", sql, mariadb::DATABASE])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    ask("create table kept (id int primary key) engine = innodb; insert into kept values (7)");
    server.restart();
    assert_eq!(ask("select id from kept"), "7");
    assert!(server.socket().exists());
}

#[tokio::test]
async fn the_proxy_loses_an_answer_a_request_or_time() {
    let server = Server::own(&[]).await;
    let proxy = Proxy::start(server.tcp(), Wire::Postgres);
    let config = server.config_by(proxy.port());
    let direct = server.connect().await;
    direct.batch_execute(MAKE).await.unwrap();

    let client = connect(&config).await.unwrap();
    insert(&client, 1).await.unwrap();
    let mut lost = proxy.play(Trick::LoseAnswer, "into kept", 2);
    insert(&client, 2).await.unwrap();
    assert!(!lost.is_played());
    insert(&client, 3).await.unwrap_err();
    lost.played().await;
    assert_eq!(count(&direct, "kept").await, 3);

    let client = connect(&config).await.unwrap();
    proxy.play(Trick::Drop, "into kept", 1);
    assert_eq!(count(&client, "kept").await, 3);
    insert(&client, 4).await.unwrap_err();
    assert_eq!(count(&direct, "kept").await, 3);

    let client = connect(&config).await.unwrap();
    let mut later = proxy.play(Trick::Later, "into kept", 1);
    insert(&client, 5).await.unwrap_err();
    later.played().await;
    assert_eq!(count(&direct, "kept").await, 3);
    proxy.deliver().await;
    assert_eq!(count(&direct, "kept where id = 5").await, 1);

    let client = connect(&config).await.unwrap();
    proxy.hold(true);
    let asked = insert(&client, 6);
    tokio::pin!(asked);
    while count(&direct, "kept where id = 6").await == 0 {
        let held = tokio::time::timeout(Duration::from_millis(5), &mut asked).await;
        held.expect_err("the answer is held back");
    }
    proxy.hold(false);
    asked.await.unwrap();

    // The other three were cut.
    while proxy.connections() != 1 {
        tokio::task::yield_now().await;
    }
    proxy.cut();
    insert(&client, 7).await.unwrap_err();
    assert_eq!(count(&direct, "kept").await, 5);
    proxy.close(true);
    connect(&config).await.unwrap_err();
    proxy.close(false);
    connect(&config).await.unwrap();
}

#[tokio::test]
async fn the_proxy_leads_to_another_server_from_now_on() {
    let (one, two) = (Server::own(&[]).await, Server::own(&[]).await);
    two.connect().await.batch_execute(MAKE).await.unwrap();
    let proxy = Proxy::start(one.tcp(), Wire::Postgres);
    let config = one.config_by(proxy.port());
    let first = connect(&config).await.unwrap();
    proxy.lead_to(two.tcp());
    let second = connect(&config).await.unwrap();
    assert_eq!(count(&second, "kept").await, 0);
    first.query("select * from kept", &[]).await.unwrap_err();
}

/// The role of the child of the next test, which is a test that does nothing otherwise.
const CHILD: &str = "AMENDS_RIG_CHILD";

#[tokio::test]
async fn a_child_that_waits_to_be_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = Server::own(&[]).await;
    println!("at {:?}", server.config().get_hosts());
    std::future::pending::<()>().await;
}

#[test]
fn servers_and_their_folders_are_gone_when_their_process_is_killed() {
    use std::io::{BufRead as _, BufReader};

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_that_waits_to_be_killed", "--nocapture"])
        .env(CHILD, "1")
        .env_remove("AMENDS_TEST_POSTGRES")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let folder = lines.find_map(|line| {
        let line = line.unwrap();
        let path = line.split_once("Unix(\"")?.1.split_once('"')?.0;
        Some(path.to_owned())
    });
    let folder = folder.unwrap();
    let pid = std::fs::read_to_string(format!("{folder}/data/postmaster.pid")).unwrap();
    let process = format!("/proc/{}", pid.lines().next().unwrap());
    assert!(Path::new(&process).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    // The pipe ends with the process; what comes of that takes a moment.
    for _ in 0..6_000 {
        if !Path::new(&folder).exists() && !Path::new(&process).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{process} runs on in {folder}");
}
