//! The saga: what an order needs, step by step, and how each step is undone.
//!
//! ```text
//! reserve-stock ─▶ charge-card ─▶ book-parcel (pivot) ─▶ send-confirmation
//! ```

use std::time::Duration;

use amends::{
    Action, Effect, Probe, Probed, RecoveryPolicy, Retry, Saga, Step, StepContext, StepError,
    irreversible, step,
};

use crate::Error;
use crate::api::{
    Book, Charge, Confirm, Confirmation, Fate, OfOrder, Parcel, Payment, Refusal, Reservation,
    Reserve,
};
use crate::client::{CallError, Client};
use crate::model::Order;

/// How long a step waits for an answer.
const TIMEOUT: Duration = Duration::from_millis(400);

/// The services that the steps call.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    stock: Client,
    payments: Client,
    parcels: Client,
}

impl Services {
    /// Clients of the services on these ports of this machine.
    pub(crate) fn on(stock: u16, payments: u16, parcels: u16) -> Result<Self, Error> {
        Ok(Self {
            stock: Client::new(stock)?,
            payments: Client::new(payments)?,
            parcels: Client::new(parcels)?,
        })
    }
}

/// The saga of an order, from the reservation to the confirmation.
pub(crate) fn place_order(services: &Services) -> Result<Saga<Order, Confirmation>, Error> {
    let Services {
        stock,
        payments,
        parcels,
    } = services.clone();
    // What can be undone is tried for a second or two; then the run waits a little, and tries again
    // up to three times, and then gives the order up.
    let brisk = Retry::exponential()
        .initial(Duration::from_millis(20))
        .cap(Duration::from_millis(500))
        .max_attempts(7);
    // An undo, and what comes after the point of no return, has no other way out than to succeed.
    let patient = brisk.clone().max_attempts(60);
    let recoveries = Retry::exponential().initial(Duration::from_millis(250));

    let mut saga = Saga::builder::<Order>("place-order")
        .version(1)
        .policy(RecoveryPolicy::saga().backoff(recoveries));
    let order = saga.input();
    let reservation = saga.add(
        step("reserve-stock", ReserveStock { stock })
            .retry(brisk.clone())
            .timeout(TIMEOUT)
            .compensation_retry(patient.clone())
            .compensation_timeout(TIMEOUT),
        order,
    );
    let payment = saga.add(
        step("charge-card", ChargeCard { payments })
            .retry(brisk)
            .timeout(TIMEOUT)
            .compensation_retry(patient.clone())
            .compensation_timeout(TIMEOUT)
            .after(reservation),
        order,
    );
    let parcel = saga.add(
        irreversible(
            "book-parcel",
            BookParcel {
                parcels: parcels.clone(),
            },
        )
        .pivot()
        .probe(AskCarrier {
            parcels: parcels.clone(),
        })
        .retry(patient.clone())
        .timeout(TIMEOUT)
        .after(payment),
        (order, reservation),
    );
    let confirmation = saga.add(
        irreversible("send-confirmation", SendConfirmation { parcels })
            .retry(patient)
            .timeout(TIMEOUT),
        (order, parcel),
    );
    Ok(saga.returns(confirmation)?)
}

/// Sets the goods aside.
struct ReserveStock {
    stock: Client,
}

impl Step for ReserveStock {
    type Input = Order;
    type Output = Reservation;

    async fn execute(&self, cx: &StepContext, order: &Order) -> Result<Reservation, StepError> {
        if !order.has_goods() {
            return Err(StepError::stop("nothing to ship"));
        }
        let request = Reserve {
            order_id: order.id.clone(),
            lines: order.lines.clone(),
        };
        match self.stock.call("reserve", cx, &request).await {
            Err(CallError::Refused(gone @ Refusal::Discontinued)) => {
                Err(StepError::stop(gone.to_string()))
            }
            answer => Ok(answer?),
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        order: &Order,
        _: Effect<&Reservation>,
    ) -> Result<(), StepError> {
        undo(&self.stock, "release", cx, order).await
    }
}

/// Takes the money.
struct ChargeCard {
    payments: Client,
}

impl Step for ChargeCard {
    type Input = Order;
    type Output = Payment;

    async fn execute(&self, cx: &StepContext, order: &Order) -> Result<Payment, StepError> {
        let request = Charge {
            order_id: order.id.clone(),
            customer_id: order.customer_id.clone(),
            goods_cents: order.total_cents() - order.freight_cents,
            freight_cents: order.freight_cents,
        };
        Ok(self.payments.call("charge", cx, &request).await?)
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        order: &Order,
        _: Effect<&Payment>,
    ) -> Result<(), StepError> {
        undo(&self.payments, "refund", cx, order).await
    }
}

/// Takes an effect back, or, where nobody knows whether it was made, sees to it that it neither is
/// nor will be: the service's barrier knows which of the two it is.
async fn undo(
    service: &Client,
    verb: &str,
    cx: &StepContext,
    order: &Order,
) -> Result<(), StepError> {
    let _: serde_json::Value = service.call(verb, cx, &of_order(order)).await?;
    Ok(())
}

fn of_order(order: &Order) -> OfOrder {
    OfOrder {
        order_id: order.id.clone(),
    }
}

/// Hands the parcel to the carrier: the point of no return.
struct BookParcel {
    parcels: Client,
}

impl Action for BookParcel {
    type Input = (Order, Reservation);
    type Output = Parcel;

    async fn execute(
        &self,
        cx: &StepContext,
        (order, reservation): &(Order, Reservation),
    ) -> Result<Parcel, StepError> {
        let request = Book {
            order_id: order.id.clone(),
            ship_to: order.ship_to.clone(),
            pieces: reservation.pieces,
        };
        Ok(self.parcels.call("book", cx, &request).await?)
    }
}

/// Asks what became of a booking whose answer was lost.
///
/// Without it an order that the carrier refuses after an answer was lost could not be undone: the
/// lost answer might have been a yes.
struct AskCarrier {
    parcels: Client,
}

impl AskCarrier {
    async fn look(&self, cx: &StepContext, order: &Order) -> Result<Fate, StepError> {
        let question = of_order(order);
        let answer = self.parcels.call("look", cx, &question);
        Ok(tokio::time::timeout(TIMEOUT / 4, answer).await??)
    }
}

impl Probe for AskCarrier {
    type Input = (Order, Reservation);
    type Output = Parcel;

    async fn probe(
        &self,
        cx: &StepContext,
        (order, _): &(Order, Reservation),
    ) -> Result<Probed<Parcel>, StepError> {
        // A question may be asked as often as one likes; the coordinator asks the probe only once
        // per attempt, so what gets lost on the wire is asked again here.
        let mut answer = self.look(cx, order).await;
        for _ in 0..3 {
            if answer.is_err() {
                answer = self.look(cx, order).await;
            }
        }
        Ok(match answer? {
            Fate::Standing { answer } => Probed::Done(serde_json::from_value(answer)?),
            Fate::Never => Probed::Never,
        })
    }
}

/// Tells the customer.
struct SendConfirmation {
    parcels: Client,
}

impl Action for SendConfirmation {
    type Input = (Order, Parcel);
    type Output = Confirmation;

    async fn execute(
        &self,
        cx: &StepContext,
        (order, parcel): &(Order, Parcel),
    ) -> Result<Confirmation, StepError> {
        let request = Confirm {
            order_id: order.id.clone(),
            tracking: parcel.tracking.clone(),
        };
        Ok(self.parcels.call("confirm", cx, &request).await?)
    }
}
