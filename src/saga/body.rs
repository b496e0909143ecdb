//! The private object-safe side of steps: where futures are boxed, once, and types are erased.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
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

/// A step with steps inside: it is never called itself.
pub(super) struct InsideBody<O>(pub(super) PhantomData<fn() -> O>);

impl<O: Payload> Body for InsideBody<O> {
    fn execute(&self, _: StepContext, _: Erased) -> BoxFuture<Result<Value, StepError>> {
        Box::pin(std::future::ready(Err(StepError::not_done(
            "what is inside it is called",
        ))))
    }

    fn compensate(
        &self,
        _: StepContext,
        _: Erased,
        _: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>> {
        Box::pin(std::future::ready(Err(StepError::in_doubt(
            "what is inside it is undone",
        ))))
    }

    fn reads(&self, output: &Value) -> Result<(), PayloadError> {
        output.get::<O>().map(drop)
    }
}

/// A step that starts on a condition: its output may not be there.
pub(super) struct MaybeBody<O> {
    body: Arc<dyn Body>,
    _output: PhantomData<fn() -> O>,
}

impl<O> MaybeBody<O> {
    pub(super) fn new(body: Arc<dyn Body>) -> Self {
        MaybeBody {
            body,
            _output: PhantomData,
        }
    }
}

impl<O: Payload> Body for MaybeBody<O> {
    fn execute(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Value, StepError>> {
        let output = self.body.execute(cx, input);
        Box::pin(async move {
            let output = output.await?.get::<O>()?;
            Ok(Value::typed(Arc::new(Some(Arc::unwrap_or_clone(output)))))
        })
    }

    fn compensate(
        &self,
        cx: StepContext,
        input: Erased,
        effect: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>> {
        // Written, an output that is there is the output itself.
        let effect = match effect {
            Effect::Done(output) => match output.get::<Option<O>>().map(Arc::unwrap_or_clone) {
                Ok(Some(output)) => Effect::Done(Value::typed(Arc::new(output))),
                Ok(None) | Err(_) => Effect::Done(output),
            },
            Effect::InDoubt => Effect::InDoubt,
        };
        self.body.compensate(cx, input, effect)
    }

    fn reads(&self, output: &Value) -> Result<(), PayloadError> {
        output.get::<Option<O>>().map(drop)
    }
}

pub(super) struct MaybeProbe<O> {
    probe: Arc<dyn ProbeBody>,
    _output: PhantomData<fn() -> O>,
}

impl<O> MaybeProbe<O> {
    pub(super) fn new(probe: Arc<dyn ProbeBody>) -> Self {
        MaybeProbe {
            probe,
            _output: PhantomData,
        }
    }
}

impl<O: Payload> ProbeBody for MaybeProbe<O> {
    fn probe(&self, cx: StepContext, input: Erased) -> BoxFuture<Result<Probed<Value>, StepError>> {
        let answer = self.probe.probe(cx, input);
        Box::pin(async move {
            Ok(match answer.await? {
                Probed::Done(output) => {
                    let output = Arc::unwrap_or_clone(output.get::<O>()?);
                    Probed::Done(Value::typed(Arc::new(Some(output))))
                }
                answer => answer,
            })
        })
    }
}

/// A value that was there before.
pub(super) struct ValueBody(pub(super) Value);

impl Body for ValueBody {
    fn execute(&self, _: StepContext, _: Erased) -> BoxFuture<Result<Value, StepError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }

    fn compensate(
        &self,
        _: StepContext,
        _: Erased,
        _: Effect<Value>,
    ) -> BoxFuture<Result<(), StepError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn reads(&self, _: &Value) -> Result<(), PayloadError> {
        Ok(())
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
