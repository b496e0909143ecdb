//! Random definitions and what their steps will do, all from one seed.

use std::time::Duration;

use amends::policy::{Jitter, RecoveryPolicy, RecoveryStrategy, Retry};
use amends::saga::StepKind;
use amends::{OnStop, Siblings, UndoOrder, UndoRule};
use fastrand::Rng;

/// Everything that is random about one run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: Vec<StepPlan>,
    pub(crate) pivot: Option<usize>,
    pub(crate) siblings: Siblings,
    pub(crate) undo_order: UndoOrder,
    pub(crate) on_stop: OnStop,
    pub(crate) policy: Answers,
    pub(crate) max_recoveries: u32,
    /// The wait before a recovery, in milliseconds.
    pub(crate) backoff: u64,
    pub(crate) cancel_at: Option<u64>,
    pub(crate) deadline: Option<u64>,
    /// How long a waiting run stays in memory: with 0 each wait folds the journal anew.
    pub(crate) resident: u64,
    /// How many of a thousand calls go wrong.
    pub(crate) failing: u64,
    pub(crate) undo_failing: u64,
    pub(crate) returned: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct StepPlan {
    pub(crate) kind: StepKind,
    /// The step whose output it reads; the saga's input where there is none.
    pub(crate) data: Option<usize>,
    pub(crate) mapped: bool,
    pub(crate) after: Vec<usize>,
    pub(crate) checkpoint: bool,
    pub(crate) undo_rule: UndoRule,
    pub(crate) at_most_once: bool,
    pub(crate) atomic: bool,
    pub(crate) probed: bool,
    pub(crate) max_attempts: u32,
    pub(crate) delay: u64,
    pub(crate) doubling: bool,
    pub(crate) undo_attempts: u32,
    /// Whether a call ends early when it is told to.
    pub(crate) listens: bool,
}

impl StepPlan {
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = usize> + '_ {
        self.data.iter().chain(&self.after).copied()
    }

    pub(crate) fn retry(&self) -> Retry {
        let retry = if self.doubling {
            Retry::exponential()
        } else {
            Retry::constant()
        };
        retry
            .initial(Duration::from_millis(self.delay))
            .jitter(Jitter::None)
            .max_attempts(self.max_attempts)
    }

    pub(crate) fn undo_retry(&self) -> Retry {
        Retry::constant()
            .initial(Duration::from_millis(UNDO_DELAY))
            .max_attempts(self.undo_attempts)
    }
}

/// Milliseconds between two calls of one undo.
pub(crate) const UNDO_DELAY: u64 = 7;
/// The time-out of every execute and compensate, in milliseconds.
pub(crate) const TIMEOUT: u64 = 60;
/// The grace of attempts that were told to stop, in milliseconds.
pub(crate) const GRACE: u64 = 12;

/// Which policy the saga has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Saga,
    ByProgress,
    Always(RecoveryStrategy),
}

/// What one call of an `execute` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Succeed,
    /// A business refusal: not done, not retryable.
    Reject,
    /// Not done, retryable.
    Miss,
    /// A connection that was refused: not done by the classifier's word only.
    Refused,
    /// Not done, and of a terminal mode.
    Forbidden,
    /// In doubt by the step's own word.
    Lose {
        applied: bool,
        retryable: bool,
    },
    Panic {
        applied: bool,
    },
    /// Never answers.
    Hang {
        applied: bool,
    },
    Stop,
}

/// What one call of a `compensate` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndoAct {
    Succeed,
    /// A retryable failure; the effect may be gone nevertheless.
    Miss {
        removed: bool,
    },
    /// Not retryable.
    Reject,
    Hang,
}

/// What one call of a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAct {
    Truth,
    Unknown,
    Fail,
}

/// A well mixed number from a few others.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, part| {
        let mixed = (hash ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 32)
    })
}

impl Plan {
    pub(crate) fn random(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        // Small graphs find most, but every tenth may have up to 40 steps.
        let count = if rng.u8(..10) == 0 {
            rng.usize(1..=40)
        } else {
            rng.usize(1..=14)
        };
        let pivot = (rng.u8(..3) == 0).then(|| rng.usize(0..count));
        let rare = rng.u8(..4) == 0;
        let checkpoints = rng.bool();
        let mut steps: Vec<StepPlan> = Vec::new();
        for index in 0..count {
            let kind = match (pivot, rng.u8(..10)) {
                (Some(pivot), 0..5) if index >= pivot => StepKind::Irreversible,
                (_, 9) if pivot != Some(index) => StepKind::ReadOnly,
                _ => StepKind::Compensatable,
            };
            let undoable = kind == StepKind::Compensatable;
            let effectful = kind != StepKind::ReadOnly;
            let data = (index > 0 && rng.u8(..4) > 0).then(|| near(&mut rng, index));
            let mut after = Vec::new();
            if index > 0 {
                for _ in 0..rng.usize(..3) {
                    after.push(near(&mut rng, index));
                }
            }
            match pivot {
                // Rule P1: all but what is read-only comes before the pivot or after it.
                Some(pivot) if index == pivot => after
                    .extend((0..index).filter(|&before| steps[before].kind != StepKind::ReadOnly)),
                Some(pivot) if index > pivot && effectful => after.push(pivot),
                _ => {}
            }
            after.retain(|&before| Some(before) != data);
            after.sort_unstable();
            after.dedup();
            steps.push(StepPlan {
                kind,
                data,
                mapped: rng.u8(..6) == 0,
                after,
                checkpoint: checkpoints && rng.u8(..4) == 0,
                undo_rule: match rng.u8(..8) {
                    0 if undoable => UndoRule::Always,
                    1 if undoable => UndoRule::Never,
                    _ => UndoRule::InDoubt,
                },
                at_most_once: effectful && rare && rng.u8(..8) == 0,
                atomic: effectful && rng.bool(),
                probed: effectful && rng.u8(..4) == 0,
                max_attempts: rng.u32(1..=3),
                delay: rng.u64(1..=30),
                doubling: rng.bool(),
                undo_attempts: rng.u32(1..=3),
                listens: rng.bool(),
            });
        }
        let strategies = RecoveryStrategy::ALL;
        Plan {
            seed,
            pivot,
            siblings: if rng.u8(..3) == 0 {
                Siblings::Stop {
                    grace: Duration::from_millis(GRACE),
                }
            } else {
                Siblings::Await
            },
            undo_order: if rng.bool() {
                UndoOrder::Sequential
            } else {
                UndoOrder::Parallel
            },
            on_stop: if rng.bool() {
                OnStop::Keep
            } else {
                OnStop::Compensate
            },
            policy: match rng.usize(..8) {
                0 | 1 => Answers::Saga,
                2 => Answers::ByProgress,
                other => Answers::Always(strategies[other - 3]),
            },
            max_recoveries: rng.u32(0..=3),
            backoff: rng.u64(1..=40),
            cancel_at: (rng.u8(..6) == 0).then(|| rng.u64(0..150)),
            deadline: (rng.u8(..8) == 0).then(|| rng.u64(1..300)),
            resident: if rng.bool() { 0 } else { 100 },
            failing: [0, 60, 120, 250, 500][rng.usize(..5)],
            undo_failing: [0, 0, 60, 300][rng.usize(..4)],
            returned: (rng.u8(..8) > 0).then(|| rng.usize(0..count)),
            steps,
        }
    }

    pub(crate) fn recovery_policy(&self) -> RecoveryPolicy {
        let policy = match self.policy {
            Answers::Saga => RecoveryPolicy::saga(),
            Answers::ByProgress => RecoveryPolicy::by_progress(),
            Answers::Always(strategy) => RecoveryPolicy::new("always the same", strategy),
        };
        policy
            .max_recoveries(self.max_recoveries)
            .backoff(Retry::constant().initial(Duration::from_millis(self.backoff)))
    }

    fn roll(&self, what: u64, step: usize, call: u32) -> Rng {
        Rng::with_seed(mix(&[self.seed, what, step as u64, call.into()]))
    }

    /// How long the call takes in virtual milliseconds, and what it does then.
    pub(crate) fn execute(&self, step: usize, call: u32) -> (u64, Act) {
        let mut rng = self.roll(1, step, call);
        let takes = if rng.u8(..5) == 0 { 0 } else { rng.u64(..40) };
        if rng.u64(..1000) >= self.failing {
            return (takes, Act::Succeed);
        }
        let applied = rng.bool();
        let act = match rng.u8(..20) {
            0..2 => Act::Reject,
            2..7 => Act::Miss,
            7..9 => Act::Refused,
            9 if rng.bool() => Act::Forbidden,
            9..15 => Act::Lose {
                applied,
                retryable: rng.u8(..4) > 0,
            },
            15..17 => Act::Hang { applied },
            17..19 => Act::Panic { applied },
            _ => Act::Stop,
        };
        (takes, act)
    }

    pub(crate) fn undo(&self, step: usize, call: u32) -> (u64, UndoAct) {
        let mut rng = self.roll(2, step, call);
        let takes = if rng.u8(..5) == 0 { 0 } else { rng.u64(..20) };
        if rng.u64(..1000) >= self.undo_failing {
            return (takes, UndoAct::Succeed);
        }
        let act = match rng.u8(..8) {
            0..5 => UndoAct::Miss {
                removed: rng.bool(),
            },
            5 | 6 => UndoAct::Reject,
            _ => UndoAct::Hang,
        };
        (takes, act)
    }

    pub(crate) fn probe(&self, step: usize, call: u32) -> (u64, ProbeAct) {
        let mut rng = self.roll(3, step, call);
        let takes = rng.u64(..10);
        let act = match rng.u8(..6) {
            0..3 => ProbeAct::Truth,
            3 | 4 => ProbeAct::Unknown,
            _ => ProbeAct::Fail,
        };
        (takes, act)
    }
}

/// An earlier step, more often a near one: else graphs have no depth.
fn near(rng: &mut Rng, index: usize) -> usize {
    let back = if rng.bool() { index.min(3) } else { index };
    index - 1 - rng.usize(..back)
}
