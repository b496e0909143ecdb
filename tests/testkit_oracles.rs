//! Participants, steps and stores that break a promise: the exploration has to say which.
// The helpers below are test code like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "testkit")]

use std::sync::Arc;

use amends::journal::{Command, CommandAnswer, Journal};
use amends::saga::Outline;
use amends::store::{
    Append, Appending, CommandEntry, LoadError, MemoryStore, PruneFilter, Pruned, RunEntry,
    RunFilter, Store, StoreError, SubmitError,
};
use amends::testkit::{Explorer, Fault, Reopen, Scenario, StoreFault, Violation, World};
use amends::{Retry, RunId, Saga, StepError, step_with};
use async_trait::async_trait;

/// `reserve`, then `charge`, with the bodies that a world gives them.
fn order(world: &World) -> Saga<u64, String> {
    let mut saga = Saga::builder::<u64>("order");
    let order = saga.input();
    let stock = saga.add(world.step::<u64>("reserve"), order);
    let retry = Retry::constant().max_attempts(2);
    let paid = saga.add(world.step::<String>("charge").retry(retry), stock);
    saga.returns(paid).unwrap()
}

fn broken(explorer: &Explorer, make: impl Fn() -> Scenario<u64, String>) -> Violation {
    explorer.explore(make).expect_err("a promise is broken")
}

#[test]
fn a_participant_that_forgets_keys_is_charged_twice() {
    let violation = broken(&Explorer::new("forgetful"), || {
        let world = World::new()
            .forgetful()
            .fail_at("charge", 1, Fault::LostReply);
        Scenario::new(order(&world), 1, world)
    });
    let what = violation.what();
    assert!(
        what.contains("each key takes effect at most once: charge"),
        "{what}"
    );
    assert!(violation.points().is_empty(), "no crash is needed for it");
}

#[test]
fn a_participant_that_forgets_keys_is_charged_twice_by_a_crash_alone() {
    let violation = broken(&Explorer::new("forgetful"), || {
        let world = World::new().forgetful();
        Scenario::new(order(&world), 1, world)
    });
    let what = violation.what();
    assert!(
        what.contains("each key takes effect at most once: reserve"),
        "{what}"
    );
    assert_eq!(violation.points(), [(2, StoreFault::CrashBefore)]);
    let story = violation.to_string();
    assert!(
        story.starts_with("`forgetful`, killed before append 2: run `run-1`: each key"),
        "{story}"
    );
    assert!(
        story.contains("  crash    killed before append 2\n"),
        "{story}"
    );
    assert!(story.contains("RunStarted"), "the journal is told: {story}");
}

#[test]
fn an_undo_that_does_nothing_is_a_forgotten_effect() {
    let violation = broken(&Explorer::new("lying undo"), || {
        let world = World::new().fail_calls("charge", .., Fault::Rejected);
        let mut saga = Saga::builder::<u64>("order");
        let order = saga.input();
        let lying = step_with(
            "reserve",
            world.clone(),
            async |world: &World, cx, n: &u64| world.execute(cx.idempotency_key(), *n).await,
            async |_, _, _, _| Ok(()),
        );
        let stock = saga.add(lying, order);
        let paid = saga.add(world.step::<u64>("charge"), stock);
        Scenario::new(saga.returns(paid).unwrap(), 1, world)
    });
    let what = violation.what();
    assert!(
        what.contains("none is forgotten: `reserve` stands"),
        "{what}"
    );
}

#[test]
fn a_step_that_makes_its_own_keys_is_found_out() {
    let violation = broken(&Explorer::new("own keys"), || {
        let world = World::new();
        let mut saga = Saga::builder::<u64>("order");
        let order = saga.input();
        let own = step_with(
            "reserve",
            world.clone(),
            async |world: &World, cx, _: &u64| -> Result<String, StepError> {
                let key = format!("{}-{}", cx.idempotency_key(), cx.attempt());
                world.execute(&key, key.clone()).await
            },
            async |world: &World, cx, _, _| world.compensate(cx.effect_key()).await,
        );
        let stock = saga.add(own, order);
        Scenario::new(saga.returns(stock).unwrap(), 1, world)
    });
    let what = violation.what();
    assert!(what.contains("intent before effect: reserve"), "{what}");
}

#[test]
fn a_run_that_ends_otherwise_than_said_is_reported_with_both_words() {
    let violation = broken(&Explorer::new("ends"), || {
        let world = World::new().fail_calls("charge", .., Fault::Rejected);
        Scenario::new(order(&world), 1, world).ends(&["completed"])
    });
    assert_eq!(
        violation.what(),
        "a run is compensated, and may only be completed"
    );
}

/// Loses the append with this sequence number, in its own way.
#[derive(Debug)]
struct Losing {
    inner: MemoryStore,
    seq: u64,
    acknowledges: bool,
}

fn losing(seq: u64, acknowledges: bool) -> Explorer {
    Explorer::new("losing store").stores(move || -> Reopen {
        let inner = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(Losing {
            inner,
            seq,
            acknowledges,
        });
        Box::new(move || Arc::clone(&store))
    })
}

#[async_trait]
impl Store for Losing {
    fn append(&self, append: Append) -> Appending {
        match (append.record.seq == self.seq, self.acknowledges) {
            (true, true) => Appending::ready(Ok(())),
            (true, false) => Appending::future(std::future::pending()),
            (false, _) => self.inner.append(append),
        }
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.inner.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        self.inner.find(run).await
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        self.inner.scan(filter, after, limit).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        self.inner.submit(command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.inner.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.inner.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        self.inner.find_command(token).await
    }

    async fn commands_arrived(&self) {
        self.inner.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        self.inner.prune(filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        self.inner.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.inner.recall(saga, version, fingerprint).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[test]
fn a_store_that_acknowledges_without_writing_is_found_out() {
    let found = [1, 2, 3].map(|seq| {
        let violation = broken(&losing(seq, true), || {
            let world = World::new();
            Scenario::new(order(&world), 1, world)
        });
        violation.what().to_owned()
    });
    // The next append finds another end of the journal than its own; after the last there is none.
    let lost = "the coordinator failed: run `run-1` belongs to another coordinator now";
    assert_eq!(found[..2], [lost, lost]);
    // Then the run that is started again is not over in the store: it is claimed, which is lost too, and called.
    let unannounced = "run `run-1`: intent before effect: charge: execute called under ";
    assert!(found[2].starts_with(unannounced), "{}", found[2]);
}

#[test]
fn a_store_that_never_answers_leaves_a_run_under_way() {
    let violation = broken(&losing(3, false), || {
        let world = World::new();
        Scenario::new(order(&world), 1, world)
    });
    let what = violation.what();
    assert!(what.starts_with("every run comes to rest"), "{what}");
}
