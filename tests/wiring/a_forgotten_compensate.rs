use amends::{Step, StepContext, StepError};

struct Reserve;

impl Step for Reserve {
    type Input = u64;
    type Output = String;

    async fn execute(&self, _: &StepContext, id: &u64) -> Result<String, StepError> {
        Ok(id.to_string())
    }
}

fn main() {}
