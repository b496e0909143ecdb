//! Counts of a known story are exact, "now" is true after a restart, and the page names what there is.
#![cfg(feature = "metrics")]
// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
// What is compared is exact: whole counts, and durations of a paused clock.
#![allow(
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Command, CommandAnswer};
use amends::store::{
    Append, Appending, CommandEntry, LoadError, MemoryStore, PruneFilter, Pruned, RunEntry,
    RunFilter, Store, StoreError, SubmitError,
};
use amends::{
    Coordinator, Effect, FailureMode, Outcome, Outline, RecoveryStrategy, Retry, RunId, Saga,
    StepContext, StepError, StepSpec, step_fn,
};
use async_trait::async_trait;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// What was told since the last look, by name and labels; what was told nothing is left out.
#[derive(Debug, Default)]
struct Told {
    counts: BTreeMap<String, u64>,
    durations: BTreeMap<String, Vec<f64>>,
}

/// All since the last look; of gauges it is the change, because a look puts them to zero.
fn told(snapshotter: &Snapshotter) -> (Told, BTreeMap<String, f64>) {
    let (mut told, mut gauges) = (Told::default(), BTreeMap::new());
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<String> = key
            .key()
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
        match value {
            DebugValue::Counter(0) => {}
            DebugValue::Counter(count) => drop(told.counts.insert(name, count)),
            DebugValue::Gauge(now) => drop(gauges.insert(name, now.0)),
            DebugValue::Histogram(values) if values.is_empty() => {}
            DebugValue::Histogram(values) => {
                let values = values.iter().map(|value| value.0).collect();
                told.durations.insert(name, values);
            }
        }
    }
    (told, gauges)
}

/// Runs a story with a recorder of its own.
fn recorded<F: Future<Output = ()>>(story: impl FnOnce(Snapshotter) -> F) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(story(snapshotter)));
}

/// Sleeps for 20 ms, fails its first call if `n` is odd, and is rejected where `n` is above 100. Its
/// `compensate` fails once, and for good where `n` is above 1,000.
fn flaky(name: &str) -> StepSpec<u64, u64> {
    step_fn(
        name,
        async |cx: &StepContext, n: &u64| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match (cx.step(), cx.attempt(), n) {
                ("a", 1, n) if n % 2 == 1 => {
                    Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork))
                }
                ("b", _, 101..) => Err(StepError::rejected("too much")),
                _ => Ok(*n),
            }
        },
        async |cx: &StepContext, n: &u64, _effect: Effect<&u64>| match (cx.attempt(), n) {
            (_, 1_001..) => Err(StepError::not_done("never").retryable(false)),
            (1, _) => Err(StepError::not_done("not yet").with_mode(FailureMode::SystemNetwork)),
            _ => Ok(()),
        },
    )
    .retry(Retry::constant().initial(Duration::from_millis(5)))
    .compensation_retry(Retry::constant().initial(Duration::from_millis(5)))
}

fn saga() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("s");
    let n = saga.input();
    let a = saga.add(flaky("a"), n);
    let b = saga.add(flaky("b"), a);
    saga.returns(b).unwrap()
}

async fn coordinator(store: &Arc<MemoryStore>, saga: &Saga<u64, u64>) -> Coordinator {
    Coordinator::builder_shared(Arc::clone(store) as Arc<dyn Store>)
        .register(saga)
        .build()
        .await
        .unwrap()
}

fn is(counts: &BTreeMap<String, u64>, expected: &[(&str, u64)]) {
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(counts, expected);
}

#[test]
fn a_completed_and_a_compensated_run_are_counted_to_the_last_attempt() {
    recorded(async |snapshotter| {
        let (store, saga) = (Arc::new(MemoryStore::new()), saga());
        let coordinator = coordinator(&store, &saga).await;
        for (run, input) in [("completed", 1), ("compensated", 101)] {
            let run = coordinator.start(&saga, run, input).await.unwrap();
            run.outcome().await.unwrap();
        }
        // The same start again is no start.
        coordinator.start(&saga, "completed", 1).await.unwrap();
        coordinator.shutdown().await;
        drop(coordinator);
        let (told, gauges) = told(&snapshotter);
        is(
            &told.counts,
            &[
                (
                    "amends_attempts_total{saga=s,step=a,call=compensate,outcome=done}",
                    1,
                ),
                (
                    "amends_attempts_total{saga=s,step=a,call=compensate,outcome=failed}",
                    1,
                ),
                (
                    "amends_attempts_total{saga=s,step=a,call=execute,outcome=done}",
                    2,
                ),
                (
                    "amends_attempts_total{saga=s,step=a,call=execute,outcome=failed}",
                    2,
                ),
                (
                    "amends_attempts_total{saga=s,step=b,call=execute,outcome=done}",
                    1,
                ),
                (
                    "amends_attempts_total{saga=s,step=b,call=execute,outcome=failed}",
                    1,
                ),
                ("amends_compensations_total{saga=s,step=a,outcome=ok}", 1),
                (
                    "amends_recoveries_total{saga=s,strategy=compensate,cause=failures}",
                    1,
                ),
                // Once for each first `execute`, once for the `compensate`.
                ("amends_retries_total{saga=s,step=a}", 3),
                ("amends_runs_ended_total{saga=s,end=compensated}", 1),
                ("amends_runs_ended_total{saga=s,end=completed}", 1),
                ("amends_runs_started_total{saga=s}", 2),
            ],
        );
        let took = |step: &str, call: &str| {
            let name = format!("amends_attempt_duration_seconds{{saga=s,step={step},call={call}}}");
            told.durations[&name].clone()
        };
        // Each slept for 20 ms of the paused clock; the histogram has them in seconds.
        assert_eq!(took("a", "execute"), [0.02; 4]);
        assert_eq!(took("b", "execute"), [0.02; 2]);
        assert_eq!(took("a", "compensate"), [0.0; 2]);
        // One for each record: of the first run the start, the failure, the retry, `a` and the end; of the
        // second one the start, the failure, the retry, `a`, and `b` with its decision; then the undo's
        // failure, its retry, and the end.
        assert_eq!(
            told.durations["amends_append_duration_seconds{}"],
            [0.0; 13]
        );
        assert_eq!(gauges["amends_runs_in_flight{saga=s}"], 0.0);
        assert_eq!(gauges["amends_runs_parked{saga=s}"], 0.0);
    });
}

#[test]
fn parked_runs_are_counted_now_and_after_a_restart() {
    recorded(async |snapshotter| {
        let (store, saga) = (Arc::new(MemoryStore::new()), saga());
        let first = coordinator(&store, &saga).await;
        for run in ["p1", "p2", "p3"] {
            let run = first.start(&saga, run, 1_001).await.unwrap();
            let outcome = run.outcome().await.unwrap();
            assert!(matches!(outcome, Outcome::Parked(_)), "{outcome:?}");
        }
        let (seen, gauges) = told(&snapshotter);
        assert_eq!(gauges["amends_runs_parked{saga=s}"], 3.0);
        assert_eq!(gauges["amends_runs_in_flight{saga=s}"], 0.0);
        let count = |name: &str| seen.counts.get(name).copied();
        let given_up = "amends_compensations_total{saga=s,step=a,outcome=failed}";
        assert_eq!(count(given_up), Some(3));
        assert_eq!(
            count("amends_runs_ended_total{saga=s,end=compensated}"),
            None
        );

        let parked = || told(&snapshotter).1["amends_runs_parked{saga=s}"];
        first.shutdown().await;
        drop(first);
        assert_eq!(parked(), -3.0, "a coordinator takes its part along");
        let second = coordinator(&store, &saga).await;
        second.all_resumed().await;
        assert_eq!(parked(), 3.0, "the next one finds them in the store");
        second.abandon(&"p1".into(), "op", "test").await.unwrap();
        let run = second.start(&saga, "p1", 1_001).await.unwrap();
        run.outcome().await.unwrap();
        assert_eq!(parked(), -1.0);
        drop((run, second));
        // Its tasks go away when the runtime comes to them.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(parked(), -2.0);
    });
}

#[test]
fn what_an_operator_orders_is_told_from_what_the_policy_decides() {
    recorded(async |snapshotter| {
        let (store, saga) = (Arc::new(MemoryStore::new()), saga());
        let coordinator = coordinator(&store, &saga).await;
        let run = coordinator.start(&saga, "p", 1_001).await.unwrap();
        run.outcome().await.unwrap();
        drop(told(&snapshotter));
        let compensate = RecoveryStrategy::Compensate;
        let parked = RunId::new("p");
        let again = coordinator.retry(&parked, compensate, "op", "test");
        again.await.unwrap();
        run.outcome().await.unwrap();
        let (seen, gauges) = told(&snapshotter);
        assert_eq!(
            seen.counts["amends_recoveries_total{saga=s,strategy=compensate,cause=operator}"],
            1
        );
        assert_eq!(
            gauges["amends_runs_parked{saga=s}"], 0.0,
            "it went on, and was parked again"
        );
        assert_eq!(
            seen.counts["amends_compensations_total{saga=s,step=a,outcome=failed}"],
            1
        );
    });
}

/// A store whose appends take 7 ms.
#[derive(Debug)]
struct Slow(Arc<MemoryStore>);

#[async_trait]
impl Store for Slow {
    fn append(&self, append: Append) -> Appending {
        let store = Arc::clone(&self.0);
        Appending::future(async move {
            tokio::time::sleep(Duration::from_millis(7)).await;
            store.append(append).await
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<amends::journal::Journal>, LoadError> {
        self.0.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.0.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.0.scan(filter, after, limit).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.0.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.0.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.0.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.0.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.0.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.0.prune(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.0.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.0.recall(saga, version, fingerprint).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[test]
fn an_append_is_measured_from_its_sending_to_its_answer_and_a_run_counts_while_it_is_driven() {
    recorded(async |snapshotter| {
        let saga = saga();
        let coordinator = Coordinator::builder(Slow(Arc::default()))
            .register(&saga)
            .build()
            .await
            .unwrap();
        let run = coordinator.start(&saga, "r", 2).await.unwrap();
        let (seen, gauges) = told(&snapshotter);
        assert_eq!(seen.durations["amends_append_duration_seconds{}"], [0.007]);
        assert_eq!(gauges["amends_runs_in_flight{saga=s}"], 1.0);
        run.outcome().await.unwrap();
        let (seen, gauges) = told(&snapshotter);
        assert_eq!(
            seen.durations["amends_append_duration_seconds{}"],
            [0.007; 2]
        );
        assert_eq!(gauges["amends_runs_in_flight{saga=s}"], -1.0);
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn every_write_of_a_sqlite_store_is_in_one_batch_and_leaves_the_queue() {
    recorded(async |snapshotter| {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(amends::store::SqliteStore::open(folder.path().join("x.db")).unwrap());
        let saga = saga();
        let coordinator = Coordinator::builder_shared(store.clone())
            .register(&saga)
            .build()
            .await
            .unwrap();
        let runs = (0..20).map(|run| coordinator.start(&saga, format!("r{run}"), 2));
        for run in futures_util::future::join_all(runs).await {
            run.unwrap().outcome().await.unwrap();
        }
        coordinator.shutdown().await;
        let (seen, gauges) = told(&snapshotter);
        let batches = &seen.durations["amends_store_batch_size{}"];
        let writes: f64 = batches.iter().sum();
        assert_eq!(
            (batches.len() as u64, writes as u64),
            (store.commits(), store.appends())
        );
        // The definition's outline, and three records for each run.
        assert_eq!(store.appends(), 61);
        assert_eq!(gauges["amends_store_queue_depth{}"], 0.0);
    });
}

/// The rows of the page's table: name, kind, unit, labels, meaning.
fn page() -> BTreeSet<Vec<String>> {
    include_str!("../docs/observability.md")
        .lines()
        .filter(|line| line.starts_with("| `amends_"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

#[cfg(feature = "sqlite")]
#[test]
fn the_page_names_every_metric_that_there_is_and_no_other() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = amends::store::SqliteStore::open(folder.path().join("x.db")).unwrap();
            let coordinator = Coordinator::builder(store)
                .register(&saga())
                .build()
                .await
                .unwrap();
            coordinator.shutdown().await;
        });
    });
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for (key, unit, meaning, _) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        let mut names: Vec<_> = key
            .key()
            .labels()
            .map(|label| label.key().to_owned())
            .collect();
        names.sort();
        labels
            .entry(name.clone())
            .or_default()
            .insert(names.join(", "));
        let kind = match key.kind() {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let unit = unit.unwrap().as_str().to_owned();
        rows.insert(name, (kind.to_owned(), unit, meaning.unwrap().to_string()));
    }
    let there_is: BTreeSet<Vec<String>> = rows
        .into_iter()
        .map(|(name, (kind, unit, meaning))| {
            // All series of one metric have the same labels.
            let labels: Vec<_> = labels[&name].iter().cloned().collect();
            vec![name, kind, unit, labels.join(" or "), meaning]
        })
        .collect();
    assert_eq!(there_is.len(), 12);
    assert_eq!(page(), there_is);
}

/// A fan-out of sub-sagas, a choice and a condition: labels come from the definition, so that there are no
/// more of them with a thousand items, and what calls nothing is counted by what it is made of.
#[test]
fn steps_inside_steps_are_counted_by_their_place_in_the_definition() {
    recorded(async |snapshotter| {
        let work = |name: &str| {
            step_fn(
                name,
                async |cx: &StepContext, n: &u64| match (cx.step(), n) {
                    ("pay/primary", _) | (_, 5) => Err(StepError::rejected("not with us")),
                    (_, n) => Ok(*n),
                },
                async |_: &StepContext, _: &u64, _: Effect<&u64>| Ok(()),
            )
        };
        let mut parcel = Saga::builder::<u64>("parcel");
        let line = parcel.input();
        let packed = parcel.add(work("pack"), line);
        parcel.add(work("send"), packed.map(|n| n + 1));
        let parcel = parcel.returns::<u64>(packed).unwrap();
        let mut saga = Saga::builder::<u64>("s");
        let n = saga.input();
        let ship = amends::step("ship", &parcel).for_each().parallel(1);
        let shipped = saga.add(ship.tolerate(1), n.map(|n| (0..*n).collect::<Vec<u64>>()));
        let pay = work("pay").fallback(work("invoice"));
        let paid = saga.add(pay.after(shipped), n);
        saga.add(work("insure").only_if(paid.map(|_| false)), paid);
        let saga = saga.returns::<u64>(paid).unwrap();
        let coordinator = coordinator(&Arc::new(MemoryStore::new()), &saga).await;
        let run = coordinator.start(&saga, "r", 7).await.unwrap();
        // The fifth item sends with 5, and undoes itself; the sixth is refused at once. One is tolerated, so
        // that both are tried again, three times, and the seventh is done meanwhile.
        assert_eq!(run.outcome().await.unwrap().word(), "compensated");
        let run = coordinator.start(&saga, "r2", 4).await.unwrap();
        assert_eq!(run.outcome().await.unwrap().word(), "completed");
        coordinator.shutdown().await;
        drop(coordinator);
        let (told, _) = told(&snapshotter);
        let steps: Vec<(&str, u64)> = told
            .counts
            .iter()
            .filter(|(name, _)| name.starts_with("amends_attempts_total"))
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(
            steps,
            [
                (
                    "amends_attempts_total{saga=s,step=pay/invoice,call=execute,outcome=done}",
                    1
                ),
                (
                    "amends_attempts_total{saga=s,step=pay/primary,call=execute,outcome=failed}",
                    1
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/pack,call=compensate,outcome=done}",
                    9
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/pack,call=execute,outcome=done}",
                    13
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/pack,call=execute,outcome=failed}",
                    4
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/send,call=compensate,outcome=done}",
                    5
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/send,call=execute,outcome=done}",
                    9
                ),
                (
                    "amends_attempts_total{saga=s,step=ship[]/send,call=execute,outcome=failed}",
                    4
                ),
            ]
        );
        // What was decided inside a step, or absorbed, is no decision about a run.
        let decided: u64 = told
            .counts
            .iter()
            .filter(|(name, _)| name.starts_with("amends_recoveries_total"))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(decided, 4, "{:?}", told.counts);
    });
}
