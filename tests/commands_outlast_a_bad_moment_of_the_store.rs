//! A command that the store can't list, look up or answer for a moment is carried out as soon as it can.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::journal::{Command, CommandAnswer, Journal, Verb};
use amends::saga::Outline;
use amends::store::{
    Append, Appending, CommandEntry, LoadError, MemoryStore, PruneFilter, Pruned, RunEntry,
    RunFilter, Store, StoreError, SubmitError,
};
use amends::{
    Coordinator, Outcome, RecoveryPolicy, RecoveryStrategy, RunId, Saga, StepContext, StepError,
    step_fn,
};
use async_trait::async_trait;

/// A store whose next lists of commands, look-ups of runs and answers to commands fail.
#[derive(Debug)]
struct Moody {
    store: MemoryStore,
    lists_fail: AtomicUsize,
    finds_fail: AtomicUsize,
    answers_fail: AtomicUsize,
}

/// Counts down; says whether there was something left.
fn fails(left: &AtomicUsize) -> Result<(), StoreError> {
    let counted = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    match counted {
        Ok(_) => Err(StoreError::failed("looking", "a bad moment")),
        Err(_) => Ok(()),
    }
}

#[async_trait]
impl Store for Moody {
    fn append(&self, append: Append) -> Appending {
        self.store.append(append)
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.store.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        fails(&self.finds_fail)?;
        self.store.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.store.scan(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.store.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.store.recall(saga, version, fingerprint).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.store.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        fails(&self.lists_fail)?;
        self.store.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        fails(&self.answers_fail)?;
        self.store.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.store.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.store.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.store.prune(filter, after, limit).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_up_and_answered_again_until_the_store_has_done_it() {
    let mut saga =
        Saga::builder::<()>("s").policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual));
    let input = saga.input();
    let failed = saga.add(
        step_fn(
            "a",
            async |_: &StepContext, (): &()| Err::<u64, _>(StepError::rejected("no")),
            async |_, (), _| Ok(()),
        ),
        input,
    );
    let saga = saga.returns(failed).unwrap();
    let store = Arc::new(Moody {
        store: MemoryStore::new(),
        lists_fail: AtomicUsize::new(0),
        finds_fail: AtomicUsize::new(0),
        answers_fail: AtomicUsize::new(0),
    });
    let coordinator = Coordinator::builder_shared(store.clone())
        .register(&saga)
        .build()
        .await
        .unwrap();
    let run = coordinator.start(&saga, "r", ()).await.unwrap();
    assert!(matches!(run.outcome().await.unwrap(), Outcome::Parked(_)));

    store.lists_fail.store(2, Ordering::SeqCst);
    store.finds_fail.store(3, Ordering::SeqCst);
    store.answers_fail.store(2, Ordering::SeqCst);
    let abandon = Command::new("r", Verb::Abandon).by("ann");
    store.submit(&abandon).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), run.ended()).await;
    assert!(matches!(ended.unwrap().unwrap(), Outcome::Abandoned(_)));
    let mut answer = None;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = store
            .find_command(&abandon.token)
            .await
            .unwrap()
            .unwrap()
            .answer;
    }
    assert_eq!(answer, Some(CommandAnswer::Accepted { told: None }));
    assert_eq!(store.lists_fail.load(Ordering::SeqCst), 0);
    assert_eq!(store.finds_fail.load(Ordering::SeqCst), 0);
    assert_eq!(store.answers_fail.load(Ordering::SeqCst), 0);
}
