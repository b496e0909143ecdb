//! Driving one run: ask the machine, append, do.
//!
//! The order is the promise: an event is applied, then durable, and only then acted upon. The state may
//! be ahead of the journal for the time of one append; nobody outside sees it then, and if the append is
//! lost the driver goes away with its state.

mod append;
mod in_flight;
mod inside;
mod launch;
mod progress;
mod rest;
mod stale;
mod turn;

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};
use tracing::{Instrument, Span};

use crate::coordinator::attempt::{CallEnd, Came};
use crate::coordinator::commands::Told;
use crate::coordinator::error::CommandError;
use crate::coordinator::fleet::Member;
use crate::coordinator::limits::Permits;
use crate::coordinator::shared::{DriverGuard, Registered, RunPermit, Shared};
use crate::coordinator::slot::{Asking, Slot};
use crate::coordinator::spans::Spans;
use crate::failure::Stale;
use crate::ids::Timestamp;
use crate::journal::{AppendId, Event, Signalled, Standing, Verb, VerbName};
use crate::machine::{Asked, Refused, State};
use crate::observe::RunCounts;
use crate::saga::{Erased, Graph};
use crate::step::{Probed, StepIx, StopSignal};
use crate::trace_context::RunTrace;

pub(super) struct Driver {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    /// As whom it drives. Once that is over it does nothing more.
    member: Arc<Member>,
    registered: Arc<Registered>,
    /// The definition's graph under the policies of this edition.
    graph: Arc<Graph>,
    edition: u64,
    state: Box<State>,
    /// The last record that is in the journal.
    seq: u64,
    append_id: AppendId,
    /// How the store thinks the run stands.
    standing: Option<Standing>,
    /// Whether the run's first record is still to be written.
    starting: bool,
    batch: Vec<Event<StepIx>>,
    /// When the first event of the batch happened: the time of its record. All of the batch is applied
    /// at this time, so that whoever folds the journal later comes to the very same state.
    batch_at: Option<Timestamp>,
    inputs: inside::Inputs,
    /// Calls that may be made once the batch is durable.
    launches: Vec<Launch>,
    answers: Vec<(Asking, Told)>,
    calls: InFlight<CallEnd>,
    over: Vec<CallEnd>,
    /// Permits that were asked for, and those that came.
    asked: InFlight<(StepIx, Option<Permits>)>,
    granted: Vec<(StepIx, Permits)>,
    unwritten: Unwritten,
    stop: Arc<StopSignal>,
    /// The calls of ways that race: they are told to stop once another way has won.
    racing: HashMap<StepIx, Arc<StopSignal>>,
    /// When attempts that were told to stop are dropped.
    drop_at: Option<Instant>,
    until: Option<Timestamp>,
    /// How often the run was claimed anew since a participant refused its fence.
    claims: u32,
    /// The instant as of which signals were looked for in the store.
    looked_at: Option<Timestamp>,
    trace: RunTrace,
    spans: Spans,
    counts: RunCounts,
    _permit: RunPermit,
    _guard: DriverGuard,
}

use in_flight::InFlight;
use progress::Unwritten;

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
    /// A participant says that it is lost: the journal knows.
    Stale(Stale),
    NotStarted(String),
    Closed,
}

/// Why nobody drives the run any more.
enum Over {
    Ended,
    Rests,
    Gone(Gone),
}

impl Driver {
    pub(super) fn new(
        shared: &Arc<Shared>,
        slot: Arc<Slot>,
        registered: Arc<Registered>,
        state: Box<State>,
        (seq, append_id): (u64, AppendId),
        (member, permit): (Arc<Member>, RunPermit),
    ) -> Box<Self> {
        Box::new(Driver {
            edition: registered.edition(),
            graph: registered.graph(),
            trace: RunTrace::new(
                &state.header.trace_id,
                state.header.traceparent.as_deref(),
                state.header.tracestate.as_deref(),
            ),
            spans: Spans::of_caller(),
            counts: registered.meters.run(state.is_parked()),
            slot,
            member,
            registered,
            state,
            seq,
            append_id,
            standing: None,
            starting: seq == 0,
            batch: Vec::new(),
            batch_at: None,
            inputs: inside::Inputs::default(),
            launches: Vec::with_capacity(1),
            answers: Vec::new(),
            calls: InFlight::default(),
            over: Vec::with_capacity(1),
            asked: InFlight::default(),
            granted: Vec::new(),
            unwritten: Unwritten::default(),
            stop: Arc::default(),
            racing: HashMap::new(),
            drop_at: None,
            until: None,
            claims: 0,
            looked_at: None,
            _permit: permit,
            _guard: Shared::driver_begins(shared),
            shared: Arc::clone(shared),
        })
    }

    /// An event that comes before all that the machine decides: the start, or a claim.
    pub(super) fn first(&mut self, event: Event<StepIx>, at: Timestamp) {
        self.note(event, at);
    }

    /// Drives the run until it has ended, rests, or belongs to somebody else.
    pub(super) async fn drive(mut self: Box<Self>) {
        loop {
            let began = if self.starting {
                self.begin().await
            } else {
                Ok(())
            };
            let over = match began {
                Ok(()) => self.go_on().await,
                Err(gone) => Over::Gone(gone),
            };
            match over {
                Over::Ended => return self.end(),
                Over::Rests => return,
                // In a box, since hardly any run comes here, and each would carry it along.
                Over::Gone(Gone::Stale(stale)) => match Box::pin(self.look_whose(stale)).await {
                    Some(driver) => self = driver,
                    None => return,
                },
                Over::Gone(gone) => return self.leave(&gone),
            }
        }
    }

    /// Makes the start durable, with the first calls announced. Until then the run may turn out to be
    /// another, whose commands they are, and whose trace.
    async fn begin(&mut self) -> Result<(), Gone> {
        self.take_up_policies();
        // Nothing has waited yet, so nothing is over.
        self.turn(self.shared.clock.now());
        self.append().await
    }

    async fn go_on(&mut self) -> Over {
        // What a start has announced comes before anything else.
        let announced = self.seq == 1 && self.standing.is_some();
        // A run may have ended before it could be taken up: nothing is left to be seen then.
        let span = if announced || !self.state.is_ended() {
            self.spans
                .begin(&self.slot.run, &self.state, &self.graph, &self.trace)
        } else {
            Span::none()
        };
        if span.is_disabled() {
            return self.until_over(announced).await;
        }
        Box::pin(self.until_over(announced).instrument(span)).await
    }

    async fn until_over(&mut self, mut announced: bool) -> Over {
        // When the clock was read last, where nothing has been waited for since.
        let mut just_now = None;
        loop {
            if !std::mem::take(&mut announced) {
                self.take_up_policies();
                let now = just_now.take().unwrap_or_else(|| self.shared.clock.now());
                self.take_commands(now);
                if !self.turn(now) {
                    // In a box, as all that hardly any run comes to: each would carry it along.
                    Box::pin(self.take_signals_in_time(now)).await;
                    self.turn(now);
                }
                self.note_news();
                if !self.batch.is_empty()
                    && let Err(gone) = self.append().await
                {
                    return Over::Gone(gone);
                }
            }
            self.answer();
            if self.state.is_ended() {
                return Over::Ended;
            }
            if self.member.is_over() {
                // What was announced is called by whoever claims the run, and it was frozen perhaps since.
                return Over::Gone(Gone::Lost);
            }
            poll_fn(|cx| {
                self.launch(cx);
                if !self.over.is_empty() {
                    // Nothing is waited for then: what was granted meanwhile starts in the same turn.
                    self.poll_asked(cx);
                }
                Poll::Ready(())
            })
            .await;
            if !self.over.is_empty() {
                match self.take_in() {
                    Ok(now) => just_now = now,
                    Err(gone) => return Over::Gone(gone),
                }
                continue;
            }
            if self.may_rest() {
                if self.rest() {
                    return Over::Rests;
                }
                continue;
            }
            if let Err(gone) = self.wait().await {
                Box::pin(self.last_words()).await;
                return Over::Gone(gone);
            }
            match self.take_in() {
                Ok(now) => just_now = now,
                Err(gone) => return Over::Gone(gone),
            }
        }
    }

    fn note(&mut self, event: Event<StepIx>, now: Timestamp) {
        let at = *self.batch_at.get_or_insert(now);
        self.state.apply(&self.graph, &event, at);
        let place = |step| self.state.place_in_definition(&self.graph, step);
        self.counts.note(&event, place);
        self.spans
            .told(&event, &self.slot.run, &self.state, &self.graph);
        if let Event::StepDone { step, .. }
        | Event::WaitOver { step, .. }
        | Event::Probed { step, .. } = &event
            && !self.racing.is_empty()
        {
            for loser in self.state.losers(&self.graph, *step) {
                if let Some(stop) = self.racing.get(&loser) {
                    stop.set();
                }
            }
        }
        if self.batch.capacity() == 0 {
            // What most records have.
            self.batch.reserve_exact(2);
        }
        self.batch.push(event);
    }

    /// Goes on under the policies that were set meanwhile, if any were. Folding does not depend on them,
    /// so that the state stays what it is.
    fn take_up_policies(&mut self) {
        let edition = self.registered.edition();
        if edition != self.edition {
            self.edition = edition;
            self.graph = self.registered.graph();
        }
    }

    fn take_commands(&mut self, now: Timestamp) {
        for asking in self.slot.take_commands() {
            match self.events_of(&asking) {
                Ok(events) => {
                    for event in events {
                        self.note(event, now);
                    }
                    let told = match asking.verb {
                        Verb::Cancel => Told::cancel(self.state.cancel_told()),
                        Verb::Signal { .. } => {
                            Told::Signal(self.state.signal_told(asking.token.as_deref()))
                        }
                        _ => Told::Done,
                    };
                    self.answers.push((asking, told));
                }
                Err(why) => {
                    let legal = self.state.legal(&self.graph);
                    let refused = CommandError::refused(&self.slot.run, why, legal);
                    // Whoever asked may have gone.
                    drop(asking.answer.send(Err(refused)));
                }
            }
        }
    }

    /// A wait is not over while a signal that came in time lies in the store (rule I5): the time at which the
    /// store accepted it decides, not when somebody came to read it.
    async fn take_signals_in_time(&mut self, now: Timestamp) {
        let run = self.slot.run.clone();
        let open = loop {
            match self.shared.store.open_commands_of(&run).await {
                Ok(open) => break open,
                Err(error) if self.shared.is_closing() || self.member.is_over() => {
                    tracing::warn!(%run, %error, "signals can't be read");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%run, %error, "signals can't be read: trying again");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        };
        self.looked_at = Some(now);
        for entry in open {
            let command = entry.command;
            if command.verb.name() != VerbName::Signal {
                continue;
            }
            // Nobody waits for this answer: the command is given one where it was handed in, as ever.
            let (answer, _) = tokio::sync::oneshot::channel();
            let asking = Asking {
                verb: command.verb,
                by: command.by,
                reason: command.reason,
                at: command.at,
                token: Some(command.token),
                answer,
            };
            for event in self.events_of(&asking).unwrap_or_default() {
                self.note(event, now);
            }
        }
        // Those that were sent here meanwhile came in time, too, if they say so.
        self.take_commands(self.shared.clock.now());
    }

    fn events_of(&self, asking: &Asking) -> Result<Vec<Event<StepIx>>, Refused> {
        let asked = Asked {
            by: &asking.by,
            reason: &asking.reason,
            at: asking.at,
        };
        let mut events =
            self.state
                .command(&self.graph, &asking.verb, asked, asking.token.as_deref())?;
        // Whether what an operator wrote down is a value of its step's only the step's own types can tell.
        let bodies = |step: &StepIx| inside::bodies_of(&self.registered, &self.state, *step);
        let name = |step: &StepIx| self.state.table.name(*step).to_string();
        for event in &mut events {
            match event {
                Event::Signalled(signalled) => {
                    let Signalled {
                        name,
                        sent,
                        kept,
                        by,
                        reason,
                        ..
                    } = &mut **signalled;
                    let wait = inside::wait_named(&self.registered.definition, name);
                    let made = wait.map_or_else(
                        || Err("nothing waits for it".to_owned()),
                        |wait| wait.accept(sent, by, reason),
                    );
                    let made = made.and_then(|mut made| {
                        if !self.shared.store.keeps_values() {
                            made.encode().map_err(|error| error.to_string())?;
                            sent.encode().map_err(|error| error.to_string())?;
                        }
                        Ok(made)
                    });
                    *kept = made.map_err(|why| Refused::BadSignal {
                        name: name.to_string(),
                        why,
                    })?;
                }
                Event::InputEdited { step, input, .. } => {
                    if let Err(error) = bodies(step).input.supply.read(input) {
                        let (step, why) = (name(step), error.to_string());
                        return Err(Refused::BadInput { step, why });
                    }
                }
                Event::Skipped { step, output, .. }
                | Event::Resolved {
                    step,
                    answer: Probed::Done(output),
                    ..
                } => {
                    if let Err(error) = bodies(step).body.reads(output) {
                        let (step, why) = (name(step), error.to_string());
                        return Err(Refused::BadOutput { step, why });
                    }
                }
                _ => {}
            }
        }
        Ok(events)
    }

    /// Lets attempts go on, for as long as the run is this worker's: not a step further once that is over.
    fn poll_calls(&mut self, cx: &mut Context<'_>) {
        if self.member.is_over() {
            return;
        }
        while let Some(end) = self.calls.poll_next(cx) {
            self.over.push(end);
        }
    }

    /// Takes the permits that came.
    fn poll_asked(&mut self, cx: &mut Context<'_>) {
        while let Some((step, permits)) = self.asked.poll_next(cx) {
            self.state.release(step);
            self.granted.extend(permits.map(|permits| (step, permits)));
        }
    }

    /// What was asked for is durable now.
    fn answer(&mut self) {
        for (command, told) in self.answers.drain(..) {
            drop(command.answer.send(Ok(told)));
        }
    }

    /// Turns calls that are over into events; none of them where a participant says that the run is lost. Gives
    /// the time of that, if there were any.
    fn take_in(&mut self) -> Result<Option<Timestamp>, Gone> {
        if self.over.is_empty() {
            return Ok(None);
        }
        if let Some(stale) = self.refused_as_stale() {
            return Err(Gone::Stale(stale));
        }
        // The verdict on a failure is made here.
        self.take_up_policies();
        let now = self.shared.clock.now();
        let mut over = std::mem::take(&mut self.over);
        for end in over.drain(..) {
            // An empty map would make a hash all the same.
            if !self.racing.is_empty() {
                self.racing.remove(&end.step);
            }
            if let Some(progress) = end.progress {
                self.note_progress(end.step, progress, now);
            }
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
                // Looked for before anything is taken in.
                Came::Stale(_) => continue,
            };
            self.note(event, now);
        }
        self.over = over;
        Ok(Some(now))
    }

    /// Waits until something happens; fails when the run is not to be driven any more.
    async fn wait(&mut self) -> Result<(), Gone> {
        let now = self.shared.clock.now();
        let until = self.until.filter(|until| *until != Timestamp::NEVER);
        let timer = until.map(|until| Instant::now() + until.since(now));
        let mut wake_at = timer.into_iter().chain(self.drop_at).min();
        let mut sleep: Option<Pin<Box<Sleep>>> =
            wake_at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        poll_fn(|cx| {
            self.slot.waker.register(cx.waker());
            self.unwritten.reports.waker.register(cx.waker());
            let nothing_runs = self.calls.is_empty();
            if self.member.is_over() {
                return Poll::Ready(Err(Gone::Lost));
            }
            if self.shared.is_aborting() || (self.shared.is_closing() && nothing_runs) {
                return Poll::Ready(Err(Gone::Closed));
            }
            self.poll_calls(cx);
            let granted = self.granted.len();
            self.poll_asked(cx);
            if !self.over.is_empty() || self.granted.len() > granted || self.slot.has_commands() {
                return Poll::Ready(Ok(()));
            }
            if let Some(due) = self.unwritten.listen()
                && wake_at.is_none_or(|at| due < at)
            {
                wake_at = Some(due);
                sleep = Some(Box::pin(tokio::time::sleep_until(due)));
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
}
