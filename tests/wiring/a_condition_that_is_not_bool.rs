use amends::{Saga, StepContext, step_fn};

fn main() {
    let mut saga = Saga::builder::<u64>("trip");
    let price = saga.input();
    let insure = async |_: &StepContext, price: &u64| Ok(price / 100);
    let _ = saga.add(
        step_fn("insure", insure, async |_, _, _| Ok(())).only_if(price),
        price,
    );
}
