use amends::{Saga, StepContext, step_with};

fn main() {
    let fee = String::from("12");
    let mut saga = Saga::builder::<u64>("sale");
    let amount = saga.input();
    let _ = saga.add(
        step_with(
            "take-money",
            (),
            async move |(), _: &StepContext, _: &u64| Ok(fee.len()),
            async |_, _, _, _| Ok(()),
        ),
        amount,
    );
}
