use amends::{Saga, StepContext, step_fn};

fn main() {
    let mut saga = Saga::builder::<u64>("trip");
    let day = saga.input();
    let flight = async |_: &StepContext, day: &u64| Ok(format!("day {day}"));
    let train = async |_: &StepContext, day: &u64| Ok(*day);
    let _ = saga.add(
        step_fn("flight", flight, async |_, _, _| Ok(()))
            .fallback(step_fn("train", train, async |_, _, _| Ok(()))),
        day,
    );
}
