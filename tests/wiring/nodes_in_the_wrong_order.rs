use amends::{Effect, Saga, Step, StepContext, StepError, step};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    total: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Reservation;

struct Reserve;

impl Step for Reserve {
    type Input = Order;
    type Output = Reservation;

    async fn execute(&self, _: &StepContext, _: &Order) -> Result<Reservation, StepError> {
        Ok(Reservation)
    }

    async fn compensate(
        &self,
        _: &StepContext,
        _: &Order,
        _: Effect<&Reservation>,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

struct Charge;

impl Step for Charge {
    type Input = (Order, Reservation);
    type Output = u64;

    async fn execute(&self, _: &StepContext, input: &Self::Input) -> Result<u64, StepError> {
        Ok(input.0.total)
    }

    async fn compensate(
        &self,
        _: &StepContext,
        _: &Self::Input,
        _: Effect<&u64>,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let mut saga = Saga::builder::<Order>("place-order");
    let order = saga.input();
    let stock = saga.add(step("reserve", Reserve), order);
    let paid = saga.add(step("charge", Charge), (stock, order));
    let _ = saga.returns::<u64>(paid);
}
