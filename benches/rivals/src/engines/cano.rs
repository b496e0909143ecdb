use std::sync::Arc;

use ::cano::RedbCheckpointStore;
use ::cano::prelude::*;
use measure::{Call, Contender, Failed, Order, called};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    One,
    Two,
    Three,
    Done,
}

/// Tasks have no input; an output is only for the compensation.
struct One;
struct Two;
struct Three {
    fails: bool,
}

#[saga::task(state = Stage)]
impl One {
    type Output = u64;
    async fn run(&self, _: &Resources) -> Result<(TaskResult<Stage>, u64), CanoError> {
        called(Call::Do(1));
        Ok((TaskResult::Single(Stage::Two), 2))
    }
    async fn compensate(&self, _: &Resources, _: u64) -> Result<(), CanoError> {
        called(Call::Undo(1));
        Ok(())
    }
}

#[saga::task(state = Stage)]
impl Two {
    type Output = u64;
    async fn run(&self, _: &Resources) -> Result<(TaskResult<Stage>, u64), CanoError> {
        called(Call::Do(2));
        Ok((TaskResult::Single(Stage::Three), 3))
    }
    async fn compensate(&self, _: &Resources, _: u64) -> Result<(), CanoError> {
        called(Call::Undo(2));
        Ok(())
    }
}

#[saga::task(state = Stage)]
impl Three {
    type Output = u64;
    // All errors are retried by default; this one is for good.
    fn config(&self) -> TaskConfig {
        match self.fails {
            true => TaskConfig::minimal(),
            false => TaskConfig::default(),
        }
    }
    async fn run(&self, _: &Resources) -> Result<(TaskResult<Stage>, u64), CanoError> {
        called(Call::Do(3));
        match self.fails {
            true => Err(CanoError::task_execution("no")),
            false => Ok((TaskResult::Single(Stage::Done), 4)),
        }
    }
    async fn compensate(&self, _: &Resources, _: u64) -> Result<(), CanoError> {
        called(Call::Undo(3));
        Ok(())
    }
}

pub(super) struct Cano {
    workflow: Workflow<Stage>,
    stored: bool,
    fails: bool,
}

pub(super) async fn open(order: Order) -> Result<Cano, Failed> {
    let mut workflow = Workflow::bare()
        .register_with_compensation(Stage::One, One)
        .register_with_compensation(Stage::Two, Two)
        .register_with_compensation(Stage::Three, Three { fails: order.fails })
        .add_exit_state(Stage::Done);
    let stored = match order.store.as_str() {
        "none" => false,
        "redb" => {
            let store = RedbCheckpointStore::new(order.folder.join("sagas.redb"))?;
            workflow = workflow.with_checkpoint_store(Arc::new(store));
            true
        }
        _ => return Err(super::unknown(&order)),
    };
    Ok(Cano {
        workflow,
        stored,
        fails: order.fails,
    })
}

impl Contender for Cano {
    async fn saga(&self, number: u64) -> Result<(), Failed> {
        let never = CancellationToken::disabled();
        // The store knows a run by its workflow's id, so that each run is of a workflow of its own.
        let ended = if self.stored {
            let id = format!("saga-{number}");
            let workflow = self.workflow.clone().with_workflow_id(id);
            workflow.orchestrate(Stage::One, never).await
        } else {
            self.workflow.orchestrate(Stage::One, never).await
        };
        match ended {
            Ok(Stage::Done) if !self.fails => Ok(()),
            Err(CanoError::WithStateContext { source, .. })
                if self.fails && matches!(*source, CanoError::TaskExecution(_)) =>
            {
                Ok(())
            }
            other => Err(format!("it ended as {other:?}").into()),
        }
    }
}
