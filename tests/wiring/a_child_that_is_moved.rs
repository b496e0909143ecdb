use amends::{Saga, StepContext, step, step_fn};

fn main() {
    let mut child = Saga::builder::<u64>("child");
    let n = child.input();
    let count = async |_: &StepContext, n: &u64| Ok(n + 1);
    let counted = child.add(step_fn("count", count, async |_, _, _| Ok(())), n);
    let child = child.returns(counted).unwrap();

    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let _ = saga.add(step("child", child), n);
}
