//! The `tracing` spans of one run while it is driven: the run, its steps, their calls.
//!
//! A span that nobody listens to costs a comparison: what goes into it is made only where it is enabled.
//! No span holds a payload, or any text but names, ids and words from short lists.

use std::collections::HashMap;

use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::coordinator::attempt::{CallEnd, Came};
use crate::ids::RunId;
use crate::journal::{Cause, End, Event};
use crate::machine::{AttemptResult, State, UndoStatus};
use crate::saga::{BoxFuture, Graph};
use crate::step::{CallKind, Probed, StepContext, StepIx, Value, items_as_one};
use crate::trace_context::RunTrace;

/// The spans that are open.
#[derive(Debug)]
pub(super) struct Spans {
    /// Where the run is started from, in this process.
    caller: Span,
    run: Span,
    steps: HashMap<(StepIx, CallKind), Span>,
}

impl Spans {
    /// Nothing is seen of a run before its start is durable: then it is seen in its caller's span.
    pub(super) fn of_caller() -> Self {
        Spans {
            caller: Span::current(),
            run: Span::none(),
            steps: HashMap::new(),
        }
    }

    /// Begins the run's span.
    pub(super) fn begin(
        &mut self,
        run: &RunId,
        state: &State,
        graph: &Graph,
        trace: &RunTrace,
    ) -> Span {
        self.run = tracing::info_span!(
            target: "amends",
            parent: &self.caller,
            "amends.run",
            otel.name = %format_args!("run {}", graph.saga),
            otel.kind = "internal",
            otel.status_code = Empty,
            error.type = Empty,
            run = run.as_str(),
            saga = &*graph.saga,
            version = graph.version,
            fence = state.fence,
            worker = &*state.worker,
            trace_id = trace.trace_id(),
            parent_span_id = trace.parent_span_id(),
            trace_flags = trace.flags(),
            end = Empty,
        );
        self.caller = Span::none();
        self.run.clone()
    }

    /// The span of a call that is about to be made, in its step's.
    pub(super) fn call(
        &mut self,
        cx: &StepContext,
        step: StepIx,
        state: &State,
        graph: &Graph,
    ) -> Span {
        if self.run.is_disabled() {
            return Span::none();
        }
        let (run, saga) = (cx.run().as_str(), &*graph.saga);
        let (name, round, kind) = (cx.step(), cx.round(), cx.kind());
        // A probe is about the call before it, so it is in the same step's span as an `execute`.
        let way = match kind {
            CallKind::Execute | CallKind::Probe => CallKind::Execute,
            CallKind::Compensate => CallKind::Compensate,
        };
        let around = self.step(cx.run(), step, way, state, graph);
        tracing::info_span!(
            target: "amends",
            parent: &around,
            "amends.attempt",
            otel.name = %format_args!("{} {}", kind.as_str(), items_as_one(name)),
            otel.kind = "internal",
            otel.status_code = Empty,
            error.type = Empty,
            run,
            saga,
            step = name,
            call = kind.as_str(),
            round,
            attempt = cx.attempt(),
            fence = cx.fence(),
            span_id = cx.span_id(),
            end = Empty,
        )
    }

    /// The span of a step, in that of the step that it is inside of. A step with steps inside has one as soon
    /// as one of them is called.
    fn step(
        &mut self,
        run: &RunId,
        step: StepIx,
        way: CallKind,
        state: &State,
        graph: &Graph,
    ) -> Span {
        if let Some(open) = self.steps.get(&(step, way)) {
            return open.clone();
        }
        let parent = match state.step_around(step) {
            None => self.run.clone(),
            Some(around) => {
                // A sub-saga that undoes itself is still being executed.
                let undone = state.node(around).undo == UndoStatus::Running;
                let way = if undone {
                    CallKind::Compensate
                } else {
                    CallKind::Execute
                };
                self.step(run, around, way, state, graph)
            }
        };
        let name = state.table.name(step);
        let span = tracing::info_span!(
            target: "amends",
            parent: &parent,
            "amends.step",
            // Names of spans are few, so that they can be grouped: `step` tells which item it is.
            otel.name = %format_args!("{} {}", match way {
                CallKind::Compensate => "undo",
                CallKind::Execute | CallKind::Probe => "step",
            }, items_as_one(&name)),
            otel.kind = "internal",
            otel.status_code = Empty,
            error.type = Empty,
            run = run.as_str(),
            saga = &*graph.saga,
            step = &*name,
            round = state.node(step).round,
            end = Empty,
        );
        self.steps.insert((step, way), span.clone());
        span
    }

    /// Looks at what came of a call: tells what failed, and ends its step's span when no further call of
    /// it follows.
    pub(super) fn told(
        &mut self,
        event: &Event<StepIx>,
        run: &RunId,
        state: &State,
        graph: &Graph,
    ) {
        let (step, way, end, failure) = match event {
            Event::StepDone { step, .. } => (step, CallKind::Execute, "done", None),
            Event::StepFailed {
                step,
                failure,
                retry_at,
                ..
            } => {
                let end = if retry_at.is_some() { "" } else { "failed" };
                (step, CallKind::Execute, end, Some(failure))
            }
            Event::StepStopped { step, .. } => (step, CallKind::Execute, "stopped", None),
            Event::StepInterrupted { step, .. } => (step, CallKind::Execute, "interrupted", None),
            Event::StepNotStarted { step } => (step, CallKind::Execute, "not_started", None),
            Event::Undone { step, .. } => (step, CallKind::Compensate, "done", None),
            Event::UndoFailed {
                step,
                failure,
                retry_at,
                ..
            } => {
                let end = if retry_at.is_some() { "" } else { "failed" };
                (step, CallKind::Compensate, end, Some(failure))
            }
            Event::UndoNotStarted { step } => (step, CallKind::Compensate, "not_started", None),
            Event::Probed { step, answer, .. } => (step, CallKind::Execute, word(answer), None),
            _ => return,
        };
        let open = self.steps.get(&(*step, way));
        // What a step fails with because of one inside it was told there.
        let own = failure.filter(|failure| *failure.step == *state.table.name(*step));
        if let Some(failure) = own {
            let span = open.unwrap_or(&self.run);
            // Not by entering it: exporters take the last exit from a span for its end.
            tracing::warn!(parent: span, %run, saga = %graph.saga, "{failure}");
        }
        if end.is_empty() || self.steps.is_empty() {
            return;
        }
        if let Some(span) = self.steps.remove(&(*step, way)) {
            span.record("end", end);
            if let Some(failure) = failure {
                failed(&span, failure.mode.wire());
            }
        }
    }

    /// The driver goes away; what the run has come to is the span's end.
    pub(super) fn rests(&self, state: &State) {
        if self.run.is_disabled() {
            return;
        }
        let decision = state.last_decision();
        let (end, error) = match (&state.end, &state.parked) {
            (Some(End::Completed { .. }), _) => ("completed", None),
            (Some(End::Compensated), _) => {
                let decision = decision.filter(|decision| decision.cause == Cause::Failures);
                let mode = decision.and_then(|decision| decision.why.first());
                ("compensated", mode.map(|why| why.saw.mode.wire()))
            }
            (Some(End::Stopped { .. }), _) => ("stopped", None),
            (Some(End::Abandoned { .. }), _) => ("abandoned", Some("abandoned")),
            (None, Some(parking)) if state.is_parked() => ("parked", Some(parking.reason.as_str())),
            (None, _) => ("waiting", None),
        };
        self.run.record("end", end);
        if let Some(error) = error {
            failed(&self.run, error);
        }
    }

    /// The driver goes away before the run has come to rest: the run is another's, or the process ends.
    pub(super) fn leaves(&self) {
        self.run.record("end", "left");
    }
}

/// By OpenTelemetry's conventions: a status, and a class of error with few values. What the error says in
/// its own words is in the event that tells of it, and nowhere else.
fn failed(span: &Span, class: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", class);
}

/// Makes a call within its span, and writes down in the span what came of it. `first` polls it for the first time.
pub(super) fn within(
    span: Span,
    first: impl FnOnce() -> Result<CallEnd, BoxFuture<CallEnd>>,
) -> Result<CallEnd, BoxFuture<CallEnd>> {
    if span.is_disabled() {
        return first();
    }
    match span.in_scope(first) {
        Ok(over) => {
            ended(&span, &over);
            Ok(over)
        }
        Err(call) => {
            let told = span.clone();
            let call = async move {
                let over = call.await;
                ended(&told, &over);
                over
            };
            Err(Box::pin(call.instrument(span)))
        }
    }
}

fn word(answer: &Probed<Value>) -> &'static str {
    match answer {
        Probed::Done(_) => "done",
        Probed::Never => "never",
        Probed::Unknown => "unknown",
    }
}

fn ended(span: &Span, over: &CallEnd) {
    let result = match &over.came {
        Came::Execute(result) | Came::Undo(result) => result,
        Came::Probe(answer, error) => {
            span.record("end", word(answer));
            if error.is_some() {
                failed(span, "probe_failed");
            }
            return;
        }
        Came::Stale(_) => {
            span.record("end", "stale");
            return;
        }
    };
    let end = match result {
        AttemptResult::Done(_) | AttemptResult::DoneInPart(..) | AttemptResult::Undone => "done",
        AttemptResult::Failed(failure) => {
            failed(span, failure.mode.wire());
            "failed"
        }
        AttemptResult::Stopped(_) => "stopped",
        AttemptResult::Interrupted => "interrupted",
        AttemptResult::NotStarted => "not_started",
    };
    span.record("end", end);
}
