use amends::{Saga, StepContext, step_fn};

fn main() {
    let mut saga = Saga::builder::<u64>("order");
    let line = saga.input();
    let reserve = async |_: &StepContext, line: &u64| Ok(line + 1);
    let _ = saga.add(
        step_fn("reserve", reserve, async |_, _, _| Ok(())).for_each(),
        line,
    );
}
