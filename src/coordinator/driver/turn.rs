//! One turn of the machine: what it wants is prepared, and noted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inside::bodies_of;
use super::{Driver, Launch};
use crate::coordinator::limits::{Limits, Permits};
use crate::failure::{FailedEffect, Failure, FailureMode};
use crate::ids::Timestamp;
use crate::journal::{End, Event, ParkReason, Parking};
use crate::machine::{AttemptResult, ScopeIx, Todo};
use crate::saga::{Erased, Output};
use crate::step::{PayloadError, StepIx, Value};

/// What `map`s made for a step, its input if it is called, and how many items it has if it is a fan-out.
type Begins = (Vec<Value>, Option<Erased>, Option<u32>);

impl Driver {
    /// Asks the machine until it has nothing more to say, or until a wait for a signal is about to be over at
    /// an instant as of which nobody has looked for signals yet: see
    /// [`take_signals_in_time`](Self::take_signals_in_time). Says whether it has nothing more to say.
    pub(super) fn turn(&mut self, now: Timestamp) -> bool {
        loop {
            match self.state.decide(&self.graph, now) {
                Todo::Append(event) => self.note(event, now),
                Todo::Start(_) | Todo::Undo(_) | Todo::Probe(_) if self.shared.is_closing() => {
                    self.until = None;
                    break;
                }
                Todo::Start(step) if !self.is_wanted(step, now) => {}
                Todo::Gather(step) => self.gather(step, now),
                Todo::Start(step) if self.waits(step) => {
                    let event = self.state.wait_event(&self.graph, step, now);
                    self.note(event, now);
                }
                Todo::Take(step) => self.take_signal(step, now),
                Todo::Expire(step)
                    if self.looked_at != Some(now)
                        && self.state.waits_for_signal(&self.graph, step) =>
                {
                    return false;
                }
                Todo::Expire(step) => self.expire(step, now),
                // Nothing is called for what has steps inside: they take the permits.
                Todo::Start(step) if self.has_inside(step) => {
                    self.prepare_start(step, Permits::default(), now);
                }
                Todo::Start(step) => match self.permits(step) {
                    Some(permits) => self.prepare_start(step, permits, now),
                    None => self.ask_for_permits(step),
                },
                Todo::Undo(step) => self.prepare_undo(step, now),
                Todo::Probe(step) => self.prepare_probe(step, now),
                Todo::Complete => self.complete(now),
                Todo::Wait { until } => {
                    let waits = self.asked.is_empty() && self.state.is_awaiting();
                    self.until = until.or(waits.then_some(Timestamp::NEVER));
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
        true
    }

    fn prepare_start(&mut self, step: StepIx, permits: Permits, now: Timestamp) {
        let made = self.input_to_start(step);
        match made {
            Ok((mapped, input, items)) => {
                let event = self.state.start_event(&self.graph, step, mapped, items);
                self.note(event, now);
                if let Some(input) = input {
                    self.launches.push(Launch::Execute {
                        step,
                        input,
                        permits,
                    });
                }
            }
            Err(error) => {
                let event = self.state.start_event(&self.graph, step, Vec::new(), None);
                self.note(event, now);
                let failed = AttemptResult::Failed(bad_input(&error).effect(FailedEffect::NotDone));
                let event = self
                    .state
                    .step_ended(&self.graph, step, failed, Duration::ZERO, now);
                self.note(event, now);
            }
        }
    }

    fn input_to_start(&mut self, step: StepIx) -> Result<Begins, PayloadError> {
        let (ix, input) = self.fed(step)?;
        let feed = self.state.feed(ix, &input);
        let bodies = bodies_of(&self.registered, &self.state, step);
        let wired = &bodies.input;
        let node = self.state.node(step);
        // What a `map` made belongs to the round: an impure or redeployed closure must not give another
        // input under the same key (rules K2, K3).
        let mut mapped = if node.edited.is_some() || !node.mapped.is_empty() {
            node.mapped.clone()
        } else {
            wired.wiring.map(&feed)?
        };
        if !self.shared.store.keeps_values() {
            mapped.iter_mut().try_for_each(Value::encode)?;
        }
        if bodies.inside.is_some() {
            let items = self.count_items(step, || match &node.edited {
                Some(edited) => Ok(edited.clone()),
                None => wired.supply.supply_value(&feed, &mapped),
            })?;
            return Ok((mapped, None, items));
        }
        let input = match &node.edited {
            Some(edited) => wired.supply.read(edited)?,
            None => wired.supply.supply(&feed, &mapped)?,
        };
        Ok((mapped, Some(input), None))
    }

    /// Whether a step's condition lets it start: asked once per round (rule K3). Where it can't be asked, the
    /// step fails like one whose input can't be made.
    fn is_wanted(&mut self, step: StepIx, now: Timestamp) -> bool {
        if self.state.node(step).let_start {
            return true;
        }
        if bodies_of(&self.registered, &self.state, step)
            .condition
            .is_none()
        {
            return true;
        }
        let registered = Arc::clone(&self.registered);
        let Some(condition) = &bodies_of(&registered, &self.state, step).condition else {
            return true;
        };
        let verdict = self.fed(step).and_then(|(ix, input)| {
            let feed = self.state.feed(ix, &input);
            let mapped = condition.wiring.map(&feed)?;
            condition.supply.supply_value(&feed, &mapped)?.get::<bool>()
        });
        match verdict.as_deref() {
            Ok(true) => return true,
            Ok(false) => self.note(Event::PassedOver { step }, now),
            Err(error) => {
                let failed = AttemptResult::Failed(bad_input(error).effect(FailedEffect::NotDone));
                let event = self.state.start_event(&self.graph, step, Vec::new(), None);
                self.note(event, now);
                let event = self
                    .state
                    .step_ended(&self.graph, step, failed, Duration::ZERO, now);
                self.note(event, now);
            }
        }
        false
    }

    /// A step with steps inside is done: its output is made of theirs.
    fn gather(&mut self, step: StepIx, now: Timestamp) {
        let made = self.gathered(step).and_then(|mut output| {
            if !self.shared.store.keeps_values() {
                output.encode()?;
            }
            Ok(output)
        });
        let event = match made {
            Ok(output) => self.state.gathered(&self.graph, step, output, now),
            Err(error) => {
                let name = self.state.table.name(step);
                let message =
                    format!("all in `{name}` is done, but its output can't be made: {error}");
                Event::Parked(Box::new(Parking::new(ParkReason::OutputFailed, message)))
            }
        };
        self.note(event, now);
    }

    fn has_inside(&self, step: StepIx) -> bool {
        bodies_of(&self.registered, &self.state, step)
            .inside
            .is_some()
    }

    fn waits(&self, step: StepIx) -> bool {
        bodies_of(&self.registered, &self.state, step)
            .wait
            .is_some()
    }

    fn take_signal(&mut self, step: StepIx, now: Timestamp) {
        let bodies = bodies_of(&self.registered, &self.state, step);
        let (Some(wait), Some(kept)) = (&bodies.wait, self.state.signal_for(step)) else {
            return;
        };
        let made = wait.take(kept);
        self.has_waited(step, false, made, now);
    }

    fn expire(&mut self, step: StepIx, now: Timestamp) {
        let node = self.state.node(step);
        let waited = node
            .started_at
            .map_or(Duration::ZERO, |since| now.since(since));
        let place = self.state.place(&self.graph, step);
        let limit = place.graph.step(place.step).limit().unwrap_or(waited);
        let Some(wait) = &bodies_of(&self.registered, &self.state, step).wait else {
            return;
        };
        let made = wait.at_limit(limit);
        self.has_waited(step, true, made, now);
    }

    fn has_waited(
        &mut self,
        step: StepIx,
        expired: bool,
        made: Result<Value, Failure>,
        now: Timestamp,
    ) {
        let maybe = bodies_of(&self.registered, &self.state, step).maybe;
        let made = made.and_then(|output| {
            let mut output = match maybe {
                Some(maybe) => maybe(&output).map_err(|error| bad_input(&error))?,
                None => output,
            };
            if !self.shared.store.keeps_values() {
                output.encode().map_err(|error| bad_input(&error))?;
            }
            Ok(output)
        });
        let (output, failure) = match made {
            Ok(output) => (Some(output), None),
            Err(failure) => {
                let node = self.state.node(step);
                let name = self.state.table.name(step);
                let failure = failure.at(&*name, node.round, node.attempts);
                (None, Some(Box::new(failure)))
            }
        };
        let event = Event::WaitOver {
            step,
            expired,
            output,
            failure,
        };
        self.note(event, now);
    }

    fn input_again(&mut self, step: StepIx) -> Result<Erased, PayloadError> {
        let (ix, input) = self.fed(step)?;
        let feed = self.state.feed(ix, &input);
        let wired = &bodies_of(&self.registered, &self.state, step).input;
        let node = self.state.node(step);
        match &node.edited {
            Some(edited) => wired.supply.read(edited),
            // A step that was skipped was never started, so nothing was mapped for it yet.
            None if node.mapped.is_empty() => {
                let mapped = wired.wiring.map(&feed)?;
                wired.supply.supply(&feed, &mapped)
            }
            None => wired.supply.supply(&feed, &node.mapped),
        }
    }

    fn prepare_undo(&mut self, step: StepIx, now: Timestamp) {
        let event = self.state.undo_event(&self.graph, step);
        self.note(event, now);
        if self.state.node(step).child.is_some() {
            // What is inside it is undone.
            return;
        }
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
        self.state.begin_probe(&self.graph, step);
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
        let Output::Wired(output) = &self.registered.definition.output else {
            return;
        };
        let feed = self.state.feed(ScopeIx::ROOT, &self.state.header.input);
        let made = output.wiring.map(&feed).and_then(|mapped| {
            let mut value = output.supply.supply_value(&feed, &mapped)?;
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
        self.limits(step).try_acquire()
    }

    fn ask_for_permits(&mut self, step: StepIx) {
        self.state.withhold(step);
        let limits = self.limits(step);
        self.asked
            .push(Box::pin(async move { (step, limits.acquire().await) }));
    }

    pub(super) fn limits(&self, step: StepIx) -> Limits {
        let place = self.state.place_in_definition(&self.graph, step);
        Limits {
            step: self
                .registered
                .limits
                .get(place)
                .cloned()
                .unwrap_or_default(),
            all: self.shared.attempts.clone(),
            member: Arc::clone(&self.member),
        }
    }

    /// Attempts in flight learn that the run is to end; in a saga that says so, they are dropped later.
    fn tell_siblings(&mut self) {
        if self.state.is_unwanted() {
            self.racing.drain().for_each(|(_, stop)| stop.set());
        }
        let grace = self.state.stops_siblings(&self.graph);
        if (grace.is_some() || self.state.is_unwanted()) && !self.stop.is_set() {
            self.stop.set();
        }
        if let Some(grace) = grace
            && self.state.has_in_flight()
            && self.drop_at.is_none()
        {
            self.drop_at = Instant::now().checked_add(grace);
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
