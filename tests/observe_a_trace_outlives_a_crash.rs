//! The trace that a start was handed is the run's for ever: its calls hand it on, before a crash and after.

// Helper functions of tests aren't test functions; not every test file uses all of the capture.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unreachable_pub
)]

mod capture;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::journal::Event;
use amends::store::{MemoryStore, Store};
use amends::{Coordinator, Saga, StartOptions, StepContext, step_with};
use capture::Capture;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

/// What each call would send: step, attempt, `traceparent`, `tracestate`.
type Sent = Arc<Mutex<Vec<(String, u32, String, Option<String>)>>>;

/// `first` returns, `second` returns unless it is the first attempt, which hangs.
fn saga(sent: &Sent) -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("traced");
    let n = saga.input();
    let call = |name| {
        step_with(
            name,
            Arc::clone(sent),
            async |sent: &Sent, cx: &StepContext, n: &u64| {
                let state = cx.tracestate().map(ToOwned::to_owned);
                let call = (cx.step().to_owned(), cx.attempt(), cx.traceparent(), state);
                sent.lock().unwrap().push(call);
                if cx.step() == "second" && cx.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(*n)
            },
            async |_sent, _cx, _n, _effect| Ok(()),
        )
        .timeout(Duration::from_secs(3600))
    };
    let first = saga.add(call("first"), n);
    let second = saga.add(call("second"), first);
    saga.returns(second).unwrap()
}

/// Whether it is `00-{32}-{16}-{2}` in lower-case hex digits, ids not all zero; its parts.
fn parts(header: &str) -> [&str; 4] {
    let parts: Vec<&str> = header.split('-').collect();
    let parts: [&str; 4] = parts.try_into().unwrap();
    assert_eq!(parts.map(str::len), [2, 32, 16, 2], "{header}");
    let hex = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    assert!(parts.iter().all(|part| part.bytes().all(hex)), "{header}");
    assert_eq!(parts[0], "00");
    for id in &parts[1..3] {
        assert!(id.bytes().any(|digit| digit != b'0'), "{header}");
    }
    parts
}

/// One life of a process: its end is a crash.
fn life(store: &Arc<MemoryStore>, sent: &Sent, options: Option<StartOptions>) -> Capture {
    let (capture, _guard) = Capture::listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let saga = saga(sent);
    runtime.block_on(async {
        let coordinator = Coordinator::builder_shared(Arc::clone(store) as Arc<dyn Store>)
            .register(&saga)
            .build()
            .await
            .unwrap();
        if let Some(options) = options {
            let started = coordinator.start_with(&saga, "r", 7, options).await;
            drop(started.unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else {
            let run = coordinator.start(&saga, "r", 7).await.unwrap();
            assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
        }
    });
    drop(runtime);
    capture
}

#[test]
fn the_trace_and_its_parent_are_the_same_after_a_crash() {
    let (store, sent) = (Arc::new(MemoryStore::new()), Sent::default());
    let given = format!("00-{TRACE}-{PARENT}-00");
    let options = StartOptions::new().traceparent(&given).tracestate(STATE);
    let before = life(&store, &sent, Some(options));
    let after = life(&store, &sent, None);

    let sent = sent.lock().unwrap();
    let calls: Vec<_> = sent.iter().map(|call| (&*call.0, call.1)).collect();
    assert_eq!(calls, [("first", 1), ("second", 1), ("second", 2)]);
    let mut span_ids = Vec::new();
    for (_, _, header, state) in sent.iter() {
        let [_, trace, span, flags] = parts(header);
        assert_eq!((trace, flags), (TRACE, "00"));
        assert_eq!(state.as_deref(), Some(STATE));
        assert_ne!(
            span, PARENT,
            "the call is not the request that started the run"
        );
        span_ids.push(span);
    }
    let mut distinct = span_ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "{span_ids:?}");

    // What participants see as their parent is the attempt's own span.
    let mut attempts = before.spans("amends.attempt");
    attempts.extend(after.spans("amends.attempt"));
    let of_spans: Vec<_> = attempts.iter().map(|span| span.field("span_id")).collect();
    assert_eq!(of_spans, span_ids);
    for (life, fence) in [(&before, "1"), (&after, "2")] {
        let [run] = &life.spans("amends.run")[..] else {
            panic!("{:?}", life.spans("amends.run"));
        };
        assert_eq!(run.field("trace_id"), TRACE);
        assert_eq!(run.field("parent_span_id"), PARENT);
        assert_eq!(run.field("trace_flags"), "0");
        assert_eq!(run.field("fence"), fence);
    }
    // A call that a crash cut off has no end; its span is closed all the same.
    let cut = &before.spans("amends.attempt")[1];
    assert!(cut.closed && !cut.has("end"), "{cut:?}");
}

#[test]
fn a_run_that_was_handed_nothing_has_a_trace_of_its_own() {
    let (store, sent) = (Arc::new(MemoryStore::new()), Sent::default());
    // A `tracestate` means nothing without a `traceparent`.
    let options = StartOptions::new().tracestate(STATE);
    life(&store, &sent, Some(options));
    life(&store, &sent, None);
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 3);
    let [_, first, ..] = parts(&sent[0].2);
    for (_, _, header, state) in sent.iter() {
        let [_, trace, _, flags] = parts(header);
        assert_eq!((trace, flags, state), (first, "01", &None));
    }
    assert_ne!(first, TRACE);
}

async fn journalled(options: StartOptions) -> (String, Option<String>, Option<String>) {
    let store = Arc::new(MemoryStore::new());
    let saga = saga(&Sent::default());
    let coordinator = Coordinator::builder_shared(store.clone())
        .register(&saga)
        .build()
        .await
        .unwrap();
    coordinator
        .start_with(&saga, "r", 7, options)
        .await
        .unwrap();
    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    let Event::RunStarted(started) = &journal.records[0].events[0] else {
        panic!("{journal:?}");
    };
    let (parent, state) = (started.traceparent.clone(), started.tracestate.clone());
    (started.trace_id.to_string(), parent, state)
}

#[tokio::test(start_paused = true)]
async fn the_last_word_on_the_trace_counts_and_a_garbled_one_is_none() {
    let header = format!("00-{TRACE}-{PARENT}-01");
    let other = "a".repeat(32);
    let options = StartOptions::new;
    let told = journalled(options().trace_id(&other).traceparent(&header)).await;
    assert_eq!(told, (TRACE.to_owned(), Some(header.clone()), None));
    let told = journalled(options().traceparent(&header).trace_id(&other)).await;
    assert_eq!(told, (other, None, None));
    let newer = format!("7f-{TRACE}-{PARENT}-01-and-more");
    let told = journalled(options().traceparent(newer).tracestate("garbled")).await;
    assert_eq!(told, (TRACE.to_owned(), Some(header), None));
    for garbled in [
        options().traceparent("garbled").tracestate(STATE),
        options().trace_id("order-4711"),
        options().traceparent(format!("00-{}-{PARENT}-01", "0".repeat(32))),
    ] {
        let (trace, parent, state) = journalled(garbled).await;
        parts(&format!("00-{trace}-{PARENT}-01"));
        assert_eq!((parent, state), (None, None));
    }
}

#[test]
fn a_start_without_a_traceparent_is_written_as_it_always_was() {
    let written = r#"{"run_started":{"saga":"s","version":1,"fingerprint":"f","uid":"u","trace_id":"t","input":null,"worker":"w"}}"#;
    let event: Event<String> = serde_json::from_str(written).unwrap();
    let Event::RunStarted(started) = &event else {
        panic!("{event:?}");
    };
    assert_eq!((&started.traceparent, &started.tracestate), (&None, &None));
    assert_eq!(serde_json::to_string(&event).unwrap(), written);
}
