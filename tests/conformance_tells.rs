//! The suite for stores finds a store that breaks a promise: each test breaks one, and names the check
//! that has to say so.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends::RunId;
use amends::journal::{AppendId, Command, CommandAnswer, Journal, Standing, Verb};
use amends::saga::Outline;
use amends::store::{
    Append, AppendError, Appending, CommandEntry, KnownDefinition, LoadError, MemoryStore,
    PruneFilter, Pruned, RunEntry, RunFilter, Store, StoreError, SubmitError,
};
use amends::testkit::conformance;
use async_trait::async_trait;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    AcknowledgesConflicts,
    RefusesRepeats,
    LosesAnAppend,
    AcknowledgesEarly,
    ChangesStandings,
    RepeatsThePage,
    ListsEndedRuns,
    TakesPatterns,
    ForgetsOutlines,
    ForgetsWhoHandles,
    KeepsVersions,
    KeepsRepeatedCommands,
    ChangesAnswers,
    ForgetsTheNewest,
    ForgetsWhateverTheNumber,
}

#[derive(Debug)]
struct Broken {
    store: std::sync::Arc<MemoryStore>,
    fault: Fault,
    seen: Mutex<HashSet<AppendId>>,
    appends: AtomicUsize,
}

impl Broken {
    fn by(fault: Fault) -> Self {
        let store = MemoryStore::new().into();
        Broken {
            store,
            fault,
            seen: Mutex::default(),
            appends: AtomicUsize::default(),
        }
    }
}

#[async_trait]
impl Store for Broken {
    fn append(&self, append: Append) -> Appending {
        let number = self.appends.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::AcknowledgesConflicts => {
                let answer = self.store.append(append);
                Appending::future(async move {
                    match answer.await {
                        Err(AppendError::Conflict) => Ok(()),
                        answer => answer,
                    }
                })
            }
            Fault::RefusesRepeats if !self.seen.lock().unwrap().insert(append.record.append_id) => {
                Appending::ready(Err(AppendError::Conflict))
            }
            Fault::LosesAnAppend if number % 10 == 9 => Appending::ready(Ok(())),
            Fault::AcknowledgesEarly => {
                let store = self.store.clone();
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    let _ = store.append(append).await;
                });
                Appending::ready(Ok(()))
            }
            _ => self.store.append(append),
        }
    }

    async fn load(&self, run: &RunId) -> Result<Option<Journal>, LoadError> {
        self.store.load(run).await
    }

    async fn find(&self, run: &RunId) -> Result<Option<RunEntry>, StoreError> {
        let mut found = self.store.find(run).await?;
        if let (Fault::KeepsVersions, Some(entry)) = (self.fault, &mut found) {
            entry.version -= u32::from(entry.version == 2);
        }
        if let (Fault::ChangesStandings, Some(entry)) = (self.fault, &mut found)
            && entry.standing == Standing::Parked
        {
            entry.standing = Standing::Running;
        }
        Ok(found)
    }

    async fn scan(
        &self,
        filter: &RunFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<RunEntry>, StoreError> {
        let mut filter = filter.clone();
        let mut after = after;
        match self.fault {
            Fault::RepeatsThePage => after = after.map(|after| after.saturating_sub(1)),
            Fault::ListsEndedRuns => filter.open = false,
            Fault::TakesPatterns => {
                filter.prefix = filter
                    .prefix
                    .map(|prefix| prefix.trim_end_matches(['%', '_', '*']).to_owned());
            }
            _ => {}
        }
        self.store.scan(&filter, after, limit).await
    }

    async fn submit(&self, command: &Command) -> Result<(), SubmitError> {
        let mut command = command.clone();
        if self.fault == Fault::KeepsRepeatedCommands {
            command.token = Command::new("", Verb::Cancel).token;
        }
        self.store.submit(&command).await
    }

    async fn open_commands(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CommandEntry>, StoreError> {
        self.store.open_commands(after, limit).await
    }

    async fn answer_command(&self, token: &str, answer: &CommandAnswer) -> Result<(), StoreError> {
        self.store.answer_command(token, answer).await
    }

    async fn find_command(&self, token: &str) -> Result<Option<CommandEntry>, StoreError> {
        let mut found = self.store.find_command(token).await?;
        if let (Fault::ChangesAnswers, Some(entry)) = (self.fault, &mut found)
            && entry.answer.is_some()
        {
            entry.answer = Some(CommandAnswer::Accepted { told: None });
        }
        Ok(found)
    }

    async fn commands_arrived(&self) {
        self.store.commands_arrived().await;
    }

    async fn prune(
        &self,
        filter: &PruneFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Pruned, StoreError> {
        let mut filter = filter.clone();
        if self.fault == Fault::ForgetsWhateverTheNumber {
            filter.numbers = None;
        }
        if self.fault == Fault::ForgetsTheNewest {
            // The newest is another's then.
            let mut last = conformance::Sample::new("another");
            let _ = self.store.append(last.start()).await;
        }
        self.store.prune(&filter, after, limit).await
    }

    async fn remember(&self, outline: &Outline) -> Result<(), StoreError> {
        if self.fault == Fault::ForgetsOutlines {
            return Ok(());
        }
        self.store.remember(outline).await
    }

    async fn recall(
        &self,
        saga: &str,
        version: u32,
        fingerprint: &str,
    ) -> Result<Option<Outline>, StoreError> {
        self.store.recall(saga, version, fingerprint).await
    }

    async fn register(&self, definitions: &[KnownDefinition]) -> Result<(), StoreError> {
        if self.fault == Fault::ForgetsWhoHandles {
            for definition in definitions {
                self.store.remember(&definition.outline).await?;
            }
            return Ok(());
        }
        self.store.register(definitions).await
    }

    async fn definitions(&self) -> Result<Vec<KnownDefinition>, StoreError> {
        self.store.definitions().await
    }

    fn keeps_values(&self) -> bool {
        true
    }

    async fn close(&self) {}
}

async fn broken_by(fault: Fault) -> Vec<&'static str> {
    let found = conformance::violations(&async || Broken::by(fault)).await;
    found.iter().map(|violation| violation.check).collect()
}

#[tokio::test]
async fn a_store_without_a_fault_breaks_nothing() {
    assert_eq!(broken_by(Fault::None).await, Vec::<&str>::new());
}

#[tokio::test]
async fn conflicts_that_are_acknowledged_are_told() {
    let broken = broken_by(Fault::AcknowledgesConflicts).await;
    let wanted = [
        "another_start_of_the_same_id_is_a_conflict",
        "a_gap_is_a_conflict",
        "an_append_to_an_unknown_run_is_a_conflict",
        "another_append_at_a_taken_place_is_a_conflict",
        "of_two_owners_one_wins_each_place",
        "of_many_starts_one_wins",
        "an_append_to_a_forgotten_run_is_a_conflict",
    ];
    assert_eq!(broken, wanted);
}

#[tokio::test]
async fn repeats_that_are_refused_are_told() {
    let broken = broken_by(Fault::RefusesRepeats).await;
    let wanted = [
        "a_start_sent_again_is_the_same_start",
        "an_append_sent_again_succeeds_and_writes_nothing",
        "the_same_append_twice_at_once_is_one_record",
    ];
    assert_eq!(broken, wanted);
}

#[tokio::test]
async fn a_lost_append_is_told() {
    let broken = broken_by(Fault::LosesAnAppend).await;
    for check in [
        "appends_follow_one_another",
        "many_runs_at_once_each_keep_their_order",
    ] {
        assert!(broken.contains(&check), "{broken:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_write_is_told() {
    let broken = broken_by(Fault::AcknowledgesEarly).await;
    assert!(
        broken.contains(&"what_was_acknowledged_is_seen_at_once"),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_wrong_standing_is_told() {
    let broken = broken_by(Fault::ChangesStandings).await;
    assert_eq!(
        broken,
        [
            "a_run_stands_as_its_last_change_says",
            "filters_give_what_matches"
        ]
    );
}

#[tokio::test]
async fn a_page_that_repeats_a_run_is_told() {
    let broken = broken_by(Fault::RepeatsThePage).await;
    assert_eq!(
        broken,
        [
            "a_migrated_run_is_listed_under_its_new_version",
            "pages_give_each_run_once",
            "pages_stay_in_order_while_runs_start",
            "runs_are_counted_by_saga_and_standing",
            "journals_come_with_their_entries",
        ]
    );
}

#[tokio::test]
async fn ended_runs_among_the_open_ones_are_told() {
    let broken = broken_by(Fault::ListsEndedRuns).await;
    for check in [
        "an_ended_run_says_when_it_ended",
        "filters_give_what_matches",
    ] {
        assert!(broken.contains(&check), "{broken:?}");
    }
}

#[tokio::test]
async fn a_prefix_that_is_taken_for_a_pattern_is_told() {
    assert_eq!(
        broken_by(Fault::TakesPatterns).await,
        ["prefixes_are_taken_literally"]
    );
}

#[tokio::test]
async fn a_forgotten_outline_is_told() {
    assert_eq!(
        broken_by(Fault::ForgetsOutlines).await,
        ["outlines_are_kept_once"]
    );
}

#[tokio::test]
async fn a_definition_without_its_handler_is_told() {
    assert_eq!(
        broken_by(Fault::ForgetsWhoHandles).await,
        ["definitions_say_who_handles_them"]
    );
}

#[tokio::test]
async fn a_version_that_stays_is_told() {
    assert_eq!(
        broken_by(Fault::KeepsVersions).await,
        ["a_migrated_run_is_listed_under_its_new_version"]
    );
}

#[tokio::test]
async fn a_command_that_is_kept_twice_is_told() {
    let broken = broken_by(Fault::KeepsRepeatedCommands).await;
    assert!(
        broken.contains(&"a_command_sent_again_is_kept_once"),
        "{broken:?}"
    );
}

#[tokio::test]
async fn an_answer_that_changes_is_told() {
    assert_eq!(
        broken_by(Fault::ChangesAnswers).await,
        ["an_answered_command_waits_no_more"]
    );
}

#[tokio::test]
async fn a_newest_run_that_is_forgotten_is_told() {
    let broken = broken_by(Fault::ForgetsTheNewest).await;
    assert!(
        broken.contains(&"only_ended_runs_are_forgotten_and_never_the_newest"),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_run_that_is_forgotten_with_others_is_told() {
    assert_eq!(
        broken_by(Fault::ForgetsWhateverTheNumber).await,
        ["age_standing_and_number_choose_what_is_forgotten"]
    );
}

#[tokio::test]
#[should_panic(expected = "the store breaks 1 of its promises:\n- outlines_are_kept_once: ")]
async fn check_panics_with_the_list() {
    conformance::check(&async || Broken::by(Fault::ForgetsOutlines)).await;
}
