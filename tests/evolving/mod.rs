//! Binaries that follow one another on one store, each with the definitions that it has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)] // Helper functions of tests aren't test functions, and no test file uses all of them.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amends::journal::Standing;
use amends::machine::Refused;
use amends::store::{MemoryStore, Store};
use amends::{
    Action, CommandError, Coordinator, CoordinatorBuilder, Effect, FailureMode, PartialResult,
    Payload, RecoveryPolicy, RecoveryStrategy, Retry, RunId, Saga, SagaBuilder, Step, StepContext,
    StepError, StepSpec, irreversible, read_only, step,
};

/// A store that outlives the binaries.
pub enum Disk {
    Memory(Arc<MemoryStore>),
    #[cfg(feature = "sqlite")]
    Sqlite(tempfile::TempDir),
}

impl Disk {
    /// One of each kind that is built.
    pub fn all() -> Vec<Disk> {
        vec![
            Disk::Memory(Arc::default()),
            #[cfg(feature = "sqlite")]
            Disk::Sqlite(tempfile::tempdir().unwrap()),
        ]
    }

    /// The store as the next process opens it.
    pub fn open(&self) -> Arc<dyn Store> {
        match self {
            Disk::Memory(store) => store.clone(),
            #[cfg(feature = "sqlite")]
            Disk::Sqlite(dir) => {
                let file = dir.path().join("sagas.db");
                Arc::new(amends::store::SqliteStore::open(file).unwrap())
            }
        }
    }

    /// A binary: what is in flight when it is shut down is dropped, as a crash would.
    pub fn binary(&self) -> CoordinatorBuilder {
        Coordinator::builder_shared(self.open()).shutdown_grace(Duration::ZERO)
    }
}

/// What is called, in order: `charge-card uid/charge/1`, with the uid left out, and `undo` before undos.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub fn note(&self, call: String) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
    }

    /// All since the last look.
    pub fn take(&self) -> Vec<String> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut calls)
    }

    /// How many since the last look.
    pub fn count(&self) -> usize {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.len()
    }
}

/// A key without the run's uid.
pub fn short(key: &str) -> String {
    key.split_once('/').map_or(key, |(_, rest)| rest).to_owned()
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Done,
    /// It never comes to an end.
    Hangs,
    /// Refused: it did nothing.
    Refused,
    /// Refused for now: it did nothing, and may be tried again.
    Busy,
    /// Nobody knows.
    Doubt,
}

/// Code that notes how it is called. `code` says which version of the code it is.
pub struct Noted<I> {
    calls: Calls,
    code: &'static str,
    then: Then,
    undo: Then,
    _input: PhantomData<fn(I)>,
}

impl<I> Noted<I> {
    async fn call(&self, cx: &StepContext, input: String) -> Result<String, StepError> {
        let key = short(cx.idempotency_key());
        self.calls.note(format!("{}({input}) {key}", self.code));
        match self.then {
            Then::Done => Ok(format!("{} of {input}", self.code)),
            Then::Hangs => std::future::pending().await,
            Then::Refused => Err(StepError::rejected("refused")),
            Then::Busy => Err(StepError::not_done(std::io::Error::other("busy"))
                .with_mode(FailureMode::SystemNetwork)),
            Then::Doubt => Err(StepError::in_doubt(std::io::Error::other("lost"))),
        }
    }
}

impl<I: Payload + std::fmt::Debug> Step for Noted<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<String, StepError> {
        self.call(cx, format!("{input:?}").replace('"', "")).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&String>,
    ) -> Result<(), StepError> {
        let (key, of) = (short(cx.idempotency_key()), short(cx.effect_key()));
        let input = format!("{input:?}").replace('"', "");
        let what = match effect {
            Effect::Done(output) => format!("what it had done, {output}"),
            Effect::InDoubt => "a doubt".to_owned(),
        };
        self.calls
            .note(format!("undo {}({input}) {key} of {of}: {what}", self.code));
        match self.undo {
            Then::Refused => Err(StepError::rejected("refused")),
            _ => Ok(()),
        }
    }
}

impl<I: Payload + std::fmt::Debug> Action for Noted<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<String, StepError> {
        self.call(cx, format!("{input:?}").replace('"', "")).await
    }
}

/// The code of one binary.
#[derive(Clone, Default)]
pub struct Code {
    pub calls: Calls,
}

impl Code {
    fn noted<I>(&self, code: &'static str, then: Then) -> Noted<I> {
        Noted {
            calls: self.calls.clone(),
            code,
            then,
            undo: Then::Done,
            _input: PhantomData,
        }
    }

    /// A step `name`, whose code is called `code` in the notes.
    pub fn step<I: Payload + std::fmt::Debug>(
        &self,
        name: &str,
        code: &'static str,
        then: Then,
    ) -> StepSpec<I, String> {
        step(name, self.noted(code, then)).retry(Retry::none())
    }
}

/// A saga over a text, whose failures are for an operator.
pub fn order(version: u32) -> SagaBuilder<String> {
    amends::Saga::builder::<String>("order")
        .version(version)
        .policy(RecoveryPolicy::new("eyes", RecoveryStrategy::Manual))
}

/// Waits until the run stands so.
pub async fn until(coordinator: &Coordinator, run: &str, standing: Standing) -> PartialResult {
    for _ in 0..2_000 {
        let partial = coordinator.get(&RunId::new(run)).await.unwrap().unwrap();
        if partial.standing == standing {
            return partial;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{run} is not {standing}");
}

/// Waits until so many calls were made since the last look.
pub async fn called(calls: &Calls, most: usize) -> Vec<String> {
    for _ in 0..2_000 {
        if calls.0.lock().unwrap().len() >= most {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls.take()
}

impl Code {
    /// A step whose undo comes to this.
    pub fn stuck<I: Payload + std::fmt::Debug>(
        &self,
        name: &str,
        code: &'static str,
        undo: Then,
    ) -> StepSpec<I, String> {
        let noted = Noted {
            undo,
            ..self.noted(code, Then::Done)
        };
        let never_again = step(name, noted).retry(Retry::none());
        never_again.compensation_retry(Retry::none())
    }

    /// An action that reads only.
    pub fn read<I: Payload + std::fmt::Debug>(
        &self,
        name: &str,
        code: &'static str,
    ) -> StepSpec<I, String> {
        read_only(name, self.noted(code, Then::Done)).retry(Retry::none())
    }

    /// The same, that comes to this.
    pub fn look<I: Payload + std::fmt::Debug>(
        &self,
        name: &str,
        code: &'static str,
        then: Then,
    ) -> StepSpec<I, String> {
        read_only(name, self.noted(code, then)).retry(Retry::none())
    }

    /// An action that can't be undone.
    pub fn forever<I: Payload + std::fmt::Debug>(
        &self,
        name: &str,
        code: &'static str,
        then: Then,
    ) -> StepSpec<I, String> {
        irreversible(name, self.noted(code, then)).retry(Retry::none())
    }
}

/// Runs `saga` until it is parked, and ends that binary.
pub async fn parked_by(disk: &Disk, saga: &Saga<String, String>, run: &str) {
    let binary = disk.binary().register(saga).build().await.unwrap();
    binary.start(saga, run, "a".to_owned()).await.unwrap();
    until(&binary, run, Standing::Parked).await;
    binary.shutdown().await;
}

/// Why run `order-1` is not migrated: each reason.
pub async fn refused(binary: &Coordinator) -> Vec<String> {
    let told = binary.migrate(&RunId::new("order-1"), "ann", "v2").await;
    match told {
        Err(CommandError::Refused {
            why: Refused::Migration { reasons, .. },
            ..
        }) => reasons,
        other => panic!("not refused: {other:?}"),
    }
}
