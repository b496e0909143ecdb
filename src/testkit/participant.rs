//! Steps that do nothing but talk to a world.

use std::marker::PhantomData;

use crate::step::{Action, Effect, Payload, Probe, Probed, Step, StepContext, StepError};
use crate::testkit::world::World;

/// A step that does nothing but talk to a world.
pub(super) struct Participant<I> {
    world: World,
    _input: PhantomData<fn(I)>,
}

impl<I> Participant<I> {
    pub(super) fn of(world: &World) -> Self {
        Participant {
            world: world.clone(),
            _input: PhantomData,
        }
    }
}

impl<I: Payload> Step for Participant<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<String, StepError> {
        let (key, input) = (cx.idempotency_key(), serde_json::to_string(input)?);
        self.world
            .execute_noting(key, key.to_owned(), Some(input))
            .await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&String>,
    ) -> Result<(), StepError> {
        let output = match effect {
            Effect::Done(output) => Some(output.as_str()),
            Effect::InDoubt => None,
        };
        let input = serde_json::to_string(input)?;
        self.world.check_undo(cx.effect_key(), &input, output);
        self.world.compensate(cx.idempotency_key()).await
    }
}

impl<I: Payload> Probe for Participant<I> {
    type Input = I;
    type Output = String;

    async fn probe(&self, cx: &StepContext, _: &I) -> Result<Probed<String>, StepError> {
        self.world.probe(cx.effect_key()).await
    }
}

pub(super) struct Unforgiving<I>(pub(super) Participant<I>);

impl<I: Payload> Action for Unforgiving<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<String, StepError> {
        self.0.execute(cx, input).await
    }
}

pub(super) struct Onlooker<I>(pub(super) Participant<I>);

impl<I: Payload> Action for Onlooker<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, _: &I) -> Result<String, StepError> {
        self.0.world.look(cx.idempotency_key()).await?;
        Ok(cx.idempotency_key().to_owned())
    }
}
