//! A store of runs in all kinds of trouble, made by a real coordinator, and the program to look at it with.
//!
//! The journals are the coordinator's own; what differs from one time to the next in them (instants,
//! durations, random names) is then set to fixed values, so that the program's output is the same each time.
#![allow(dead_code, unreachable_pub)] // Each test uses a part of it, as a module of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{Event, Journal, Standing, Verb};
use amends::policy::Jitter;
use amends::store::{Append, RunFilter, SqliteStore, Store, TroubleChange};
use amends::{
    Coordinator, FailureMode, RecoveryPolicy, RecoveryStrategy, Retry, RunId, Saga, StartOptions,
    StepContext, StepError, StepSpec, StepStatus, Timestamp, irreversible_fn, step, step_fn,
    wait_for,
};

/// What no output may hold unless payloads are asked for.
pub const SECRET: &str = "4111-1111";

/// When the first run was started: 2026-11-22, 09:30 UTC.
pub const BEGAN: i64 = 1_795_339_800_000_000;

/// The instant that ages are told from: five minutes after.
pub const NOW: i64 = BEGAN + 300_000_000;

const MINUTE: i64 = 60_000_000;

/// Each page about [these runs](make_each_kind), and what is asked for it.
pub const PAGES: [(&str, &str); 32] = [
    ("list", "list"),
    ("list-parked", "list --parked"),
    ("list-some-statuses", "list --status waiting,paused"),
    (
        "list-by-trouble",
        "list --step book-hotel --mode agent_validation",
    ),
    ("list-by-label", "list --label customer=42"),
    (
        "list-by-prefix-and-saga",
        "list --prefix trip- --saga book-trip --limit 2",
    ),
    ("list-by-age", "list --older-than 4m --newer-than 1h"),
    ("list-nothing", "list --saga other"),
    ("list-json", "list --json"),
    ("show-completed", "show order-4710"),
    ("show-parked", "show order-4711"),
    ("show-compensated", "show trip-7"),
    ("show-stuck", "show trip-8"),
    ("show-waiting", "show trip-9"),
    ("show-paused", "show trip-10"),
    ("show-payloads", "show order-4711 --payloads"),
    ("show-timeline", "show trip-8 --timeline"),
    ("show-json", "show order-4711 --json"),
    ("why-parked", "why order-4711"),
    ("why-compensated", "why trip-7"),
    ("why-nothing", "why order-4710"),
    ("why-json", "why order-4711 --json"),
    ("journal-parked", "journal order-4711"),
    ("journal-stuck", "journal trip-8"),
    ("journal-payloads", "journal order-4710 --payloads"),
    ("journal-json", "journal order-4711 --json"),
    ("graph-run", "graph order-4711"),
    ("graph-saga", "graph --saga book-trip"),
    ("graph-mermaid", "graph order-4711 --format mermaid"),
    ("graph-dot", "graph trip-8 --format dot"),
    ("graph-svg", "graph trip-7 --format svg"),
    ("graph-json", "graph order-4711 --format mermaid --json"),
];

/// Three steps, of which the second refuses some orders; a person has to look then.
pub fn place_order() -> Saga<String, String> {
    let mut saga = Saga::builder::<String>("place-order")
        .policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual));
    let order = saga.input();
    let stock = saga.add(
        step_fn(
            "reserve-stock",
            async |_: &StepContext, order: &String| Ok(format!("stock for {order}")),
            async |_, _, _| Ok(()),
        ),
        order,
    );
    let paid = saga.add(
        step_fn(
            "charge-card",
            async |_: &StepContext, (order, _): &(String, String)| {
                if order.starts_with("blocked") {
                    Err(StepError::rejected("the bank refuses this card"))
                } else {
                    Ok(format!("{order} charged"))
                }
            },
            async |_, _, _| Ok(()),
        ),
        (order, stock),
    );
    let sent = saga.add(
        irreversible_fn("send-parcel", async |_: &StepContext, paid: &String| {
            Ok(format!("{paid}, sent"))
        })
        .pivot(),
        paid,
    );
    saga.returns(sent).unwrap()
}

/// Bookings that go wrong as the input says.
pub fn book_trip() -> Saga<String, (String, String, String)> {
    let mut saga = Saga::builder::<String>("book-trip").version(2);
    let trip = saga.input();
    let flight = saga.add(
        step_fn(
            "book-flight",
            async |_: &StepContext, trip: &String| Ok(format!("flight for {trip}")),
            async |_: &StepContext, trip: &String, _| {
                if trip.starts_with("stuck") {
                    Err(StepError::rejected("the fare can't be refunded"))
                } else {
                    Ok(())
                }
            },
        ),
        trip,
    );
    let hotel = saga.add(
        step_fn(
            "book-hotel",
            async |_: &StepContext, (trip, _): &(String, String)| {
                if trip.starts_with("full") || trip.starts_with("stuck") {
                    Err(StepError::rejected("no room is left"))
                } else {
                    Ok("hotel".to_owned())
                }
            },
            async |_, _, _| Ok(()),
        ),
        (trip, flight),
    );
    let car = saga.add(
        step_fn(
            "rent-car",
            async |_: &StepContext, (trip, _): &(String, String)| {
                if trip.starts_with("late") {
                    let refused = std::io::Error::other("connection refused");
                    Err(StepError::not_done(refused).with_mode(FailureMode::SystemNetwork))
                } else {
                    Ok("car".to_owned())
                }
            },
            async |_, _, _| Ok(()),
        )
        .retry(
            Retry::constant()
                .initial(Duration::from_secs(3_600))
                .jitter(Jitter::None)
                .max_attempts(5),
        ),
        (trip, hotel),
    );
    saga.returns((flight, hotel, car)).unwrap()
}

fn done(name: &str) -> StepSpec<String, String> {
    step_fn(
        name,
        async |cx: &StepContext, order: &String| {
            let bad = order.starts_with("unsendable") && cx.step() == "ship/label";
            if bad || order == "torn" || (cx.step() == "pay/primary" && !order.is_empty()) {
                return Err(StepError::rejected("not with us"));
            }
            Ok(format!("{order}, {}", cx.step()))
        },
        async |_, _, _| Ok(()),
    )
}

/// A saga of each form: some items may fail, the card is always refused, and costly orders wait for a word.
pub fn shop() -> Saga<String, String> {
    let mut child = Saga::builder::<String>("parcel");
    let line = child.input();
    let packed = child.add(done("pack"), line);
    let labelled = child.add(done("label"), packed);
    let child = child.returns(labelled).unwrap();

    let mut saga = Saga::builder::<String>("shop")
        .policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual));
    let order = saga.input();
    let lines = |order: &String| vec![order.clone(), "torn".to_owned(), "cup".to_owned()];
    let reserve = done("reserve").for_each().parallel(1).tolerate(1);
    let reserved = saga.add(reserve, order.map(lines));
    let insure = done("insure").only_if(order.map(|_| false)).after(reserved);
    let insured = saga.add(insure, order);
    let pay = done("pay").fallback(done("invoice")).after(insured);
    let paid = saga.add(pay, order);
    let costly = order.map(|order| order.starts_with("costly"));
    let approved = wait_for::<String>("approved").after(paid).only_if(costly);
    let approved = saga.add(approved, ());
    let sent = saga.add(step("ship", &child).after(approved), order);
    saga.returns(sent).unwrap()
}

/// Many items, of which some fail.
pub fn crowd() -> Saga<u64, ()> {
    let mut saga = Saga::builder::<u64>("crowd");
    let n = saga.input();
    let greet = step_fn(
        "greet",
        async |_: &StepContext, n: &u64| match n {
            3 | 9 => Err(StepError::rejected("nobody is at home")),
            n => Ok(*n),
        },
        async |_, _, _| Ok(()),
    );
    let greet = greet.for_each().parallel(1).tolerate(2);
    saga.add(greet, n.map(|n| (0..*n).collect::<Vec<u64>>()));
    saga.returns(()).unwrap()
}

async fn waits_at(coordinator: &Coordinator, run: &RunId, step: &str) {
    for _ in 0..2_000 {
        let partial = coordinator.get(run).await.unwrap().unwrap();
        if partial.step(step).unwrap().status == StepStatus::Waiting {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{run} does not wait at {step}");
}

/// Runs of `place-order` and `book-trip`, one of each kind.
pub async fn make_each_kind(coordinator: &Coordinator) {
    let (order, trip) = (place_order(), book_trip());
    let with = |customer: &str| StartOptions::new().label("customer", customer);

    let run = coordinator
        .start_with(&order, "order-4710", SECRET.to_owned(), with("17"))
        .await
        .unwrap();
    run.outcome().await.unwrap();
    let run = coordinator
        .start_with(
            &order,
            "order-4711",
            format!("blocked {SECRET}"),
            with("42"),
        )
        .await
        .unwrap();
    run.outcome().await.unwrap();
    for (id, input) in [("trip-7", "full"), ("trip-8", "stuck")] {
        let input = format!("{input} {SECRET}");
        let run = coordinator.start(&trip, id, input).await.unwrap();
        run.outcome().await.unwrap();
    }
    for id in ["trip-9", "trip-10"] {
        let input = format!("late {SECRET}");
        let run = coordinator.start(&trip, id, input).await.unwrap();
        until(coordinator, run.id(), "waiting").await;
    }
    let pause = amends::journal::Command::new("trip-10", Verb::Pause)
        .by("ada")
        .reason("the hotel called")
        .token("ticket-10");
    coordinator.command(&pause).await.unwrap();
    until(coordinator, &RunId::new("trip-10"), "paused").await;
}

/// A store in a folder that goes with it.
pub struct Runs {
    pub dir: tempfile::TempDir,
    pub path: PathBuf,
}

impl Runs {
    /// A run of each kind.
    pub async fn of_each_kind() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made.db");
        let coordinator = coordinator(&made).await;
        make_each_kind(&coordinator).await;
        coordinator.shutdown().await;

        let path = dir.path().join("sagas.db");
        settle_file(
            &made,
            &path,
            &[place_order().outline(), book_trip().outline()],
        )
        .await;
        Runs { dir, path }
    }

    /// Runs of steps that have steps inside, one after another, so that their order is the same each time.
    pub async fn nested() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made.db");
        let (shop, crowd) = (shop(), crowd());
        let coordinator = Coordinator::builder(SqliteStore::open(&made).unwrap())
            .register(&shop)
            .register(&crowd)
            .worker("shop-1")
            .build()
            .await
            .unwrap();
        let input = |order: &str| format!("{order} {SECRET}");
        for (id, order) in [("shop-1", "plain"), ("shop-2", "unsendable")] {
            let run = coordinator.start(&shop, id, input(order)).await.unwrap();
            run.outcome().await.unwrap();
        }
        let run = coordinator.start(&shop, "shop-3", input("costly")).await;
        let run = run.unwrap();
        waits_at(&coordinator, run.id(), "approved").await;
        let run = coordinator.start(&crowd, "crowd-1", 14).await.unwrap();
        run.outcome().await.unwrap();
        coordinator.shutdown().await;

        let path = dir.path().join("sagas.db");
        settle_file(&made, &path, &[shop.outline(), crowd.outline()]).await;
        Runs { dir, path }
    }

    /// The program over this store, 80 columns wide, without colours.
    pub fn amends(&self, arguments: &str) -> Command {
        amends(&format!("sqlite:{}", self.path.display()), arguments)
    }

    /// What the program prints, and how it ends.
    pub fn says(&self, arguments: &str) -> Said {
        self.amends(arguments).output().unwrap().into()
    }
}

/// The program over a store, 80 columns wide, without colours.
pub fn amends(store: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command
        .args(words(arguments))
        .env_clear()
        .env("AMENDS_STORE", store)
        .env("AMENDS_NOW", NOW.to_string())
        .env("COLUMNS", "80")
        .env("USER", "ada");
    command
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// What was printed, by somebody who had asked for nothing wrong.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// All of it, as a snapshot has it: with the store's path by one name.
    pub fn whole(&self, runs: &Runs) -> String {
        let path = runs.path.display().to_string();
        let real = runs
            .path
            .canonicalize()
            .map_or(path.clone(), |path| path.display().to_string());
        let mut text = self
            .out
            .replace(&real, "sagas.db")
            .replace(&path, "sagas.db");
        if !self.err.is_empty() {
            let err = self
                .err
                .replace(&real, "sagas.db")
                .replace(&path, "sagas.db");
            text.push_str("--- standard error\n");
            text.push_str(&err);
        }
        text
    }
}

/// Words with blanks between; a word in single quotes may hold blanks.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in text.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

pub async fn coordinator(path: &Path) -> Coordinator {
    coordinator_on(Arc::new(SqliteStore::open(path).unwrap())).await
}

pub async fn coordinator_on(store: Arc<dyn Store>) -> Coordinator {
    Coordinator::builder_shared(store)
        .register(&place_order())
        .register(&book_trip())
        .worker("shop-1")
        .build()
        .await
        .unwrap()
}

async fn until(coordinator: &Coordinator, run: &RunId, standing: &str) {
    for _ in 0..2_000 {
        let begin_so = RunFilter::all().prefix(run.as_str());
        let runs = coordinator.list(&begin_so, None, 9).await.unwrap();
        let found = runs.iter().find(|entry| entry.run == *run).unwrap();
        if found.standing.as_str() == standing {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{run} is not {standing}");
}

async fn settle_file(from: &Path, to: &Path, outlines: &[amends::Outline]) {
    let made = SqliteStore::open_reader(from).unwrap();
    let settled = SqliteStore::open(to).unwrap();
    settle(&made, &settled, outlines).await;
    made.close().await;
    settled.close().await;
}

/// Copies all journals from one store into another, with fixed instants, durations and names.
pub async fn settle(made: &dyn Store, settled: &dyn Store, outlines: &[amends::Outline]) {
    for outline in outlines {
        settled.remember(outline).await.unwrap();
    }
    let entries = made.scan(&RunFilter::all(), None, 100).await.unwrap();
    for (place, entry) in (1..).zip(entries) {
        let mut journal = made.load(&entry.run).await.unwrap().unwrap();
        let began = journal.records[0].at;
        let start = BEGAN + i64::try_from(place).unwrap() * MINUTE / 2;
        settle_journal(&mut journal, place, start);
        let shift = |at: Timestamp| {
            if at == Timestamp::NEVER {
                return at;
            }
            let later = at.as_micros() - began.as_micros();
            Timestamp::from_micros(start + (later + MINUTE / 2) / MINUTE * MINUTE)
        };
        let last = journal.records.len();
        for (number, record) in journal.records.into_iter().enumerate() {
            let end = number + 1 == last;
            let standing = match entry.standing {
                Standing::Waiting { until } if end => Standing::Waiting {
                    until: shift(until),
                },
                standing if end => standing,
                _ => Standing::Running,
            };
            let steps = journal.steps.clone();
            let mut append = Append::new(entry.run.clone(), record, steps, standing);
            if let (true, Some(trouble)) = (end, &entry.trouble) {
                append.trouble = TroubleChange::Now(trouble.clone());
            }
            settled.append(append).await.unwrap();
        }
    }
}

fn settle_journal(journal: &mut Journal, number: u64, start: i64) {
    let uid = format!("{number:032x}");
    let mut real_uid = String::new();
    let began = journal.records[0].at;
    let mut took = 12_500;
    for (place, record) in journal.records.iter_mut().enumerate() {
        record.at = Timestamp::from_micros(start + i64::try_from(place).unwrap() * 40_000);
        let name = (u128::from(number) << 64) | u128::try_from(place).unwrap();
        record.append_id = amends::journal::AppendId::from_bytes(name.to_be_bytes());
        let later = |at: &mut Timestamp| {
            let minutes = (at.as_micros() - began.as_micros() + MINUTE / 2) / MINUTE;
            *at = Timestamp::from_micros(start + minutes * MINUTE);
        };
        for event in &mut record.events {
            match event {
                Event::RunStarted(started) => {
                    let started = Arc::make_mut(started);
                    real_uid = started.uid.to_string();
                    started.uid = uid.as_str().into();
                    started.trace_id = format!("{number:032x}").into();
                    started.worker = "shop-1".into();
                }
                Event::StepStarted { key, .. } | Event::UndoStarted { key, .. } => {
                    *key = key.replace(&real_uid, &uid).into();
                }
                Event::StepDone { took_us, .. } | Event::Undone { took_us, .. } => {
                    took += 1_250;
                    *took_us = took;
                }
                Event::StepFailed {
                    took_us, retry_at, ..
                }
                | Event::UndoFailed {
                    took_us, retry_at, ..
                } => {
                    took += 1_250;
                    *took_us = took;
                    retry_at.as_mut().map(later);
                }
                Event::Decided(decision) => {
                    let decision = Arc::make_mut(decision);
                    decision.resume_at.as_mut().map(later);
                    for why in &mut decision.why {
                        why.saw.elapsed = Duration::from_millis(80);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Compares with what is kept in `tests/snapshots/cli`, or with `AMENDS_UPDATE=1` keeps it.
#[track_caller]
pub fn same_as_kept(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots/cli")
        .join(name);
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{name} is another than is kept; AMENDS_UPDATE=1 keeps this one:\n{text}\n--- kept:\n{kept}"
    );
}
