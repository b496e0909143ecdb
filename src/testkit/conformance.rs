//! One suite that every [`Store`] has to pass, for stores of other people too.
//!
//! ```
//! use amends::store::MemoryStore;
//! use amends::testkit::conformance;
//!
//! # #[tokio::main]
//! # async fn main() {
//! conformance::check(&async || MemoryStore::new()).await;
//! # }
//! ```
//!
//! A store that outlives its process also says how it is opened again: it implements [`MakeStore`] on a
//! type of its own. Each check has a store to itself. The suite needs a clock that runs: not one that
//! tokio has paused.

mod appends;
mod commands;
mod crowds;
mod durable;
mod fleet;
mod pages;
mod pruning;
mod runs;
mod sample;

pub use fleet::MakeFleet;
pub use sample::Sample;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::ids::RunId;
use crate::journal::{AppendId, Event, Journal, Timestamp};
use crate::store::{AppendError, Store};

/// Makes the stores that are checked. Every `async || store` is one.
pub trait MakeStore {
    /// What it makes.
    type Store: Store;

    /// A new store that holds nothing.
    fn make(&self) -> impl Future<Output = Self::Store>;

    /// The same store again, after an orderly end: closed, and opened as a new process would. Nothing
    /// where a store doesn't outlive its process, which is the default.
    fn reopen(&self, store: Self::Store) -> impl Future<Output = Option<Self::Store>> {
        async move {
            store.close().await;
            None
        }
    }
}

impl<S: Store, F: AsyncFn() -> S> MakeStore for F {
    type Store = S;

    async fn make(&self) -> S {
        self().await
    }
}

/// A check that a store did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The check, by its name.
    pub check: &'static str,
    /// What the store did, and should have done.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// What one check says.
type Checked = Result<(), String>;

/// How long one check may take. A store that does not answer must not keep a test from ending.
const PATIENCE: Duration = Duration::from_secs(120);

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

macro_rules! run_checks {
    ($maker:ident, $($room:ident { $($check:ident),+ $(,)? })+) => {{
        let mut found = Vec::new();
        $($(
            let checked = Box::pin($room::$check($maker));
            let what = match tokio::time::timeout(PATIENCE, checked).await {
                Ok(Ok(())) => None,
                Ok(Err(what)) => Some(what),
                Err(_) => Some(format!("no answer within {PATIENCE:?}")),
            };
            found.extend(what.map(|what| Violation { check: stringify!($check), what }));
        )+)+
        found
    }};
}

/// Holds a store to all that the trait promises.
///
/// # Panics
///
/// Where it breaks a promise, with all that it breaks.
#[allow(clippy::panic)] // It is made for tests, where a panic is the failure.
pub async fn check(maker: &impl MakeStore) {
    tell(&violations(maker).await);
}

#[allow(clippy::panic)] // As above.
fn tell(found: &[Violation]) {
    if !found.is_empty() {
        let lines: Vec<String> = found
            .iter()
            .map(|violation| format!("- {violation}"))
            .collect();
        panic!(
            "the store breaks {} of its promises:\n{}",
            found.len(),
            lines.join("\n")
        );
    }
}

/// The checks that a store does not pass; none where it keeps all promises.
pub async fn violations(maker: &impl MakeStore) -> Vec<Violation> {
    run_checks!(maker,
        appends {
            a_start_is_loaded_as_it_was_written,
            a_start_sent_again_is_the_same_start,
            another_start_of_the_same_id_is_a_conflict,
            a_first_record_that_is_no_start_is_refused,
            appends_follow_one_another,
            a_gap_is_a_conflict,
            an_append_to_an_unknown_run_is_a_conflict,
            an_append_sent_again_succeeds_and_writes_nothing,
            another_append_at_a_taken_place_is_a_conflict,
            values_come_back_as_they_were,
            a_value_that_cannot_be_written_stops_its_own_append_only,
            an_append_that_nobody_awaits_is_written,
            what_was_acknowledged_is_seen_at_once,
            an_unknown_run_is_nothing,
            the_rest_of_a_journal_is_what_follows,
            steps_keep_their_names_however_they_are_numbered,
        }
        runs {
            a_run_stands_as_its_last_change_says,
            a_run_that_waits_keeps_its_instant,
            an_ended_run_says_when_it_ended,
            numbers_grow_with_starts,
            filters_give_what_matches,
            a_migrated_run_is_listed_under_its_new_version,
            prefixes_are_taken_literally,
        }
        pages {
            pages_give_each_run_once,
            pages_stay_in_order_while_runs_start,
        }
        crowds {
            many_runs_at_once_each_keep_their_order,
            of_two_owners_one_wins_each_place,
            of_many_starts_one_wins,
            the_same_append_twice_at_once_is_one_record,
        }
        commands {
            commands_wait_in_the_order_in_which_they_came,
            a_command_sent_again_is_kept_once,
            the_store_says_when_it_accepted_a_command,
            the_commands_of_a_run_are_its_own,
            a_command_for_an_unknown_run_is_refused,
            an_answered_command_waits_no_more,
            whoever_waits_for_commands_is_told,
            commands_outlive_the_store,
        }
        pruning {
            only_ended_runs_are_forgotten_and_never_the_newest,
            age_standing_and_number_choose_what_is_forgotten,
            a_forgotten_run_takes_everything_along,
            the_number_of_a_forgotten_command_is_not_given_again,
            an_append_to_a_forgotten_run_is_a_conflict,
            runs_are_counted_by_saga_and_standing,
            journals_come_with_their_entries,
        }
        durable {
            outlines_are_kept_once,
            definitions_say_who_handles_them,
            a_store_that_is_opened_again_has_all,
            closing_finishes_what_was_appended,
        }
    )
}

/// Holds a store that several coordinators share to what [`Fleet`](crate::store::Fleet) promises, beside
/// [`check`]. Each check says how long the leases of its store last: some wait for one to run out.
///
/// ```
/// use std::time::Duration;
///
/// use amends::store::{FleetTerms, MemoryStore};
/// use amends::testkit::conformance;
///
/// # #[tokio::main]
/// # async fn main() {
/// let terms = |lease| FleetTerms::new(lease, Duration::from_millis(100));
/// conformance::check_fleet(&async |lease| MemoryStore::new().shared_by_workers(terms(lease))).await;
/// # }
/// ```
///
/// # Panics
///
/// Where it breaks a promise, with all that it breaks.
#[allow(clippy::panic)] // It is made for tests, where a panic is the failure.
pub async fn check_fleet(maker: &impl MakeFleet) {
    let found = run_checks!(
        maker,
        fleet {
            a_lease_lasts_as_long_as_it_is_renewed,
            a_lease_that_has_run_out_is_lost_for_good,
            runs_of_a_living_worker_are_its_own,
            runs_of_the_dead_are_free,
            runs_of_who_left_are_free_at_once,
            a_claim_in_the_journal_makes_the_owner,
            only_what_can_be_driven_now_is_given,
            each_free_run_is_given_once,
            a_run_that_rests_is_reserved_by_its_name,
            workers_are_listed_with_what_they_own,
            permits_are_held_by_one_worker_each,
            permits_of_the_dead_are_free,
        }
    );
    tell(&found);
}

/// A journal in a form that can be compared: numbers of steps mean nothing outside their table.
type Named = Vec<(u64, AppendId, Timestamp, Vec<Event<String>>)>;

fn named(journal: &Journal) -> Named {
    let name = |event: &Event| {
        event
            .clone()
            .map_step(|step| journal.steps.name(step).to_string())
    };
    let records = journal.records.iter();
    records
        .map(|record| {
            (
                record.seq,
                record.append_id,
                record.at,
                record.events.iter().map(name).collect(),
            )
        })
        .collect()
}

/// The journal of a run that has to be there.
async fn loaded(store: &impl Store, run: &RunId) -> Result<Journal, String> {
    match store.load(run).await {
        Ok(Some(journal)) => Ok(journal),
        Ok(None) => Err(format!("run `{run}` has no journal")),
        Err(error) => Err(format!(
            "the journal of run `{run}` can't be loaded: {}",
            chain(&error)
        )),
    }
}

/// An append that has to succeed.
fn written(what: &str, answer: Result<(), AppendError>) -> Checked {
    answer.map_err(|error| format!("{what} was refused: {}", chain(&error)))
}

/// An append that has to be refused because its place is taken, or not the next one.
fn conflict(what: &str, answer: Result<(), AppendError>) -> Checked {
    match answer {
        Err(AppendError::Conflict) => Ok(()),
        Ok(()) => Err(format!("{what} was acknowledged, and is a conflict")),
        Err(error) => Err(format!(
            "{what} is a conflict, and was answered: {}",
            chain(&error)
        )),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
