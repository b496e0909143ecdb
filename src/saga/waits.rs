//! Steps that call nothing: they wait for a signal, for somebody's word, or for a time.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{FailedEffect, Failure, FailureMode};
use crate::saga::body::InsideBody;
use crate::saga::part::sealed;
use crate::saga::{Inputs, Part, SomeNode, StepKind, StepSpec};
use crate::step::{Payload, PayloadError, Value};

/// What a waiting step does with signals, and without one.
pub(crate) trait WaitBody: Send + Sync {
    /// Looks at a signal when it comes, and says what is kept of it; or why it is refused.
    fn accept(&self, payload: &Value, by: &str, reason: &str) -> Result<Value, String>;
    /// What the step makes of the signal that it takes.
    fn take(&self, kept: &Value) -> Result<Value, Failure>;
    /// What it makes of none, at its limit.
    fn at_limit(&self, limit: Duration) -> Result<Value, Failure>;
}

/// A step that waits: made by [`wait_for`], [`approval`] and [`delay`].
#[derive(Debug)]
pub struct Wait<O> {
    spec: StepSpec<(), O>,
}

impl<O: Payload> Wait<O> {
    fn new(name: String, signal: bool, body: Arc<dyn WaitBody>) -> Self {
        let nothing = Arc::new(InsideBody::<O>(PhantomData));
        let mut spec = StepSpec::new(name, StepKind::ReadOnly, nothing);
        spec.wait = Some(WaitSpec {
            signal,
            limit: None,
            body,
        });
        Wait { spec }
    }

    fn limited(mut self, limit: Duration) -> Self {
        if let Some(wait) = &mut self.spec.wait {
            wait.limit = Some(limit);
        }
        self
    }

    /// Begins to wait only after that step is done, without using its output.
    #[must_use]
    pub fn after(mut self, node: impl Into<SomeNode>) -> Self {
        self.spec = self.spec.after(node);
        self
    }

    /// Makes `retry_from_checkpoint` keep it, once it is done, with what it waited for.
    #[must_use]
    pub fn checkpoint(mut self) -> Self {
        self.spec = self.spec.checkpoint();
        self
    }

    /// Waits only if the condition holds: see [`StepSpec::only_if`].
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<(), Option<O>> {
        self.spec.only_if(condition)
    }
}

impl<O> sealed::Sealed for Wait<O> {}

impl<O: Payload> Part for Wait<O> {
    type Input = ();
    type Output = O;

    fn into_spec(self) -> StepSpec<(), O> {
        self.spec
    }
}

/// What a waiting step is made of.
pub(super) struct WaitSpec {
    pub(super) signal: bool,
    pub(super) limit: Option<Duration>,
    pub(super) body: Arc<dyn WaitBody>,
}

impl fmt::Debug for WaitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitSpec({:?})", self.limit)
    }
}

/// A step that waits for a signal, which carries a `T`. The signal's name is the step's path.
///
/// A run that waits costs no task. The signal may come before the wait; it may come while the run is parked
/// or paused; signals of one name queue, and each wait takes one (rule I5).
///
/// Without [`within`](Wait::within) it waits for ever.
///
/// ```
/// use std::time::Duration;
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, wait_for};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut order = Saga::builder::<u64>("order");
/// let paid = order.add(wait_for::<u64>("paid").within(Duration::from_secs(86_400)), ());
/// let order = order.returns(paid)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&order).build().await?;
/// let run = coordinator.start(&order, "order-4711", 3).await?;
/// coordinator.signal(run.id(), "paid", 1_999_u64).await?;
/// assert_eq!(run.outcome().await?.completed(), Some(1_999));
/// # Ok(())
/// # }
/// ```
pub fn wait_for<T: Payload>(name: impl Into<String>) -> Wait<T> {
    Wait::new(name.into(), true, Arc::new(Plain::<T> { or: None }))
}

struct Plain<T> {
    or: Option<T>,
}

impl<T: Payload> WaitBody for Plain<T> {
    fn accept(&self, payload: &Value, _: &str, _: &str) -> Result<Value, String> {
        let payload = payload.get::<T>().map_err(|error| error.to_string())?;
        Ok(Value::typed(payload))
    }

    fn take(&self, kept: &Value) -> Result<Value, Failure> {
        Ok(kept.clone())
    }

    fn at_limit(&self, limit: Duration) -> Result<Value, Failure> {
        match &self.or {
            Some(value) => Ok(Value::typed(Arc::new(value.clone()))),
            None => Err(timed_out("no signal", limit)),
        }
    }
}

fn timed_out(what: &str, limit: Duration) -> Failure {
    Failure::new(FailureMode::StepTimeout, format!("{what} within {limit:?}"))
        .effect(FailedEffect::NotDone)
        // Waiting as long again is a decision for somebody's policy, not a habit.
        .retryable(false)
}

impl<T: Payload> Wait<T> {
    /// How long it waits at most, from when it begins, by the wall clock: also while the run is parked or
    /// paused. Then it fails as [`FailureMode::StepTimeout`], not retryable, unless [`or`](Self::or) gives a
    /// value. A signal that was accepted later is kept as late, and its sender is told.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        self.limited(limit)
    }

    /// What is taken where no signal came in time.
    #[must_use]
    pub fn or(mut self, value: T) -> Self {
        if let Some(wait) = &mut self.spec.wait
            && wait.signal
        {
            wait.body = Arc::new(Plain { or: Some(value) });
        }
        self
    }
}

/// A pause of the run that outlives the process: from milliseconds to years, by the wall clock.
///
/// ```
/// use std::time::Duration;
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, delay};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut saga = Saga::builder::<u64>("remind");
/// let n = saga.input();
/// saga.add(delay("cool-down", Duration::from_millis(5)), ());
/// let saga = saga.returns(n)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga).build().await?;
/// let run = coordinator.start(&saga, "remind-1", 3).await?;
/// assert_eq!(run.outcome().await?.completed(), Some(3));
/// # Ok(())
/// # }
/// ```
pub fn delay(name: impl Into<String>, pause: Duration) -> Delay {
    Delay(Wait::new(name.into(), false, Arc::new(Pause)).limited(pause))
}

/// A step that lets time pass: made by [`delay`].
#[derive(Debug)]
pub struct Delay(Wait<()>);

impl Delay {
    /// Begins only after that step is done.
    #[must_use]
    pub fn after(self, node: impl Into<SomeNode>) -> Self {
        Delay(self.0.after(node))
    }

    /// Lets time pass only if the condition holds: see [`StepSpec::only_if`].
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<(), Option<()>> {
        self.0.only_if(condition)
    }
}

impl sealed::Sealed for Delay {}

impl Part for Delay {
    type Input = ();
    type Output = ();

    fn into_spec(self) -> StepSpec<(), ()> {
        self.0.into_spec()
    }
}

struct Pause;

impl WaitBody for Pause {
    fn accept(&self, _: &Value, _: &str, _: &str) -> Result<Value, String> {
        Err("it waits for a time, not for a signal".to_owned())
    }

    fn take(&self, kept: &Value) -> Result<Value, Failure> {
        Ok(kept.clone())
    }

    fn at_limit(&self, _: Duration) -> Result<Value, Failure> {
        Ok(Value::typed(Arc::new(())))
    }
}

/// What became of a request for approval. The three are never mixed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Somebody who may approved.
    Approved {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Somebody who may denied.
    Denied {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nobody answered in time.
    TimedOut,
}

impl Approval {
    /// Whether it was approved.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        matches!(self, Approval::Approved { .. })
    }
}

/// What an approver says: the payload of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalVerdict {
    /// Yes.
    Approved,
    /// No.
    Denied,
}

/// A step that waits for somebody's word. Its node carries an [`Approval`]; with
/// [`required`](ApprovalStep::required), anything but an approval fails the step.
///
/// Who answers has to give a reason, and where [`approvers`](ApprovalStep::approvers) are listed, has to be one
/// of them; both are journalled. An answer is a signal with the name of the step's path: see
/// [`Coordinator::approve`](crate::Coordinator::approve).
///
/// ```
/// use std::time::Duration;
/// use amends::store::MemoryStore;
/// use amends::{Approval, Coordinator, Saga, approval};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut refund = Saga::builder::<u64>("refund");
/// let asked = approval("boss").approvers(["ada", "grace"]).within(Duration::from_secs(3_600));
/// let said = refund.add(asked, ());
/// let refund = refund.returns(said)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&refund).build().await?;
/// let run = coordinator.start(&refund, "refund-1", 3).await?;
/// assert!(coordinator.approve(run.id(), "boss", "mallory", "please").await.is_err());
/// coordinator.deny(run.id(), "boss", "ada", "too much").await?;
/// let said = run.outcome().await?.completed().unwrap();
/// assert_eq!(said, Approval::Denied { by: "ada".to_owned(), reason: "too much".to_owned() });
/// # Ok(())
/// # }
/// ```
pub fn approval(name: impl Into<String>) -> ApprovalStep<Approval> {
    ApprovalStep {
        name: name.into(),
        approvers: Vec::new(),
        limit: None,
        after: Vec::new(),
        checkpoint: false,
        required: false,
        _gives: PhantomData,
    }
}

/// A step that waits for somebody's word: made by [`approval`].
#[derive(Debug)]
pub struct ApprovalStep<O> {
    name: String,
    approvers: Vec<String>,
    limit: Option<Duration>,
    after: Vec<SomeNode>,
    checkpoint: bool,
    required: bool,
    _gives: PhantomData<fn() -> O>,
}

impl<O: Payload> ApprovalStep<O> {
    /// Who may answer; anybody, unless it is said.
    #[must_use]
    pub fn approvers<S: Into<String>>(mut self, approvers: impl IntoIterator<Item = S>) -> Self {
        self.approvers = approvers.into_iter().map(Into::into).collect();
        self
    }

    /// How long it waits at most; for ever, unless it is said. Silence is never an approval.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Asks only after that step is done.
    #[must_use]
    pub fn after(mut self, node: impl Into<SomeNode>) -> Self {
        self.after.push(node.into());
        self
    }

    /// Makes `retry_from_checkpoint` keep the answer.
    #[must_use]
    pub fn checkpoint(mut self) -> Self {
        self.checkpoint = true;
        self
    }

    /// Asks only if the condition holds: see [`StepSpec::only_if`].
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<(), Option<O>> {
        self.wait().only_if(condition)
    }

    fn wait(self) -> Wait<O> {
        let body = Gate {
            approvers: self.approvers,
            required: self.required,
        };
        let mut wait = Wait::new(self.name, true, Arc::new(body));
        if let Some(limit) = self.limit {
            wait = wait.limited(limit);
        }
        if self.checkpoint {
            wait = wait.checkpoint();
        }
        self.after.into_iter().fold(wait, Wait::after)
    }
}

impl ApprovalStep<Approval> {
    /// Fails where it is not approved, so that the saga's policy decides what becomes of what is done: as
    /// [`FailureMode::PermissionDenied`] when denied, as [`FailureMode::StepTimeout`] when nobody answered in
    /// time. The node then carries an `Approval` that is approved.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl<O> sealed::Sealed for ApprovalStep<O> {}

impl<O: Payload> Part for ApprovalStep<O> {
    type Input = ();
    type Output = O;

    fn into_spec(self) -> StepSpec<(), O> {
        self.wait().into_spec()
    }
}

struct Gate {
    approvers: Vec<String>,
    required: bool,
}

impl WaitBody for Gate {
    fn accept(&self, payload: &Value, by: &str, reason: &str) -> Result<Value, String> {
        if !self.approvers.is_empty() && !self.approvers.iter().any(|approver| approver == by) {
            let who = self.approvers.join(", ");
            return Err(format!("`{by}` may not answer: {who} may"));
        }
        if by.trim().is_empty() || reason.trim().is_empty() {
            return Err("an answer needs who gives it, and why".to_owned());
        }
        let verdict = payload.get::<ApprovalVerdict>();
        let verdict = verdict.map_err(|error: PayloadError| error.to_string())?;
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let answer = match *verdict {
            ApprovalVerdict::Approved => Approval::Approved { by, reason },
            ApprovalVerdict::Denied => Approval::Denied { by, reason },
        };
        Ok(Value::typed(Arc::new(answer)))
    }

    fn take(&self, kept: &Value) -> Result<Value, Failure> {
        let unreadable = |error: PayloadError| {
            Failure::new(FailureMode::StepContract, error.to_string()).effect(FailedEffect::NotDone)
        };
        let answer = kept.get::<Approval>().map_err(unreadable)?;
        match &*answer {
            Approval::Denied { by, reason } if self.required => {
                let message = format!("denied by {by}: {reason}");
                Err(Failure::new(FailureMode::PermissionDenied, message)
                    .effect(FailedEffect::NotDone)
                    .retryable(false))
            }
            _ => Ok(Value::typed(answer)),
        }
    }

    fn at_limit(&self, limit: Duration) -> Result<Value, Failure> {
        if self.required {
            return Err(timed_out("nobody approved", limit));
        }
        Ok(Value::typed(Arc::new(Approval::TimedOut)))
    }
}
