//! The participants of a run, as one simulation that remembers everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::saga::{StepSpec, irreversible, read_only, step};
use crate::step::{Payload, Probe, Probed, StepError, Value};
use crate::testkit::fault::{Fault, Faults, Side, mix};
use crate::testkit::keys::step_of;
use crate::testkit::log::{Entry, Happened, WorldEvent};
use crate::testkit::participant::{Onlooker, Participant, Unforgiving};

/// All the participants of a run in one: what happened to them survives a crash of the coordinator.
///
/// A world honours keys as a good participant does. An effect takes place at most once per key, and a
/// repeated call gets the first result; an undo that comes before its effect is remembered, so that an
/// effect which arrives late is refused. [`forgetful`](Self::forgetful) makes a participant that does
/// none of this, to see what a run does to it.
///
/// Cloning gives another handle to the same world. Fakes of your clients call
/// [`execute`](Self::execute) and [`compensate`](Self::compensate) with the key that they are given;
/// sagas whose bodies don't matter use [`step`](Self::step) and its like.
///
/// ```
/// use amends::store::MemoryStore;
/// use amends::testkit::{Fault, VirtualClock, World};
/// use amends::{Coordinator, Saga};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let world = World::new().fail_at("charge", 1, Fault::LostReply);
/// let mut saga = Saga::builder::<u64>("order");
/// let order = saga.input();
/// let stock = saga.add(world.step::<u64>("reserve"), order);
/// let paid = saga.add(world.step::<String>("charge"), stock);
/// let saga = saga.returns(paid)?;
///
/// let coordinator = Coordinator::builder(MemoryStore::new())
///     .clock(VirtualClock::new()).register(&saga).build().await?;
/// let run = coordinator.start(&saga, "order-1", 42).await?;
/// assert_eq!(run.outcome().await?.word(), "completed");
/// // The card was asked for money twice, and charged once.
/// assert_eq!(world.calls("charge"), 2);
/// assert_eq!(world.effects("charge"), 1);
/// assert_eq!(world.standing(), ["reserve", "charge"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    faults: Faults,
    seed: Option<u64>,
    forgets: bool,
    /// Calls so far, per run, step and side.
    calls: HashMap<(String, String, Side), u32>,
    known: HashMap<String, Known>,
    /// Requests that are still on their way.
    late: BTreeMap<u64, (String, Value)>,
    number: u64,
    log: Vec<Entry>,
    complaints: Vec<String>,
}

/// What a participant remembers of a key.
#[derive(Clone, Debug)]
struct Known {
    result: Option<Value>,
    /// Effects that stand under this key: more than one only where keys are forgotten.
    stands: u32,
    /// Nothing may take effect under this key any more.
    closed: bool,
    /// The input of the first call, where it is known.
    input: Option<String>,
}

/// What a call is to do, decided when it arrives.
struct Call {
    step: String,
    key: String,
    fault: Option<Fault>,
    before: Duration,
    after: Duration,
}

impl World {
    /// A world in which nothing goes wrong, and every call is answered at once.
    #[must_use]
    pub fn new() -> Self {
        World::default()
    }

    /// A world whose answers take a while: between 0 and 100 ms, half of it before the effect, spread by
    /// `seed`. In paused time this gives concurrent calls an order that is theirs and repeatable, and
    /// another one for another seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let world = World::new();
        world.lock().seed = Some(seed);
        world
    }

    /// A participant that forgets keys: each call takes effect anew, and nothing that was undone is
    /// refused later.
    #[must_use]
    pub fn forgetful(self) -> Self {
        self.lock().forgets = true;
        self
    }

    /// The step's `call`-th `execute` in each run, counted from 1 over crashes, goes wrong like this.
    #[must_use]
    pub fn fail_at(self, step: impl Into<String>, call: u32, fault: Fault) -> Self {
        self.fail_calls(step, call..=call, fault)
    }

    /// These `execute` calls of the step go wrong like this; `..` is all of them. What was said first counts.
    #[must_use]
    pub fn fail_calls(
        self,
        step: impl Into<String>,
        calls: impl RangeBounds<u32>,
        fault: Fault,
    ) -> Self {
        let side = Side::Execute;
        self.lock().faults.plan(step.into(), side, &calls, fault);
        self
    }

    /// The step's `call`-th `compensate` in each run goes wrong like this.
    #[must_use]
    pub fn fail_undo_at(self, step: impl Into<String>, call: u32, fault: Fault) -> Self {
        self.fail_undo_calls(step, call..=call, fault)
    }

    /// These `compensate` calls of the step go wrong like this; `..` is all of them.
    #[must_use]
    pub fn fail_undo_calls(
        self,
        step: impl Into<String>,
        calls: impl RangeBounds<u32>,
        fault: Fault,
    ) -> Self {
        let side = Side::Undo;
        self.lock().faults.plan(step.into(), side, &calls, fault);
        self
    }

    /// The participant's side of an `execute`: takes effect at most once under this key, with this
    /// result. A repeated call gets the first one's.
    ///
    /// `key` is [`StepContext::idempotency_key`](crate::StepContext::idempotency_key); the world reads run and step out of it.
    ///
    /// # Errors
    ///
    /// What the planned fault looks like to the caller, or a refusal where the key was undone.
    ///
    /// # Panics
    ///
    /// Where a fault says so.
    pub async fn execute<T: Payload>(&self, key: &str, result: T) -> Result<T, StepError> {
        self.execute_noting(key, result, None).await
    }

    pub(super) async fn execute_noting<T: Payload>(
        &self,
        key: &str,
        result: T,
        input: Option<String>,
    ) -> Result<T, StepError> {
        let call = self.begin(key, Side::Execute);
        pause(call.before).await;
        let result = Value::typed(Arc::new(result));
        if let Some(input) = input {
            self.lock().note_input(&call, input);
        }
        let mut given = None;
        let mut then = None;
        match call.fault.clone() {
            Some(Fault::NotDone | Fault::Rejected | Fault::Stop) => {
                self.lock()
                    .record(&call.step, &call.key, Happened::ToldNotDone);
                then = call.fault.clone();
            }
            Some(Fault::LostRequest | Fault::NoAnswer | Fault::Panic) => then = call.fault.clone(),
            Some(Fault::Late) => {
                self.lock().send_late(&call, result);
                then = call.fault.clone();
            }
            Some(Fault::LostReply | Fault::NoAnswerAfterEffect | Fault::PanicAfterEffect) => {
                self.lock().take_effect(&call.step, &call.key, &result);
                then = call.fault.clone();
            }
            Some(Fault::Twice) => {
                self.lock().take_effect(&call.step, &call.key, &result);
                given = Some(self.lock().take_effect(&call.step, &call.key, &result));
            }
            Some(Fault::Slow(longer)) => {
                tokio::time::sleep(longer).await;
                given = Some(self.lock().take_effect(&call.step, &call.key, &result));
            }
            None => given = Some(self.lock().take_effect(&call.step, &call.key, &result)),
        }
        pause(call.after).await;
        if then != Some(Fault::Late) {
            self.lock().deliver(Some(&call.key));
        }
        match (given, then) {
            (_, Some(fault)) => Err(fault.seen_by(&call.step).await),
            (Some(Some(value)), None) => Ok(Arc::unwrap_or_clone(value.get::<T>()?)),
            (Some(None) | None, None) => Err(StepError::rejected(format!(
                "`{}` was undone under this key, so it is refused",
                call.step
            ))),
        }
    }

    /// The participant's side of a `compensate`: afterwards the effect is gone, and can't come any more.
    ///
    /// `key` is [`StepContext::idempotency_key`](crate::StepContext::idempotency_key) or [`StepContext::effect_key`](crate::StepContext::effect_key).
    ///
    /// # Errors
    ///
    /// What the planned fault looks like to the caller.
    ///
    /// # Panics
    ///
    /// Where a fault says so.
    pub async fn compensate(&self, key: &str) -> Result<(), StepError> {
        let call = self.begin(key, Side::Undo);
        pause(call.before).await;
        let then = call.fault.clone();
        match &then {
            Some(
                Fault::NotDone
                | Fault::Rejected
                | Fault::Stop
                | Fault::LostRequest
                | Fault::Late
                | Fault::NoAnswer
                | Fault::Panic,
            ) => {}
            Some(Fault::LostReply | Fault::NoAnswerAfterEffect | Fault::PanicAfterEffect)
            | None => {
                self.lock().undo(&call.step, &call.key);
            }
            Some(Fault::Twice) => {
                let mut inner = self.lock();
                inner.undo(&call.step, &call.key);
                inner.undo(&call.step, &call.key);
            }
            Some(Fault::Slow(longer)) => {
                tokio::time::sleep(*longer).await;
                self.lock().undo(&call.step, &call.key);
            }
        }
        pause(call.after).await;
        self.lock().deliver(Some(&call.key));
        match then {
            None | Some(Fault::Twice | Fault::Slow(_)) => Ok(()),
            Some(Fault::Stop) => Err(Fault::NotDone.seen_by(&call.step).await),
            Some(fault) => Err(fault.seen_by(&call.step).await),
        }
    }

    /// The participant's answer about an effect: what it gave, or that it never will take place: from
    /// now on its key is closed, as [`Probed::Never`] promises.
    ///
    /// `key` is [`StepContext::effect_key`](crate::StepContext::effect_key).
    ///
    /// # Errors
    ///
    /// Where the result isn't a `T`.
    #[allow(clippy::unused_async, reason = "as its siblings; a probe is a call")]
    pub async fn probe<T: Payload>(&self, key: &str) -> Result<Probed<T>, StepError> {
        let mut inner = self.lock();
        let (step, _) = step_of(key);
        let known = inner.known.entry(key.to_owned()).or_insert_with(Known::new);
        let answer = if known.stands > 0 {
            known.result.clone()
        } else {
            known.closed = true;
            None
        };
        let word = if answer.is_some() { "done" } else { "never" };
        inner.record(&step, key, Happened::Probed(word));
        Ok(match answer {
            Some(value) => Probed::Done(Arc::unwrap_or_clone(value.get::<T>()?)),
            None => Probed::Never,
        })
    }

    /// A look that changes nothing, with the faults of the step's `execute`.
    ///
    /// # Errors
    ///
    /// What the planned fault looks like to the caller.
    ///
    /// # Panics
    ///
    /// Where a fault says so.
    pub async fn look(&self, key: &str) -> Result<(), StepError> {
        let call = self.begin(key, Side::Execute);
        pause(call.before + call.after).await;
        self.lock().record(&call.step, &call.key, Happened::Looked);
        match call.fault {
            None | Some(Fault::Twice) => Ok(()),
            Some(Fault::Slow(longer)) => {
                tokio::time::sleep(longer).await;
                Ok(())
            }
            Some(fault) => Err(fault.seen_by(&call.step).await),
        }
    }

    /// A step whose body is this world: its output is the key of its effect.
    pub fn step<I: Payload>(&self, name: impl Into<String>) -> StepSpec<I, String> {
        step(name, Participant::<I>::of(self))
    }

    /// The same that can't be undone.
    pub fn irreversible<I: Payload>(&self, name: impl Into<String>) -> StepSpec<I, String> {
        irreversible(name, Unforgiving(Participant::<I>::of(self)))
    }

    /// A look at this world: its output is its key.
    pub fn read_only<I: Payload>(&self, name: impl Into<String>) -> StepSpec<I, String> {
        read_only(name, Onlooker(Participant::<I>::of(self)))
    }

    /// Asks this world about a [`step`](Self::step).
    #[must_use]
    pub fn asked<I: Payload>(&self) -> impl Probe<Input = I, Output = String> + use<I> {
        Participant::<I>::of(self)
    }

    /// All that happened, in order.
    #[must_use]
    pub fn log(&self) -> Vec<WorldEvent> {
        let inner = self.lock();
        let events = inner.log.iter().filter_map(|entry| match entry {
            Entry::World(event) => Some(event.clone()),
            Entry::Acknowledged { .. } | Entry::Crash(_) | Entry::Process => None,
        });
        events.collect()
    }

    /// The steps whose effects stand, in the order in which they took place.
    #[must_use]
    pub fn standing(&self) -> Vec<String> {
        self.standing_keys()
            .into_iter()
            .map(|(step, _)| step)
            .collect()
    }

    /// How often `execute` of this step was called, in all runs.
    #[must_use]
    pub fn calls(&self, step: &str) -> usize {
        self.count(step, |what| *what == Happened::Called)
    }

    /// How often this step took effect, in all runs, whatever was undone later.
    #[must_use]
    pub fn effects(&self, step: &str) -> usize {
        self.count(step, |what| *what == Happened::TookEffect)
    }

    /// How often this step's effect was undone, in all runs.
    #[must_use]
    pub fn undone(&self, step: &str) -> usize {
        self.count(step, |what| *what == Happened::Undone)
    }

    /// Lets requests that are still on their way arrive now.
    pub fn deliver_late(&self) {
        self.lock().deliver(None);
    }

    fn count(&self, step: &str, what: impl Fn(&Happened) -> bool) -> usize {
        let inner = self.lock();
        let count = |entry: &&Entry| match entry {
            Entry::World(event) => event.step == step && what(&event.what),
            Entry::Acknowledged { .. } | Entry::Crash(_) | Entry::Process => false,
        };
        inner.log.iter().filter(count).count()
    }

    /// Step and key of each effect that stands, in the order in which they took place.
    pub(super) fn standing_keys(&self) -> Vec<(String, String)> {
        let inner = self.lock();
        let mut seen = HashSet::new();
        let mut standing = Vec::new();
        for entry in inner.log.iter().rev() {
            if let Entry::World(event) = entry
                && event.what == Happened::TookEffect
                && inner
                    .known
                    .get(&event.key)
                    .is_some_and(|known| known.stands > 0)
                && seen.insert(event.key.clone())
            {
                standing.push((event.step.clone(), event.key.clone()));
            }
        }
        standing.reverse();
        standing
    }

    /// What an undo was handed has to be what its `execute` was handed, and what it gave.
    pub(super) fn check_undo(&self, key: &str, input: &str, output: Option<&str>) {
        self.lock().check_undo(key, input, output);
    }

    pub(super) fn note(&self, entry: Entry) {
        self.lock().log.push(entry);
    }

    /// The whole log, acknowledged appends and crashes among it.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.lock().log.clone()
    }

    /// How long the log is.
    pub(super) fn len(&self) -> usize {
        self.lock().log.len()
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    fn begin(&self, key: &str, side: Side) -> Call {
        let mut inner = self.lock();
        let effect_key = key.strip_suffix("/undo").unwrap_or(key);
        let (step, run) = step_of(effect_key);
        let count = inner.calls.entry((run, step.clone(), side)).or_default();
        *count += 1;
        let number = *count;
        inner.record(
            &step,
            effect_key,
            match side {
                Side::Execute => Happened::Called,
                Side::Undo => Happened::UndoCalled {
                    undo_key: key.to_owned(),
                },
            },
        );
        let (before, after) = match inner.seed {
            None => (Duration::ZERO, Duration::ZERO),
            Some(seed) => {
                let mut random = fastrand::Rng::with_seed(mix(seed, &step, side, number));
                (
                    Duration::from_millis(random.u64(0..=50)),
                    Duration::from_millis(random.u64(0..=50)),
                )
            }
        };
        Call {
            fault: inner.faults.of_call(&step, side, number),
            step,
            key: effect_key.to_owned(),
            before,
            after,
        }
    }

    /// No code of the user's runs under this lock, and it is never held across an await.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn record(&mut self, step: &str, key: &str, what: Happened) {
        self.log.push(Entry::World(WorldEvent {
            step: step.to_owned(),
            key: key.to_owned(),
            what,
        }));
    }

    /// The result, or nothing where the key is closed.
    fn take_effect(&mut self, step: &str, key: &str, result: &Value) -> Option<Value> {
        let forgets = self.forgets;
        let known = self.known.entry(key.to_owned()).or_insert_with(Known::new);
        let (what, given) = if known.closed && !forgets {
            (Happened::Refused, None)
        } else if known.stands > 0 && !forgets {
            (Happened::Duplicate, known.result.clone())
        } else {
            known.stands += 1;
            known.result = Some(result.clone());
            (Happened::TookEffect, Some(result.clone()))
        };
        self.record(step, key, what);
        given
    }

    fn undo(&mut self, step: &str, key: &str) {
        let known = self.known.entry(key.to_owned()).or_insert_with(Known::new);
        known.closed = true;
        let what = if known.stands > 0 {
            known.stands -= 1;
            Happened::Undone
        } else {
            Happened::NothingToUndo
        };
        self.record(step, key, what);
    }

    fn send_late(&mut self, call: &Call, result: Value) {
        self.number += 1;
        self.late.insert(self.number, (call.key.clone(), result));
    }

    fn deliver(&mut self, key: Option<&str>) {
        let arriving: Vec<u64> = self
            .late
            .iter()
            .filter(|(_, (late, _))| key.is_none_or(|key| key == late))
            .map(|(number, _)| *number)
            .collect();
        for number in arriving {
            if let Some((key, result)) = self.late.remove(&number) {
                let (step, _) = step_of(&key);
                self.take_effect(&step, &key, &result);
            }
        }
    }

    /// All calls about one effect have one input (rule K3).
    fn note_input(&mut self, call: &Call, input: String) {
        let known = self
            .known
            .entry(call.key.clone())
            .or_insert_with(Known::new);
        match &known.input {
            None => known.input = Some(input),
            Some(first) if *first == input => {}
            Some(first) => {
                let complaint = format!(
                    "`{}` was called under {} with {first} and then with {input}",
                    call.step, call.key
                );
                self.complaints.push(complaint);
            }
        }
    }

    fn check_undo(&mut self, key: &str, input: &str, output: Option<&str>) {
        let (step, _) = step_of(key);
        if let Some(known) = self.known.get(key)
            && let Some(executed) = &known.input
            && executed != input
        {
            let complaint = format!(
                "`{step}` was executed under {key} with {executed}, and undone with {input}"
            );
            self.complaints.push(complaint);
        }
        if output.is_some_and(|output| output != key) {
            let complaint = format!(
                "the undo of `{step}` under {key} was handed the output of {}",
                output.unwrap_or_default()
            );
            self.complaints.push(complaint);
        }
    }
}

impl Known {
    fn new() -> Self {
        Known {
            result: None,
            stands: 0,
            closed: false,
            input: None,
        }
    }
}

/// A sleep of nothing would still wait for the timer.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("World")
            .field("seed", &inner.seed)
            .field("forgets", &inner.forgets)
            .field("happened", &inner.log.len())
            .finish_non_exhaustive()
    }
}
