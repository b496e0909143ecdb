//! W3: three steps whose bodies do nothing and return a small value; the third reads what both others made.

use amends::{Coordinator, Outcome, RunId, Saga, StepError, step_fn};

use crate::load::Work;

/// How many steps a run has.
pub(crate) const STEPS: u64 = 3;

/// An input of this refuses the third step for good, so that the second and the first are undone.
const REFUSED: u64 = 1;

pub(crate) fn saga() -> Saga<u64, u64> {
    let mut saga = Saga::builder::<u64>("w3");
    let input = saga.input();
    let first = saga.add(
        step_fn(
            "first",
            async |_cx, number: &u64| Ok(*number),
            async |_cx, _number, _effect| Ok(()),
        ),
        input,
    );
    let second = saga.add(
        step_fn(
            "second",
            async |_cx, number: &u64| Ok(number + 1),
            async |_cx, _number, _effect| Ok(()),
        ),
        first,
    );
    let third = saga.add(
        step_fn(
            "third",
            async |_cx, (first, second): &(u64, u64)| match *first {
                REFUSED => Err(StepError::rejected("no")),
                _ => Ok(first + second),
            },
            async |_cx, _input, _effect| Ok(()),
        ),
        (first, second),
    );
    saga.returns(third).expect("W3 is a saga")
}

/// Which ids runs have. All have 32 characters, as those of `RunId::random`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Each sorts after those that were made before.
    Ordered,
    /// They come in no order.
    Random,
}

impl Ids {
    /// The id of this number.
    pub(crate) fn id(self, number: u64) -> RunId {
        let mut text = *b"0123456789ab0123456789abcdefcafe";
        match self {
            Ids::Ordered => hex(&mut text[..12], number),
            Ids::Random => {
                hex(&mut text[..16], scatter(number));
                hex(&mut text[16..], scatter(!number));
            }
        }
        RunId::new(std::str::from_utf8(&text).expect("hex digits"))
    }
}

fn hex(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Another number for each, in no order (the last step of splitmix64).
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Runs of W3, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    coordinator: Coordinator,
    saga: Saga<u64, u64>,
    ids: Ids,
    /// How many of a hundred runs fail.
    failing: u64,
}

impl Runs {
    pub(crate) fn new(
        coordinator: &Coordinator,
        saga: &Saga<u64, u64>,
        ids: Ids,
        failing: u64,
    ) -> Self {
        Runs {
            coordinator: coordinator.clone(),
            saga: saga.clone(),
            ids,
            failing,
        }
    }
}

impl Work for Runs {
    async fn once(&self, number: u64) {
        // Spread over the hundred, not in a row.
        let fails = number * 37 % 100 < self.failing;
        let input = if fails { REFUSED } else { 2 };
        let run = self
            .coordinator
            .start(&self.saga, self.ids.id(number), input)
            .await
            .expect("a start");
        match run.outcome().await.expect("an outcome") {
            Outcome::Completed(done) => assert!(!fails && done.output == 5),
            Outcome::Compensated(_) => assert!(fails),
            other => panic!("{other:?}"),
        }
    }
}
