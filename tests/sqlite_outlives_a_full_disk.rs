//! The disk is full: appends are refused as not written, nothing that was acknowledged is lost, and once
//! there is room the same appends succeed.
#![cfg(all(feature = "testkit", feature = "sqlite", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use amends::store::{AppendError, RunFilter, SqliteStore, Store as _};
use amends::testkit::conformance::Sample;

/// A disk of two megabytes, which only root can have.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small disk can't be mounted here (it needs root)");
        return;
    };
    let file = disk.path().join("sagas.db");
    let store = SqliteStore::options()
        .wal_bytes(64 << 10)
        .open(&file)
        .unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    for _ in 0..50 {
        store.append(sample.step(&"x".repeat(2_000))).await.unwrap();
    }
    let ballast = disk.fill();

    // The log still has blocks of its own for a while.
    let mut acknowledged = 51;
    let refused = loop {
        let append = sample.step(&"y".repeat(2_000));
        match store.append(append.clone()).await {
            Ok(()) => acknowledged += 1,
            Err(AppendError::NotWritten(cause)) => {
                assert!(cause.to_string().contains("full"), "{cause}");
                break append;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(acknowledged < 1_000, "the disk does not get full");
    };
    // In a crowd none fares better, and none worse.
    let starts: Vec<_> = (0..20)
        .map(|run| Sample::new(format!("run-{run}")).start())
        .collect();
    let answers: Vec<_> = starts
        .iter()
        .map(|start| store.append(start.clone()))
        .collect();
    for answer in answers {
        assert!(matches!(
            answer.await,
            Ok(()) | Err(AppendError::NotWritten(_))
        ));
    }
    assert!(matches!(
        store.append(refused.clone()).await,
        Err(AppendError::NotWritten(_))
    ));
    // What is there can be read meanwhile.
    assert_eq!(
        store
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        acknowledged
    );

    std::fs::remove_file(ballast).unwrap();
    store.append(refused.clone()).await.unwrap();
    store.append(refused).await.unwrap();
    for start in starts {
        store.append(start).await.unwrap();
    }
    store.append(sample.step("goes on")).await.unwrap();
    store.close().await;

    let store = SqliteStore::open(&file).unwrap();
    let journal = store.load(sample.run()).await.unwrap().unwrap();
    assert_eq!(journal.records.len(), acknowledged + 2);
    assert_eq!(
        store
            .scan(&RunFilter::open(), None, 100)
            .await
            .unwrap()
            .len(),
        21
    );
    store.close().await;
}

#[tokio::test]
async fn a_killed_owner_is_recovered_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small disk can't be mounted here (it needs root)");
        return;
    };
    let (file, copy) = (disk.path().join("sagas.db"), disk.path().join("copy.db"));
    let store = SqliteStore::options()
        .wal_bytes(64 << 10)
        .open(&file)
        .unwrap();
    let mut sample = Sample::new("run");
    store.append(sample.start()).await.unwrap();
    for _ in 0..10 {
        store.append(sample.step("output")).await.unwrap();
    }
    // What a kill at this moment would leave behind.
    std::fs::copy(
        disk.path().join("sagas.db-wal"),
        disk.path().join("copy.db-wal"),
    )
    .unwrap();
    std::fs::copy(&file, &copy).unwrap();
    store.close().await;
    // Room for SQLite's index of the log and no more.
    let ballast = disk.fill();
    let length = std::fs::metadata(&ballast).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&ballast)
        .unwrap()
        .set_len(length - (40 << 10))
        .unwrap();

    let store = SqliteStore::open(&copy).unwrap();
    assert_eq!(
        store
            .load(sample.run())
            .await
            .unwrap()
            .unwrap()
            .records
            .len(),
        11
    );
    std::fs::remove_file(ballast).unwrap();
    store.append(sample.step("goes on")).await.unwrap();
}
