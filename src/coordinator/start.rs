//! Starting a run by its caller's id (rule I1).

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::coordinator::driver::Driver;
use crate::coordinator::error::StartError;
use crate::coordinator::slot::{Slot, Started};
use crate::coordinator::{Coordinator, RunHandle, Shared};
use crate::ids::{RunId, Timestamp, derived, hex, random_u128};
use crate::journal::{AppendId, Event, RunStarted, digest};
use crate::machine::State;
use crate::saga::{Definition, Saga};
use crate::step::{Payload, PayloadError, Value};
use crate::trace_context::{TraceOrigin, tracestate};

/// What may be said about a run besides its input.
///
/// ```
/// use std::time::Duration;
/// use amends::StartOptions;
///
/// let options = StartOptions::new().deadline(Duration::from_secs(60)).label("customer", "42");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    deadline: Option<Duration>,
    labels: BTreeMap<String, String>,
    trace: Option<TraceOrigin>,
    tracestate: Option<String>,
    redo_of: Option<RunId>,
}

impl StartOptions {
    /// Nothing said: the saga's deadline, no labels, a new trace.
    #[must_use]
    pub fn new() -> Self {
        StartOptions::default()
    }

    /// How long the forward part may take, instead of what the saga says.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Something to find the run by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The trace that the run belongs to: 32 lower-case hex digits, not all zero (W3C Trace Context). A new
    /// one by default, and where this isn't one.
    ///
    /// [`traceparent`](Self::traceparent) says more; of the two, the last that is said counts.
    #[must_use]
    pub fn trace_id(mut self, trace_id: impl AsRef<str>) -> Self {
        self.trace = TraceOrigin::of_id(trace_id.as_ref());
        self
    }

    /// The `traceparent` header of the request that makes this start (W3C Trace Context): the run belongs
    /// to its trace, and each call's [`StepContext::traceparent`](crate::StepContext::traceparent) has its
    /// trace id and its flags. It is journalled, so it outlives crashes.
    ///
    /// A malformed header is ignored and the run has a trace of its own, as the standard demands of whoever
    /// is handed one: a client that garbles a header for diagnosis must not be refused its order.
    ///
    /// ```
    /// use amends::StartOptions;
    ///
    /// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let options = StartOptions::new().traceparent(header).tracestate("congo=t61rcWkgMzE");
    /// # assert_ne!(options, StartOptions::new());
    /// assert_eq!(StartOptions::new().traceparent("garbled"), StartOptions::new());
    /// ```
    #[must_use]
    pub fn traceparent(mut self, header: impl AsRef<str>) -> Self {
        self.trace = TraceOrigin::parse(header.as_ref());
        self
    }

    /// The `tracestate` header that came with the [`traceparent`](Self::traceparent), without which it is
    /// ignored, as it is where it is malformed. At most 512 characters are kept, in whole entries.
    #[must_use]
    pub fn tracestate(mut self, header: impl AsRef<str>) -> Self {
        self.tracestate = tracestate(header.as_ref());
        self
    }

    /// The ended run that this one does again (rule O3).
    #[must_use]
    pub fn redo_of(mut self, run: RunId) -> Self {
        self.redo_of = Some(run);
        self
    }
}

impl Coordinator {
    /// Starts a run, and returns once its start is durable.
    ///
    /// The same id with the same input again gives the same run, whether it is under way or has ended;
    /// nothing is executed twice. The first steps are polled on the caller's task: if all of them are
    /// ready at once, the run is over when this returns.
    ///
    /// # Errors
    ///
    /// [`StartError::OtherInput`] and [`StartError::OtherSaga`] where the id belongs to another run;
    /// [`StartError::NotRegistered`]; what the store failed with.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the run may have started. Starting it again with the same id gives that run.
    pub async fn start<I: Payload, O: Payload>(
        &self,
        saga: &Saga<I, O>,
        run: impl Into<RunId>,
        input: I,
    ) -> Result<RunHandle<O>, StartError> {
        self.start_with(saga, run, input, StartOptions::default())
            .await
    }

    /// Starts a run with [`StartOptions`]. They are not part of what makes two starts the same.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn start_with<I: Payload, O: Payload>(
        &self,
        saga: &Saga<I, O>,
        run: impl Into<RunId>,
        input: I,
        options: StartOptions,
    ) -> Result<RunHandle<O>, StartError> {
        let (run, shared) = (run.into(), self.shared());
        check_id(&run)?;
        let (name, version) = (saga.name(), saga.version());
        let registered = shared
            .definition(name, version)
            .filter(|registered| *registered.definition.graph.fingerprint == *saga.fingerprint())
            .ok_or_else(|| StartError::NotRegistered {
                saga: name.to_owned(),
                version,
            })?;
        let payload = |cause| StartError::Payload {
            run: run.clone(),
            cause,
        };
        let mut input = Value::typed(Arc::new(input));
        let mut input_digest = None;
        if !shared.store.keeps_values() {
            input.encode().map_err(payload)?;
            input_digest = Some(digest(&input).map_err(payload)?);
        }
        let closed = |why| StartError::Closed {
            run: run.clone(),
            why,
        };
        let Some(permit) = shared.run_permit().await else {
            return Err(closed(shared.why_closed()));
        };
        let slot = shared.slot(&run);
        if !slot.activate_for_start() {
            drop(permit);
            return self.join_existing(name, run, &input).await;
        }
        let member = shared.member();
        let now = shared.clock.now();
        let bits = random_u128();
        let opening = Opening {
            input: input.clone(),
            bits,
            input_digest,
            now,
            worker: Arc::clone(&member.worker),
        };
        let started = Arc::new(opening.of(&registered.definition, options));
        let state = Box::new(State::begin(&registered.definition.graph, &started, now));
        let mut driver = Driver::new(
            shared,
            Arc::clone(&slot),
            Arc::clone(registered),
            state,
            (0, AppendId::of(derived(bits))),
            (member, permit),
        );
        driver.first(Event::RunStarted(started), now);
        let handle = RunHandle::new(self.clone(), Arc::clone(&slot));
        poll_then_spawn(Box::pin(driver.drive())).await;
        match started_or_not(&slot).await {
            Started::Durable => Ok(handle),
            Started::Failed(why) => Err(closed(why)),
            Started::Taken => {
                drop(handle);
                self.join_existing(name, run, &input).await
            }
        }
    }

    /// The id is taken: by the same start, or by something else.
    async fn join_existing<O: Payload>(
        &self,
        saga: &str,
        run: RunId,
        input: &Value,
    ) -> Result<RunHandle<O>, StartError> {
        let shared = self.shared();
        let slot = shared.slot(&run);
        let handle = RunHandle::new(self.clone(), Arc::clone(&slot));
        if slot.is_active() && slot.started().is_none() && shared.store.find(&run).await?.is_none()
        {
            // The other start is on its way: what becomes of it decides.
            if let Started::Failed(why) = started_or_not(&slot).await {
                return Err(StartError::Closed { run, why });
            }
        }
        let journal = shared.store.load(&run).await?;
        let first = journal
            .as_ref()
            .and_then(|journal| journal.records.first()?.events.first());
        let Some(Event::RunStarted(started)) = first else {
            return Err(StartError::Closed {
                run,
                why: "its id was taken, and then free again".to_owned(),
            });
        };
        is_same(&run, started, saga, || digest(input))?;
        Ok(handle)
    }
}

/// What the first record of a run says besides its definition and its options.
pub(super) struct Opening {
    pub(super) input: Value,
    /// Random, and the run's own: its ids are made of them.
    pub(super) bits: u128,
    /// Where the input is written down at all.
    pub(super) input_digest: Option<String>,
    pub(super) now: Timestamp,
    /// Whoever begins to drive it; nobody, where that is to be seen.
    pub(super) worker: Arc<str>,
}

impl Opening {
    pub(super) fn of(self, definition: &Definition, options: StartOptions) -> RunStarted {
        let limit = options.deadline.or(definition.deadline);
        let traceparent = options.trace.as_ref().and_then(TraceOrigin::traceparent);
        RunStarted {
            saga: Arc::clone(&definition.graph.saga),
            version: definition.graph.version,
            fingerprint: Arc::clone(&definition.graph.fingerprint),
            uid: hex(self.bits),
            trace_id: match &options.trace {
                Some(trace) => trace.trace_id().into(),
                // The standard's one invalid id is as likely as any other.
                None => hex(random_u128().max(1)),
            },
            tracestate: options.tracestate.filter(|_| traceparent.is_some()),
            traceparent,
            input: self.input,
            input_digest: self.input_digest,
            deadline: limit.map(|limit| self.now.after(limit)),
            labels: options.labels,
            redo_of: options.redo_of.map(|run| run.to_string()),
            worker: self.worker,
        }
    }
}

/// Refuses an id that can't be anybody's.
pub(super) fn check_id(run: &RunId) -> Result<(), StartError> {
    let length = run.as_str().len();
    if length == 0 || length > RunId::MAX_LEN {
        return Err(StartError::BadId { length });
    }
    Ok(())
}

/// Whether a run that has the id was started by the same start: of this saga, and with the input of
/// this digest (rule I1).
pub(super) fn is_same(
    run: &RunId,
    started: &RunStarted,
    saga: &str,
    ours: impl FnOnce() -> Result<String, PayloadError>,
) -> Result<(), StartError> {
    let run = || run.clone();
    if *started.saga != *saga {
        return Err(StartError::OtherSaga {
            run: run(),
            found: started.saga.to_string(),
            wanted: saga.to_owned(),
        });
    }
    let payload = |cause| StartError::Payload { run: run(), cause };
    let theirs = match &started.input_digest {
        Some(digest) => digest.clone(),
        None => digest(&started.input).map_err(payload)?,
    };
    if theirs != ours().map_err(payload)? {
        return Err(StartError::OtherInput { run: run() });
    }
    Ok(())
}

async fn started_or_not(slot: &Slot) -> Started {
    loop {
        if let Some(started) = slot.started() {
            return started;
        }
        let changed = slot.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(started) = slot.started() {
            return started;
        }
        if !slot.is_active() {
            // It was resumed from the store, and was durable before.
            return Started::Durable;
        }
        changed.await;
    }
}

/// Polls once where the caller stands, and spawns only what then still waits: a run that never waits
/// costs no task and no wake-up across threads.
async fn poll_then_spawn(mut driving: Pin<Box<dyn Future<Output = ()> + Send>>) {
    let done = poll_fn(|cx| Poll::Ready(driving.as_mut().poll(cx).is_ready())).await;
    if !done {
        tokio::spawn(driving);
    }
}

impl Shared {
    /// Spawns a driver for a slot that was activated for it.
    pub(super) fn begin_driving(shared: &Arc<Shared>, slot: Arc<Slot>) {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            match shared.run_permit().await {
                Some(permit) => Shared::claim_and_drive(&shared, slot, permit).await,
                None => drop(slot.retire(crate::coordinator::slot::Settled::Closed(
                    shared.why_closed(),
                ))),
            }
        });
    }
}
