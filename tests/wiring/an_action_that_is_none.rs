use amends::{Saga, read_only};

struct LookUp;

fn main() {
    let mut saga = Saga::builder::<u64>("look");
    let id = saga.input();
    let _ = saga.add(read_only("look-up", LookUp), id);
}
