//! One verb for all runs that match a filter.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::ids::{RunId, random_u128};
use crate::journal::{Command, CommandAnswer, Verb, VerbName};
use crate::machine::Refused;
use crate::operator::{Operator, OperatorError, Sent};
use crate::store::{RunEntry, RunFilter, StoreError};

/// So many entries are read from the list in one go.
const PAGE: usize = 256;

/// So many commands may be without an answer before the next one is handed in.
const UNDER_WAY: usize = 256;

/// A verb for all runs that match a filter.
///
/// Each run gets a command of its own, whose token is the bulk's token and the run's id: the same bulk
/// again, after an interruption, asks no run a second time.
///
/// ```
/// use amends::journal::Verb;
/// use amends::operator::Bulk;
/// use amends::store::RunFilter;
///
/// let bulk = Bulk::new(RunFilter::open().mode("system_network"), Verb::Cancel)
///     .by("ada")
///     .reason("the network is gone for good")
///     .token("incident-17");
/// assert_eq!(bulk.token_of(&"order-1".into()), "incident-17/order-1");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bulk {
    /// Which runs.
    pub filter: RunFilter,
    /// What is asked of each.
    pub verb: Verb,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The first part of each command's token.
    pub token: String,
    /// How many commands are handed in per second at most.
    pub per_second: NonZeroU32,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// Fast enough for a thousand runs in a minute, slow enough for whatever made them fail.
const PER_SECOND: NonZeroU32 = match NonZeroU32::new(20) {
    Some(commands) => commands,
    None => NonZeroU32::MIN,
};

impl Bulk {
    /// A bulk by nobody in particular, with a token that no other has.
    #[must_use]
    pub fn new(filter: RunFilter, verb: Verb) -> Self {
        Bulk {
            filter,
            verb,
            by: String::new(),
            reason: String::new(),
            token: format!("{:032x}", random_u128()),
            per_second: PER_SECOND,
            patience: Duration::from_secs(5),
        }
    }

    /// Who asks. Default: empty.
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = by.into();
        self
    }

    /// Why. Default: empty.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// A token of your own, so that the bulk can be repeated. Default: 32 random hex digits.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// How many commands are handed in per second at most. Default 20.
    #[must_use]
    pub fn per_second(mut self, commands: NonZeroU32) -> Self {
        self.per_second = commands;
        self
    }

    /// How long the answer to a command is waited for. Default 5 s. A command that nobody has answered then
    /// stays in the store, for whoever drives its run next.
    #[must_use]
    pub fn patience(mut self, at_most: Duration) -> Self {
        self.patience = at_most;
        self
    }

    /// The token of the command that a run gets.
    #[must_use]
    pub fn token_of(&self, run: &RunId) -> String {
        format!("{}/{run}", self.token)
    }

    fn command(&self, run: &RunId) -> Command {
        Command::new(run.clone(), self.verb.clone())
            .by(&self.by)
            .reason(&self.reason)
            .token(self.token_of(run))
    }
}

/// What became of one run of a bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkReport {
    /// The run, as it was listed.
    pub entry: RunEntry,
    /// What became of it.
    pub became: BulkOutcome,
}

/// What became of one run of a bulk, or in a dry run would become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkOutcome {
    /// Dry run: it would be asked.
    WouldAsk,
    /// It was not asked, because it doesn't take the verb now.
    Refused {
        /// Why.
        why: Refused,
        /// What it takes now.
        legal: Vec<VerbName>,
    },
    /// It was asked before, under this bulk's token, and was not asked again.
    Before(Sent),
    /// It was asked.
    Asked(Sent),
    /// It can't be asked: its journal can't be read, say.
    Failed(String),
}

/// A bulk in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkTotals {
    /// Runs that matched.
    pub matched: u64,
    /// Commands that were handed in; in a dry run those that would be.
    pub asked: u64,
    /// Runs that had been asked before.
    pub before: u64,
    /// Commands that were carried out, now or before.
    pub accepted: u64,
    /// Runs that did not take the verb, by their journal or by their owner's answer.
    pub refused: u64,
    /// Commands that nobody has answered yet.
    pub waiting: u64,
    /// Runs that could not be asked.
    pub failed: u64,
}

impl BulkTotals {
    fn count(&mut self, became: &BulkOutcome) {
        self.matched += 1;
        let sent = match became {
            BulkOutcome::WouldAsk => {
                self.asked += 1;
                return;
            }
            BulkOutcome::Refused { .. } => {
                self.refused += 1;
                return;
            }
            BulkOutcome::Failed(_) => {
                self.failed += 1;
                return;
            }
            BulkOutcome::Before(sent) => {
                self.before += 1;
                sent
            }
            BulkOutcome::Asked(sent) => {
                self.asked += 1;
                sent
            }
        };
        match sent {
            Sent::Answered(CommandAnswer::Accepted { .. } | CommandAnswer::Late) => {
                self.accepted += 1;
            }
            Sent::Answered(CommandAnswer::Refused { .. }) => self.refused += 1,
            Sent::Waiting => self.waiting += 1,
        }
    }
}

/// A run that is not reported yet, in the order of the list.
struct UnderWay {
    entry: RunEntry,
    what: Awaited,
}

enum Awaited {
    /// Only its turn to be reported.
    Turn(BulkOutcome),
    /// The answer to its command.
    Answer {
        token: String,
        until: Instant,
        before: bool,
    },
}

impl Operator {
    /// Says what a bulk would ask of which run, and which runs would refuse it and why. Nothing is handed in.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn bulk_dry_run(
        &self,
        bulk: &Bulk,
        mut each: impl FnMut(&BulkReport),
    ) -> Result<BulkTotals, StoreError> {
        let mut totals = BulkTotals::default();
        let mut runs = Runs::of(self, &bulk.filter).await?;
        while let Some(entry) = runs.next(self).await? {
            let known = self.store.find_command(&bulk.token_of(&entry.run)).await?;
            let became = match known {
                Some(known) => BulkOutcome::Before(as_sent(known.answer)),
                None => self
                    .try_one(bulk, &entry)
                    .await?
                    .unwrap_or(BulkOutcome::WouldAsk),
            };
            totals.count(&became);
            each(&BulkReport { entry, became });
        }
        Ok(totals)
    }

    /// Asks a verb of every run that matches and was there when this began, the oldest first, and tells
    /// what became of each, in that order.
    ///
    /// Commands are handed in one by one, at the bulk's rate at most. Interrupted, it can be repeated under
    /// the same token: what was asked is not asked again.
    ///
    /// # Errors
    ///
    /// Where the store fails. What concerns one run only is told to `each`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the bulk; commands that were handed in stay.
    pub async fn bulk(
        &self,
        bulk: &Bulk,
        mut each: impl FnMut(&BulkReport),
    ) -> Result<BulkTotals, OperatorError> {
        let mut totals = BulkTotals::default();
        let mut tell = |entry, became| {
            totals.count(&became);
            each(&BulkReport { entry, became });
        };
        let mut runs = Runs::of(self, &bulk.filter).await?;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / bulk.per_second.get());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way: VecDeque<UnderWay> = VecDeque::new();
        while let Some(entry) = runs.next(self).await? {
            let command = bulk.command(&entry.run);
            // Asked before the state is: a run that was cancelled by this very bulk would refuse it now.
            let before = self.store.find_command(&command.token).await?.is_some();
            if !before {
                if let Some(became) = self.try_one(bulk, &entry).await? {
                    let what = Awaited::Turn(became);
                    under_way.push_back(UnderWay { entry, what });
                    continue;
                }
                pace.tick().await;
                self.store.submit(&command).await?;
            }
            let (token, until) = (command.token, Instant::now() + bulk.patience);
            let what = Awaited::Answer {
                token,
                until,
                before,
            };
            under_way.push_back(UnderWay { entry, what });
            // What is ready is told; nothing is waited for unless too many are.
            while let Some(first) = under_way.pop_front() {
                let full = under_way.len() >= UNDER_WAY;
                if !full && !self.is_ready(&first).await? {
                    under_way.push_front(first);
                    break;
                }
                let (entry, became) = self.settled(first).await?;
                tell(entry, became);
            }
        }
        for last in under_way {
            let (entry, became) = self.settled(last).await?;
            tell(entry, became);
        }
        Ok(totals)
    }

    /// What keeps a run from being asked, if something does.
    async fn try_one(
        &self,
        bulk: &Bulk,
        entry: &RunEntry,
    ) -> Result<Option<BulkOutcome>, StoreError> {
        match self.check(&bulk.command(&entry.run)).await {
            Ok(()) => Ok(None),
            Err(OperatorError::Refused { why, legal, .. }) => {
                Ok(Some(BulkOutcome::Refused { why, legal }))
            }
            Err(OperatorError::Store(error)) => Err(error),
            Err(error) => Ok(Some(BulkOutcome::Failed(error.to_string()))),
        }
    }

    async fn is_ready(&self, one: &UnderWay) -> Result<bool, StoreError> {
        Ok(match &one.what {
            Awaited::Turn(_) => true,
            Awaited::Answer { token, until, .. } => {
                Instant::now() >= *until
                    || self.answer(token, Duration::ZERO).await? != Sent::Waiting
            }
        })
    }

    /// What became of a run, once its command's answer is there or was waited for long enough.
    async fn settled(&self, one: UnderWay) -> Result<(RunEntry, BulkOutcome), StoreError> {
        let became = match one.what {
            Awaited::Turn(became) => became,
            Awaited::Answer {
                token,
                until,
                before,
            } => {
                let patience = until.saturating_duration_since(Instant::now());
                let sent = self.answer(&token, patience).await?;
                if before {
                    BulkOutcome::Before(sent)
                } else {
                    BulkOutcome::Asked(sent)
                }
            }
        };
        Ok((one.entry, became))
    }
}

fn as_sent(answer: Option<CommandAnswer>) -> Sent {
    answer.map_or(Sent::Waiting, Sent::Answered)
}

/// The runs that match a filter and were there at the beginning, a page at a time. Runs that are started
/// meanwhile don't count, or a bulk that is slower than they come would never end.
struct Runs {
    filter: RunFilter,
    newest: Option<u64>,
    after: Option<u64>,
    page: std::vec::IntoIter<RunEntry>,
}

impl Runs {
    async fn of(operator: &Operator, filter: &RunFilter) -> Result<Self, StoreError> {
        let mut filter = filter.clone();
        filter.newest_first = false;
        let newest = operator.newest().await?;
        Ok(Runs {
            filter,
            newest,
            after: None,
            page: Vec::new().into_iter(),
        })
    }

    async fn next(&mut self, operator: &Operator) -> Result<Option<RunEntry>, StoreError> {
        if self.page.len() == 0 {
            let page = operator.list(&self.filter, self.after, PAGE).await?;
            self.page = page.into_iter();
        }
        let next = self.page.next();
        self.after = next.as_ref().map(|entry| entry.number).or(self.after);
        Ok(next.filter(|entry| Some(entry.number) <= self.newest))
    }
}

impl Operator {
    /// The number of the run that was started last.
    pub(super) async fn newest(&self) -> Result<Option<u64>, StoreError> {
        let newest = RunFilter::all().newest_first();
        let found = self.list(&newest, None, 1).await?;
        Ok(found.first().map(|entry| entry.number))
    }
}
