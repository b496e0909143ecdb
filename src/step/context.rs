//! What a step is told about the call that it is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ids::{RunId, Timestamp};
use crate::step::{Pulse, Value};
use crate::trace_context::{self, RunTrace};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallKind {
    Execute,
    Compensate,
    Probe,
}

impl CallKind {
    /// The word for it in spans and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            CallKind::Execute => "execute",
            CallKind::Compensate => "compensate",
            CallKind::Probe => "probe",
        }
    }
}

/// The two keys of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The key of this very call: an `execute` and its `compensate` differ.
    pub call: Arc<str>,
    /// The key under which the effect was made, or is being made.
    pub effect: Arc<str>,
}

/// Everything about the call that a step may want to pass on.
///
/// Cheap to clone: pass a clone to work that outlives a borrow.
#[derive(Clone, Debug)]
pub struct StepContext {
    pub(super) parts: Arc<ContextParts>,
}

#[derive(Debug)]
pub(crate) struct ContextParts {
    pub(crate) run: RunId,
    pub(crate) trace: RunTrace,
    pub(crate) call: CallKind,
    pub(crate) fence: u64,
    /// The step's path.
    pub(crate) step: Arc<str>,
    pub(crate) round: u32,
    pub(crate) attempt: u32,
    pub(crate) keys: Keys,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Timestamp,
    pub(crate) stop: Arc<StopSignal>,
    pub(crate) pulse: Pulse,
    /// How far the step had come when the call was made.
    pub(crate) progress: Option<Value>,
}

impl StepContext {
    pub(crate) fn new(parts: ContextParts) -> Self {
        StepContext {
            parts: Arc::new(parts),
        }
    }

    /// The run's id, as its caller chose it.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.parts.run
    }

    /// The step's name; inside a sub-saga or a fan-out its path: `fulfil/pack`, `reserve[3]`.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.parts.step
    }

    /// Which call of this step this is, from 1, over the whole life of the run.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.parts.attempt
    }

    /// The step's counter of tries at having the effect, from 1. See rule K2.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.parts.round
    }

    /// The run's fencing token: it grows each time the run changes hands. A participant that remembers
    /// the highest one it has seen can refuse a coordinator that has lost the run without knowing it.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.parts.fence
    }

    /// The key of this call: the same for every attempt in this round, different for `execute` and
    /// `compensate`. Send it as `Idempotency-Key`. Printable ASCII without spaces.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.parts.keys.call
    }

    /// The key under which the effect was made: in `compensate` and in a probe, the key of the `execute`
    /// that they are about; in `execute`, the same as [`idempotency_key`](Self::idempotency_key).
    #[must_use]
    pub fn effect_key(&self) -> &str {
        &self.parts.keys.effect
    }

    /// How long this call may take before its future is dropped.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.parts.timeout
    }

    /// The wall-clock time at which this call's future is dropped.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.parts.deadline
    }

    /// The run's trace id: 32 hex digits, kept over crash and recovery.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.parts.trace.trace_id()
    }

    /// The `traceparent` header for requests that this call makes (W3C Trace Context, version 00): the
    /// run's trace, a span id that is this attempt's own, and the flags that the run was started with, or
    /// `01` where it began the trace.
    ///
    /// The span id is the one that the attempt's `tracing` span has as its field `span_id`. Nothing is
    /// written for it: it is made of the call's key and the attempt's number.
    ///
    /// ```
    /// # use amends::store::MemoryStore;
    /// # use amends::{Coordinator, Saga, StartOptions, step_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut saga = Saga::builder::<u64>("call");
    /// # let n = saga.input();
    /// let call = step_fn(
    ///     "call",
    ///     async |cx, _n: &u64| Ok(cx.traceparent()), // send it as the header `traceparent`
    ///     async |_cx, _n, _effect| Ok(()),
    /// );
    /// # let call = saga.add(call, n);
    /// # let saga = saga.returns(call)?;
    /// # let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
    /// let options = StartOptions::new().traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    /// let run = coordinator.start_with(&saga, "once", 1, options).await?;
    /// let header = run.outcome().await?.completed().unwrap();
    /// assert!(header.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && header.ends_with("-01"));
    /// assert!(!header.contains("00f067aa0ba902b7"), "{header}");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.parts.trace.traceparent(&self.span_id())
    }

    /// The `tracestate` header that goes with [`traceparent`](Self::traceparent): what the run's start was
    /// handed, unchanged, or nothing.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.parts.trace.state()
    }

    /// The span id of this call.
    pub(crate) fn span_id(&self) -> String {
        let parts = &self.parts;
        trace_context::span_id(&parts.keys.call, parts.call.as_str(), parts.attempt)
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.parts.pulse
    }

    pub(crate) fn kind(&self) -> CallKind {
        self.parts.call
    }

    /// Whether the run would rather have this call end early: somebody cancelled the run, or a sibling
    /// failed in a saga that says so. A call that doesn't look is waited for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.parts.stop.is_set()
    }

    /// Waits until [`is_cancelled`](Self::is_cancelled).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again, in a `select!` for example.
    pub async fn cancelled(&self) {
        self.parts.stop.wait().await;
    }
}

/// Told once, heard by all attempts of a run that look.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    set: AtomicBool,
    told: Notify,
    over: AtomicBool,
    out: Notify,
}

impl StopSignal {
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// The grace period is over: futures that were told are dropped.
    pub(crate) fn drop_now(&self) {
        self.over.store(true, Ordering::Release);
        self.out.notify_waiters();
    }

    /// Waits for [`drop_now`](Self::drop_now).
    pub(crate) async fn dropped(&self) {
        let out = self.out.notified();
        tokio::pin!(out);
        out.as_mut().enable();
        if !self.over.load(Ordering::Acquire) {
            out.await;
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    pub(crate) async fn wait(&self) {
        let told = self.told.notified();
        tokio::pin!(told);
        // Registering before looking: a signal between the two is not lost.
        told.as_mut().enable();
        if !self.is_set() {
            told.await;
        }
    }
}
