use amends::{Saga, StepContext, step_fn};

fn main() {
    let mut saga = Saga::builder::<u64>("count");
    let n = saga.input();
    let _ = saga.add(
        step_fn(
            "add-one",
            |_: &StepContext, n: &u64| Ok(n + 1),
            async |_, _, _| Ok(()),
        ),
        n,
    );
}
