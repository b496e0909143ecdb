//! Commands that other processes handed in: taken from the store, carried out, answered there.
//!
//! A command stays open in the store until its answer is kept. A crash between the append that carried it
//! out and the answer is no harm: the journal knows its token, and the same command becomes nothing (rule O1).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinSet;

use crate::coordinator::Shared;
use crate::coordinator::error::CommandError;
use crate::coordinator::slot::Asking;
use crate::ids::RunId;
use crate::journal::{CommandAnswer, VerbName};
use crate::store::{CommandEntry, StoreError};

/// So many commands are looked at in one go.
const PAGE: usize = 256;

/// Commands that are being carried out, or that this coordinator can't carry out: by number.
type Taken = Arc<Mutex<HashSet<u64>>>;

/// Looks for commands now, and whenever the store says that there may be some.
pub(super) async fn take_commands(shared: Weak<Shared>) {
    let taken = Taken::default();
    // Dropped with this task, and then what is under way is left to the next coordinator.
    let mut under_way = JoinSet::new();
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        if alive.is_closing() {
            return;
        }
        if let Err(error) = take_open(&alive, &taken, &mut under_way).await {
            tracing::error!(%error, "commands can't be read from the store: trying again when more arrive");
        }
        while under_way.try_join_next().is_some() {}
        let store = Arc::clone(&alive.store);
        drop(alive);
        store.commands_arrived().await;
    }
}

async fn take_open(
    shared: &Arc<Shared>,
    taken: &Taken,
    under_way: &mut JoinSet<()>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = shared.store.open_commands(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.number);
        // One by one for each run, in the order in which they came.
        let mut by_run: BTreeMap<RunId, Vec<CommandEntry>> = BTreeMap::new();
        for entry in page {
            if remember(taken, entry.number) {
                by_run
                    .entry(entry.command.run.clone())
                    .or_default()
                    .push(entry);
            }
        }
        for entries in by_run.into_values() {
            let (shared, taken) = (Arc::clone(shared), Arc::clone(taken));
            under_way.spawn(async move {
                for entry in entries {
                    let number = entry.number;
                    if carry_out(&shared, entry).await {
                        forget(&taken, number);
                    }
                }
            });
        }
    }
}

fn remember(taken: &Taken, number: u64) -> bool {
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    taken.insert(number)
}

fn forget(taken: &Taken, number: u64) {
    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
    taken.remove(&number);
}

/// Says whether the command has its answer, so that the store won't list it again.
async fn carry_out(shared: &Arc<Shared>, entry: CommandEntry) -> bool {
    let command = entry.command;
    let (verb, token) = (command.verb.name(), command.token.clone());
    let asking = |answer| Asking {
        verb: command.verb,
        by: command.by,
        reason: command.reason,
        token: Some(command.token),
        answer,
    };
    let answer = match Shared::command(shared, &command.run, asking).await {
        Ok(told) => CommandAnswer::Accepted { told },
        Err(CommandError::Refused { why, legal, .. }) => refused(why.to_string(), legal),
        Err(error @ CommandError::NoSuchRun { .. }) => refused(error.to_string(), Vec::new()),
        Err(error) => {
            // Not carried out: whoever owns the run next finds it open.
            tracing::warn!(run = %command.run, %verb, %error, "a command waits for the run's next owner");
            return false;
        }
    };
    tracing::info!(run = %command.run, %verb, ?answer, "a command was answered");
    if let Err(error) = shared.store.answer_command(&token, &answer).await {
        tracing::error!(run = %command.run, %error, "the answer to a command could not be kept");
        return false;
    }
    true
}

fn refused(why: String, legal: Vec<VerbName>) -> CommandAnswer {
    CommandAnswer::Refused { why, legal }
}
