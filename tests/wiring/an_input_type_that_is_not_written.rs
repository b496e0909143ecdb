use amends::{Saga, read_only_fn};

fn main() {
    let mut saga = Saga::builder::<u64>("look");
    let n = saga.input();
    let _ = saga.add(read_only_fn("look-up", async |_cx, n| Ok(n.to_string())), n);
}
