//! Making the calls that were announced.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::inside::bodies_of;
use super::{Driver, Launch};
use crate::coordinator::attempt::{Call, CallEnd, Came};
use crate::coordinator::spans::within;
use crate::ids::Timestamp;
use crate::journal::VerbName;
use crate::machine::{AttemptResult, EffectNow};
use crate::step::{CallKind, ContextParts, Effect, Keys, Pulse, StepContext, StepIx, StopSignal};

impl Driver {
    /// Makes the calls that were announced, now that this is durable. Those that need nothing else are polled once
    /// where they stand, so that only what waits is kept among the calls in flight.
    pub(super) fn launch(&mut self, cx: &mut Context<'_>) {
        if self.stop.is_set()
            && !self.state.is_unwanted()
            && self.state.stops_siblings(&self.graph).is_none()
        {
            // The run goes on after all: what starts now is not told to stop.
            self.stop = Arc::default();
            self.drop_at = None;
        }
        if self.launches.is_empty() {
            return;
        }
        // A shutdown, or a word that nothing is to start, before the first poll: the call isn't made (rule F1).
        let closing = self.shared.is_closing();
        let halts = |verbs: &[VerbName]| closing || self.slot.has_verb(verbs);
        let cancelled = halts(&[VerbName::Cancel, VerbName::Pause, VerbName::Abandon]);
        let halted = halts(&[VerbName::Pause, VerbName::Abandon]);
        let now = (self.shared.clock.now(), Instant::now());
        let mut launches = std::mem::take(&mut self.launches);
        for launch in launches.drain(..) {
            let made = match launch {
                Launch::Execute { step, .. } if cancelled => Ok(not_called(step, Came::Execute)),
                Launch::Undo { step, .. } if halted => Ok(not_called(step, Came::Undo)),
                Launch::Execute {
                    step,
                    input,
                    permits,
                } => {
                    let (call, span) = self.call(step, CallKind::Execute, now);
                    let body = &bodies_of(&self.registered, &self.state, step).body;
                    let stops = matches!(self.graph.siblings, crate::Siblings::Stop { .. });
                    // The one that drops attempts, which is the run's.
                    let stop = stops.then(|| Arc::clone(&self.stop));
                    within(span, || {
                        let future = body.execute(call.cx.clone(), input);
                        call.execute(future, stop, permits, &self.shared.classifier, cx)
                    })
                }
                Launch::Undo { step, input } => {
                    let (call, span) = self.call(step, CallKind::Compensate, now);
                    let node = self.state.node(step);
                    let effect = match (node.effect, &node.output) {
                        (EffectNow::Done, Some(output)) => Effect::Done(output.clone()),
                        _ => Effect::InDoubt,
                    };
                    let body = &bodies_of(&self.registered, &self.state, step).body;
                    let limits = self.limits(step);
                    within(span, || {
                        let future = body.compensate(call.cx.clone(), input, effect);
                        call.undo(future, limits, &self.shared.classifier, cx)
                    })
                }
                Launch::Probe { step, input } => {
                    let (call, span) = self.call(step, CallKind::Probe, now);
                    match &bodies_of(&self.registered, &self.state, step).probe {
                        Some(probe) => within(span, || {
                            let future = probe.probe(call.cx.clone(), input);
                            Err(Box::pin(call.probe(future)))
                        }),
                        None => continue,
                    }
                }
            };
            match made {
                Ok(end) => self.over.push(end),
                Err(call) => self.calls.push(call),
            }
        }
        self.launches = launches;
    }

    fn call(
        &mut self,
        step: StepIx,
        kind: CallKind,
        (now, made): (Timestamp, Instant),
    ) -> (Call, Span) {
        let undo = kind == CallKind::Compensate;
        let told = self.told_to_stop(step);
        let place = self.state.place(&self.graph, step);
        let (node, definition) = (self.state.node(step), place.graph.step(place.step));
        let effect = self.state.effect_key(&self.graph, step);
        let key = if undo {
            node.undo_key.clone().unwrap_or_default()
        } else {
            Arc::clone(&effect)
        };
        let timeout = if undo {
            definition.undo_timeout
        } else {
            definition.timeout
        };
        let heartbeat = match kind {
            CallKind::Execute => definition.heartbeat,
            CallKind::Compensate => definition.undo_heartbeat,
            CallKind::Probe => None,
        };
        let cx = StepContext::new(ContextParts {
            run: self.slot.run.clone(),
            trace: self.trace.clone(),
            call: kind,
            fence: self.state.fence,
            step: self.state.table.name(step),
            round: node.round,
            attempt: if undo {
                node.undo_attempts
            } else {
                node.attempts
            },
            keys: Keys { call: key, effect },
            timeout,
            deadline: now.after(timeout),
            // An undo can't be cancelled (rule U3), so nothing ever tells it to stop.
            stop: if undo { Arc::default() } else { told },
            pulse: Pulse::new(step, heartbeat, made, &self.unwritten.reports),
            progress: node.progress.clone(),
        });
        let span = self.spans.call(&cx, step, &self.state, &self.graph);
        let call = Call {
            step,
            timeout,
            heartbeat,
            cx,
            atomic: definition.atomic,
            encodes: !self.shared.store.keeps_values(),
        };
        (call, span)
    }

    /// What tells an attempt to stop: the run's, or for one of several ways its own.
    fn told_to_stop(&mut self, step: StepIx) -> Arc<StopSignal> {
        if !self.state.is_racing(&self.graph, step) {
            return Arc::clone(&self.stop);
        }
        let own: Arc<StopSignal> = Arc::default();
        if self.state.is_in_vain(&self.graph, step) {
            // Another way has won since this one was announced.
            own.set();
        }
        self.racing.insert(step, Arc::clone(&own));
        own
    }
}

fn not_called(step: StepIx, came: fn(AttemptResult) -> Came) -> CallEnd {
    CallEnd {
        step,
        came: came(AttemptResult::NotStarted),
        took: Duration::ZERO,
        progress: None,
    }
}
