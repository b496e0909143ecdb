//! Steps made of steps: sub-sagas, fan-outs, choices and conditions.
//!
//! Each is a [`StepSpec`] with a definition inside. What is inside runs by the same rules as everything else;
//! here it is only put together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::failure::Failure;
use crate::policy::RecoveryPolicy;
use crate::saga::body::{InsideBody, MaybeBody, MaybeProbe};
use crate::saga::builder::{Definition, Draft, Output, Saga, UndoneBy, Wired, draft_graph};
use crate::saga::graph::GraphParts;
use crate::saga::part::{AsStep, sealed};
use crate::saga::wiring::{supply, supply_input};
use crate::saga::{
    Gathering, Inputs, OnStop, Part, Siblings, SomeNode, StepKind, StepSpec, Tolerance, UndoOrder,
};
use crate::step::{Payload, PayloadError, Value};

impl<I: Payload, O: Payload> AsStep for &Saga<I, O> {
    type Input = I;
    type Output = O;

    fn named(self, name: String) -> StepSpec<I, O> {
        let graph = &self.definition.graph;
        let irreversible = graph
            .steps
            .iter()
            .any(|step| step.kind == StepKind::Irreversible || step.pivot);
        let read_only = graph
            .steps
            .iter()
            .all(|step| step.kind == StepKind::ReadOnly);
        let kind = match (irreversible, read_only) {
            (true, _) => StepKind::Irreversible,
            (false, true) => StepKind::ReadOnly,
            (false, false) => StepKind::Compensatable,
        };
        StepSpec::with_inside(name, kind, Arc::clone(&self.definition))
    }
}

impl<I: Payload, O: Payload> StepSpec<I, O> {
    fn with_inside(name: String, kind: StepKind, inside: Arc<Definition>) -> Self {
        let mut spec = StepSpec::new(name, kind, Arc::new(InsideBody::<O>(PhantomData)));
        spec.inside = Some(inside);
        spec
    }

    /// Does this once for each item of a list: `name[0]`, `name[1]`, .., each with attempts, an effect and an
    /// undo of its own. What comes before it is per item.
    ///
    /// All of them, or none: an item that fails for good is a failure of the saga that this is a step of,
    /// whose policy decides; an undo takes back all that are done.
    /// [`tolerate`](ForEach::tolerate) goes on without some.
    ///
    /// ```
    /// use amends::store::MemoryStore;
    /// use amends::{Coordinator, Saga, StepContext, step_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut order = Saga::builder::<Vec<u64>>("order");
    /// let lines = order.input();
    /// let reserve = async |_: &StepContext, line: &u64| Ok(line * 10);
    /// let reserved = order.add(
    ///     step_fn("reserve", reserve, async |_, _, _| Ok(())).for_each().parallel(2),
    ///     lines,
    /// );
    /// let order = order.returns(reserved)?;
    ///
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&order).build().await?;
    /// let outcome = coordinator.start(&order, "4711", vec![1, 2, 3]).await?.outcome().await?;
    /// assert_eq!(outcome.partial().step("reserve[2]").unwrap().attempts, 1);
    /// assert_eq!(outcome.completed(), Some(vec![10, 20, 30]));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_each(self) -> ForEach<I, O, Vec<O>> {
        ForEach {
            item: self,
            parallel: None,
            tolerate: None,
            checkpoint: false,
            after: Vec::new(),
            condition: None,
            _gives: PhantomData,
        }
    }

    /// Has a sub-saga undone by another saga, once it is done, instead of by the undos of its steps: it is
    /// given what the sub-saga was given, and what it gave. So even what went past a pivot of its own can be
    /// undone (rule P1). Its steps run as `NAME[undo]/..`, under its own policy; if it fails, it undoes itself
    /// and is tried again, as a failed undo is.
    ///
    /// A sub-saga that is undone before it is done is undone by its own steps.
    ///
    /// ```
    /// use amends::store::MemoryStore;
    /// use amends::{Coordinator, Saga, StepContext, StepError, irreversible_fn, step, step_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transfer = Saga::builder::<u64>("transfer");
    /// let amount = transfer.input();
    /// let wire = irreversible_fn("wire", async |_: &StepContext, n: &u64| Ok(format!("wire of {n}")));
    /// let wired = transfer.add(wire.pivot(), amount);
    /// let transfer = transfer.returns(wired)?;
    ///
    /// let mut back = Saga::builder::<(u64, String)>("send-back");
    /// let what = back.input();
    /// let send = async |_: &StepContext, (n, _): &(u64, String)| Ok(*n);
    /// back.add(step_fn("wire-back", send, async |_, _, _| Ok(())), what);
    /// let back: Saga<(u64, String), ()> = back.returns(())?;
    ///
    /// let mut deal = Saga::builder::<u64>("deal");
    /// let amount = deal.input();
    /// let paid = deal.add(step("pay", &transfer).compensate_with(&back), amount);
    /// let fail = async |_: &StepContext, _: &String| Err::<u64, _>(StepError::rejected("no"));
    /// deal.add(step_fn("deliver", fail, async |_, _, _| Ok(())), paid);
    /// let deal: Saga<u64, ()> = deal.returns(())?;
    ///
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&deal).build().await?;
    /// let outcome = coordinator.start(&deal, "deal-1", 100).await?.outcome().await?;
    /// assert_eq!(outcome.word(), "compensated");
    /// assert_eq!(outcome.partial().step("pay[undo]/wire-back").unwrap().attempts, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn compensate_with<R: Payload>(mut self, undo: &Saga<(I, O), R>) -> Self {
        self.undone_by = Some(UndoneBy {
            definition: Arc::clone(&undo.definition),
            input: |input, output| {
                let input = Arc::unwrap_or_clone(input.get::<I>()?);
                let output = Arc::unwrap_or_clone(output.get::<O>()?);
                Ok(Value::typed(Arc::new((input, output))))
            },
        });
        self.kind = StepKind::Compensatable;
        self
    }

    /// Starts it only if the condition holds when all before it is done; its node then carries `Some`.
    /// Otherwise it is passed over: it counts as neither done nor remaining, and its node carries `None`.
    ///
    /// The verdict is made once per round and kept in the journal (rule K3). An output whose JSON is `null`,
    /// like `()`, reads as `None` once it was read back from a journal.
    ///
    /// ```
    /// use amends::store::MemoryStore;
    /// use amends::{Coordinator, Saga, StepContext, step_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut trip = Saga::builder::<u64>("trip");
    /// let price = trip.input();
    /// let insure = async |_: &StepContext, price: &u64| Ok(price / 100);
    /// let insured = trip.add(
    ///     step_fn("insure", insure, async |_, _, _| Ok(())).only_if(price.map(|price| *price > 1_000)),
    ///     price,
    /// );
    /// let trip = trip.returns(insured)?;
    ///
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&trip).build().await?;
    /// let outcome = coordinator.start(&trip, "cheap", 500).await?.outcome().await?;
    /// assert_eq!(outcome.completed(), Some(None));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<I, Option<O>> {
        let (wiring, supply) = supply(condition);
        let mut spec = StepSpec::new(
            self.name,
            self.kind,
            Arc::new(MaybeBody::<O>::new(self.body)),
        );
        spec.probe = self
            .probe
            .map(|probe| Arc::new(MaybeProbe::<O>::new(probe)) as _);
        spec.inside = self.inside;
        spec.undone_by = self.undone_by;
        spec.wait = self.wait;
        let called = spec.inside.is_none() && spec.wait.is_none();
        spec.maybe = (!called).then_some(some_of::<O>);
        spec.condition = Some(Wired { wiring, supply });
        spec.twice = self.twice || self.condition.is_some();
        spec.after = self.after;
        spec.settings = self.settings;
        spec
    }

    /// Takes this other way where the step fails for good: what the step may have left is undone first
    /// (rule E7). The step is then `NAME/primary`, and the other way stands beside it; whichever succeeds is
    /// undone like any other. If the other way fails, too, that is the failure of both.
    ///
    /// More than one are tried in turn. A `retry_failed` goes on with the way that failed last.
    ///
    /// ```
    /// use amends::store::MemoryStore;
    /// use amends::{Coordinator, Saga, StepContext, StepError, step_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut trip = Saga::builder::<u64>("trip");
    /// let day = trip.input();
    /// let full = async |_: &StepContext, _: &u64| Err::<String, _>(StepError::rejected("no seats"));
    /// let seat = async |_: &StepContext, day: &u64| Ok(format!("12A on day {day}"));
    /// let flight = step_fn("flight", full, async |_, _, _| Ok(()))
    ///     .fallback(step_fn("other-airline", seat, async |_, _, _| Ok(())));
    /// let flight = trip.add(flight, day);
    /// let trip = trip.returns(flight)?;
    ///
    /// let coordinator = Coordinator::builder(MemoryStore::new()).register(&trip).build().await?;
    /// let outcome = coordinator.start(&trip, "trip-1", 3).await?.outcome().await?;
    /// assert_eq!(outcome.partial().step("flight/other-airline").unwrap().attempts, 1);
    /// assert_eq!(outcome.completed().as_deref(), Some("12A on day 3"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fallback(self, other: impl Part<Input = I, Output = O>) -> Choice<I, O> {
        let name = self.name.clone();
        let mut primary = self;
        "primary".clone_into(&mut primary.name);
        Choice {
            name,
            gathers: Gathering::Fallback,
            ways: vec![primary, other.into_spec()],
        }
    }

    /// The same with a value instead of another way: nothing is called for it.
    #[must_use]
    pub fn fallback_value(self, value: O) -> Choice<I, O> {
        let value = step_with_value(value);
        self.fallback(value)
    }
}

/// A read-only step that gives a value that was there before.
fn step_with_value<I: Payload, O: Payload>(value: O) -> StepSpec<I, O> {
    let body = crate::saga::body::ValueBody(Value::typed(Arc::new(value)));
    StepSpec::new("value".to_owned(), StepKind::ReadOnly, Arc::new(body))
}

/// A race: all ways start at once, and the first that succeeds counts. The others are told to stop, awaited,
/// and undone.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::{Coordinator, Saga, StepContext, first_of, step_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ride = Saga::builder::<u64>("ride");
/// let place = ride.input();
/// let slow = async |cx: &StepContext, _: &u64| {
///     cx.cancelled().await;
///     Ok("the slow one".to_owned())
/// };
/// let fast = async |_: &StepContext, _: &u64| Ok("the fast one".to_owned());
/// let taxi = first_of(
///     "taxi",
///     [
///         step_fn("slow", slow, async |_, _, _| Ok(())),
///         step_fn("fast", fast, async |_, _, _| Ok(())),
///     ],
/// );
/// let taxi = ride.add(taxi, place);
/// let ride = ride.returns(taxi)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new()).register(&ride).build().await?;
/// let outcome = coordinator.start(&ride, "ride-1", 3).await?.outcome().await?;
/// assert_eq!(outcome.completed().as_deref(), Some("the fast one"));
/// # Ok(())
/// # }
/// ```
pub fn first_of<I: Payload, O: Payload>(
    name: impl Into<String>,
    ways: impl IntoIterator<Item = StepSpec<I, O>>,
) -> Choice<I, O> {
    Choice {
        name: name.into(),
        gathers: Gathering::Race,
        ways: ways.into_iter().collect(),
    }
}

/// Several ways to one output: made by [`fallback`](StepSpec::fallback) and [`first_of`].
#[derive(Debug)]
pub struct Choice<I, O> {
    name: String,
    gathers: Gathering,
    ways: Vec<StepSpec<I, O>>,
}

impl<I: Payload, O: Payload> Choice<I, O> {
    /// One more way, tried after those before it.
    #[must_use]
    pub fn fallback(mut self, other: impl Part<Input = I, Output = O>) -> Self {
        if self.gathers == Gathering::Fallback {
            self.ways.push(other.into_spec());
            return self;
        }
        self.into_spec().fallback(other)
    }

    /// A value where all ways fail.
    #[must_use]
    pub fn fallback_value(self, value: O) -> Self {
        self.fallback(step_with_value(value))
    }

    /// Starts only after that step is done, without using its output.
    #[must_use]
    pub fn after(self, node: impl Into<SomeNode>) -> StepSpec<I, O> {
        self.into_spec().after(node)
    }

    /// Makes `retry_from_checkpoint` keep what was chosen.
    #[must_use]
    pub fn checkpoint(self) -> StepSpec<I, O> {
        self.into_spec().checkpoint()
    }

    /// Chooses only if the condition holds: see [`StepSpec::only_if`].
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<I, Option<O>> {
        self.into_spec().only_if(condition)
    }

    /// Chooses once for each item of a list: see [`StepSpec::for_each`].
    #[must_use]
    pub fn for_each(self) -> ForEach<I, O, Vec<O>> {
        self.into_spec().for_each()
    }
}

impl<I, O> sealed::Sealed for Choice<I, O> {}

impl<I: Payload, O: Payload> Part for Choice<I, O> {
    type Input = I;
    type Output = O;

    fn into_spec(self) -> StepSpec<I, O> {
        let kinds = self.ways.iter().map(|way| way.kind);
        let kind = together(kinds);
        let drafts = self.ways.into_iter().map(Draft::of_input).collect();
        let inside = definition(&self.name, self.gathers, drafts, Output::Chosen);
        StepSpec::with_inside(self.name, kind, inside)
    }
}

/// What can be taken back of several, together.
fn together(kinds: impl Iterator<Item = StepKind>) -> StepKind {
    kinds.fold(StepKind::ReadOnly, |one, two| match (one, two) {
        (StepKind::Irreversible, _) | (_, StepKind::Irreversible) => StepKind::Irreversible,
        (StepKind::Compensatable, _) | (_, StepKind::Compensatable) => StepKind::Compensatable,
        (StepKind::ReadOnly, StepKind::ReadOnly) => StepKind::ReadOnly,
    })
}

/// One step for each item of a list: see [`StepSpec::for_each`].
#[derive(Debug)]
pub struct ForEach<I, O, R> {
    item: StepSpec<I, O>,
    parallel: Option<u32>,
    tolerate: Option<Tolerance>,
    checkpoint: bool,
    after: Vec<SomeNode>,
    condition: Option<Wired>,
    _gives: PhantomData<fn() -> R>,
}

impl<I: Payload, O: Payload, R> ForEach<I, O, R> {
    /// How many items may be under way at once, in both directions; no limit by default. An item that waits
    /// for its next attempt is under way.
    #[must_use]
    pub fn parallel(mut self, most: u32) -> Self {
        self.parallel = Some(most);
        self
    }

    /// Makes `retry_from_checkpoint` keep all items, once all are done.
    #[must_use]
    pub fn checkpoint(mut self) -> Self {
        self.checkpoint = true;
        self
    }

    /// Starts only after that step is done, without using its output.
    #[must_use]
    pub fn after(mut self, node: impl Into<SomeNode>) -> Self {
        self.after.push(node.into());
        self
    }

    fn tolerating(self, tolerate: Tolerance) -> ForEach<I, O, Vec<Result<O, Failure>>> {
        ForEach {
            item: self.item,
            parallel: self.parallel,
            tolerate: Some(tolerate),
            checkpoint: self.checkpoint,
            after: self.after,
            condition: self.condition,
            _gives: PhantomData,
        }
    }

    fn spec(self, gather: Arc<dyn Gather>) -> StepSpec<Vec<I>, R>
    where
        R: Payload,
    {
        let (name, kind) = (self.item.name.clone(), self.item.kind);
        let gathers = Gathering::Each {
            parallel: self.parallel,
            tolerate: self.tolerate,
        };
        let drafts = vec![Draft::of_input(self.item)];
        let inside = definition(&name, gathers, drafts, Output::Each(gather));
        let mut spec = StepSpec::with_inside(name, kind, inside);
        spec.settings.checkpoint = self.checkpoint;
        spec.after = self.after;
        spec
    }
}

impl<I: Payload, O: Payload> ForEach<I, O, Vec<O>> {
    /// Goes on although so many items failed for good; the node carries a `Result` for each item. What a
    /// failed item may have left is undone before the step is done (rule E7). If more fail, the step fails as
    /// [`FailureMode::PartialStepFailures`](crate::FailureMode::PartialStepFailures).
    #[must_use]
    pub fn tolerate(self, most: u32) -> ForEach<I, O, Vec<Result<O, Failure>>> {
        self.tolerating(Tolerance::Items(most))
    }

    /// The same for a share of the items, from 0 to 1, in steps of a thousandth: rounded down.
    #[must_use]
    pub fn tolerate_ratio(self, share: f64) -> ForEach<I, O, Vec<Result<O, Failure>>> {
        // What is no share is a fault of the definition.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        let thousandths = if (0.0..=1.0).contains(&share) {
            (share * 1_000.0).round() as u32
        } else {
            u32::MAX
        };
        self.tolerating(Tolerance::PerMille(thousandths))
    }

    /// Does it only if the condition holds: see [`StepSpec::only_if`].
    #[must_use]
    pub fn only_if(self, condition: impl Inputs<bool>) -> StepSpec<Vec<I>, Option<Vec<O>>> {
        self.into_spec().only_if(condition)
    }
}

impl<I, O, R> sealed::Sealed for ForEach<I, O, R> {}

impl<I: Payload, O: Payload> Part for ForEach<I, O, Vec<O>> {
    type Input = Vec<I>;
    type Output = Vec<O>;

    fn into_spec(self) -> StepSpec<Vec<I>, Vec<O>> {
        self.spec(Arc::new(All::<I, O>(PhantomData)))
    }
}

impl<I: Payload, O: Payload> Part for ForEach<I, O, Vec<Result<O, Failure>>> {
    type Input = Vec<I>;
    type Output = Vec<Result<O, Failure>>;

    fn into_spec(self) -> StepSpec<Vec<I>, Vec<Result<O, Failure>>> {
        self.spec(Arc::new(Some_::<I, O>(PhantomData)))
    }
}

/// Takes a list apart, and puts one together.
pub(crate) trait Gather: Send + Sync {
    fn split(&self, list: &Value) -> Result<Vec<Value>, PayloadError>;
    fn join(&self, items: Vec<Result<&Value, &Failure>>) -> Result<Value, PayloadError>;
}

struct All<I, O>(PhantomData<fn(I) -> O>);

/// The same where some may fail.
struct Some_<I, O>(PhantomData<fn(I) -> O>);

fn split<I: Payload>(list: &Value) -> Result<Vec<Value>, PayloadError> {
    let list = list.get::<Vec<I>>()?;
    let items = Arc::unwrap_or_clone(list).into_iter();
    Ok(items.map(|item| Value::typed(Arc::new(item))).collect())
}

impl<I: Payload, O: Payload> Gather for All<I, O> {
    fn split(&self, list: &Value) -> Result<Vec<Value>, PayloadError> {
        split::<I>(list)
    }

    fn join(&self, items: Vec<Result<&Value, &Failure>>) -> Result<Value, PayloadError> {
        let mut outputs = Vec::with_capacity(items.len());
        for item in items.into_iter().flatten() {
            outputs.push(Arc::unwrap_or_clone(item.get::<O>()?));
        }
        Ok(Value::typed(Arc::new(outputs)))
    }
}

impl<I: Payload, O: Payload> Gather for Some_<I, O> {
    fn split(&self, list: &Value) -> Result<Vec<Value>, PayloadError> {
        split::<I>(list)
    }

    fn join(&self, items: Vec<Result<&Value, &Failure>>) -> Result<Value, PayloadError> {
        let mut outputs: Vec<Result<O, Failure>> = Vec::with_capacity(items.len());
        for item in items {
            outputs.push(match item {
                Ok(item) => Ok(Arc::unwrap_or_clone(item.get::<O>()?)),
                Err(failure) => Err(failure.clone()),
            });
        }
        Ok(Value::typed(Arc::new(outputs)))
    }
}

/// An output that is there, as one that may not be.
fn some_of<O: Payload>(output: &Value) -> Result<Value, PayloadError> {
    let output = output.get::<O>()?;
    Ok(Value::typed(Arc::new(Some(Arc::unwrap_or_clone(output)))))
}

fn definition(
    name: &str,
    gathers: Gathering,
    drafts: Vec<Draft>,
    output: Output,
) -> Arc<Definition> {
    let parts = GraphParts {
        saga: name.into(),
        version: 1,
        fingerprint: "".into(),
        siblings: Siblings::default(),
        undo_order: UndoOrder::default(),
        on_stop: OnStop::default(),
        policy: RecoveryPolicy::default(),
        deadline: None,
        gathers,
    };
    draft_graph(parts, drafts, output)
}

impl Draft {
    /// A step whose whole input is that of what it is inside of.
    fn of_input<I: Payload, O: Payload>(spec: StepSpec<I, O>) -> Draft {
        let (wiring, supply) = supply_input::<I>();
        Draft::new(spec, Wired { wiring, supply })
    }
}

impl fmt::Debug for Wired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wired")
    }
}
