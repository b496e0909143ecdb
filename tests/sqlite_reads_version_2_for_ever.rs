//! A file of schema 2 with records of forms 1 and 2, as it was before steps had steps inside, is read as it was
//! written, by this and all later versions. `tests/fixtures/v2.db` was written once and is never written again:
//!
//! ```text
//! cargo test --features testkit --test sqlite_reads_version_2_for_ever -- --ignored write_the_fixture
//! ```
//!
//! A change of this test that only makes it pass is a change of what users have on their disks.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint knows test functions only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amends::journal::{
    AppendId, Command, CommandAnswer, Interner, Record, Standing, Timestamp, Verb, decode_events,
    encode_events, form_of,
};
use amends::saga::Outline;
use amends::store::{Append, RunFilter, SqliteStore, Store as _, TroubleChange};

const RUNNING: Standing = Standing::Running;
const PAUSED: Standing = Standing::Paused;

/// The form of each record, how its run stands afterwards, and its events as they are written.
const ABANDONED: [(u32, Standing, &str); 6] = [
    (
        1,
        RUNNING,
        r#"[{"run_started":{"saga":"place-order","version":1,"fingerprint":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","uid":"6f1c0a9de2b04c7f8a3e5d1b7c924e60","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"rojo=00f067aa0ba902b7","input":{"sku":"cup"},"labels":{"customer":"42"},"worker":"host-1/4711"}},{"step_started":{"step":"reserve-stock","round":1,"attempt":1,"key":"6f1c0a9de2b04c7f8a3e5d1b7c924e60/reserve-stock/1"}}]"#,
    ),
    (
        2,
        PAUSED,
        r#"[{"step_done":{"step":"reserve-stock","output":{"parcels":[1]},"took_us":900}},{"commanded":{"token":"ticket-1"}},{"paused":{"by":"ann","reason":"the warehouse moves"}}]"#,
    ),
    (
        2,
        RUNNING,
        r#"[{"commanded":{"token":"ticket-2"}},{"resumed":{"by":"ann","reason":"it has moved"}},{"step_started":{"step":"charge-card","round":1,"attempt":1,"key":"6f1c0a9de2b04c7f8a3e5d1b7c924e60/charge-card/1"}}]"#,
    ),
    (
        1,
        Standing::Parked,
        r#"[{"step_failed":{"step":"charge-card","failure":{"mode":"agent_validation","message":"refused","causes":[],"step":"charge-card","round":1,"attempt":1,"effect":"not_done","retryable":false},"gave_up":"not_retryable","took_us":700}},{"decided":{"cause":"failures","strategy":"manual","failed":["charge-card"],"why":[{"policy":"eyes","digest":"effb0f50252f","rule":"otherwise","says":"manual","saw":{"step":"charge-card","mode":"agent_validation","retryable":false,"effect":"not_done","completed":1,"total":2,"past_pivot":false,"recoveries":0,"max_recoveries":3,"time_used_up":false,"elapsed_ms":80},"passed_over":[]}],"recovery":0}},{"parked":{"reason":"manual","message":"`charge-card` failed"}}]"#,
    ),
    (
        2,
        Standing::Parked,
        r#"[{"commanded":{"token":"ticket-3"}},{"input_edited":{"step":"charge-card","round":2,"input":{"card":null},"by":"ann","reason":"another card"}},{"skipped":{"step":"charge-card","effect":"none","output":"cash","by":"ann","reason":"paid in cash"}},{"marked_compensated":{"step":"reserve-stock","round":1,"by":"ann","reason":"put back by hand"}},{"undos_retried":{"by":"ann","reason":"again"}}]"#,
    ),
    (
        2,
        Standing::Abandoned,
        r#"[{"commanded":{"token":"ticket-4"}},{"abandon_requested":{"by":"ann","reason":"too old"}},{"ended":{"abandoned":{"by":"ann","reason":"too old"}}}]"#,
    ),
];

const ID: &str = "order-1 abandoned";

const OUTLINE: &str = r#"{"saga":"place-order","version":1,"fingerprint":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","steps":[{"name":"reserve-stock","kind":"compensatable","wired":["input"],"dependencies":[]},{"name":"charge-card","kind":"compensatable","wired":["input","reserve-stock"],"dependencies":["reserve-stock"],"pivot":true,"checkpoint":true}]}"#;

fn made(record: usize) -> (Timestamp, AppendId) {
    let at = 1_795_392_000_000_000 + i64::try_from(record * 1_000_001).unwrap();
    let mut id = [0xb6; 16];
    id[15] = u8::try_from(record).unwrap();
    (Timestamp::from_micros(at), AppendId::from_bytes(id))
}

fn asked() -> Command {
    Command::new(ID, Verb::Cancel)
        .by("ann")
        .reason("too old")
        .token("ticket-5")
}

async fn write(file: &Path) {
    let store = SqliteStore::open(file).unwrap();
    let outline = serde_json::from_str::<Outline>(OUTLINE).unwrap();
    store.remember(&outline).await.unwrap();
    let mut before = RUNNING;
    for (index, (_, standing, events)) in ABANDONED.iter().enumerate() {
        let mut names = Interner::default();
        let events = decode_events(2, events, &mut names).unwrap();
        let (at, append_id) = made(index);
        let record = Record {
            seq: index as u64 + 1,
            append_id,
            at,
            events,
        };
        let mut append = Append::new(ID.into(), record, names.into_table(), *standing);
        append.standing_changed = index == 0 || *standing != before;
        if index == 3 {
            append.trouble = TroubleChange::Now(amends::store::Trouble::new(
                "charge-card",
                "agent_validation",
            ));
        }
        before = *standing;
        store.append(append).await.unwrap();
    }
    store.submit(&asked()).await.unwrap();
    store.close().await;
}

async fn read(file: &Path) {
    let forms = {
        let conn = rusqlite::Connection::open(file).unwrap();
        let version: i32 = conn
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 2, "the schema of the file as it was written");
        let mut forms = conn
            .prepare("SELECT form FROM journal ORDER BY pos")
            .unwrap();
        let forms = forms.query_map([], |row| row.get::<_, u32>(0)).unwrap();
        forms.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(forms, ABANDONED.map(|(form, ..)| form));

    let store = SqliteStore::open(file).unwrap();
    let labelled = RunFilter::all().label("customer", "42");
    let listed = store.scan(&labelled, None, 100).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].run.as_str(), ID);
    assert_eq!(listed[0].standing, Standing::Abandoned);
    assert_eq!(listed[0].ended_at, Some(made(5).0));
    assert_eq!(
        listed[0].trouble.as_ref().map(|it| it.step.as_str()),
        Some("charge-card")
    );
    let journal = store.load(&ID.into()).await.unwrap().unwrap();
    assert_eq!(journal.records.len(), ABANDONED.len());
    for (index, record) in journal.records.iter().enumerate() {
        assert_eq!((record.at, record.append_id), made(index));
        let again = encode_events(&record.events, &journal.steps).unwrap();
        let (form, _, written) = ABANDONED[index];
        assert_eq!(again, written, "record {index}");
        assert_eq!(form_of(&record.events), form, "record {index}");
    }
    let commands = store.open_commands(None, 9).await.unwrap();
    assert_eq!(commands.len(), 1);
    let asked = asked();
    assert_eq!(commands[0].command.verb, asked.verb);
    assert_eq!(commands[0].command.token, asked.token);
    assert_eq!(None::<CommandAnswer>, commands[0].answer);
    let outline: Outline = serde_json::from_str(OUTLINE).unwrap();
    let kept = store
        .recall("place-order", 1, &outline.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(serde_json::to_string(&kept).unwrap(), OUTLINE);
    store.close().await;
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2.db")
}

#[tokio::test]
async fn what_version_2_wrote_is_read_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    // A copy, since an owner makes files beside it.
    let file = dir.path().join("v2.db");
    std::fs::copy(fixture(), &file).unwrap();
    read(&file).await;
}

#[test]
fn every_event_that_came_with_form_2_is_in_it() {
    let events = ABANDONED
        .iter()
        .flat_map(|(.., events)| serde_json::from_str::<Vec<serde_json::Value>>(events).unwrap());
    let names: BTreeSet<String> = events
        .map(|event| event.as_object().unwrap().keys().next().unwrap().clone())
        .collect();
    for name in [
        "commanded",
        "input_edited",
        "skipped",
        "marked_compensated",
        "undos_retried",
        "paused",
        "resumed",
        "abandon_requested",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

/// Writes the fixture, which must not be there yet.
#[tokio::test]
#[ignore = "run once, by hand, when a version of the form is final"]
async fn write_the_fixture() {
    assert!(
        !fixture().exists(),
        "what was written for ever is not written again"
    );
    write(&fixture()).await;
    std::fs::remove_file(fixture().with_file_name("v2.db.lock")).unwrap();
}
