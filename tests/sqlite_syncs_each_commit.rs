//! An acknowledged append is on the disk: each commit is one sync, counted by the kernel, and what a killed
//! owner has left in the log is synced before anybody reads it. Counted with `strace`; where there is none,
//! this is skipped.
#![cfg(all(feature = "testkit", feature = "sqlite", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::path::Path;

use amends::store::{SqliteStore, Store as _};
use amends::testkit::conformance::Sample;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

const APPENDS: usize = 20;

#[tokio::test]
async fn child() {
    let Some((role, file)) = role() else { return };
    let store = SqliteStore::open(&file).unwrap();
    match role.as_str() {
        "appends" => {
            let mut sample = Sample::new("run");
            store.append(sample.start()).await.unwrap();
            // Where the trace is cut. Before it, the file was made, and the log begun, which costs a sync of
            // its own.
            let _ = std::fs::metadata(format!("{file}-wal/mark"));
            for _ in 0..APPENDS {
                store.append(sample.step("output")).await.unwrap();
            }
            tell(&format!("{} commits", store.commits()));
        }
        "opens" => tell("opened"),
        other => panic!("no such role: {other}"),
    }
    // No orderly end, which would sync too.
    std::process::abort();
}

/// Runs the child and gives what it told and the syncs of the log, as they came.
fn traced(role: &str, file: &Path) -> Option<(Vec<String>, Vec<String>)> {
    let version = std::process::Command::new("strace").arg("-V").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let (log, wal) = (
        file.with_extension("strace"),
        format!("{}-wal", file.display()),
    );
    let mark = format!("{wal}/mark");
    let calls = "trace=fsync,fdatasync,stat,statx,newfstatat";
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-P",
        &wal,
        "-P",
        &mark,
        "-e",
        calls,
    ];
    let told = Process::start_under(&wrapper, role, file).rest();
    let calls = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<String> = calls.lines().map(str::to_owned).collect();
    (!told.is_empty()).then_some((told, lines))
}

fn syncs(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains("sync(")).count()
}

#[test]
fn a_commit_is_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().canonicalize().unwrap().join("sagas.db");
    let Some((told, lines)) = traced("appends", &file) else {
        eprintln!("skipped: strace is not here, or may not trace");
        return;
    };
    assert_eq!(told, [format!("{} commits", APPENDS + 1)]);
    let mark = lines
        .iter()
        .position(|line| line.contains("-wal/mark"))
        .unwrap();
    assert_eq!(syncs(&lines[mark..]), APPENDS, "{lines:#?}");
}

#[tokio::test]
async fn what_a_killed_owner_left_is_synced_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let (file, copy) = (folder.join("sagas.db"), folder.join("copy.db"));
    let store = SqliteStore::open(&file).unwrap();
    store.append(Sample::new("run").start()).await.unwrap();
    // What a kill at this moment would leave behind.
    std::fs::copy(folder.join("sagas.db-wal"), folder.join("copy.db-wal")).unwrap();
    std::fs::copy(&file, &copy).unwrap();
    let Some((told, lines)) = traced("opens", &copy) else {
        eprintln!("skipped: strace is not here, or may not trace");
        return;
    };
    assert_eq!(told, ["opened"]);
    assert!(syncs(&lines) > 0, "{lines:#?}");
}
