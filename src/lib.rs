//! Sagas in your own process: typed execute/compensate steps, a durable log, recovery by policy.
//!
//! A [`Saga`] is a graph of steps, each a pair of an `execute` and the `compensate` that makes amends for it.
//! A [`Coordinator`] runs it over a [`store`]: it journals what it is about to do before it does it,
//! retries what may be retried, puts failures to a [`policy`], undoes in reverse, and goes on after
//! a crash where the journal says it was.
//!
//! ```
//! use amends::store::MemoryStore;
//! use amends::{Coordinator, Outcome, Saga, StepError, step_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut saga = Saga::builder::<u64>("place-order").version(1);
//! let amount = saga.input();
//! let stock = saga.add(
//!     step_fn(
//!         "reserve-stock",
//!         async |cx, amount: &u64| Ok(format!("{amount} reserved under {}", cx.idempotency_key())),
//!         async |_cx, _amount, _effect| Ok(()),
//!     ),
//!     amount,
//! );
//! let payment = saga.add(
//!     step_fn(
//!         "charge-card",
//!         async |_cx, (amount, _stock): &(u64, String)| match amount {
//!             0..=100 => Ok(*amount),
//!             _ => Err(StepError::rejected("above the limit")),
//!         },
//!         async |_cx, _input, _effect| Ok(()),
//!     ),
//!     (amount, stock),
//! );
//! let saga = saga.returns(payment)?;
//!
//! let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
//! let paid = coordinator.start(&saga, "order-1", 99).await?.outcome().await?;
//! assert!(matches!(&paid, Outcome::Completed(done) if done.output == 99));
//!
//! let refused = coordinator.start(&saga, "order-2", 1_000).await?.outcome().await?;
//! let Outcome::Compensated(partial) = refused else { panic!("{refused:?}") };
//! assert_eq!(partial.failing_step.as_deref(), Some("charge-card"));
//! assert_eq!(partial.compensations[0].step, "reserve-stock");
//! # Ok(())
//! # }
//! ```
//!
//! Where things are: [`mod@step`] is what users write, [`saga`] the definition, [`failure`] and [`policy`] what
//! can go wrong and what is done about it, [`journal`] the events, [`machine`] what they mean, [`store`] where
//! they live; [`isolation`] helps runs that share rows, and [`barrier`] the services that steps call; with the
//! feature `http`, `participant` has steps that call services in any language. The names used most are here
//! at the root.

#![forbid(unsafe_code)]

pub mod barrier;
mod coordinator;
pub mod diagram;
pub mod failure;
mod ids;
pub mod isolation;
pub mod journal;
pub mod machine;
mod observe;
pub mod operator;
mod partial;
#[cfg(feature = "http")]
pub mod participant;
pub mod policy;
pub mod saga;
mod sharded;
pub mod step;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod trace_context;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use coordinator::StartedIn;
pub use coordinator::{
    BuildError, Clock, CommandError, Coordinator, CoordinatorBuilder, GetError, Migration,
    MigrationFrom, OutcomeError, PoliciesError, Resolution, RunHandle, StartError, StartOptions,
    SystemClock, Told, Watch, WatchedEvent,
};
pub use failure::FailureMode;
pub use ids::{RunId, Timestamp};
pub use journal::CancelTold;
pub use machine::{Happened, Moment, SignalTold};
pub use partial::{
    AttemptReport, CallEnd, CallKind, CallReport, CancelReport, CompensationReport, Completed,
    EffectReport, Outcome, Outstanding, PartialResult, PauseReport, StepReport, StepStatus,
};
pub use policy::{RecoveryPolicy, RecoveryStrategy, Retry};
pub use saga::{
    Approval, ApprovalStep, ApprovalVerdict, AsStep, Choice, Delay, Fault, ForEach, Graph,
    GraphStep, Inputs, Mapped, Node, NodeIx, OnStop, Outline, OutlineForm, OutlineStep,
    OutlineWait, Part, Saga, SagaBuilder, SagaError, Siblings, SomeNode, StepKind, StepSpec,
    UndoOrder, UndoRule, Wait, approval, delay, first_of, irreversible, irreversible_fn, read_only,
    read_only_fn, step, step_fn, step_with, wait_for,
};
pub use step::{
    Action, Effect, Payload, Probe, Probed, ResultExt, Step, StepContext, StepError, StepIx, Value,
};

/// The README's example is compiled and run like any other.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(all(doctest, feature = "postgres"))]
#[doc = include_str!("../docs/fleet.md")]
mod fleet {}

/// The pages of `docs/`, so that their examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/defining.md")]
mod defining {}

#[cfg(doctest)]
#[doc = include_str!("../docs/composition.md")]
mod composition {}
#[cfg(doctest)]
#[doc = include_str!("../docs/evolution.md")]
mod evolution {}
#[cfg(doctest)]
#[doc = include_str!("../docs/policies.md")]
mod policies {}
#[cfg(doctest)]
#[doc = include_str!("../docs/diagrams.md")]
mod diagrams {}
