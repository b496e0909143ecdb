//! Appends that are in flight together share a commit, and of those the server can not keep each is refused alone.
#![cfg(all(feature = "testkit", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::error::Error as _;
use std::time::Duration;

use amends::journal::Standing;
use amends::store::{AppendError, Appending, PostgresStore, Store as _};
use amends::testkit::conformance::Sample;
use tokio_postgres::Client;

#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use schemas::Schemas;

/// A store with one lane, and a session that can keep its statements waiting.
async fn one_lane(schemas: &Schemas) -> (PostgresStore, Client) {
    lanes(schemas, 1).await
}

async fn lanes(schemas: &Schemas, count: usize) -> (PostgresStore, Client) {
    let store = PostgresStore::options()
        .schema(schemas.name())
        .lanes(count)
        .connect(schemas.config())
        .await
        .unwrap();
    (store, schemas.client().await)
}

/// Waits until so many statements wait for the journal.
async fn wait_for_waiting(store: &PostgresStore, client: &Client, statements: i64) {
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '\"{}\".journal'::regclass",
        store.schema()
    );
    while client
        .query_one(&waits, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        < statements
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Appends while the journal is locked: the first is on its way alone, and all others gather meanwhile.
async fn together(
    store: &PostgresStore,
    client: &Client,
    appends: impl IntoIterator<Item = amends::store::Append>,
) -> Vec<Result<(), AppendError>> {
    let lock = format!(
        "BEGIN; LOCK TABLE \"{}\".journal IN EXCLUSIVE MODE",
        store.schema()
    );
    client.batch_execute(&lock).await.unwrap();
    let mut first = Sample::new(format!("first of {}", store.appends()));
    let first = store.append(first.start());
    wait_for_waiting(store, client, 1).await;
    let pending: Vec<Appending> = appends
        .into_iter()
        .map(|append| store.append(append))
        .collect();
    client.batch_execute("COMMIT").await.unwrap();
    first.await.unwrap();
    let mut answers = Vec::new();
    for answer in pending {
        answers.push(answer.await);
    }
    answers
}

fn samples(prefix: &str, count: usize) -> Vec<Sample> {
    (0..count)
        .map(|number| Sample::new(format!("{prefix} {number}")))
        .collect()
}

#[tokio::test]
async fn two_hundred_and_fifty_six_appends_that_gather_are_one_commit() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut samples = samples("run", 256);
        let starts: Vec<_> = samples.iter_mut().map(Sample::start).collect();
        let answers = together(&store, &client, starts).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((store.commits(), store.appends()), (2, 257));
        // Whatever they change.
        let changes = samples
            .iter_mut()
            .enumerate()
            .map(|(number, sample)| match number % 4 {
                0 => sample.step("output"),
                1 => sample.stand(Standing::Parked),
                2 => sample.stand(Standing::Completed),
                _ => sample.migrate(2),
            });
        let changes: Vec<_> = changes.collect();
        let answers = together(&store, &client, changes).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((store.commits(), store.appends()), (4, 514));
        assert_eq!(store.oddities().await.unwrap(), Vec::<String>::new());
        let counts = store.counts().await.unwrap();
        let stand = [Standing::Running, Standing::Parked, Standing::Completed]
            .map(|standing| counts.standing(standing));
        assert_eq!(stand, [64 + 2, 128, 64]);
    })
    .await;
}

#[tokio::test]
async fn few_appends_share_a_commit_however_many_lanes_there_are() {
    Schemas::with(async |schemas| {
        let (store, client) = lanes(&schemas, 4).await;
        let mut samples = samples("run", 63);
        let starts: Vec<_> = samples.iter_mut().map(Sample::start).collect();
        let answers = together(&store, &client, starts).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((store.commits(), store.appends()), (2, 64));
    })
    .await;
}

#[tokio::test]
async fn a_start_that_waits_for_somebodys_open_transaction_holds_nobody_else_up() {
    Schemas::with(async |schemas| {
        let (store, client) = lanes(&schemas, 2).await;
        let taken = format!(
            "BEGIN; INSERT INTO \"{}\".runs (id, saga, version, started_at) VALUES ('taken', 's', 1, 0)",
            store.schema()
        );
        client.batch_execute(&taken).await.unwrap();
        let mut waits = store.append(Sample::new("taken").start());
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        store.append(Sample::new("free").start()).await.unwrap();
        let now = tokio::time::timeout(Duration::ZERO, &mut waits).await;
        assert!(now.is_err(), "{now:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
        waits.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_appends_are_on_their_way_while_others_wait_for_their_commit() {
    Schemas::with(async |schemas| {
        let (store, client) = lanes(&schemas, 2).await;
        let lock = format!(
            "BEGIN; LOCK TABLE \"{}\".journal IN EXCLUSIVE MODE",
            store.schema()
        );
        client.batch_execute(&lock).await.unwrap();
        let first = store.append(Sample::new("first").start());
        wait_for_waiting(&store, &client, 1).await;
        let mut samples = samples("run", 200);
        // Of each run two, and the second may not pass the first.
        let appends: Vec<_> = samples
            .iter_mut()
            .flat_map(|sample| [sample.start(), sample.step("output")])
            .map(|append| store.append(append))
            .collect();
        wait_for_waiting(&store, &client, 2).await;
        client.batch_execute("COMMIT").await.unwrap();
        first.await.unwrap();
        for append in appends {
            append.await.unwrap();
        }
        assert_eq!((store.commits(), store.appends()), (3, 401));
        assert_eq!(store.oddities().await.unwrap(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn appends_of_one_run_are_commits_of_their_own_in_their_order() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut sample = Sample::new("run");
        let appends = [sample.start(), sample.step("one"), sample.step("two")];
        let answers = together(&store, &client, appends).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((store.commits(), store.appends()), (4, 4));
    })
    .await;
}

#[tokio::test]
async fn what_follows_an_append_that_is_refused_is_refused_with_it() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut sample = Sample::new("run");
        let start = sample.start();
        store.append(start).await.unwrap();
        let (mut zombie, next) = (sample.rival(), sample.step("the owner's"));
        let zombies = [
            zombie.step("two"),
            zombie.step("three"),
            zombie.step("four"),
        ];
        let appends = std::iter::once(next).chain(zombies);
        let answers = together(&store, &client, appends).await;
        // At place three nobody else was: without its own second record, the zombie has no business there.
        assert!(
            matches!(
                answers[..],
                [
                    Ok(()),
                    Err(AppendError::Conflict),
                    Err(AppendError::Conflict),
                    Err(AppendError::Conflict)
                ]
            ),
            "{answers:?}"
        );
        let journal = store.load(sample.run()).await.unwrap().unwrap();
        assert_eq!(journal.records.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn of_starts_that_gather_those_of_runs_that_are_there_are_refused_alone() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut samples = samples("run", 30);
        let there: Vec<_> = samples.iter().step_by(3).map(Sample::rival).collect();
        for mut sample in there {
            store.append(sample.start()).await.unwrap();
        }
        let starts: Vec<_> = samples.iter_mut().map(Sample::start).collect();
        let answers = together(&store, &client, starts).await;
        for (number, answer) in answers.iter().enumerate() {
            let taken = matches!(answer, Err(AppendError::Conflict));
            assert_eq!((taken, answer.is_ok()), (number % 3 == 0, number % 3 != 0));
        }
        // Each of the others goes on where it began.
        let new = samples.iter_mut().enumerate();
        let new = new.filter(|(number, _)| number % 3 != 0);
        let steps: Vec<_> = new.map(|(_, sample)| sample.step("output")).collect();
        let answers = together(&store, &client, steps).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        for (number, sample) in samples.iter().enumerate() {
            let journal = store.load(sample.run()).await.unwrap().unwrap();
            assert_eq!(journal.records.len(), if number % 3 == 0 { 1 } else { 2 });
        }
        assert_eq!(store.oddities().await.unwrap(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn of_appends_that_gather_those_whose_places_are_taken_are_refused_alone() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut samples = samples("run", 30);
        for sample in &mut samples {
            store.append(sample.start()).await.unwrap();
        }
        let mut zombies = Vec::new();
        for sample in samples.iter_mut().step_by(3) {
            zombies.push(sample.rival());
            store.append(sample.stand(Standing::Parked)).await.unwrap();
        }
        let mut appends = Vec::new();
        for (number, sample) in samples.iter_mut().enumerate() {
            appends.push(match number % 3 {
                0 => zombies[number / 3].stand(Standing::Completed),
                1 => sample.stand(Standing::Completed),
                _ => sample.step("output"),
            });
        }
        let answers = together(&store, &client, appends).await;
        for (number, answer) in answers.iter().enumerate() {
            let taken = matches!(answer, Err(AppendError::Conflict));
            assert_eq!((taken, answer.is_ok()), (number % 3 == 0, number % 3 != 0));
        }
        let counts = store.counts().await.unwrap();
        let stand = [Standing::Running, Standing::Parked, Standing::Completed]
            .map(|standing| counts.standing(standing));
        // The one that held the others up runs, too.
        assert_eq!(stand, [10 + 1, 10, 10]);
        assert_eq!(store.oddities().await.unwrap(), Vec::<String>::new());
    })
    .await;
}

/// As after a fail-over that lost a start, when its number is given to another run.
#[tokio::test]
async fn a_number_that_means_another_run_by_now_takes_no_append() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        let another = format!(
            "UPDATE \"{}\".journal SET append_id = decode(repeat('00', 16), 'hex')",
            store.schema()
        );
        client.batch_execute(&another).await.unwrap();
        let answer = store.append(sample.step("output")).await;
        assert!(matches!(answer, Err(AppendError::Conflict)), "{answer:?}");
        assert_eq!(store.appends(), 1);
    })
    .await;
}

#[tokio::test]
async fn w2_of_256_appends_the_one_that_cannot_be_stored_is_refused_alone() {
    Schemas::with(async |schemas| {
        let (store, client) = one_lane(&schemas).await;
        let refuse = format!(
            "ALTER TABLE \"{}\".journal ADD CHECK (events NOT LIKE '%poison%')",
            store.schema()
        );
        client.batch_execute(&refuse).await.unwrap();
        let mut samples = samples("run", 256);
        let starts: Vec<_> = samples.iter_mut().map(Sample::start).collect();
        assert!(
            together(&store, &client, starts)
                .await
                .iter()
                .all(Result::is_ok)
        );
        let commits = store.commits();
        let outputs = samples
            .iter_mut()
            .enumerate()
            .map(|(number, sample)| sample.step(if number == 77 { "poison" } else { "output" }));
        let outputs: Vec<_> = outputs.collect();
        let answers = together(&store, &client, outputs).await;
        for (number, answer) in answers.iter().enumerate() {
            match answer {
                Ok(()) if number != 77 => {}
                Err(error @ AppendError::NotWritten(_)) if number == 77 => {
                    let server = error.source().unwrap().to_string();
                    assert!(server.contains("check constraint"), "{server}");
                }
                answer => panic!("append {number} was answered {answer:?}"),
            }
        }
        // One for the append that held the others up, and one for each half without the culprit.
        assert_eq!(store.commits() - commits, 1 + 8);
        // It takes another append at that place.
        samples[77].skip(-1);
        store.append(samples[77].step("plain")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn w2_a_text_that_no_database_takes_is_refused_before_it_is_sent() {
    Schemas::with(async |schemas| {
        let (store, _client) = one_lane(&schemas).await;
        let mut odd = Sample::new("a\0b");
        let answer = store.append(odd.start()).await;
        assert!(
            matches!(answer, Err(AppendError::NotWritten(_))),
            "{answer:?}"
        );
        let mut odd = Sample::new("run").of("saga\0", 1);
        let answer = store.append(odd.start()).await;
        assert!(
            matches!(answer, Err(AppendError::NotWritten(_))),
            "{answer:?}"
        );
        assert_eq!(store.load(&"a\0b".into()).await.unwrap(), None);
        assert_eq!(store.find(&"a\0b".into()).await.unwrap(), None);
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        // A value may have the character: JSON writes it otherwise.
        store.append(sample.step("a\0b")).await.unwrap();
        assert_eq!((store.commits(), store.appends()), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_too_large_and_a_saga_that_no_index_takes_are_refused_alone() {
    Schemas::with(async |schemas| {
        let store = PostgresStore::options()
            .schema(schemas.name())
            .max_record_bytes(10_000)
            .connect(schemas.config())
            .await
            .unwrap();
        let mut sample = Sample::new("run");
        store.append(sample.start()).await.unwrap();
        let large = store.append(sample.step(&"x".repeat(10_000))).await;
        assert!(
            matches!(large, Err(AppendError::NotWritten(_))),
            "{large:?}"
        );
        // Too long for an entry of an index, and nothing that could be compressed.
        let mut random = fastrand::Rng::with_seed(1);
        let name: String = (0..9_000).map(|_| random.alphanumeric()).collect();
        let mut odd = Sample::new("odd").of(name, 1);
        let odd = store.append(odd.start()).await;
        assert!(matches!(odd, Err(AppendError::NotWritten(_))), "{odd:?}");
        let mut other = Sample::new("other");
        store.append(other.start()).await.unwrap();
    })
    .await;
}
