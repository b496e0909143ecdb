use amends::{Saga, StepContext, read_only_fn};

fn main() {
    let prices = vec![1_u64, 2, 3];
    let mut saga = Saga::builder::<usize>("look");
    let at = saga.input();
    let _ = saga.add(
        read_only_fn("price", async move |_: &StepContext, at: &usize| Ok(prices[*at])),
        at,
    );
}
