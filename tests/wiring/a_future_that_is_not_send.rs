use std::rc::Rc;

use amends::{Effect, Saga, Step, StepContext, StepError, step, step_fn};

struct Count;

impl Step for Count {
    type Input = u64;
    type Output = u64;

    async fn execute(&self, _: &StepContext, n: &u64) -> Result<u64, StepError> {
        let shared = Rc::new(*n);
        tokio::task::yield_now().await;
        Ok(*shared)
    }

    async fn compensate(&self, _: &StepContext, _: &u64, _: Effect<&u64>) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let mut saga = Saga::builder::<u64>("count");
    let n = saga.input();
    let counted = saga.add(step("count", Count), n);
    let _ = saga.add(
        step_fn(
            "count-again",
            async |_: &StepContext, n: &u64| {
                let shared = Rc::new(*n);
                tokio::task::yield_now().await;
                Ok(*shared)
            },
            async |_, _, _| Ok(()),
        ),
        counted,
    );
}
