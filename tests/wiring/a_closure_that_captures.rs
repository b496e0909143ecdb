use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amends::{Saga, StepContext, step_fn};

fn main() {
    let till = Arc::new(AtomicU64::new(0));
    let other = Arc::clone(&till);
    let mut saga = Saga::builder::<u64>("sale");
    let amount = saga.input();
    let _ = saga.add(
        step_fn(
            "take-money",
            async move |_: &StepContext, amount: &u64| Ok(till.fetch_add(*amount, Ordering::SeqCst)),
            async move |_, amount, _| {
                other.fetch_sub(*amount, Ordering::SeqCst);
                Ok(())
            },
        ),
        amount,
    );
}
