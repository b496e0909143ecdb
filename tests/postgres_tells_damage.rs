//! A row that was damaged costs its own run what comes after it, is told by what it is, and harms nothing
//! else.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use amends::journal::{FormError, Standing};
use amends::store::{Damage, LoadError, PostgresStore, RunFilter, Store as _};
use amends::testkit::conformance::Sample;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

/// A store with two runs of five records each.
async fn two_runs(schemas: &Schemas) -> PostgresStore {
    let store = schemas.store().await;
    for id in ["sound", "hurt"] {
        let mut sample = Sample::new(id);
        store.append(sample.start()).await.unwrap();
        for step in 2..=5 {
            let append = sample.step(&format!("output {step}"));
            store.append(append).await.unwrap();
        }
    }
    store
}

/// What a load of the run `hurt` says after this change: the place, the damage, and how much is before it.
async fn damage(schemas: &Schemas, sql: &str) -> (u64, Damage, usize) {
    let store = two_runs(schemas).await;
    let client = schemas.client().await;
    let sql = sql.replace("journal", &format!("\"{}\".journal", store.schema()));
    let changed = client.execute(&sql, &[]).await.unwrap();
    assert!(changed > 0, "the change has changed nothing");
    let sound = store.load(&"sound".into()).await.unwrap().unwrap();
    assert_eq!(sound.records.len(), 5);
    let open = store.scan(&RunFilter::open(), None, 10).await.unwrap();
    assert_eq!(open.len(), 2);
    let scanned = store.scan_journals(&RunFilter::open(), None, 10).await;
    let scanned = scanned.unwrap();
    assert!(scanned[0].1.is_ok());
    let told = |answer: &LoadError| match answer {
        LoadError::Unreadable {
            run,
            seq,
            what,
            before,
            ..
        } => {
            assert_eq!((run.as_str(), before.run.as_str()), ("hurt", "hurt"));
            (*seq, what.clone(), before.records.len())
        }
        other => panic!("{other:?}"),
    };
    let loaded = told(&store.load(&"hurt".into()).await.unwrap_err());
    assert_eq!(told(scanned[1].1.as_ref().unwrap_err()), loaded);
    store.close().await;
    loaded
}

#[tokio::test]
async fn a_row_that_was_changed_is_told_by_its_checksum() {
    let changes = [
        "UPDATE journal SET events = replace(events, 'output 3', 'output 8') WHERE run = 2 AND seq = 3",
        "UPDATE journal SET at = at + 1 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET append_id = decode(repeat('00', 16), 'hex') WHERE run = 2 AND seq = 3",
        "UPDATE journal SET append_id = '\\x00' WHERE run = 2 AND seq = 3",
        "UPDATE journal SET form = 2 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET form = -1 WHERE run = 2 AND seq = 3",
        "UPDATE journal SET checksum = '\\x0001020304050607' WHERE run = 2 AND seq = 3",
        "UPDATE journal SET checksum = '' WHERE run = 2 AND seq = 3",
        // Another run's record, and another place's, whole as they are.
        "UPDATE journal SET (append_id, at, events, checksum) = (SELECT o.append_id, o.at, o.events, o.checksum
         FROM journal o WHERE o.run = 1 AND o.seq = 3) WHERE run = 2 AND seq = 3",
        "UPDATE journal SET (append_id, at, events, checksum) = (SELECT o.append_id, o.at, o.events, o.checksum
         FROM journal o WHERE o.run = 2 AND o.seq = 4) WHERE run = 2 AND seq = 3",
    ];
    Schemas::with(async |schemas| {
        for change in changes {
            let told = damage(&schemas, change).await;
            assert_eq!(told, (3, Damage::Checksum, 2), "{change}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_gone_is_told_by_its_place() {
    Schemas::with(async |schemas| {
        for (change, place) in [
            ("DELETE FROM journal WHERE run = 2 AND seq = 3", 3),
            ("DELETE FROM journal WHERE run = 2 AND seq = 1", 1),
            ("DELETE FROM journal WHERE run = 2", 1),
        ] {
            let before = usize::try_from(place).unwrap() - 1;
            let told = damage(&schemas, change).await;
            assert_eq!(told, (place, Damage::Missing, before), "{change}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_database_computes_the_same_checksum_and_reads_what_it_writes() {
    Schemas::with(async |schemas| {
        let store = two_runs(&schemas).await;
        let id = "\u{1f980} 'quoted' \\ id";
        let mut sample = Sample::new(id);
        store.append(sample.start()).await.unwrap();
        let client = schemas.client().await;
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE j.checksum = \"{0}\".checksum(r.id, j.seq, j.form, j.append_id, j.at, j.events))
             FROM \"{0}\".journal j JOIN \"{0}\".runs r ON r.number = j.run",
            store.schema()
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (11_i64, 11_i64));

        // A form that this build does not know, with its right checksum.
        let sql = format!(
            "UPDATE \"{0}\".journal j SET form = 99, checksum = \"{0}\".checksum(r.id, j.seq, 99, j.append_id, j.at, j.events)
             FROM \"{0}\".runs r WHERE r.number = j.run AND r.id = 'hurt' AND j.seq = 4",
            store.schema()
        );
        assert_eq!(client.execute(&sql, &[]).await.unwrap(), 1);
        match store.load(&"hurt".into()).await {
            Err(LoadError::Unreadable { seq: 4, what: Damage::Form(FormError::Version { found: 99 }), .. }) => {}
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_that_disagrees_with_itself_is_told_and_hides_no_run() {
    Schemas::with(async |schemas| {
        let store = two_runs(&schemas).await;
        assert_eq!(store.oddities().await.unwrap(), Vec::<String>::new());
        let client = schemas.client().await;
        let sql = "
            INSERT INTO {}.ended_runs VALUES (1, 'completed', 0), (7, 'stopped', 0);
            UPDATE {}.open_runs SET standing = 'odd' WHERE run = 1;
            DELETE FROM {}.open_runs WHERE run = 2;
            INSERT INTO {}.labels VALUES (8, 'key', 'value');
            INSERT INTO {}.journal VALUES (9, 1, 1, '', 0, '[]', '')";
        let schema = format!("\"{}\"", store.schema());
        client
            .batch_execute(&sql.replace("{}", &schema))
            .await
            .unwrap();
        assert_eq!(
            store.oddities().await.unwrap(),
            [
                "records of a run that is not in the list: number 9",
                "a run that is neither open nor ended: hurt",
                "a run that is both open and ended: sound",
                "a standing without a run: number 7",
                "what can be searched for without a run: number 8",
            ]
        );
        let all = store.scan(&RunFilter::all(), None, 10).await.unwrap();
        let stand = all.iter().map(|entry| entry.standing).collect::<Vec<_>>();
        assert_eq!(stand, [Standing::Running; 2]);
    })
    .await;
}
