use amends::{Action, Saga, StepContext, StepError, step};

struct LookUp;

impl Action for LookUp {
    type Input = u64;
    type Output = String;

    async fn execute(&self, _: &StepContext, id: &u64) -> Result<String, StepError> {
        Ok(id.to_string())
    }
}

fn main() {
    let mut saga = Saga::builder::<u64>("look");
    let id = saga.input();
    let _ = saga.add(step("look-up", LookUp), id);
}
