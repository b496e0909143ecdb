//! Runs as lines of JSON: another store that takes them has the same runs, which go on there.
#![cfg(all(feature = "sqlite", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod operating;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use amends::RecoveryStrategy;
use amends::journal::{Command, Verb};
use amends::operator::{ArchiveError, Exported, ImportOutcome, ImportTotals, Operator};
use amends::store::{MemoryStore, RunEntry, RunFilter, Store};
use operating::{coordinator, one_of_each, order};

async fn source() -> (Arc<MemoryStore>, String) {
    let store = Arc::new(MemoryStore::new());
    one_of_each(store.clone()).await;
    let text = exported(store.clone(), &RunFilter::all()).await;
    (store, text)
}

async fn exported(store: Arc<dyn Store>, filter: &RunFilter) -> String {
    let mut text = Vec::new();
    let failed = |run: &amends::RunId, what: &str| panic!("{run}: {what}");
    let done: Exported = Operator::new(store)
        .export(filter, &mut text, failed)
        .await
        .unwrap();
    assert_eq!(done.failed, 0);
    String::from_utf8(text).unwrap()
}

async fn import(
    store: Arc<dyn Store>,
    text: &str,
) -> (
    Result<ImportTotals, ArchiveError>,
    Vec<(String, ImportOutcome)>,
) {
    let mut told = Vec::new();
    let each =
        |run: &amends::RunId, became: &ImportOutcome| told.push((run.to_string(), became.clone()));
    let totals = Operator::new(store)
        .import(text.as_bytes(), each, |_| ())
        .await;
    (totals, told)
}

fn numbers(totals: &ImportTotals) -> (u64, u64, u64, bool) {
    (
        totals.imported,
        totals.skipped,
        totals.refused,
        totals.complete,
    )
}

async fn listed(store: &dyn Store) -> Vec<RunEntry> {
    let mut all = store.scan(&RunFilter::all(), None, 100).await.unwrap();
    // Commands take numbers in some stores, too: only the order is the same.
    for (number, entry) in (1..).zip(&mut all) {
        entry.number = number;
    }
    all
}

/// What is the same in both stores: the list, all journals word for word, and what is wrong with any.
async fn assert_same(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    assert_eq!(listed(&*one).await, listed(&*other).await);
    let all = RunFilter::all();
    assert_eq!(
        exported(one, &all).await,
        exported(other.clone(), &all).await
    );
    let found = |finding: &amends::operator::Finding| panic!("{finding}");
    let verified = Operator::new(other)
        .verify(&all, found, |_| ())
        .await
        .unwrap();
    assert_eq!((verified.runs, verified.open), (7, 3));
}

#[tokio::test]
async fn the_runs_of_one_store_are_the_runs_of_another() {
    let (from, text) = source().await;
    let to = Arc::new(MemoryStore::new());
    let (totals, told) = import(to.clone(), &text).await;
    assert_eq!(numbers(&totals.unwrap()), (7, 0, 0, true));
    assert!(
        told.iter()
            .all(|(_, became)| *became == ImportOutcome::Imported)
    );
    assert_same(from, to).await;
}

#[tokio::test]
async fn through_a_file_and_back_nothing_is_lost() {
    use amends::store::SqliteStore;
    let (from, text) = source().await;
    let dir = tempfile::tempdir().unwrap();
    let file = Arc::new(SqliteStore::open(dir.path().join("sagas.db")).unwrap());
    let (totals, _) = import(file.clone(), &text).await;
    assert_eq!(numbers(&totals.unwrap()), (7, 0, 0, true));
    assert_same(from, file.clone()).await;
    let back = Arc::new(MemoryStore::new());
    let again = exported(file.clone(), &RunFilter::all()).await;
    assert_eq!(
        numbers(&import(back.clone(), &again).await.0.unwrap()),
        (7, 0, 0, true)
    );
    assert_same(file, back).await;
}

#[tokio::test]
async fn an_export_of_a_filter_has_its_runs_and_their_definitions_once() {
    let (from, _) = source().await;
    let text = exported(from, &RunFilter::all().saga("book-trip")).await;
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = lines
        .iter()
        .map(|line| line.as_object().unwrap().keys().next().unwrap().as_str())
        .collect();
    assert_eq!(kinds, ["amends_export", "definition", "run", "run", "end"]);
    assert_eq!(lines[2]["run"]["id"], "run-5");
    assert_eq!(lines[2]["run"]["standing"], "compensated");
    assert_eq!(lines[2]["run"]["trouble"]["mode"], "agent_validation");
    assert_eq!(lines[3]["run"]["labels"]["kind"], "0");
    assert_eq!(lines[4]["end"]["runs"], 2);
}

#[tokio::test]
async fn what_is_there_already_is_skipped_and_another_run_of_the_same_id_refused() {
    let (_, text) = source().await;
    let (_, other) = source().await;
    let to = Arc::new(MemoryStore::new());
    let some: String = text.lines().take(4).flat_map(|line| [line, "\n"]).collect();
    let (totals, _) = import(to.clone(), &some).await;
    assert_eq!(
        numbers(&totals.unwrap()),
        (2, 0, 0, false),
        "cut short after two runs"
    );
    let (totals, told) = import(to.clone(), &text).await;
    assert_eq!(numbers(&totals.unwrap()), (5, 2, 0, true));
    assert_eq!(told[0], ("run-1".to_owned(), ImportOutcome::Skipped));
    let before = exported(to.clone(), &RunFilter::all()).await;
    let (totals, told) = import(to.clone(), &other).await;
    assert_eq!(numbers(&totals.unwrap()), (0, 0, 7, true));
    let ImportOutcome::Refused(why) = &told[0].1 else {
        panic!("{told:?}")
    };
    assert!(why.contains("another run with this id"), "{why}");
    assert_eq!(exported(to, &RunFilter::all()).await, before);
}

#[tokio::test]
async fn a_run_of_which_a_part_was_imported_is_parked_until_the_import_is_repeated() {
    use amends::testkit::{CrashingStore, StoreFault};
    let (from, text) = source().await;
    let mut records = Vec::new();
    for number in 1..=6 {
        let run = format!("run-{number}").as_str().into();
        records.push(from.load(&run).await.unwrap().unwrap().records.len());
    }
    // The import comes to its end after the first record of the run that waits.
    let disk = Arc::new(MemoryStore::new());
    let end = records[..5].iter().sum::<usize>() + 2;
    let dying = CrashingStore::over(disk.clone()).fail_at(end as u64, StoreFault::Dies);
    let (result, _) = import(Arc::new(dying), &text).await;
    assert!(result.is_err());
    let half = disk.load(&"run-6".into()).await.unwrap().unwrap();
    assert!(records[5] > 1 && half.records.len() == 1);
    let mended = Arc::new(AtomicBool::new(true));
    let idle = coordinator(disk.clone(), &mended).await;
    assert_eq!(idle.all_resumed().await, 0, "nobody takes half a run up");
    idle.shutdown().await;
    let (totals, told) = import(disk.clone(), &text).await;
    assert_eq!(numbers(&totals.unwrap()), (2, 5, 0, true));
    assert_eq!(told[5], ("run-6".to_owned(), ImportOutcome::Finished));
    assert_same(from, disk).await;
}

#[tokio::test]
async fn lines_that_no_run_can_have_are_refused_one_by_one() {
    let (_, text) = source().await;
    let to = Arc::new(MemoryStore::new());
    let changed: String = text
        .lines()
        .map(|line| {
            // The completed run is said to be parked, the parked one has its second record twice, and the
            // stopped one an event that nobody knows.
            let line = if line.contains(r#""id":"run-1""#) {
                line.replacen(r#""standing":"completed""#, r#""standing":"parked""#, 1)
            } else if line.contains(r#""id":"run-2""#) {
                line.replacen(r#""seq":3"#, r#""seq":2"#, 1)
            } else if line.contains(r#""id":"run-3""#) {
                line.replacen("step_stopped", "step_vanished", 1)
            } else {
                line.to_owned()
            };
            line + "\n"
        })
        .collect();
    let (totals, told) = import(to.clone(), &changed).await;
    assert_eq!(numbers(&totals.unwrap()), (4, 0, 3, true));
    let why = |at: usize| match &told[at].1 {
        ImportOutcome::Refused(why) => why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(why(0), "it is listed as parked, and is completed");
    assert_eq!(why(1), "record 3 has number 2");
    assert!(
        why(2).starts_with("record 3: the events can't be read: unknown variant `step_vanished`"),
        "{}",
        why(2)
    );
    assert!(to.find(&"run-1".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_no_export_is_refused_by_its_line() {
    for (text, line, what) in [
        ("{\"run\":1}\n", 1, "invalid type"),
        (
            "{\"end\":{\"runs\":0}}\n",
            1,
            "an export begins with its version",
        ),
        (
            "{\"amends_export\":{\"version\":9}}\n",
            1,
            "an export of version 9 begins there",
        ),
        (
            "{\"amends_export\":{\"version\":1}}\nhello\n",
            2,
            "expected value",
        ),
    ] {
        let (result, told) = import(Arc::new(MemoryStore::new()), text).await;
        let Err(ArchiveError::Line {
            line: found,
            what: why,
        }) = result
        else {
            panic!("{result:?}")
        };
        assert_eq!(found, line);
        assert!(why.contains(what), "{why}");
        assert_eq!(told, []);
    }
}

#[tokio::test]
async fn an_export_that_was_cut_in_a_line_gives_all_runs_before_it() {
    let (_, text) = source().await;
    let to = Arc::new(MemoryStore::new());
    let cut = &text[..text.find("run-3").unwrap()];
    let (totals, _) = import(to.clone(), cut).await;
    assert_eq!(numbers(&totals.unwrap()), (2, 0, 0, false));
}

#[tokio::test(start_paused = true)]
async fn imported_runs_go_on_where_they_were() {
    use amends::testkit::VirtualClock;
    let (_, text) = source().await;
    let to = Arc::new(MemoryStore::new());
    import(to.clone(), &text).await.0.unwrap();
    let mended = Arc::new(AtomicBool::new(true));
    let coordinator = amends::Coordinator::builder_shared(to.clone())
        .clock(VirtualClock::starting_at(amends::Timestamp::now()))
        .register(&order(&mended))
        .build()
        .await
        .unwrap();
    assert_eq!(coordinator.all_resumed().await, 1, "the one that waits");
    let retry = Command::new("run-2", Verb::retry(RecoveryStrategy::RetryFailed)).by("ada");
    coordinator.command(&retry).await.unwrap();
    for run in ["run-2", "run-6"] {
        // The one that waits for an hour is woken by its timer: time is the test's own here.
        let handle = coordinator
            .attach(&order(&mended), &run.into())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(handle.ended().await.unwrap().word(), "completed", "{run}");
    }
    coordinator.shutdown().await;
}
