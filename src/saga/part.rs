//! What `add` takes: a named step with its settings.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::Retry;
use crate::saga::body::{ActionBody, Body, ProbeBody, ProbeOf, StepBody};
use crate::saga::builder::{Definition, Maybe, UndoneBy, Wired};
use crate::saga::waits::WaitSpec;
use crate::saga::{SomeNode, StepKind, UndoRule};
use crate::step::{Action, Payload, Probe, Step};

/// What [`SagaBuilder::add`](crate::SagaBuilder::add) takes.
///
/// Not to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be added to a saga as it is",
    label = "not a step with a name",
    note = "wrap it: `step(\"name\", ..)`, `read_only(\"name\", ..)`, `irreversible(\"name\", ..)`, or `step_fn(\"name\", execute, compensate)`"
)]
pub trait Part: sealed::Sealed {
    /// What the step wants as its input.
    type Input: Payload;
    /// What its node carries.
    type Output: Payload;

    #[doc(hidden)]
    fn into_spec(self) -> StepSpec<Self::Input, Self::Output>;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// A named step with its settings, ready to be [added](crate::SagaBuilder::add).
pub struct StepSpec<I, O> {
    pub(super) name: String,
    pub(super) kind: StepKind,
    pub(super) body: Arc<dyn Body>,
    pub(super) probe: Option<Arc<dyn ProbeBody>>,
    /// The steps inside it, where it has any.
    pub(super) inside: Option<Arc<Definition>>,
    /// What it waits for, where it calls nothing.
    pub(super) wait: Option<WaitSpec>,
    pub(super) condition: Option<Wired>,
    /// What undoes what is inside it, as a whole.
    pub(super) undone_by: Option<UndoneBy>,
    /// Makes the output of what is inside one that may not be there.
    pub(super) maybe: Option<Maybe>,
    /// Whether it was given a second condition.
    pub(super) twice: bool,
    pub(super) after: Vec<SomeNode>,
    pub(super) settings: Settings,
    _types: PhantomData<fn(I) -> O>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) pivot: bool,
    pub(super) checkpoint: bool,
    pub(super) atomic: bool,
    pub(super) at_most_once: bool,
    pub(super) undo_rule: Option<UndoRule>,
    pub(super) retry: Option<Retry>,
    pub(super) undo_retry: Option<Retry>,
    pub(super) timeout: Option<Duration>,
    pub(super) undo_timeout: Option<Duration>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) undo_heartbeat: Option<Duration>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) max_in_flight_in_fleet: Option<u32>,
}

/// A step that can be undone.
///
/// ```
/// # use amends::{Effect, Step, StepContext, StepError};
/// # struct Hold;
/// # impl Step for Hold {
/// #     type Input = u32;
/// #     type Output = u32;
/// #     async fn execute(&self, _: &StepContext, n: &u32) -> Result<u32, StepError> { Ok(*n) }
/// #     async fn compensate(&self, _: &StepContext, _: &u32, _: Effect<&u32>) -> Result<(), StepError> { Ok(()) }
/// # }
/// use std::time::Duration;
/// use amends::{Retry, Saga, step};
///
/// let mut saga = Saga::builder::<u32>("booking");
/// let seats = saga.input();
/// let held = saga.add(
///     step("hold", Hold).retry(Retry::exponential().max_attempts(4)).timeout(Duration::from_secs(5)),
///     seats,
/// );
/// let saga: Saga<u32, u32> = saga.returns(held)?;
/// # Ok::<(), amends::SagaError>(())
/// ```
///
/// A [`Saga`](crate::Saga) is a step, too: `step("fulfil", &child)`. Its steps run as `fulfil/..` under its own
/// policy, and are undone as part of this one.
pub fn step<S: AsStep>(name: impl Into<String>, step: S) -> StepSpec<S::Input, S::Output> {
    step.named(name.into())
}

/// What [`step`] takes: a [`Step`], or a reference to a [`Saga`](crate::Saga).
///
/// Not to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a `Step` nor a reference to a `Saga`",
    label = "needs `impl Step for {Self}`",
    note = "implement `Step` with `async fn execute` and `async fn compensate`, or add it as `read_only(\"name\", ..)` (nothing to undo) or `irreversible(\"name\", ..)` (cannot be undone); a saga goes in by reference: `step(\"name\", &saga)`"
)]
pub trait AsStep {
    /// What it wants as its input.
    type Input: Payload;
    /// What it gives.
    type Output: Payload;

    #[doc(hidden)]
    fn named(self, name: String) -> StepSpec<Self::Input, Self::Output>;
}

impl<S: Step> AsStep for S {
    type Input = S::Input;
    type Output = S::Output;

    fn named(self, name: String) -> StepSpec<S::Input, S::Output> {
        let atomic = self.is_atomic();
        let body = Arc::new(StepBody(Arc::new(self)));
        StepSpec::new(name, StepKind::Compensatable, body).declared_atomic(atomic)
    }
}

/// An action that changes nothing: it is never in doubt and never undone (rule E6).
pub fn read_only<A: Action>(name: impl Into<String>, action: A) -> StepSpec<A::Input, A::Output> {
    StepSpec::new(
        name.into(),
        StepKind::ReadOnly,
        Arc::new(ActionBody(Arc::new(action))),
    )
}

/// An action that can't be undone: it has to be the pivot, or to come after it (rule P1).
pub fn irreversible<A: Action>(
    name: impl Into<String>,
    action: A,
) -> StepSpec<A::Input, A::Output> {
    let atomic = action.is_atomic();
    let body = Arc::new(ActionBody(Arc::new(action)));
    StepSpec::new(name.into(), StepKind::Irreversible, body).declared_atomic(atomic)
}

impl<I: Payload, O: Payload> StepSpec<I, O> {
    /// How long a call may take unless the definition says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    pub(super) fn new(name: String, kind: StepKind, body: Arc<dyn Body>) -> Self {
        let settings = Settings {
            pivot: false,
            checkpoint: false,
            atomic: false,
            at_most_once: false,
            undo_rule: None,
            retry: None,
            undo_retry: None,
            timeout: None,
            undo_timeout: None,
            heartbeat: None,
            undo_heartbeat: None,
            max_in_flight: None,
            max_in_flight_in_fleet: None,
        };
        StepSpec {
            name,
            kind,
            body,
            probe: None,
            inside: None,
            wait: None,
            condition: None,
            undone_by: None,
            maybe: None,
            twice: false,
            after: Vec::new(),
            settings,
            _types: PhantomData,
        }
    }

    fn declared_atomic(mut self, atomic: bool) -> Self {
        self.settings.atomic = atomic;
        self
    }

    /// Makes this the point of no return: before it all can be undone, after it the run only goes
    /// forward. At most one step of a saga, and every other step comes before it, after it, or is read-only.
    #[must_use]
    pub fn pivot(mut self) -> Self {
        self.settings.pivot = true;
        self
    }

    /// Makes `retry_from_checkpoint` keep this step, with all that it depends on.
    #[must_use]
    pub fn checkpoint(mut self) -> Self {
        self.settings.checkpoint = true;
        self
    }

    /// Declares that `execute` makes one effectful call and doesn't try again inside: only then does a
    /// classifier's "not done" (a refused connection) count (rule E2). A step's own word always counts.
    #[must_use]
    pub fn atomic(mut self) -> Self {
        self.settings.atomic = true;
        self
    }

    /// Declares that `execute` must not be called again while it may have taken effect: in doubt, the
    /// run is parked instead (rule K5). A definite "not done" may be tried again.
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.settings.at_most_once = true;
        self
    }

    /// When the step is undone if it did not succeed; [`UndoRule::InDoubt`] by default.
    #[must_use]
    pub fn undo_failing(mut self, rule: UndoRule) -> Self {
        self.settings.undo_rule = Some(rule);
        self
    }

    /// How failed attempts are tried again; [`Retry::default`] by default.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = Some(retry);
        self
    }

    /// How a failed undo is tried again; [`Retry::compensation`] by default.
    #[must_use]
    pub fn compensation_retry(mut self, retry: Retry) -> Self {
        self.settings.undo_retry = Some(retry);
        self
    }

    /// How long one call of `execute` may take; 30 s by default. Then its future is dropped and its
    /// effect is in doubt. Acts at await points only: a call that blocks its thread is not interrupted.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// How long one call of `compensate` may take; 30 s by default.
    #[must_use]
    pub fn compensation_timeout(mut self, timeout: Duration) -> Self {
        self.settings.undo_timeout = Some(timeout);
        self
    }

    /// How many attempts of this step, of all runs of this coordinator together, may be in flight.
    #[must_use]
    pub fn max_in_flight(mut self, most: u32) -> Self {
        self.settings.max_in_flight = Some(most);
        self
    }

    /// How many attempts of this step, of all runs of all workers that share the store, may be in flight: what a
    /// service behind the step stands, however many workers there are. In a coordinator that has its store for
    /// itself this is [`max_in_flight`](Self::max_in_flight).
    ///
    /// Permits are kept in the store, so that a start may cost two more small writes, which are not synced one by
    /// one. Those of a worker that is gone are free when its lease has run out. Workers that say different limits
    /// for one step each keep to their own.
    #[must_use]
    pub fn max_in_flight_in_fleet(mut self, most: u32) -> Self {
        self.settings.max_in_flight_in_fleet = Some(most);
        self
    }

    /// Whom to ask about an effect in doubt.
    #[must_use]
    pub fn probe<P: Probe<Input = I, Output = O>>(mut self, probe: P) -> Self {
        self.probe = Some(Arc::new(ProbeOf(Arc::new(probe))));
        self
    }

    /// Starts only after that step is done, without using its output.
    #[must_use]
    pub fn after(mut self, node: impl Into<SomeNode>) -> Self {
        self.after.push(node.into());
        self
    }
}

impl<I, O> sealed::Sealed for StepSpec<I, O> {}

impl<I: Payload, O: Payload> Part for StepSpec<I, O> {
    type Input = I;
    type Output = O;

    fn into_spec(self) -> StepSpec<I, O> {
        self
    }
}

impl<I, O> fmt::Debug for StepSpec<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepSpec")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("probe", &self.probe.is_some())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
