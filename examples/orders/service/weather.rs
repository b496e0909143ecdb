//! What goes wrong in a service, drawn from a seed.
//!
//! The draw depends on the seed, the request and how often it has come, and on nothing else: not on
//! the clock, not on the order of arrival. Bad weather passes: from the fifth arrival on it is fair,
//! but for the few charges that never get through, whose orders the saga has to give up.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fastrand::Rng;

/// How long a slow service takes to answer: longer than a step waits.
pub(crate) const SLOW: Duration = Duration::from_millis(700);

/// The fate of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It is answered at once.
    Fair,
    /// The connection is reset before anything is done.
    ResetBefore,
    /// 503, and nothing is done.
    Busy,
    /// It is carried out only after its sender gave up.
    Late,
    /// It is carried out, and the answer comes too late.
    Slow,
    /// It is carried out, and the connection closes without an answer.
    LostReply,
    /// It is carried out, and the connection is reset.
    ResetAfter,
    /// It is carried out, and the answer is a 500.
    Broken,
}

impl Weather {
    /// All that is not fair, in the order of the report.
    pub(crate) const BAD: [Self; 7] = [
        Self::ResetBefore,
        Self::Busy,
        Self::Late,
        Self::Slow,
        Self::LostReply,
        Self::ResetAfter,
        Self::Broken,
    ];

    /// What the report calls it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Fair => "fair",
            Self::ResetBefore => "reset before the effect",
            Self::Busy => "503, nothing done",
            Self::Late => "arrived after the time-out",
            Self::Slow => "done, answered too late",
            Self::LostReply => "done, answer lost",
            Self::ResetAfter => "done, then reset",
            Self::Broken => "done, then 500",
        }
    }

    /// The weather of a request that comes for the `arrival`th time, counted from 0.
    pub(crate) fn forecast(seed: u64, verb: &str, order_id: &str, arrival: u32) -> Self {
        let quick = [
            Self::ResetBefore,
            Self::Busy,
            Self::LostReply,
            Self::ResetAfter,
        ];
        let mut rng = dice(seed, &(verb, order_id, arrival));
        match (dice(seed, &(verb, order_id)).u16(0..1_000), verb) {
            // Never done, and done without anyone ever learning it.
            (0..4, "charge") => Self::ResetBefore,
            (4..8, "charge") => Self::LostReply,
            // A storm outlasts the retries of a step, so that the recovery of the run has to help.
            (8..18, "reserve" | "charge" | "confirm") if arrival < 8 => {
                quick[rng.usize(0..quick.len())]
            }
            _ => {
                let chance = match arrival {
                    0 => 14,
                    1 => 10,
                    2 | 3 => 6,
                    _ => 0,
                };
                if rng.u8(0..100) < chance {
                    Self::BAD[rng.usize(0..Self::BAD.len())]
                } else {
                    Self::Fair
                }
            }
        }
    }
}

/// Random numbers that depend on a seed and a subject only.
pub(crate) fn dice(seed: u64, subject: &impl Hash) -> Rng {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    subject.hash(&mut hasher);
    Rng::with_seed(hasher.finish())
}
