use std::sync::Arc;

use ::steno::{
    Action, ActionContext, ActionError, ActionFunc, ActionRegistry, Dag, DagBuilder,
    InMemorySecStore, Node, SagaDag, SagaId, SagaName, SagaType, SecClient, sec,
};
use measure::{Call, Contender, Failed, OUTPUT, Order, called};

#[derive(Debug)]
struct W3;

impl SagaType for W3 {
    type ExecContextType = ();
}

async fn one(cx: ActionContext<W3>) -> Result<u64, ActionError> {
    called(Call::Do(1));
    Ok(cx.saga_params::<u64>()? + 1)
}

async fn two(cx: ActionContext<W3>) -> Result<u64, ActionError> {
    called(Call::Do(2));
    Ok(cx.lookup::<u64>("one")? + 1)
}

async fn three(cx: ActionContext<W3>) -> Result<u64, ActionError> {
    called(Call::Do(3));
    Ok(cx.lookup::<u64>("two")? + 1)
}

async fn refuses(_: ActionContext<W3>) -> Result<u64, ActionError> {
    called(Call::Do(3));
    Err(ActionError::action_failed("no".to_owned()))
}

async fn undo<const STEP: u8>(_: ActionContext<W3>) -> Result<(), anyhow::Error> {
    called(Call::Undo(STEP));
    Ok(())
}

pub(super) struct Steno {
    client: SecClient,
    actions: Arc<ActionRegistry<W3>>,
    dag: Dag,
    fails: bool,
}

pub(super) async fn open(order: Order) -> Result<Steno, Failed> {
    if order.store != "none" {
        return Err(super::unknown(&order));
    }
    let three: Arc<dyn Action<W3>> = match order.fails {
        true => ActionFunc::new_action("three", refuses, undo::<3>),
        false => ActionFunc::new_action("three", three, undo::<3>),
    };
    let steps = [
        ("one", ActionFunc::new_action("one", one, undo::<1>)),
        ("two", ActionFunc::new_action("two", two, undo::<2>)),
        ("three", three),
    ];
    let mut actions = ActionRegistry::new();
    let mut dag = DagBuilder::new(SagaName::new("w3"));
    for (name, action) in steps {
        dag.append(Node::action(name, name, action.as_ref()));
        actions.register(action);
    }
    let log = slog::Logger::root(slog::Discard, slog::o!());
    Ok(Steno {
        client: sec(log, Arc::new(InMemorySecStore::new())),
        actions: Arc::new(actions),
        dag: dag.build()?,
        fails: order.fails,
    })
}

impl Contender for Steno {
    async fn saga(&self, _: u64) -> Result<(), Failed> {
        let id = SagaId::new_v4();
        // The input is a part of the graph, so that each saga has a graph of its own.
        let dag = Arc::new(SagaDag::new(self.dag.clone(), 1.into()));
        let actions = Arc::clone(&self.actions);
        let ends = self.client.saga_create(id, Arc::new(()), dag, actions);
        let ends = ends.await?;
        self.client.saga_start(id).await?;
        match ends.await.kind {
            Ok(done) if !self.fails && done.saga_output::<u64>()? == OUTPUT => Ok(()),
            Err(failed) if self.fails && failed.undo_failure.is_none() => Ok(()),
            other => Err(format!("it ended as {other:?}").into()),
        }
    }
}
