use amends::{Saga, StepContext, step, step_fn};

fn main() {
    let mut child = Saga::builder::<String>("child");
    let name = child.input();
    let greet = async |_: &StepContext, name: &String| Ok(name.len());
    let greeted = child.add(step_fn("greet", greet, async |_, _, _| Ok(())), name);
    let child = child.returns(greeted).unwrap();

    let mut saga = Saga::builder::<u64>("parent");
    let n = saga.input();
    let _ = saga.add(step("child", &child), n);
}
