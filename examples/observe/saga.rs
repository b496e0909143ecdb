//! The saga: stock is reserved at the second try, the card is refused, the stock is released.

use std::time::Duration;

use amends::{FailureMode, Retry, Saga, SagaError, StepContext, StepError, step_fn};
use tracing::Instrument as _;

/// Stands for a request to another service, which would be sent with this call's `traceparent`. Whatever
/// the client library shows of it is within the attempt's span, because the attempt is.
async fn request(cx: &StepContext, to: &'static str) {
    let header = cx.traceparent();
    async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        tracing::info!(bytes = 120, "answered");
    }
    .instrument(tracing::info_span!("request", to, traceparent = header))
    .await;
}

pub(crate) fn place_order() -> Result<Saga<u64, u64>, SagaError> {
    let mut saga = Saga::builder::<u64>("place-order");
    let amount = saga.input();
    let reserve = step_fn(
        "reserve-stock",
        async |cx: &StepContext, amount: &u64| {
            request(cx, "stock").await;
            match cx.attempt() {
                1 => Err(StepError::not_done("busy").with_mode(FailureMode::ApiUnavailable)),
                _ => Ok(*amount),
            }
        },
        async |cx: &StepContext, _amount, _effect| {
            request(cx, "stock").await;
            Ok(())
        },
    )
    .retry(Retry::constant().initial(Duration::from_millis(20)));
    let reserved = saga.add(reserve, amount);
    let charge = step_fn(
        "charge-card",
        async |cx: &StepContext, _amount: &u64| {
            request(cx, "payments").await;
            Err::<u64, _>(StepError::rejected("above the card's limit"))
        },
        async |_cx, _amount, _effect| Ok(()),
    );
    let charged = saga.add(charge, reserved);
    saga.returns(charged)
}
