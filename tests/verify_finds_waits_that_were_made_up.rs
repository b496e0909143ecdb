//! The audit of a journal knows what holds of waits: each began, and each signal is taken once (rule I5).
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::type_complexity, reason = "it reads as it is meant")]
#![cfg(feature = "testkit")]

use std::sync::Arc;

use amends::journal::{Event, Journal, Record, Verb};
use amends::operator::Operator;
use amends::store::{Append, MemoryStore, Store};
use amends::testkit::VirtualClock;
use amends::{Coordinator, RunId, Saga, StepIx, wait_for};

type Events = Vec<Event<StepIx>>;

/// A run that waited for `paid`, was paused and resumed, and then waited for `sent`.
async fn waited() -> (Arc<MemoryStore>, Journal) {
    let mut b = Saga::builder::<u64>("order");
    let paid = b.add(wait_for::<u64>("paid"), ());
    b.add(wait_for::<u64>("sent").after(paid), ());
    let saga = b.returns(paid).unwrap();
    let store = Arc::new(MemoryStore::new());
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let builder = Coordinator::builder_shared(shared).clock(VirtualClock::new());
    let coordinator = builder.register(&saga).build().await.unwrap();
    let run = coordinator.start(&saga, "r", 1).await.unwrap();
    let say = async |verb: Verb, token: &str| {
        let command = amends::journal::Command::new("r", verb).token(token);
        coordinator.command(&command).await.unwrap();
    };
    say(Verb::signal("paid", 5_u64), "p").await;
    say(Verb::Pause, "q").await;
    say(Verb::Resume, "s").await;
    say(Verb::signal("sent", 6_u64), "t").await;
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let journal = store.load(&RunId::new("r")).await.unwrap().unwrap();
    (store, journal)
}

/// What is found where all the events of the run are in one record, changed so.
async fn found_after(change: impl FnOnce(&mut Events)) -> Vec<String> {
    let (store, journal) = waited().await;
    let mut events: Events = journal
        .records
        .iter()
        .flat_map(|record| record.events.clone())
        .collect();
    change(&mut events);
    let entry = store.find(&RunId::new("r")).await.unwrap().unwrap();
    let first = &journal.records[0];
    let record = Record {
        seq: 1,
        append_id: first.append_id,
        at: first.at,
        events,
    };
    let forged = Arc::new(MemoryStore::new());
    for outline in store.definitions().await.unwrap() {
        forged.remember(&outline.outline).await.unwrap();
    }
    let append = Append::new(RunId::new("r"), record, journal.steps, entry.standing);
    forged.append(append).await.unwrap();
    let operator = Operator::new(forged);
    let found = operator
        .verify_run(&RunId::new("r"))
        .await
        .unwrap()
        .unwrap();
    found.into_iter().map(|finding| finding.what).collect()
}

fn place(events: &Events, wanted: impl Fn(&Event<StepIx>) -> bool) -> usize {
    events.iter().position(wanted).unwrap()
}

fn is_over(event: &Event<StepIx>) -> bool {
    matches!(event, Event::WaitOver { .. })
}

fn is_signal(event: &Event<StepIx>) -> bool {
    matches!(event, Event::Signalled(_))
}

#[tokio::test(start_paused = true)]
async fn a_journal_in_which_a_wait_or_a_signal_is_made_up_is_broken() {
    assert_eq!(found_after(|_| ()).await, [""; 0]);
    let cases: [(fn(&mut Events), &str); 8] = [
        (
            |events| drop(events.remove(place(events, is_signal))),
            "record 1: `paid` took a signal that never came",
        ),
        (
            |events| {
                let at = place(events, is_signal);
                let Event::Signalled(signalled) = &mut events[at] else {
                    unreachable!()
                };
                signalled.late = true;
            },
            "record 1: `paid` took a signal that never came",
        ),
        (
            |events| {
                let at = place(events, is_signal);
                let again = events[at].clone();
                events.insert(at, again);
            },
            "record 1: command p was carried out twice",
        ),
        (
            |events| {
                let began = |event: &Event<StepIx>| matches!(event, Event::WaitBegan { .. });
                drop(events.remove(place(events, began)));
            },
            "record 1: `paid` has waited, and never began to",
        ),
        (
            |events| {
                let at = place(events, is_over);
                let again = events[at].clone();
                events.insert(at, again);
            },
            "record 1: `paid` has waited, and never began to",
        ),
        (
            |events| {
                let at = place(events, is_over);
                let Event::WaitOver { expired, .. } = &mut events[at] else {
                    unreachable!()
                };
                *expired = true;
            },
            "record 1: `paid` had no limit, and its time was up",
        ),
        (
            |events| {
                let at = place(events, |event| matches!(event, Event::WaitBegan { .. }));
                let again = events[at].clone();
                events.insert(at, again);
            },
            "record 1: `paid` begins to wait while it waits",
        ),
        (
            |events| {
                let paused = place(events, |event| matches!(event, Event::Paused { .. }));
                let resumed = place(events, |event| matches!(event, Event::Resumed { .. }));
                let last = events.iter().rposition(is_over).unwrap();
                let signal = events.iter().rposition(is_signal).unwrap();
                let over = events.remove(last);
                let signal = events.remove(signal);
                assert!(paused < resumed);
                events.splice(resumed..resumed, [signal, over]);
            },
            "record 1: `sent` has waited in a pause",
        ),
    ];
    for (change, what) in cases {
        assert_eq!(found_after(change).await, [what]);
    }
}
