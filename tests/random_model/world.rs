//! The participants: they honour keys, remember what was undone, and do what the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use amends::saga::StepKind;
use amends::{Action, Effect, FailureMode, Probe, Probed, Step, StepContext, StepError, UndoRule};

use crate::plan::{Act, Plan, ProbeAct, UndoAct, mix};

/// The saga's input, and what `map`s add.
pub(crate) const INPUT: u64 = 7;
pub(crate) const MAPPED: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The effects that stand now: step, then key and output.
    pub(crate) standing: BTreeMap<usize, (String, u64)>,
    /// Effects that have stood: key and number of times that they appeared.
    pub(crate) applied: BTreeMap<String, u32>,
    /// Keys of executes whose undo has been called.
    pub(crate) undoing: BTreeSet<String>,
    /// What each execute key was called with.
    pub(crate) inputs: BTreeMap<String, u64>,
    /// What each step returned last, or had found out by a probe.
    pub(crate) outputs: BTreeMap<usize, u64>,
    /// Steps whose execute is being called now.
    pub(crate) inside: BTreeSet<usize>,
    /// Calls so far, by what and which step.
    pub(crate) executes: BTreeMap<usize, u32>,
    pub(crate) undos: BTreeMap<usize, u32>,
    pub(crate) probes: BTreeMap<usize, u32>,
    /// What a participant saw that it should not have seen.
    pub(crate) violations: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    facts: Mutex<Facts>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        World {
            plan,
            facts: Mutex::default(),
        }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        // A step that panics on purpose holds no lock; one that finds a fault reports it and goes on.
        self.facts.lock().unwrap()
    }

    /// All that depends on this step, however far away.
    pub(crate) fn descendants(&self, step: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for later in step + 1..self.plan.steps.len() {
            let reached = self.plan.steps[later]
                .dependencies()
                .any(|before| before == step || found.contains(&before));
            if reached {
                found.insert(later);
            }
        }
        found
    }

    fn input_of(&self, facts: &Facts, step: usize) -> Option<u64> {
        let plan = &self.plan.steps[step];
        let fed = match plan.data {
            Some(source) => *facts.outputs.get(&source)?,
            None => INPUT,
        };
        Some(if plan.mapped { fed + MAPPED } else { fed })
    }
}

/// One step of the world: undoable, or an action, and its own probe.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) world: Arc<World>,
    pub(crate) step: usize,
}

/// Takes the step out of those that are being called, however the call ends.
struct Inside<'a>(&'a Body);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.world.facts().inside.remove(&self.0.step);
    }
}

impl Body {
    fn writes(&self) -> bool {
        self.world.plan.steps[self.step].kind != StepKind::ReadOnly
    }

    fn enter(&self, cx: &StepContext, input: u64) -> (u64, Act, Inside<'_>) {
        let world = &self.world;
        let mut facts = world.facts();
        let key = cx.idempotency_key().to_owned();
        let step = self.step;
        let mut wrong = Vec::new();
        if !facts.inside.insert(step) {
            wrong.push("called twice at once".to_owned());
        }
        if facts.undoing.contains(&key) {
            wrong.push(format!("executed under {key}, whose undo has begun (K2)"));
        }
        if let Some((other, _)) = facts.standing.get(&step)
            && *other != key
        {
            wrong.push(format!("executed under {key} while {other} stands (K2)"));
        }
        if key != cx.effect_key() {
            wrong.push("an execute has two keys".to_owned());
        }
        if world.input_of(&facts, step) != Some(input) {
            wrong.push(format!("got the input {input}"));
        }
        // A round that left nothing keeps its key, and may be fed anew (K2).
        let before = facts.inputs.insert(key.clone(), input);
        let asserted = world.plan.steps[step].undo_rule == UndoRule::Never;
        if before.is_some_and(|before| before != input)
            && facts.standing.contains_key(&step)
            && !asserted
        {
            wrong.push(format!("got another input under {key}, which stands (K3)"));
        }
        for before in world.plan.steps[step].dependencies() {
            let there = if world.plan.steps[before].kind == StepKind::ReadOnly {
                facts.outputs.contains_key(&before)
            } else {
                facts.standing.contains_key(&before)
            };
            if !there {
                wrong.push(format!("started without its dependency {before}"));
            }
        }
        let call = facts.executes.entry(step).or_default();
        *call += 1;
        let call = *call;
        if call != cx.attempt() {
            wrong.push(format!("call {call} is called attempt {}", cx.attempt()));
        }
        facts
            .violations
            .extend(wrong.into_iter().map(|wrong| format!("s{step}: {wrong}")));
        drop(facts);
        let (takes, act) = world.plan.execute(step, call);
        (takes, act, Inside(self))
    }

    /// The effect appears, or is there already under this key.
    fn apply(&self, cx: &StepContext, input: u64) -> u64 {
        let mut facts = self.world.facts();
        let output = mix(&[self.step as u64, cx.round().into(), input]) % 1_000;
        if !self.writes() {
            facts.outputs.insert(self.step, output);
            return output;
        }
        let key = cx.idempotency_key().to_owned();
        if let Some((_, output)) = facts.standing.get(&self.step) {
            return *output;
        }
        let times = facts.applied.entry(key.clone()).or_default();
        *times += 1;
        if *times > 1 {
            let wrong = format!("s{}: {key} took effect again", self.step);
            facts.violations.push(wrong);
        }
        facts.standing.insert(self.step, (key, output));
        output
    }

    async fn call(&self, cx: &StepContext, input: u64) -> Result<u64, StepError> {
        let (takes, act, _inside) = self.enter(cx, input);
        let slept = tokio::time::sleep(Duration::from_millis(takes));
        if self.world.plan.steps[self.step].listens {
            tokio::select! {
                biased;
                () = slept => {}
                () = cx.cancelled() => {
                    return Err(StepError::not_done("it was told to stop")
                        .with_mode(FailureMode::SystemTimeout));
                }
            }
        } else if takes > 0 {
            slept.await;
        }
        match act {
            Act::Succeed => {
                let output = self.apply(cx, input);
                self.world.facts().outputs.insert(self.step, output);
                Ok(output)
            }
            Act::Reject => Err(StepError::rejected("no")),
            Act::Miss => Err(StepError::not_done("missed").with_mode(FailureMode::SystemNetwork)),
            Act::Refused => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
            Act::Forbidden => {
                Err(StepError::not_done("forbidden").with_mode(FailureMode::SecurityViolation))
            }
            Act::Lose { applied, retryable } => {
                self.maybe(applied, cx, input);
                Err(StepError::in_doubt("lost")
                    .with_mode(FailureMode::SystemNetwork)
                    .retryable(retryable))
            }
            Act::Panic { applied } => {
                self.maybe(applied, cx, input);
                std::panic::resume_unwind(Box::new("planned"))
            }
            Act::Hang { applied } => {
                self.maybe(applied, cx, input);
                std::future::pending().await
            }
            Act::Stop => Err(StepError::stop("enough")),
        }
    }

    fn maybe(&self, applied: bool, cx: &StepContext, input: u64) {
        if applied {
            self.apply(cx, input);
        }
    }

    fn leave(&self, cx: &StepContext, input: u64, effect: Effect<&u64>) -> (u64, UndoAct) {
        let world = &self.world;
        let step = self.step;
        let mut facts = world.facts();
        let mut wrong = Vec::new();
        if facts.inside.contains(&step) {
            wrong.push("undone while it is executed".to_owned());
        }
        if cx.idempotency_key() == cx.effect_key() {
            wrong.push("its undo has the key of its execute (K1)".to_owned());
        }
        if facts.inputs.get(cx.effect_key()) != Some(&input) {
            wrong.push(format!("its undo got the input {input} (K3)"));
        }
        if let Some((key, output)) = facts.standing.get(&step) {
            if key != cx.effect_key() {
                wrong.push(format!("{key} stands, and {} is undone", cx.effect_key()));
            }
            if matches!(effect, Effect::Done(told) if told != output) {
                wrong.push("its undo got another output".to_owned());
            }
        }
        for later in world.descendants(step) {
            // Doubts under `never` are assumed to be absent, whatever the world says.
            let asserted = world.plan.steps[later].undo_rule == UndoRule::Never
                && !facts.outputs.contains_key(&later);
            if facts.standing.contains_key(&later) && !asserted {
                wrong.push(format!("undone before s{later}, which depended on it (U1)"));
            }
        }
        facts.undoing.insert(cx.effect_key().to_owned());
        let call = facts.undos.entry(step).or_default();
        *call += 1;
        let call = *call;
        if call != cx.attempt() {
            wrong.push(format!("undo {call} is called attempt {}", cx.attempt()));
        }
        facts
            .violations
            .extend(wrong.into_iter().map(|wrong| format!("s{step}: {wrong}")));
        world.plan.undo(step, call)
    }

    fn remove(&self) {
        let mut facts = self.world.facts();
        facts.standing.remove(&self.step);
        facts.outputs.remove(&self.step);
    }
}

impl Step for Body {
    type Input = u64;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, input: &u64) -> Result<u64, StepError> {
        self.call(cx, *input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &u64,
        effect: Effect<&u64>,
    ) -> Result<(), StepError> {
        let (takes, act) = self.leave(cx, *input, effect);
        if takes > 0 {
            tokio::time::sleep(Duration::from_millis(takes)).await;
        }
        match act {
            UndoAct::Succeed => {
                self.remove();
                Ok(())
            }
            UndoAct::Miss { removed } => {
                if removed {
                    self.remove();
                }
                Err(StepError::in_doubt("missed").with_mode(FailureMode::SystemNetwork))
            }
            UndoAct::Reject => Err(StepError::rejected("no way back")),
            UndoAct::Hang => std::future::pending().await,
        }
    }
}

impl Action for Body {
    type Input = u64;
    type Output = u64;

    async fn execute(&self, cx: &StepContext, input: &u64) -> Result<u64, StepError> {
        self.call(cx, *input).await
    }
}

impl Probe for Body {
    type Input = u64;
    type Output = u64;

    async fn probe(&self, cx: &StepContext, input: &u64) -> Result<Probed<u64>, StepError> {
        let (takes, act) = {
            let mut facts = self.world.facts();
            if facts.inputs.get(cx.effect_key()) != Some(input) {
                let wrong = format!("s{}: its probe got the input {input} (K3)", self.step);
                facts.violations.push(wrong);
            }
            let call = facts.probes.entry(self.step).or_default();
            *call += 1;
            self.world.plan.probe(self.step, *call)
        };
        tokio::time::sleep(Duration::from_millis(takes)).await;
        match act {
            ProbeAct::Truth => {
                let mut facts = self.world.facts();
                Ok(match facts.standing.get(&self.step).cloned() {
                    Some((key, output)) if key == cx.effect_key() => {
                        facts.outputs.insert(self.step, output);
                        Probed::Done(output)
                    }
                    _ => Probed::Never,
                })
            }
            ProbeAct::Unknown => Ok(Probed::Unknown),
            ProbeAct::Fail => Err(StepError::in_doubt("the probe failed")),
        }
    }
}
