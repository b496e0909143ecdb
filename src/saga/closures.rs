//! Steps made of closures and of plain `async fn`s.
//!
//! Each constructor asks for two bounds on the same closure: `AsyncFn` drives type inference, and the
//! helper trait proves that the future is `Send`, which `AsyncFn` can't name in stable Rust.
//!
//! For an async closure with captures the compiler's own message takes the place of ours, but it quotes the
//! line of the bound: the comments on those lines are there to be read in that message.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::saga::body::{ActionBody, StepBody};
use crate::saga::{StepKind, StepSpec};
use crate::step::{Action, Effect, Payload, Step, StepContext, StepError};

/// An async closure that executes, with shared state `S`.
///
/// Implemented by every closure and `async fn` that qualifies.
#[diagnostic::on_unimplemented(
    message = "this closure can't be the `execute` of a step",
    note = "write `async |state, cx, input: &YourInput| ..`; what it shares goes in as the second argument of `step_with`, not as a capture; and its future has to be `Send`"
)]
pub trait ExecuteFn<'a, S: 'a, I: 'a, O>:
    Fn(&'a S, &'a StepContext, &'a I) -> Self::Future
{
    /// The closure's future.
    type Future: Future<Output = Result<O, StepError>> + Send + 'a;
}

impl<'a, S: 'a, I: 'a, O, F, R> ExecuteFn<'a, S, I, O> for F
where
    F: Fn(&'a S, &'a StepContext, &'a I) -> R,
    R: Future<Output = Result<O, StepError>> + Send + 'a,
{
    type Future = R;
}

/// An async closure that compensates, with shared state `S`.
///
/// Implemented by every closure and `async fn` that qualifies.
#[diagnostic::on_unimplemented(
    message = "this closure can't be the `compensate` of a step",
    note = "write `async |state, cx, input, effect| ..`; its future has to be `Send`"
)]
pub trait CompensateFn<'a, S: 'a, I: 'a, O: 'a>:
    Fn(&'a S, &'a StepContext, &'a I, Effect<&'a O>) -> Self::Future
{
    /// The closure's future.
    type Future: Future<Output = Result<(), StepError>> + Send + 'a;
}

impl<'a, S: 'a, I: 'a, O: 'a, F, R> CompensateFn<'a, S, I, O> for F
where
    F: Fn(&'a S, &'a StepContext, &'a I, Effect<&'a O>) -> R,
    R: Future<Output = Result<(), StepError>> + Send + 'a,
{
    type Future = R;
}

/// The same without shared state.
#[diagnostic::on_unimplemented(
    message = "this closure can't be the `execute` of a step",
    note = "write `async |cx, input: &YourInput| ..` without captures, and with a future that is `Send`; shared state is the second argument of `step_with`"
)]
#[doc(hidden)]
pub trait StatelessFn<'a, I: 'a, O>: Fn(&'a StepContext, &'a I) -> Self::Future {
    type Future: Future<Output = Result<O, StepError>> + Send + 'a;
}

impl<'a, I: 'a, O, F, R> StatelessFn<'a, I, O> for F
where
    F: Fn(&'a StepContext, &'a I) -> R,
    R: Future<Output = Result<O, StepError>> + Send + 'a,
{
    type Future = R;
}

/// The same without shared state.
#[diagnostic::on_unimplemented(
    message = "this closure can't be the `compensate` of a step",
    note = "write `async |cx, input, effect| ..` without captures, and with a future that is `Send`; shared state is the second argument of `step_with`"
)]
#[doc(hidden)]
pub trait StatelessUndoFn<'a, I: 'a, O: 'a>:
    Fn(&'a StepContext, &'a I, Effect<&'a O>) -> Self::Future
{
    type Future: Future<Output = Result<(), StepError>> + Send + 'a;
}

impl<'a, I: 'a, O: 'a, F, R> StatelessUndoFn<'a, I, O> for F
where
    F: Fn(&'a StepContext, &'a I, Effect<&'a O>) -> R,
    R: Future<Output = Result<(), StepError>> + Send + 'a,
{
    type Future = R;
}

struct WithState<S, E, C, I, O> {
    state: S,
    execute: E,
    compensate: C,
    _types: PhantomData<fn(I) -> O>,
}

impl<S, E, C, I, O> Step for WithState<S, E, C, I, O>
where
    S: Send + Sync + 'static,
    I: Payload,
    O: Payload,
    E: for<'a> ExecuteFn<'a, S, I, O> + Send + Sync + 'static,
    C: for<'a> CompensateFn<'a, S, I, O> + Send + Sync + 'static,
{
    type Input = I;
    type Output = O;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<O, StepError> {
        (self.execute)(&self.state, cx, input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&O>,
    ) -> Result<(), StepError> {
        (self.compensate)(&self.state, cx, input, effect).await
    }
}

struct Stateless<E, C, I, O> {
    execute: E,
    compensate: C,
    _types: PhantomData<fn(I) -> O>,
}

impl<E, C, I, O> Step for Stateless<E, C, I, O>
where
    I: Payload,
    O: Payload,
    E: for<'a> StatelessFn<'a, I, O> + Send + Sync + 'static,
    C: for<'a> StatelessUndoFn<'a, I, O> + Send + Sync + 'static,
{
    type Input = I;
    type Output = O;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<O, StepError> {
        (self.execute)(cx, input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&O>,
    ) -> Result<(), StepError> {
        (self.compensate)(cx, input, effect).await
    }
}

struct ActionFn<E, I, O> {
    execute: E,
    _types: PhantomData<fn(I) -> O>,
}

impl<E, I, O> Action for ActionFn<E, I, O>
where
    I: Payload,
    O: Payload,
    E: for<'a> StatelessFn<'a, I, O> + Send + Sync + 'static,
{
    type Input = I;
    type Output = O;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<O, StepError> {
        (self.execute)(cx, input).await
    }
}

/// A step made of two closures (or `async fn`s) that share `state`, which each gets as its first argument.
///
/// Write the input's type once; the rest is inferred.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use amends::{Saga, step_with};
///
/// let till = Arc::new(AtomicU64::new(0));
/// let mut saga = Saga::builder::<u64>("sale");
/// let amount = saga.input();
/// let paid = saga.add(
///     step_with("take-money", till,
///         async |till, _cx, amount: &u64| Ok(till.fetch_add(*amount, Ordering::SeqCst)),
///         async |till, _cx, amount, _effect| { till.fetch_sub(*amount, Ordering::SeqCst); Ok(()) }),
///     amount,
/// );
/// let saga = saga.returns(paid)?;
/// # Ok::<(), amends::SagaError>(())
/// ```
pub fn step_with<S, I, O, E, C>(
    name: impl Into<String>,
    state: S,
    execute: E,
    compensate: C,
) -> StepSpec<I, O>
where
    S: Send + Sync + 'static,
    I: Payload,
    O: Payload,
    E: AsyncFn(&S, &StepContext, &I) -> Result<O, StepError>,
    E: for<'a> ExecuteFn<'a, S, I, O> + Send + Sync + 'static, // captures? move it into `state`
    C: AsyncFn(&S, &StepContext, &I, Effect<&O>) -> Result<(), StepError>,
    C: for<'a> CompensateFn<'a, S, I, O> + Send + Sync + 'static, // captures? move it into `state`
{
    let step = WithState {
        state,
        execute,
        compensate,
        _types: PhantomData,
    };
    StepSpec::new(
        name.into(),
        StepKind::Compensatable,
        Arc::new(StepBody(Arc::new(step))),
    )
}

/// A step made of two closures (or `async fn`s) without shared state.
///
/// ```
/// use amends::{Saga, step_fn};
///
/// let mut saga = Saga::builder::<u64>("count");
/// let n = saga.input();
/// let more = saga.add(step_fn("add-one", async |_cx, n: &u64| Ok(n + 1), async |_cx, _n, _effect| Ok(())), n);
/// let saga = saga.returns(more)?;
/// # Ok::<(), amends::SagaError>(())
/// ```
pub fn step_fn<I, O, E, C>(name: impl Into<String>, execute: E, compensate: C) -> StepSpec<I, O>
where
    I: Payload,
    O: Payload,
    E: AsyncFn(&StepContext, &I) -> Result<O, StepError>,
    E: for<'a> StatelessFn<'a, I, O> + Send + Sync + 'static, // captures? give it to `step_with`
    C: AsyncFn(&StepContext, &I, Effect<&O>) -> Result<(), StepError>,
    C: for<'a> StatelessUndoFn<'a, I, O> + Send + Sync + 'static, // captures? give it to `step_with`
{
    let step = Stateless {
        execute,
        compensate,
        _types: PhantomData,
    };
    StepSpec::new(
        name.into(),
        StepKind::Compensatable,
        Arc::new(StepBody(Arc::new(step))),
    )
}

/// A closure that changes nothing: never in doubt, never undone.
pub fn read_only_fn<I, O, E>(name: impl Into<String>, execute: E) -> StepSpec<I, O>
where
    I: Payload,
    O: Payload,
    E: AsyncFn(&StepContext, &I) -> Result<O, StepError>,
    E: for<'a> StatelessFn<'a, I, O> + Send + Sync + 'static, // captures? implement `Action`
{
    let action = ActionFn {
        execute,
        _types: PhantomData,
    };
    StepSpec::new(
        name.into(),
        StepKind::ReadOnly,
        Arc::new(ActionBody(Arc::new(action))),
    )
}

/// A closure whose work can't be undone: the pivot, or after it.
pub fn irreversible_fn<I, O, E>(name: impl Into<String>, execute: E) -> StepSpec<I, O>
where
    I: Payload,
    O: Payload,
    E: AsyncFn(&StepContext, &I) -> Result<O, StepError>,
    E: for<'a> StatelessFn<'a, I, O> + Send + Sync + 'static, // captures? implement `Action`
{
    let action = ActionFn {
        execute,
        _types: PhantomData,
    };
    StepSpec::new(
        name.into(),
        StepKind::Irreversible,
        Arc::new(ActionBody(Arc::new(action))),
    )
}
