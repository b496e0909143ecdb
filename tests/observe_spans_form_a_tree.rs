//! A run's span holds its steps' spans, they hold the spans of their calls, and user code is within its own
//! call's span.

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

use std::time::Duration;

use amends::store::MemoryStore;
use amends::{
    Action, Coordinator, FailureMode, Outcome, Probe, Probed, Retry, Saga, StepContext, StepError,
    irreversible, step_fn,
};
use capture::{Capture, Seen};
use tracing::Instrument as _;

/// Sleeps within a span of its own, then says so.
async fn works(what: &'static str) {
    async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        tracing::info!("{what} is done");
    }
    .instrument(tracing::info_span!("work"))
    .await;
}

/// `reserve` fails once, `charge` always.
fn order() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("place-order").version(3);
    let n = saga.input();
    let reserve = step_fn(
        "reserve",
        async |cx: &StepContext, n: &u64| {
            works("reserving").await;
            if cx.attempt() == 1 {
                return Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork));
            }
            Ok(*n)
        },
        async |_cx, _n, _effect| {
            works("releasing").await;
            Ok(())
        },
    )
    .retry(Retry::constant().initial(Duration::from_millis(5)));
    let reserved = saga.add(reserve, n);
    let charge = step_fn(
        "charge",
        async |_cx, _n: &u64| Err::<u64, _>(StepError::rejected("above the limit")),
        async |_cx, _n, _effect| Ok(()),
    );
    let charged = saga.add(charge, reserved);
    saga.returns(charged).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failure_a_retry_and_a_compensation_are_one_tree() {
    let (capture, _guard) = Capture::listen();
    let saga = order();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "order-1", 7).await.unwrap();
    let Outcome::Compensated(partial) = run.outcome().await.unwrap() else {
        panic!("not compensated");
    };
    assert_eq!(
        capture.tree(&["otel.name", "attempt", "end", "error.type"]),
        "\
amends.run otel.name=run place-order end=compensated error.type=agent_validation
  amends.step otel.name=step reserve end=done
    amends.attempt otel.name=execute reserve attempt=1 end=failed error.type=system_network
      work
        · reserving is done
    · step `reserve`, attempt 1 of round 1: busy (system_network, not done)
    amends.attempt otel.name=execute reserve attempt=2 end=done
      work
        · reserving is done
  amends.step otel.name=step charge end=failed error.type=agent_validation
    amends.attempt otel.name=execute charge attempt=1 end=failed error.type=agent_validation
    · step `charge`, attempt 1 of round 1: above the limit (agent_validation, not done)
  amends.step otel.name=undo reserve end=done
    amends.attempt otel.name=compensate reserve attempt=1 end=done
      work
        · releasing is done
"
    );
    let spans = |name| capture.spans(name);
    let all: Vec<Seen> = ["amends.run", "amends.step", "amends.attempt"]
        .into_iter()
        .flat_map(spans)
        .collect();
    assert_eq!(all.len(), 8);
    for span in &all {
        assert!(span.closed, "{span:?}");
        assert_eq!(span.target, "amends");
        assert_eq!(span.field("run"), "order-1");
        assert_eq!(span.field("saga"), "place-order");
        assert_eq!(span.field("otel.kind"), "internal");
        // OpenTelemetry wants the status and the class of error both or neither.
        let status = if span.has("error.type") { "ERROR" } else { "" };
        assert_eq!(span.field("otel.status_code"), status, "{span:?}");
    }
    let run = &all[0];
    assert_eq!((run.field("version"), run.field("fence")), ("3", "1"));
    assert_eq!(run.field("worker"), coordinator.worker());
    assert_eq!(run.field("trace_id"), partial.trace_id);
    assert_eq!(run.field("trace_flags"), "1");
    assert!(!run.has("parent_span_id"), "{run:?}");
    let calls: Vec<_> = spans("amends.attempt")
        .iter()
        .map(|call| {
            ["step", "call", "round", "attempt", "fence"].map(|field| call.field(field).to_owned())
        })
        .collect();
    assert_eq!(
        calls,
        [
            ["reserve", "execute", "1", "1", "1"],
            ["reserve", "execute", "1", "2", "1"],
            ["charge", "execute", "1", "1", "1"],
            ["reserve", "compensate", "1", "1", "1"],
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_completed_run_has_no_error_in_spite_of_its_retries() {
    let (capture, _guard) = Capture::listen();
    let mut saga = Saga::builder::<u64>("retried");
    let n = saga.input();
    let flaky = step_fn(
        "flaky",
        async |cx: &StepContext, n: &u64| match cx.attempt() {
            1 => Err(StepError::not_done("busy").with_mode(FailureMode::SystemNetwork)),
            _ => Ok(*n),
        },
        async |_cx, _n, _effect| Ok(()),
    );
    let flaky = saga.add(
        flaky.retry(Retry::constant().initial(Duration::from_millis(5))),
        n,
    );
    let saga = saga.returns(flaky).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", 7).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
    for name in ["amends.run", "amends.step"] {
        let [span] = &capture.spans(name)[..] else {
            panic!("{name}: {:?}", capture.spans(name));
        };
        assert!(span.closed && !span.has("error.type") && !span.has("otel.status_code"));
    }
    assert_eq!(capture.spans("amends.run")[0].field("end"), "completed");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_within_the_span_of_whoever_starts_it() {
    let (capture, _guard) = Capture::listen();
    let saga = order();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator
        .start(&saga, "order-1", 7)
        .instrument(tracing::info_span!("request"))
        .await
        .unwrap();
    run.outcome().await.unwrap();
    let run = &capture.spans("amends.run")[0];
    assert_eq!(capture.seen()[run.parent.unwrap()].name, "request");
}

/// Its answer gets lost, and its probe knows.
struct Transfer;

impl Action for Transfer {
    type Input = u64;
    type Output = u64;

    async fn execute(&self, _cx: &StepContext, _n: &u64) -> Result<u64, StepError> {
        Err(StepError::in_doubt("no answer").with_mode(FailureMode::SystemNetwork))
    }
}

impl Probe for Transfer {
    type Input = u64;
    type Output = u64;

    async fn probe(&self, _cx: &StepContext, n: &u64) -> Result<Probed<u64>, StepError> {
        works("asking").await;
        Ok(Probed::Done(*n))
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_rests_has_a_span_for_each_time_it_is_driven_and_a_probe_is_within_its_steps() {
    let (capture, _guard) = Capture::listen();
    let mut saga = Saga::builder::<u64>("probed");
    let n = saga.input();
    let wait = Retry::constant().initial(Duration::from_millis(5));
    let transfer = irreversible("transfer", Transfer)
        .pivot()
        .probe(Transfer)
        .retry(wait);
    let done = saga.add(transfer, n);
    let saga = saga.returns(done).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .keep_resident(Duration::ZERO)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", 7).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().completed(), Some(7));
    assert_eq!(
        capture.tree(&["call", "end"]),
        "\
amends.run end=waiting
  amends.step
    amends.attempt call=execute end=failed
    · step `transfer`, attempt 1 of round 1: no answer (system_network, in doubt)
amends.run end=completed
  amends.step end=done
    amends.attempt call=probe end=done
      work
        · asking is done
"
    );
    let runs = capture.spans("amends.run");
    assert_eq!(runs[0].field("trace_id"), runs[1].field("trace_id"));
    let ids: Vec<_> = capture
        .spans("amends.attempt")
        .iter()
        .map(|call| call.field("span_id").to_owned())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

fn noting(name: &str) -> amends::StepSpec<u64, u64> {
    step_fn(
        name,
        async |_: &StepContext, n: &u64| match n {
            7 => Err(StepError::rejected("not this one")),
            n => Ok(*n),
        },
        async |_cx, _n, _effect| Ok(()),
    )
}

/// Items, each a sub-saga of two steps; the second of the last one refuses.
#[tokio::test(start_paused = true)]
async fn steps_inside_a_step_are_within_its_span_in_both_directions() {
    let (capture, _guard) = Capture::listen();
    let mut parcel = Saga::builder::<u64>("parcel");
    let line = parcel.input();
    let packed = parcel.add(noting("pack"), line);
    let sent = parcel.add(noting("send"), packed.map(|n| n + 1));
    let parcel = parcel.returns(sent).unwrap();
    let mut saga = Saga::builder::<u64>("order");
    let n = saga.input();
    let parcels = amends::step("ship", &parcel).for_each().parallel(1);
    saga.add(parcels, n.map(|n| vec![*n, n + 5]));
    let saga = saga.returns::<()>(()).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "order-1", 1).await.unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    assert_eq!(
        capture.tree(&["otel.name", "end"]),
        "\
amends.run otel.name=run order end=compensated
  amends.step otel.name=step ship end=failed
    amends.step otel.name=step ship[] end=done
      amends.step otel.name=step ship[]/pack end=done
        amends.attempt otel.name=execute ship[]/pack end=done
      amends.step otel.name=step ship[]/send end=done
        amends.attempt otel.name=execute ship[]/send end=done
    amends.step otel.name=step ship[] end=failed
      amends.step otel.name=step ship[]/pack end=done
        amends.attempt otel.name=execute ship[]/pack end=done
      amends.step otel.name=step ship[]/send end=failed
        amends.attempt otel.name=execute ship[]/send end=failed
        · step `ship[1]/send`, attempt 1 of round 1: not this one (agent_validation, not done)
      amends.step otel.name=undo ship[]/pack end=done
        amends.attempt otel.name=compensate ship[]/pack end=done
      · step `ship[1]`, attempt 1 of round 1: `parcel` failed and was undone: not this one (agent_validation, not done)
  amends.step otel.name=undo ship end=done
    amends.step otel.name=undo ship[] end=done
      amends.step otel.name=undo ship[]/send end=done
        amends.attempt otel.name=compensate ship[]/send end=done
      amends.step otel.name=undo ship[]/pack end=done
        amends.attempt otel.name=compensate ship[]/pack end=done
"
    );
    // The field says which item it is.
    let steps: Vec<String> = capture
        .spans("amends.step")
        .iter()
        .map(|span| span.field("step").to_owned())
        .collect();
    assert_eq!(
        steps[..6],
        [
            "ship",
            "ship[0]",
            "ship[0]/pack",
            "ship[0]/send",
            "ship[1]",
            "ship[1]/pack"
        ]
    );
    assert!(capture.spans("amends.step").iter().all(|span| span.closed));
}
