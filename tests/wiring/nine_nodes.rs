use amends::{Saga, StepContext, read_only_fn};

type Nine = (u8, u8, u8, u8, u8, u8, u8, u8, u8);

fn main() {
    let mut saga = Saga::builder::<u8>("nine");
    let n = saga.input();
    let sum = read_only_fn("sum", async |_: &StepContext, n: &Nine| Ok(n.0 + n.8));
    let _ = saga.add(sum, (n, n, n, n, n, n, n, n, n));
}
