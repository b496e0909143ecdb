//! What a step reported is in the file: the process that takes the run up reads it there.
#![cfg(feature = "sqlite")]
// The helpers of this file aren't test functions.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::form_of;
use amends::store::{SqliteStore, Store as _};
use amends::*;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Something with a shape, so that it has to be written and read as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    page: u32,
    last: Option<String>,
}

#[derive(Clone, Default)]
struct Diary {
    read: Arc<Mutex<Vec<Option<Place>>>>,
    hangs: Arc<Notify>,
}

/// Fails once after a report; its second attempt takes its process down, as far as anybody can tell.
fn saga(diary: &Diary) -> Saga<u32, u32> {
    let step = step_with(
        "a",
        diary.clone(),
        async |diary, cx: &StepContext, n: &u32| {
            let place = cx.last_progress::<Place>()?;
            diary.read.lock().unwrap().push(place.as_deref().cloned());
            let last = Some("order \u{1f980}".to_owned());
            cx.report_progress(Place {
                page: 1,
                last: None,
            });
            cx.report_progress(Place { page: 2, last });
            match cx.attempt() {
                1 => Err(StepError::in_doubt("reset").with_mode(FailureMode::SystemNetwork)),
                2 => {
                    diary.hangs.notify_one();
                    std::future::pending().await
                }
                _ => Ok(*n),
            }
        },
        async |_, _, _, _| Ok(()),
    );
    let soon = Retry::constant().initial(Duration::from_millis(1));
    let mut saga = Saga::builder::<u32>("paged");
    let n = saga.input();
    let a = saga.add(step.retry(soon), n);
    saga.returns(a).unwrap()
}

/// One process with the file: its end is a crash, since the runtime is dropped with all that is in flight.
fn process<T>(file: &Path, saga: &Saga<u32, u32>, body: impl AsyncFnOnce(&Coordinator) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let told = runtime.block_on(async {
        let store = SqliteStore::open(file).unwrap();
        let coordinator = Coordinator::builder(store).register(saga).build().await;
        body(&coordinator.unwrap()).await
    });
    drop(runtime);
    told
}

#[test]
fn the_process_after_a_crash_reads_the_progress_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sagas.db");
    let diary = Diary::default();
    let saga = saga(&diary);
    process(&file, &saga, async |coordinator| {
        let _run = coordinator.start(&saga, "r", 7).await.unwrap();
        diary.hangs.notified().await;
    });
    let outcome = process(&file, &saga, async |coordinator| {
        let run = coordinator.attach(&saga, &"r".into()).await.unwrap();
        run.unwrap().outcome().await.unwrap()
    });
    assert_eq!(outcome.completed(), Some(7));
    let place = Some(Place {
        page: 2,
        last: Some("order \u{1f980}".to_owned()),
    });
    let read = diary.read.lock().unwrap().clone();
    assert_eq!(read, [None, place.clone(), place]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = runtime.block_on(async {
        let reader = SqliteStore::open_reader(&file).unwrap();
        reader.load(&"r".into()).await.unwrap().unwrap()
    });
    let forms: Vec<u32> = journal
        .records
        .iter()
        .map(|record| form_of(&record.events))
        .collect();
    // Started; failed with its progress; started; claimed and started; done with its progress.
    assert_eq!(forms, [1, 3, 1, 1, 3]);
}
