//! One turn of the machine: what it wants is prepared, and noted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Driver, Launch};
use crate::coordinator::attempt::Permits;
use crate::failure::{FailedEffect, Failure, FailureMode};
use crate::ids::Timestamp;
use crate::journal::{End, Event, ParkReason, Parking};
use crate::machine::{AttemptResult, Todo};
use crate::saga::Erased;
use crate::step::{PayloadError, StepIx};

impl Driver {
    /// Asks the machine until it has nothing more to say.
    pub(super) fn turn(&mut self) {
        let now = self.shared.clock.now();
        loop {
            match self.state.decide(&self.graph, now) {
                Todo::Append(event) => self.note(event, now),
                Todo::Start(_) | Todo::Undo(_) | Todo::Probe(_) if self.shared.is_closing() => {
                    self.until = None;
                    break;
                }
                Todo::Start(step) => match self.permits(step) {
                    Some(permits) => self.prepare_start(step, permits, now),
                    None => self.ask_for_permits(step),
                },
                Todo::Undo(step) => self.prepare_undo(step, now),
                Todo::Probe(step) => self.prepare_probe(step, now),
                Todo::Complete => self.complete(now),
                Todo::Wait { until } => {
                    self.until = until;
                    break;
                }
                Todo::Rest => {
                    self.until = None;
                    break;
                }
            }
        }
        // A permit that came when its step may not start any more is given back: an undo may wait for it.
        self.granted.clear();
        self.tell_siblings();
    }

    fn prepare_start(&mut self, step: StepIx, permits: Permits, now: Timestamp) {
        let registered = Arc::clone(&self.registered);
        let wired = &registered.definition.bodies[step.at()].input;
        // What a `map` made belongs to the round: an impure or redeployed closure must not give another
        // input under the same key (rules K2, K3).
        let begun = &self.state.nodes[step.at()].mapped;
        let edited = self.state.nodes[step.at()].edited.as_ref();
        let mapped = if edited.is_some() || !begun.is_empty() {
            Ok(begun.clone())
        } else {
            wired.wiring.map(&self.state)
        };
        let made = mapped.and_then(|mut mapped| {
            if !self.shared.store.keeps_values() {
                mapped.iter_mut().try_for_each(crate::step::Value::encode)?;
            }
            let input = match edited {
                Some(edited) => wired.supply.read(edited)?,
                None => wired.supply.supply(&self.state, &mapped)?,
            };
            Ok((mapped, input))
        });
        match made {
            Ok((mapped, input)) => {
                let event = self.state.start_event(&self.graph, step, mapped);
                self.note(event, now);
                self.launches.push(Launch::Execute {
                    step,
                    input,
                    permits,
                });
            }
            Err(error) => {
                let event = self.state.start_event(&self.graph, step, Vec::new());
                self.note(event, now);
                let failed = AttemptResult::Failed(bad_input(&error).effect(FailedEffect::NotDone));
                let event = self
                    .state
                    .step_ended(&self.graph, step, failed, Duration::ZERO, now);
                self.note(event, now);
            }
        }
    }

    fn input_again(&self, step: StepIx) -> Result<Erased, PayloadError> {
        let wired = &self.registered.definition.bodies[step.at()].input;
        let node = &self.state.nodes[step.at()];
        match &node.edited {
            Some(edited) => wired.supply.read(edited),
            // A step that was skipped was never started, so nothing was mapped for it yet.
            None if node.mapped.is_empty() => {
                let mapped = wired.wiring.map(&self.state)?;
                wired.supply.supply(&self.state, &mapped)
            }
            None => wired.supply.supply(&self.state, &node.mapped),
        }
    }

    fn prepare_undo(&mut self, step: StepIx, now: Timestamp) {
        let event = self.state.undo_event(&self.graph, step);
        self.note(event, now);
        match self.input_again(step) {
            Ok(input) => self.launches.push(Launch::Undo { step, input }),
            Err(error) => {
                let failed = AttemptResult::Failed(bad_input(&error));
                let event = self
                    .state
                    .undo_ended(&self.graph, step, failed, Duration::ZERO, now);
                self.note(event, now);
            }
        }
    }

    fn prepare_probe(&mut self, step: StepIx, now: Timestamp) {
        self.state.begin_probe(step);
        match self.input_again(step) {
            Ok(input) => self.launches.push(Launch::Probe { step, input }),
            Err(error) => {
                let (answer, error) = (crate::Probed::Unknown, Some(error.to_string()));
                self.note(
                    Event::Probed {
                        step,
                        answer,
                        error,
                    },
                    now,
                );
            }
        }
    }

    fn complete(&mut self, now: Timestamp) {
        let output = &self.registered.definition.output;
        let made = output.wiring.map(&self.state).and_then(|mapped| {
            let mut value = output.supply.supply_value(&self.state, &mapped)?;
            if !self.shared.store.keeps_values() {
                value.encode()?;
            }
            Ok(value)
        });
        let event = match made {
            Ok(output) => Event::Ended(End::Completed { output }),
            Err(error) => {
                let message = format!("all steps are done, but the output can't be made: {error}");
                Event::Parked(Box::new(Parking::new(ParkReason::OutputFailed, message)))
            }
        };
        self.note(event, now);
    }

    /// The permits for a start, if they are to be had at once.
    fn permits(&mut self, step: StepIx) -> Option<Permits> {
        if let Some(index) = self
            .granted
            .iter()
            .position(|(granted, _)| *granted == step)
        {
            return Some(self.granted.swap_remove(index).1);
        }
        let now = |limit: Option<Arc<Semaphore>>| match limit {
            Some(limit) => limit.try_acquire_owned().ok().map(Some),
            None => Some(None),
        };
        let step = now(self.registered.limits[step.at()].clone())?;
        let global = now(self.shared.attempts.clone())?;
        Some(Permits { step, global })
    }

    fn ask_for_permits(&mut self, step: StepIx) {
        self.state.withhold(step);
        let limits = self.limits(step);
        self.asked.push(Box::pin(async move {
            let permits = Permits::acquire(limits).await;
            (step, permits)
        }));
    }

    pub(super) fn limits(&self, step: StepIx) -> [Option<Arc<Semaphore>>; 2] {
        [
            self.registered.limits[step.at()].clone(),
            self.shared.attempts.clone(),
        ]
    }

    /// Attempts in flight learn that the run is to end; in a saga that says so, they are dropped later.
    fn tell_siblings(&mut self) {
        let grace = self.state.stops_siblings(&self.graph);
        if (grace.is_some() || self.state.is_unwanted()) && !self.stop.is_set() {
            self.stop.set();
        }
        if let Some(grace) = grace
            && self.state.has_in_flight()
            && self.drop_at.is_none()
        {
            self.drop_at = Some(Instant::now() + grace);
        }
    }
}

fn bad_input(error: &PayloadError) -> Failure {
    let mode = match error {
        PayloadError::Panicked { .. } | PayloadError::ClonePanicked { .. } => {
            FailureMode::StepLogic
        }
        PayloadError::Encode { .. } | PayloadError::Decode { .. } => FailureMode::StepContract,
    };
    Failure::new(mode, format!("its input can't be made: {error}")).retryable(false)
}
