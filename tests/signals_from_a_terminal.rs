//! Signals and answers from another process, the program itself, on a SQLite file: while a coordinator runs, and
//! while none does.
#![cfg(all(feature = "cli", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use amends::journal::Standing;
use amends::store::{SqliteStore, Store};
use amends::{
    Approval, Coordinator, RecoveryPolicy, RecoveryStrategy, RunHandle, RunId, Saga, Timestamp,
    approval, wait_for,
};

/// Paid, then approved by Ada or Grace.
fn order() -> Saga<u64, (u64, Approval)> {
    let mut b = Saga::builder::<u64>("order");
    let paid = b.add(wait_for::<u64>("paid"), ());
    let boss = approval("boss").approvers(["ada", "grace"]).after(paid);
    let said = b.add(boss, ());
    b.returns((paid, said)).unwrap()
}

/// Paid within a moment, or parked.
fn hasty() -> Saga<u64, u64> {
    let mut b =
        Saga::builder::<u64>("hasty").policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual));
    let limit = Duration::from_millis(1);
    let paid = b.add(wait_for::<u64>("paid").within(limit), ());
    b.returns(paid).unwrap()
}

async fn coordinator(file: &Path) -> Coordinator {
    let builder = Coordinator::builder(SqliteStore::open(file).unwrap());
    let builder = builder.register(&order()).register(&hasty());
    builder.build().await.unwrap()
}

/// What the program says: its exit code, and what it printed.
struct Said {
    code: i32,
    out: String,
    err: String,
}

async fn amends(file: &Path, arguments: &[&str]) -> Said {
    let mut program = Command::new(env!("CARGO_BIN_EXE_amends"));
    program
        .arg("--store")
        .arg(file)
        .args(arguments)
        .env_remove("USER");
    // The coordinator of this process goes on meanwhile.
    let ran = tokio::task::spawn_blocking(move || program.output().unwrap());
    let Output {
        status,
        stdout,
        stderr,
    } = ran.await.unwrap();
    Said {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_and_answers_are_taken_refused_and_told_while_a_coordinator_runs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let coordinator = coordinator(&file).await;
    let run = coordinator.start(&order(), "r", 1).await.unwrap();

    let said = amends(&file, &["signal", "pay", "r", "--payload", "1999"]).await;
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(
        said.err
            .contains("the saga waits for no signal `pay`: it waits for `paid`, `boss`"),
        "{}",
        said.err
    );
    let said = amends(&file, &["signal", "paid", "r", "--payload", "\"much\""]).await;
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("signal `paid`: "), "{}", said.err);
    let said = amends(&file, &["signal", "paid", "nobody", "--payload", "1"]).await;
    assert_eq!(said.code, 3, "{}", said.err);

    let paid = ["signal", "paid", "r", "--payload", "1999", "--token", "t"];
    for _ in 0..2 {
        let said = amends(&file, &paid).await;
        assert_eq!((said.code, said.out.as_str()), (0, "r: signal accepted\n"));
    }
    let other = ["signal", "paid", "r", "--payload", "2999", "--token", "t"];
    let said = amends(&file, &other).await;
    assert_ne!(said.code, 0);
    assert!(said.err.contains("token `t`"), "{}", said.err);

    let said = amends(&file, &["deny", "boss", "r", "--by", "ada"]).await;
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("`--reason` is missing"), "{}", said.err);
    let mallory = ["approve", "boss", "r", "--by", "mallory", "--reason", "me"];
    let said = amends(&file, &mallory).await;
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(
        said.err
            .contains("`mallory` may not answer: ada, grace may"),
        "{}",
        said.err
    );
    let grace = ["approve", "boss", "r", "--by", "grace", "--reason", "fair"];
    let said = amends(&file, &grace).await;
    assert_eq!((said.code, said.out.as_str()), (0, "r: signal accepted\n"));
    let approved = Approval::Approved {
        by: "grace".to_owned(),
        reason: "fair".to_owned(),
    };
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.completed(), Some((1_999, approved)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_signal_says_so_in_words_in_json_and_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let coordinator = coordinator(&file).await;
    let run = coordinator.start(&hasty(), "r", 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "parked");
    let late =
        "the wait was over when it came: it is kept in the journal, and nothing else becomes of it";
    let said = amends(&file, &["signal", "paid", "r", "--payload", "5"]).await;
    assert_eq!(
        (said.code, said.out),
        (4, format!("r: signal is late: {late}\n")),
        "{}",
        said.err
    );
    let json = ["--json", "signal", "paid", "r", "--payload", "5"];
    let said = amends(&file, &json).await;
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said.code, 4);
    assert_eq!(
        (&told["became"], &told["why"]),
        (&"late".into(), &late.into())
    );
    let said = amends(&file, &["journal", "r"]).await;
    assert_eq!(
        said.out.matches("after its wait was over").count(),
        2,
        "{}",
        said.out
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_signalled_while_nobody_runs_is_taken_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let first = coordinator(&file).await;
    drop(first.start(&order(), "r", 1).await.unwrap());
    first.shutdown().await;
    drop(first);
    let paid = [
        "signal",
        "paid",
        "r",
        "--payload",
        "1999",
        "--token",
        "t",
        "--wait",
        "0s",
    ];
    let said = amends(&file, &paid).await;
    assert_eq!(said.code, 7, "{}", said.err);
    let said = amends(&file, &["signal", "pay", "r", "--wait", "0s"]).await;
    assert_eq!(said.code, 4, "an unknown name is known to be: {}", said.err);
    let ada = [
        "deny", "boss", "r", "--by", "ada", "--reason", "too much", "--wait", "0s",
    ];
    assert_eq!(amends(&file, &ada).await.code, 7);

    let second = coordinator(&file).await;
    let run: RunHandle<(u64, Approval)> = second.start(&order(), "r", 1).await.unwrap();
    let denied = Approval::Denied {
        by: "ada".to_owned(),
        reason: "too much".to_owned(),
    };
    assert_eq!(
        run.outcome().await.unwrap().completed(),
        Some((1_999, denied))
    );
    // Whoever asked meanwhile learns what became of it.
    let said = amends(&file, &paid).await;
    assert_eq!((said.code, said.out.as_str()), (0, "r: signal accepted\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_ever_is_shown_without_an_instant() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let coordinator = coordinator(&file).await;
    drop(coordinator.start(&order(), "r", 1).await.unwrap());
    let store = SqliteStore::open_reader(&file).unwrap();
    let entry = loop {
        let entry = store.find(&RunId::new("r")).await.unwrap().unwrap();
        if entry.standing != Standing::Running {
            break entry;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let never = Standing::Waiting {
        until: Timestamp::NEVER,
    };
    assert_eq!(entry.standing, never);
    let year = Timestamp::NEVER.to_string()[..4].to_owned();
    assert_eq!(year, "2942");
    for arguments in [
        ["list"].as_slice(),
        &["list", "--json"],
        &["list", "--status", "waiting"],
        &["show", "r"],
        &["show", "r", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["journal", "r"],
        &["journal", "r", "--json"],
        &["graph", "r"],
        &["verify"],
        &["export"],
    ] {
        let said = amends(&file, arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        for shown in [year.as_str(), "9223372036854775807", "294247", "292471"] {
            assert!(!said.out.contains(shown), "{arguments:?}: {}", said.out);
        }
        assert!(
            said.out.contains("waiting") || ["verify", "journal", "graph"].contains(&arguments[0]),
            "{arguments:?}: {}",
            said.out
        );
    }
    let listed = rusqlite::Connection::open(&file).unwrap().query_row(
        "SELECT standing, wake_at FROM run_list WHERE id = 'r'",
        [],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)),
    );
    assert_eq!(listed.unwrap(), ("waiting".to_owned(), None));
}
