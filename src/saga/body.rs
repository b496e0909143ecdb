//! The private object-safe side of steps: where futures are boxed, once, and types are erased.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::failure::FailureMode;
use crate::step::{
    Action, Effect, Payload, PayloadError, Probe, Probed, Step, StepContext, StepError, Value,
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An input whose type only its step knows.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// What the coordinator calls.
pub(crate) trait Body: Send + Sync {
    fn execute(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Value, StepError>>;
    fn compensate(
        &self,
        cx: StepContext,
        input: Erased,
        effect: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>>;
    /// Whether somebody who writes an output down for this step has written one of its type.
    fn reads(&self, output: &Value) -> Result<(), PayloadError>;
}

/// What the coordinator asks about a step in doubt.
pub(crate) trait ProbeBody: Send + Sync {
    fn probe(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Probed<Value>, StepError>>;
}

/// The wiring is typed, so this fails only if the erasing code is wrong; then it is a failed step, not a panic.
fn typed<T: Payload>(input: Erased) -> Result<Arc<T>, StepError> {
    input.downcast::<T>().map_err(|_| {
        StepError::not_done(format!(
            "the input is not a `{}`",
            std::any::type_name::<T>()
        ))
    })
}

pub(super) struct StepBody<S>(pub(super) Arc<S>);

impl<S: Step> Body for StepBody<S> {
    fn execute(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Value, StepError>> {
        let step = Arc::clone(&self.0);
        Box::pin(async move {
            let input = typed::<S::Input>(input)?;
            let output = step.execute(&cx, &input).await?;
            Ok(Value::typed(Arc::new(output)))
        })
    }

    fn compensate(
        &self,
        cx: StepContext,
        input: Erased,
        effect: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>> {
        let step = Arc::clone(&self.0);
        Box::pin(async move {
            let input = typed::<S::Input>(input)?;
            match effect {
                Effect::Done(output) => {
                    // What can't be read now can't be read in a minute either.
                    let output = output.get::<S::Output>().map_err(|error| {
                        StepError::in_doubt(error).with_mode(FailureMode::StepContract)
                    })?;
                    step.compensate(&cx, &input, Effect::Done(&output)).await
                }
                Effect::InDoubt => step.compensate(&cx, &input, Effect::InDoubt).await,
            }
        })
    }

    fn reads(&self, output: &Value) -> Result<(), PayloadError> {
        output.get::<S::Output>().map(drop)
    }
}

pub(super) struct ActionBody<A>(pub(super) Arc<A>);

impl<A: Action> Body for ActionBody<A> {
    fn execute(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Value, StepError>> {
        let action = Arc::clone(&self.0);
        Box::pin(async move {
            let input = typed::<A::Input>(input)?;
            let output = action.execute(&cx, &input).await?;
            Ok(Value::typed(Arc::new(output)))
        })
    }

    fn compensate(
        &self,
        _: StepContext,
        _: Erased,
        _: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>> {
        // The machine never undoes an action; were it to, parking is the honest answer.
        Box::pin(std::future::ready(Err(StepError::in_doubt(
            "an action has no undo",
        ))))
    }

    fn reads(&self, output: &Value) -> Result<(), PayloadError> {
        output.get::<A::Output>().map(drop)
    }
}

pub(super) struct ProbeOf<P>(pub(super) Arc<P>);

impl<P: Probe> ProbeBody for ProbeOf<P> {
    fn probe(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Probed<Value>, StepError>> {
        let probe = Arc::clone(&self.0);
        Box::pin(async move {
            let input = typed::<P::Input>(input)?;
            Ok(match probe.probe(&cx, &input).await? {
                Probed::Done(output) => Probed::Done(Value::typed(Arc::new(output))),
                Probed::Never => Probed::Never,
                Probed::Unknown => Probed::Unknown,
            })
        })
    }
}
