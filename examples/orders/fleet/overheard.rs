//! A worker's store, overheard: all is passed on, and the parent is told of the answers that it counts.

use amends::journal::{Command, CommandAnswer, Event, Journal};
use amends::store::{
    Append, AppendError, Appending, CommandEntry, Counts, Fleet, KnownDefinition, LoadError,
    PostgresStore, PruneFilter, Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError,
};
use amends::{Outline, RunId};
use async_trait::async_trait;

use crate::coordinator::say;
use crate::words::Word;

#[derive(Debug)]
pub(crate) struct Overheard(pub(crate) PostgresStore);

#[async_trait]
impl Store for Overheard {
    fn append(&self, append: Append) -> Appending {
        // Two workers may claim a run, or start one, at the same time: who loses is no zombie.
        let events = &append.record.events;
        let first = append.record.seq == 1;
        let claims = events
            .iter()
            .any(|event| matches!(event, Event::Claimed { .. }));
        let appending = self.0.append(append);
        Appending::future(async move {
            let answer = appending.await;
            let word = match &answer {
                Err(AppendError::Conflict) if !first && !claims => Word::StaleAppend,
                Err(AppendError::Unknown(_)) => Word::UnknownCommit,
                _ => return answer,
            };
            // The parent may have gone; then it counts nothing.
            let _ = say(&word);
            answer
        })
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.0.load(run).await
    }

    async fn load_after(&self, run: &RunId, seq: u64) -> Result<Option<Journal>, LoadError> {
        self.0.load_after(run, seq).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.0.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.0.scan(filter, after, limit).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.0.counts().await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.0.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.0.recall(saga, version, fingerprint).await
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        self.0.register(definitions).await
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        self.0.definitions().await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.0.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.0.open_commands(after, limit).await
    }

    async fn open_commands_of(&self, run: &RunId) -> Result<Vec<CommandEntry>, StoreError> {
        self.0.open_commands_of(run).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.0.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.0.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.0.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.0.prune(filter, after, limit).await
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        self.0.fleet()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
