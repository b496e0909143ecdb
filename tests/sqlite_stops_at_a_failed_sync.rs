//! A sync to disk fails, or a write of a commit: nothing of that commit is acknowledged, nothing more is, and
//! nothing is tried again.
//! The kernel's answers are changed by `strace`; where there is none, this is skipped.
#![cfg(all(feature = "testkit", feature = "sqlite", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::path::Path;
use std::process::Command;

use amends::store::{AppendError, RunFilter, SqliteStore, Store as _, StoreError};
use amends::testkit::conformance::Sample;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

/// Appends until an append is not acknowledged, and tells what the store does from then on.
#[tokio::test]
async fn child() {
    let Some((_, file)) = role() else { return };
    let store = SqliteStore::options()
        .wal_bytes(64 << 10)
        .open(file)
        .unwrap();
    let mut sample = Sample::new("run");
    let (mut answer, mut appends) = (store.append(sample.start()).await, 0);
    while answer.is_ok() {
        tell("acknowledged");
        appends += 1;
        assert!(appends < 10_000, "nothing fails");
        answer = store.append(sample.step("output")).await;
    }
    tell(&format!("{answer:?}"));
    // Later appends, of other runs too, from several callers at once.
    let later: Vec<_> = (0..10)
        .map(|run| store.append(Sample::new(format!("run-{run}")).start()))
        .collect();
    for answer in later {
        assert!(matches!(answer.await, Err(AppendError::Dead(_))));
    }
    assert!(matches!(
        store.remember(&outline()).await,
        Err(StoreError::Dead { .. })
    ));
    // It still reads, and gives what was acknowledged.
    let records = store
        .load(sample.run())
        .await
        .unwrap()
        .unwrap()
        .records
        .len();
    tell(&format!("reads {records}"));
    assert_eq!(
        store
            .scan(&RunFilter::open(), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    store.close().await;
}

fn outline() -> amends::saga::Outline {
    serde_json::from_str(r#"{"saga":"ship","version":1,"fingerprint":"abc","steps":[]}"#).unwrap()
}

/// What fails: which calls, on which of the two files, and from which call of the writer thread on.
struct Fault {
    calls: &'static str,
    file: &'static str,
    from: usize,
    /// A small log is copied into the database often, a large one never.
    wal_bytes: &'static str,
}

/// Runs the child with this fault. Gives what it told, and the calls that it made.
fn failing(fault: &Fault, folder: &Path) -> Option<(Vec<String>, Vec<String>)> {
    let log = folder.join("strace");
    let trace = format!("trace={}", fault.calls);
    let inject = format!("inject={}:error=EIO:when={}+", fault.calls, fault.from);
    let (file, log_name) = (folder.join(fault.file), log.to_str().unwrap());
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log_name,
        "-P",
        file.to_str().unwrap(),
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let version = Command::new(wrapper[0]).arg("-V").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut child = Process::start_under(&wrapper, fault.wal_bytes, &folder.join("sagas.db"));
    let told = child.rest();
    let calls: Vec<String> = std::fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    if told.is_empty() && calls.is_empty() {
        return None;
    }
    child.end();
    Some((told, calls))
}

/// What has to hold whatever it is that fails.
async fn stops(fault: Fault) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let Some((told, calls)) = failing(&fault, &folder) else {
        eprintln!("skipped: strace is not here, or may not trace");
        return;
    };
    let [acknowledged @ .., dead, reads] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(
        !acknowledged.is_empty() && acknowledged.iter().all(|line| line == "acknowledged"),
        "{told:?}"
    );
    assert!(dead.starts_with("Err(Dead("), "{dead}");
    assert_eq!(*reads, format!("reads {}", acknowledged.len()));
    // The one that failed was the last: not tried again, not even by closing.
    let failed = calls.iter().position(|call| call.contains("INJECTED"));
    assert_eq!(failed, Some(calls.len() - 1), "{calls:#?}");

    let store = SqliteStore::open(folder.join("sagas.db")).unwrap();
    let there = store
        .load(&"run".into())
        .await
        .unwrap()
        .unwrap()
        .records
        .len();
    // What was not acknowledged may have reached the disk all the same.
    assert!(
        (acknowledged.len()..=acknowledged.len() + 1).contains(&there),
        "{there} of {}",
        acknowledged.len()
    );
    store.close().await;
}

const LARGE: &str = "4194304";
const SMALL: &str = "65536";

#[tokio::test]
async fn a_commit_whose_sync_fails_is_the_last() {
    stops(Fault {
        calls: "fsync,fdatasync",
        file: "sagas.db-wal",
        from: 30,
        wal_bytes: LARGE,
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_write_fails_is_the_last() {
    stops(Fault {
        calls: "pwrite64",
        file: "sagas.db-wal",
        from: 300,
        wal_bytes: LARGE,
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_whose_sync_of_the_log_fails_is_the_last() {
    stops(Fault {
        calls: "fsync,fdatasync",
        file: "sagas.db-wal",
        from: 30,
        wal_bytes: SMALL,
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_whose_sync_of_the_database_fails_is_the_last() {
    stops(Fault {
        calls: "fsync,fdatasync",
        file: "sagas.db",
        from: 4,
        wal_bytes: SMALL,
    })
    .await;
}
