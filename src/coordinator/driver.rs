//! Driving one run: ask the machine, append, do.
//!
//! The order is the promise: an event is applied, then durable, and only then acted upon. The state may
//! be ahead of the journal for the time of one append; nobody outside sees it then, and if the append is
//! lost the driver goes away with its state.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

use crate::coordinator::attempt::{Call, CallEnd, Came, Permits};
use crate::coordinator::error::CommandError;
use crate::coordinator::shared::{DriverGuard, Registered, RunPermit, Shared};
use crate::coordinator::slot::{Command, Settled, Slot, Started};
use crate::failure::{FailedEffect, Failure, FailureMode};
use crate::ids::Timestamp;
use crate::journal::{AppendId, CancelTold, End, Event, ParkReason, Parking, Record, Standing};
use crate::machine::{AttemptResult, EffectNow, State, Todo};
use crate::partial::Snapshot;
use crate::saga::{BoxFuture, Erased, Graph};
use crate::step::{ContextParts, Effect, Keys, PayloadError, StepContext, StepIx, StopSignal};
use crate::store::{Append, AppendError};

/// How long an append that was not written waits before it is tried again.
const FIRST_STALL: Duration = Duration::from_millis(50);
const LONGEST_STALL: Duration = Duration::from_secs(5);

pub(super) struct Driver {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    registered: Arc<Registered>,
    graph: Arc<Graph>,
    state: State,
    /// The last record that is in the journal.
    seq: u64,
    append_id: AppendId,
    /// How the store thinks the run stands.
    standing: Option<Standing>,
    /// Whether the run's first record is still to be written.
    starting: bool,
    batch: Vec<Event<StepIx>>,
    /// Calls that may be made once the batch is durable.
    launches: Vec<Launch>,
    answers: Vec<(Command, Option<CancelTold>)>,
    calls: FuturesUnordered<BoxFuture<CallEnd>>,
    over: Vec<CallEnd>,
    /// Permits that were asked for, and those that came.
    asked: FuturesUnordered<BoxFuture<(StepIx, Option<Permits>)>>,
    granted: Vec<(StepIx, Permits)>,
    stop: Arc<StopSignal>,
    /// When attempts that were told to stop are dropped.
    drop_at: Option<Instant>,
    until: Option<Timestamp>,
    _permit: RunPermit,
    _guard: DriverGuard,
}

enum Launch {
    Execute {
        step: StepIx,
        input: Erased,
        permits: Permits,
    },
    Undo {
        step: StepIx,
        input: Erased,
    },
    Probe {
        step: StepIx,
        input: Erased,
    },
}

/// Why a driver goes away before the run has come to rest.
enum Gone {
    Lost,
    NotStarted(String),
    Closed,
}

impl Driver {
    pub(super) fn new(
        shared: &Arc<Shared>,
        slot: Arc<Slot>,
        registered: Arc<Registered>,
        state: State,
        seq: u64,
        permit: RunPermit,
    ) -> Self {
        Driver {
            graph: Arc::clone(&registered.definition.graph),
            slot,
            registered,
            state,
            seq,
            append_id: AppendId::random(),
            standing: None,
            starting: seq == 0,
            batch: Vec::new(),
            launches: Vec::new(),
            answers: Vec::new(),
            calls: FuturesUnordered::new(),
            over: Vec::new(),
            asked: FuturesUnordered::new(),
            granted: Vec::new(),
            stop: Arc::default(),
            drop_at: None,
            until: None,
            _permit: permit,
            _guard: Shared::driver_begins(shared),
            shared: Arc::clone(shared),
        }
    }

    /// An event that comes before all that the machine decides: the start, or a claim.
    pub(super) fn first(&mut self, event: Event<StepIx>) {
        let now = self.shared.clock.now();
        self.note(event, now);
    }

    /// Drives the run until it has ended, rests, or belongs to somebody else.
    pub(super) async fn drive(mut self) {
        loop {
            // Until its start is durable the run may turn out to be another, whose commands they are.
            if !self.starting {
                self.take_commands();
            }
            self.turn();
            if !self.batch.is_empty()
                && let Err(gone) = self.append().await
            {
                return self.leave(&gone);
            }
            self.answer();
            if self.state.is_ended() {
                return self.end();
            }
            self.launch();
            if !self.over.is_empty() {
                self.take_in();
                continue;
            }
            if self.may_rest() {
                if self.rest() {
                    return;
                }
                continue;
            }
            if self.wait().await.is_err() {
                return self.leave(&Gone::Closed);
            }
            self.take_in();
        }
    }

    fn note(&mut self, event: Event<StepIx>, at: Timestamp) {
        self.state.apply(&self.graph, &event, at);
        self.batch.push(event);
    }

    fn take_commands(&mut self) {
        let now = self.shared.clock.now();
        for command in self.slot.take_commands() {
            match command.verb.event(&self.state, &self.graph) {
                Ok(event) => {
                    let told = match &event {
                        Event::CancelRequested { told, .. } => Some(*told),
                        _ => None,
                    };
                    self.note(event, now);
                    self.answers.push((command, told));
                }
                Err(why) => {
                    let refused = CommandError::Refused {
                        run: self.slot.run.clone(),
                        why,
                    };
                    // Whoever asked may have gone.
                    drop(command.answer.send(Err(refused)));
                }
            }
        }
    }

    /// Asks the machine until it has nothing more to say.
    fn turn(&mut self) {
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
        let mapped = if begun.is_empty() {
            wired.wiring.map(&self.state)
        } else {
            Ok(begun.clone())
        };
        let made = mapped.and_then(|mut mapped| {
            if !self.shared.store.keeps_values() {
                mapped.iter_mut().try_for_each(crate::step::Value::encode)?;
            }
            let input = wired.supply.supply(&self.state, &mapped)?;
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
        wired
            .supply
            .supply(&self.state, &self.state.nodes[step.at()].mapped)
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

    fn limits(&self, step: StepIx) -> [Option<Arc<Semaphore>>; 2] {
        [
            self.registered.limits[step.at()].clone(),
            self.shared.attempts.clone(),
        ]
    }

    /// Attempts in flight learn that the run is to end; in a saga that says so, they are dropped later.
    fn tell_siblings(&mut self) {
        let grace = self.state.stops_siblings(&self.graph);
        if (grace.is_some() || self.state.is_cancelled()) && !self.stop.is_set() {
            self.stop.set();
        }
        if let Some(grace) = grace
            && self.state.has_in_flight()
            && self.drop_at.is_none()
        {
            self.drop_at = Some(Instant::now() + grace);
        }
    }

    /// Appends the batch as one record (rule W2). Attempts in flight go on meanwhile.
    async fn append(&mut self) -> Result<(), Gone> {
        let events = std::mem::take(&mut self.batch);
        let standing = self.state.standing(if self.asked.is_empty() {
            self.until
        } else {
            None
        });
        self.append_id = self.append_id.next();
        let at = self.shared.clock.now();
        let record = Record {
            seq: self.seq + 1,
            append_id: self.append_id,
            at,
            events,
        };
        let append = Append {
            run: self.slot.run.clone(),
            record,
            steps: self.graph.table.clone(),
            standing,
            standing_changed: self.standing != Some(standing),
        };
        // A store that keeps values answers at once and for certain, so nothing has to be sent again.
        let spare = (!self.shared.store.keeps_values()).then(|| append.clone());
        let mut next = Some(append);
        let mut stall = FIRST_STALL;
        while let Some(append) = next.take() {
            let Err(error) = self.append_once(append).await else {
                break;
            };
            match error {
                AppendError::Conflict => return Err(Gone::Lost),
                AppendError::Dead(cause) => {
                    self.shared.store_died(cause.to_string());
                    return Err(Gone::Closed);
                }
                AppendError::NotWritten(cause) if self.starting => {
                    return Err(Gone::NotStarted(format!(
                        "the store did not take it ({cause})"
                    )));
                }
                AppendError::Unknown(cause) | AppendError::NotWritten(cause) => {
                    tracing::warn!(run = %self.slot.run, %cause, "the append is sent again in {stall:?}");
                    next.clone_from(&spare);
                    if next.is_none() {
                        return Err(Gone::Lost);
                    }
                    self.stall(stall).await?;
                    stall = (stall * 2).min(LONGEST_STALL);
                }
            }
        }
        self.seq += 1;
        self.standing = Some(standing);
        if std::mem::take(&mut self.starting) {
            self.slot.set_started(Started::Durable);
        }
        self.slot.changed.notify_waiters();
        Ok(())
    }

    async fn append_once(&mut self, append: Append) -> Result<(), AppendError> {
        let mut appending = self.shared.store.append(append);
        poll_fn(|cx| {
            self.poll_calls(cx);
            Pin::new(&mut appending).poll(cx)
        })
        .await
    }

    /// Waits before an append is sent again; results are kept meanwhile.
    async fn stall(&mut self, delay: Duration) -> Result<(), Gone> {
        let mut sleep = std::pin::pin!(tokio::time::sleep(delay));
        let shared = Arc::clone(&self.shared);
        poll_fn(|cx| {
            self.slot.waker.register(cx.waker());
            self.poll_calls(cx);
            if shared.is_closing() {
                Poll::Ready(Err(Gone::Closed))
            } else {
                sleep.as_mut().poll(cx).map(Ok)
            }
        })
        .await
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(end)) = Pin::new(&mut self.calls).poll_next(cx) {
            self.over.push(end);
        }
    }

    /// What was asked for is durable now.
    fn answer(&mut self) {
        for (command, told) in self.answers.drain(..) {
            drop(command.answer.send(Ok(told)));
        }
    }

    /// Makes the calls that were announced, now that this is durable.
    fn launch(&mut self) {
        if self.stop.is_set()
            && !self.state.is_cancelled()
            && self.state.stops_siblings(&self.graph).is_none()
        {
            // The run goes on after all: what starts now is not told to stop.
            self.stop = Arc::default();
            self.drop_at = None;
        }
        if self.launches.is_empty() {
            return;
        }
        // A shutdown or a cancel before the first poll: the call isn't made (rule F1).
        let closing = self.shared.is_closing();
        let cancelled = closing || self.slot.has_cancel();
        for launch in std::mem::take(&mut self.launches) {
            match launch {
                Launch::Execute { step, .. } if cancelled => self.not_called(step, Came::Execute),
                Launch::Undo { step, .. } if closing => self.not_called(step, Came::Undo),
                Launch::Execute {
                    step,
                    input,
                    permits,
                } => {
                    let (call, cx) = self.call(step, false);
                    let future = self.registered.definition.bodies[step.at()]
                        .body
                        .execute(cx, input);
                    let stops = matches!(self.graph.siblings, crate::Siblings::Stop { .. });
                    let stop = stops.then(|| Arc::clone(&self.stop));
                    self.calls
                        .push(Box::pin(call.execute(future, stop, permits)));
                }
                Launch::Undo { step, input } => {
                    let (call, cx) = self.call(step, true);
                    let node = &self.state.nodes[step.at()];
                    let effect = match (node.effect, &node.output) {
                        (EffectNow::Done, Some(output)) => Effect::Done(output.clone()),
                        _ => Effect::InDoubt,
                    };
                    let future = self.registered.definition.bodies[step.at()]
                        .body
                        .compensate(cx, input, effect);
                    let limits = self.limits(step);
                    self.calls.push(Box::pin(call.undo(future, limits)));
                }
                Launch::Probe { step, input } => {
                    let (call, cx) = self.call(step, false);
                    if let Some(probe) = &self.registered.definition.bodies[step.at()].probe {
                        let future = probe.probe(cx, input);
                        self.calls.push(Box::pin(call.probe(future)));
                    }
                }
            }
        }
    }

    fn not_called(&mut self, step: StepIx, came: fn(AttemptResult) -> Came) {
        self.over.push(CallEnd {
            step,
            came: came(AttemptResult::NotStarted),
            took: Duration::ZERO,
        });
    }

    fn call(&self, step: StepIx, undo: bool) -> (Call, StepContext) {
        let (node, definition) = (&self.state.nodes[step.at()], &self.graph.steps[step.at()]);
        let effect = node.key.clone().unwrap_or_default();
        let key = if undo {
            Arc::from(format!("{effect}/undo"))
        } else {
            Arc::clone(&effect)
        };
        let timeout = if undo {
            definition.undo_timeout
        } else {
            definition.timeout
        };
        let cx = StepContext::new(ContextParts {
            run: self.slot.run.clone(),
            trace_id: self.state.header.trace_id.as_str().into(),
            fence: self.state.fence,
            steps: self.graph.table.clone(),
            step,
            round: node.round,
            attempt: if undo {
                node.undo_attempts
            } else {
                node.attempts
            },
            keys: Keys { call: key, effect },
            timeout,
            deadline: self.shared.clock.now().after(timeout),
            // An undo can't be cancelled (rule U3), so nothing ever tells it to stop.
            stop: if undo {
                Arc::default()
            } else {
                Arc::clone(&self.stop)
            },
        });
        let call = Call {
            step,
            timeout,
            classifier: Arc::clone(&self.shared.classifier),
            atomic: definition.atomic,
            encodes: !self.shared.store.keeps_values(),
        };
        (call, cx)
    }

    /// Turns calls that are over into events.
    fn take_in(&mut self) {
        if self.over.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        for end in std::mem::take(&mut self.over) {
            let event = match end.came {
                Came::Execute(result) => {
                    self.state
                        .step_ended(&self.graph, end.step, result, end.took, now)
                }
                Came::Undo(result) => {
                    self.state
                        .undo_ended(&self.graph, end.step, result, end.took, now)
                }
                Came::Probe(answer, error) => Event::Probed {
                    step: end.step,
                    answer,
                    error,
                },
            };
            if let Event::StepFailed { failure, .. } | Event::UndoFailed { failure, .. } = &event {
                tracing::warn!(run = %self.slot.run, saga = %self.graph.saga, "{failure}");
            }
            self.note(event, now);
        }
    }

    /// Whether nothing will happen for a while.
    fn may_rest(&self) -> bool {
        let nothing_runs =
            self.calls.is_empty() && self.asked.is_empty() && self.granted.is_empty();
        let long = match self.until {
            Some(until) => until.since(self.shared.clock.now()) > self.shared.resident,
            None => self.state.is_parked(),
        };
        nothing_runs && long && !self.shared.is_closing()
    }

    /// Lets go of everything but a timer entry. Says no if a command came meanwhile.
    fn rest(&mut self) -> bool {
        if self.slot.has_commands() {
            return false;
        }
        let parked = self.state.is_parked();
        if parked {
            let why = self
                .state
                .parked
                .as_ref()
                .map(|parked| parked.message.as_str())
                .unwrap_or_default();
            tracing::warn!(run = %self.slot.run, saga = %self.graph.saga, %why, "the run is parked");
        }
        let settled = parked.then(|| Settled::Parked(Arc::new(self.snapshot(self.state.clone()))));
        if !self.slot.deactivate_if_idle(settled) {
            return false;
        }
        // Only now: a timer that rings while the run is still driven would do nothing.
        if let Some(until) = self.until.filter(|_| !parked) {
            self.shared.timers.add(until, self.slot.run.clone());
        }
        self.shared.forget_slot(&self.slot);
        true
    }

    fn snapshot(&self, state: State) -> Snapshot {
        Snapshot {
            run: self.slot.run.clone(),
            state,
            graph: Arc::clone(&self.graph),
        }
    }

    /// Waits until something happens; fails when the run is not to be driven any more.
    async fn wait(&mut self) -> Result<(), ()> {
        let now = self.shared.clock.now();
        let timer = self.until.map(|until| Instant::now() + until.since(now));
        let wake_at = match (timer, self.drop_at) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        let mut sleep: Option<Pin<Box<Sleep>>> =
            wake_at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        poll_fn(|cx| {
            self.slot.waker.register(cx.waker());
            let nothing_runs = self.calls.is_empty();
            if self.shared.is_aborting() || (self.shared.is_closing() && nothing_runs) {
                return Poll::Ready(Err(()));
            }
            self.poll_calls(cx);
            let granted = self.granted.len();
            while let Poll::Ready(Some((step, permits))) = Pin::new(&mut self.asked).poll_next(cx) {
                self.state.release(step);
                self.granted.extend(permits.map(|permits| (step, permits)));
            }
            if !self.over.is_empty() || self.granted.len() > granted || self.slot.has_commands() {
                return Poll::Ready(Ok(()));
            }
            if let Some(sleep) = &mut sleep
                && sleep.as_mut().poll(cx).is_ready()
            {
                if self.drop_at.is_some_and(|at| at <= Instant::now()) {
                    self.stop.drop_now();
                    self.drop_at = None;
                }
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    fn end(self) {
        let shared = Arc::clone(&self.shared);
        let slot = Arc::clone(&self.slot);
        let settled = Settled::Ended(Arc::new(Snapshot {
            run: slot.run.clone(),
            state: self.state,
            graph: self.graph,
        }));
        shared
            .registry
            .remove_if(&slot.run, |held| Arc::ptr_eq(held, &slot));
        for command in slot.retire(settled) {
            let why = crate::machine::Refused::Ended;
            drop(command.answer.send(Err(CommandError::Refused {
                run: slot.run.clone(),
                why,
            })));
        }
    }

    fn leave(self, gone: &Gone) {
        let slot = &self.slot;
        let why = match gone {
            Gone::Lost => "the run belongs to somebody else".to_owned(),
            Gone::NotStarted(why) => why.clone(),
            Gone::Closed => self.shared.why_closed(),
        };
        if self.starting && matches!(gone, Gone::Lost) {
            slot.set_started(Started::Taken);
            return Shared::look_again(&self.shared, Arc::clone(slot));
        }
        if self.starting {
            slot.set_started(Started::Failed(why.clone()));
        }
        let settled = match gone {
            Gone::Lost => Settled::Lost,
            Gone::NotStarted(_) | Gone::Closed => Settled::Closed(why.clone()),
        };
        self.shared
            .registry
            .remove_if(&slot.run, |held| Arc::ptr_eq(held, slot));
        let mut commands = slot.retire(settled);
        commands.extend(self.answers.into_iter().map(|(command, _)| command));
        for command in commands {
            let closed = CommandError::Closed {
                run: slot.run.clone(),
                why: why.clone(),
            };
            drop(command.answer.send(Err(closed)));
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
