//! What a user writes: steps, actions, probes, and what they are handed.
//!
//! A [`Step`] is a pair of an `execute` and the `compensate` that makes amends for it. An [`Action`] has
//! only an `execute`: it is for what is read-only, or can't be undone. Both are plain `async fn`s.
//!
//! Nothing in this room knows sagas, journals or stores; everything else rests on it.

mod context;
mod effect;
mod error;
mod path;
mod payload;
mod pulse;
mod table;

pub(crate) use context::{CallKind, ContextParts, StopSignal};
pub use context::{Keys, StepContext};
pub use effect::{Effect, Probed};
pub(crate) use error::ErrorKind;
pub use error::{ResultExt, StepError};
pub(crate) use path::items_as_one;
pub(crate) use payload::panic_message;
pub use payload::{Payload, PayloadError, Value};
pub(crate) use pulse::{Pulse, Reports};
pub use table::{StepIx, StepTable};

use std::future::Future;
use std::sync::Arc;

/// A unit of work that can be undone: one `execute`, and the `compensate` that makes amends for it.
///
/// Written with plain `async fn`. The coordinator calls `execute` at least once and always with the same
/// [`idempotency_key`](StepContext::idempotency_key) while the effect may stand; it calls `compensate`
/// until it succeeds, also at least once.
///
/// # What `compensate` promises
///
/// It is called with what `execute` was called with, and with the [`Effect`]: the output, or
/// [`Effect::InDoubt`] when nobody knows whether `execute` took effect. Returning `Ok` says that the
/// effect is absent **and can't appear any more under this key**. For a remote participant only the
/// participant itself can keep the second half, by remembering keys that were undone and refusing them.
///
/// # Cancel safety
///
/// Both futures are dropped when their time-out passes. What had been sent by then is in doubt. Work that
/// `execute` has spawned elsewhere is not stopped with it: that is the step's own affair.
///
/// # Example
///
/// ```
/// use amends::{Effect, Step, StepContext, StepError};
///
/// struct ReserveSeat;
///
/// impl Step for ReserveSeat {
///     type Input = u32;
///     type Output = String;
///
///     async fn execute(&self, cx: &StepContext, row: &u32) -> Result<String, StepError> {
///         Ok(format!("seat {row}A, held under {}", cx.idempotency_key()))
///     }
///
///     async fn compensate(&self, cx: &StepContext, _: &u32, effect: Effect<&String>) -> Result<(), StepError> {
///         match effect {
///             Effect::Done(seat) => println!("giving back {seat}"),
///             Effect::InDoubt => println!("voiding whatever {} did", cx.effect_key()),
///         }
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Step`: it does not say what it does and how that is undone",
    label = "needs `impl Step for {Self}`",
    note = "implement `Step` with `async fn execute` and `async fn compensate`, or add it as `read_only(\"name\", ..)` (nothing to undo) or `irreversible(\"name\", ..)` (cannot be undone)"
)]
pub trait Step: Send + Sync + 'static {
    /// What the step needs: the type that its wiring has to give.
    type Input: Payload;
    /// What the step leaves for later steps and for its own undo.
    type Output: Payload;

    /// Does the work.
    ///
    /// # Errors
    ///
    /// A [`StepError`]; any error converts into it by `?`.
    fn execute(
        &self,
        cx: &StepContext,
        input: &Self::Input,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Makes amends for the work. Has to be safe to call again.
    ///
    /// # Errors
    ///
    /// A [`StepError`]: the undo is tried again by its own retry policy, and after that the run is parked.
    fn compensate(
        &self,
        cx: &StepContext,
        input: &Self::Input,
        effect: Effect<&Self::Output>,
    ) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Whether `execute` makes one effectful call and doesn't try again inside, so that a classifier's
    /// "not done" counts (rule E2): what [`StepSpec::atomic`](crate::StepSpec::atomic) declares where the
    /// definition is written, declared by the step itself. Default: no.
    fn is_atomic(&self) -> bool {
        false
    }
}

/// Work without an undo: read-only, or impossible to take back.
///
/// Add it with [`read_only`](crate::read_only) or [`irreversible`](crate::irreversible), which say which of the two it is.
///
/// ```
/// use amends::{Action, StepContext, StepError};
///
/// struct LookUpPrice;
///
/// impl Action for LookUpPrice {
///     type Input = String;
///     type Output = u64;
///
///     async fn execute(&self, _cx: &StepContext, sku: &String) -> Result<u64, StepError> {
///         Ok(sku.len() as u64 * 100)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `Action`",
    label = "needs `impl Action for {Self}`",
    note = "implement `Action` with `async fn execute`; for closures there are `read_only_fn` and `irreversible_fn`"
)]
pub trait Action: Send + Sync + 'static {
    /// What the action needs.
    type Input: Payload;
    /// What it gives.
    type Output: Payload;

    /// Does the work.
    ///
    /// # Errors
    ///
    /// A [`StepError`]; any error converts into it by `?`.
    fn execute(
        &self,
        cx: &StepContext,
        input: &Self::Input,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Whether `execute` makes one effectful call and doesn't try again inside, so that a classifier's
    /// "not done" counts (rule E2): what [`StepSpec::atomic`](crate::StepSpec::atomic) declares where the
    /// definition is written, declared by the action itself. Default: no.
    fn is_atomic(&self) -> bool {
        false
    }
}

/// Asks a participant what became of an effect that is in doubt.
///
/// A probe is asked before a step in doubt is executed again, before the policy decides, and before an
/// undo. It must change nothing. Absence is not proof: a participant that answers "not found" may still
/// receive the request that is on its way, so answer [`Probed::Never`] only where the participant
/// promises to refuse it. A probe that fails, or times out, counts as [`Probed::Unknown`].
///
/// ```
/// use amends::{Probe, Probed, StepContext, StepError};
///
/// struct AskTheBank;
///
/// impl Probe for AskTheBank {
///     type Input = u64;
///     type Output = String;
///
///     async fn probe(&self, cx: &StepContext, _amount: &u64) -> Result<Probed<String>, StepError> {
///         println!("what became of {}?", cx.effect_key());
///         Ok(Probed::Unknown)
///     }
/// }
/// ```
pub trait Probe: Send + Sync + 'static {
    /// The input of the step that is asked about.
    type Input: Payload;
    /// Its output.
    type Output: Payload;

    /// Asks what became of the effect under [`StepContext::effect_key`].
    ///
    /// # Errors
    ///
    /// An error counts as [`Probed::Unknown`].
    fn probe(
        &self,
        cx: &StepContext,
        input: &Self::Input,
    ) -> impl Future<Output = Result<Probed<Self::Output>, StepError>> + Send;
}

impl<S: Step> Step for Arc<S> {
    type Input = S::Input;
    type Output = S::Output;

    async fn execute(&self, cx: &StepContext, input: &S::Input) -> Result<S::Output, StepError> {
        S::execute(self, cx, input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &S::Input,
        effect: Effect<&S::Output>,
    ) -> Result<(), StepError> {
        S::compensate(self, cx, input, effect).await
    }

    fn is_atomic(&self) -> bool {
        S::is_atomic(self)
    }
}

impl<T: Action> Action for Arc<T> {
    type Input = T::Input;
    type Output = T::Output;

    async fn execute(&self, cx: &StepContext, input: &T::Input) -> Result<T::Output, StepError> {
        T::execute(self, cx, input).await
    }

    fn is_atomic(&self) -> bool {
        T::is_atomic(self)
    }
}

impl<P: Probe> Probe for Arc<P> {
    type Input = P::Input;
    type Output = P::Output;

    async fn probe(
        &self,
        cx: &StepContext,
        input: &P::Input,
    ) -> Result<Probed<P::Output>, StepError> {
        P::probe(self, cx, input).await
    }
}
