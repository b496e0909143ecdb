//! What is explored.

use std::fmt;
use std::time::Duration;

use crate::ids::RunId;
use crate::journal::Verb;
use crate::partial::PartialResult;
use crate::policy::RecoveryStrategy;
use crate::saga::Saga;
use crate::step::Payload;
use crate::testkit::world::World;

/// What is explored: a saga, its input, and the world that its steps act upon.
///
/// The saga's steps have to act upon this very world, or the exploration sees nothing.
pub struct Scenario<I, O> {
    pub(super) saga: Saga<I, O>,
    pub(super) world: World,
    pub(super) runs: Vec<(RunId, I)>,
    pub(super) cancel: Option<u64>,
    pub(super) operator: Option<Operator>,
    pub(super) planned: Vec<Planned>,
    pub(super) ends: Option<Vec<&'static str>>,
}

/// When somebody asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Once so many appends were acknowledged, over all processes, or the first run rests before.
    Appends(u64),
    /// Once the first run is parked; never, if it ends instead.
    Parked,
    /// So long after what was asked before it was answered.
    Later(Duration),
}

/// Which way a command takes to the owner of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the coordinator of this process.
    Asked,
    /// Through the store, as from another process.
    HandedIn,
}

type MakeVerb = Box<dyn Fn(&PartialResult) -> Verb>;

/// Something that an operator will ask.
pub(super) struct Planned {
    pub(super) when: When,
    pub(super) way: Way,
    pub(super) verb: MakeVerb,
}

/// What somebody does, once, about a run that was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operator {
    /// Lets it go on with this strategy.
    Retries(RecoveryStrategy),
    /// Gives it up.
    Abandons,
}

impl<I: Payload, O: Payload> Scenario<I, O> {
    /// One run of this saga, with this input.
    #[must_use]
    pub fn new(saga: Saga<I, O>, input: I, world: World) -> Self {
        Scenario {
            saga,
            world,
            runs: vec![(RunId::new("run-1"), input)],
            cancel: None,
            operator: None,
            planned: Vec::new(),
            ends: None,
        }
    }

    /// One more run in the same store, at the same time.
    #[must_use]
    pub fn and_run(mut self, input: I) -> Self {
        let id = RunId::new(format!("run-{}", self.runs.len() + 1));
        self.runs.push((id, input));
        self
    }

    /// Somebody cancels the first run once so many appends were acknowledged.
    #[must_use]
    pub fn cancelled_after(mut self, appends: u64) -> Self {
        self.cancel = Some(appends);
        self
    }

    /// Somebody helps, once, when the first run is parked. What they say is said again if a crash
    /// swallows it.
    #[must_use]
    pub fn when_parked(mut self, operator: Operator) -> Self {
        self.operator = Some(operator);
        self
    }

    /// Somebody asks this of the first run, of the coordinator that drives it. Commands are asked one after
    /// the other, each under a token of its own; one that a crash leaves without an answer is asked again, and
    /// has to be carried out once, or refused and not be in the journal at all. `verb` sees how the run stands.
    #[must_use]
    pub fn asked(mut self, when: When, verb: impl Fn(&PartialResult) -> Verb + 'static) -> Self {
        let (way, verb) = (Way::Asked, Box::new(verb));
        self.planned.push(Planned { when, way, verb });
        self
    }

    /// The same through the store, as another process does it: it is handed in once, and has to have its
    /// answer in the end, whoever was killed meanwhile.
    #[must_use]
    pub fn handed_in(
        mut self,
        when: When,
        verb: impl Fn(&PartialResult) -> Verb + 'static,
    ) -> Self {
        let (way, verb) = (Way::HandedIn, Box::new(verb));
        self.planned.push(Planned { when, way, verb });
        self
    }

    /// Every run has to come to rest with one of these [words](crate::Outcome::word), wherever it was killed.
    #[must_use]
    pub fn ends(mut self, words: &[&'static str]) -> Self {
        self.ends = Some(words.to_vec());
        self
    }
}

impl<I, O> fmt::Debug for Scenario<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("saga", &self.saga)
            .field("world", &self.world)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}
