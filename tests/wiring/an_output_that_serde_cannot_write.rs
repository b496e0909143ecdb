use amends::{Effect, Step, StepContext, StepError};

struct Connection;

struct Connect;

impl Step for Connect {
    type Input = String;
    type Output = Connection;

    async fn execute(&self, _: &StepContext, _: &String) -> Result<Connection, StepError> {
        Ok(Connection)
    }

    async fn compensate(
        &self,
        _: &StepContext,
        _: &String,
        _: Effect<&Connection>,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {}
