//! Commands that other processes handed in: taken from the store, carried out, answered there.
//!
//! A command stays open in the store until its answer is kept. A crash between the append that carried it
//! out and the answer is no harm: the journal knows its token, and the same command becomes nothing (rule O1).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::coordinator::Shared;
use crate::coordinator::commands::Told;
use crate::coordinator::error::CommandError;
use crate::coordinator::slot::Asking;
use crate::ids::RunId;
use crate::journal::{CommandAnswer, VerbName};
use crate::machine::SignalTold;
use crate::store::{CommandEntry, StoreError};

/// So many commands are looked at in one go.
const PAGE: usize = 256;

/// How long what the store failed to do waits before it is tried again.
const FIRST_STALL: Duration = Duration::from_millis(50);
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// What this coordinator has taken from the store.
type Taken = Arc<Mutex<Inbox>>;

#[derive(Default)]
struct Inbox {
    /// Commands that are being carried out, or that this coordinator can't carry out: by number.
    numbers: HashSet<u64>,
    /// Those that wait for the one before them, of each run that has one under way.
    waiting: HashMap<RunId, VecDeque<CommandEntry>>,
}

impl Inbox {
    /// Takes a command. Says whether it is to be carried out now: where an earlier one of the same run is
    /// under way, it comes after that, however long that takes.
    fn take(&mut self, entry: CommandEntry) -> Option<CommandEntry> {
        if !self.numbers.insert(entry.number) {
            return None;
        }
        match self.waiting.entry(entry.command.run.clone()) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(entry);
                None
            }
            Entry::Vacant(none) => {
                none.insert(VecDeque::new());
                Some(entry)
            }
        }
    }

    /// The next command of a run, once the one before it is over.
    fn next_of(&mut self, run: &RunId) -> Option<CommandEntry> {
        let next = self.waiting.get_mut(run)?.pop_front();
        if next.is_none() {
            self.waiting.remove(run);
        }
        next
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, Inbox> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for commands now, and whenever the store says that there may be some.
pub(super) async fn take_commands(shared: Weak<Shared>) {
    let taken = Taken::default();
    // Dropped with this task, and then what is under way is left to the next coordinator.
    let mut under_way = JoinSet::new();
    let mut stall = Stall(FIRST_STALL);
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        if alive.is_closing() {
            return;
        }
        let read = take_open(&alive, &taken, &mut under_way).await;
        while under_way.try_join_next().is_some() {}
        let store = Arc::clone(&alive.store);
        drop(alive);
        match read {
            Ok(()) => {
                stall = Stall(FIRST_STALL);
                store.commands_arrived().await;
            }
            Err(error) => {
                tracing::error!(%error, "commands can't be read from the store: trying again");
                stall.wait().await;
            }
        }
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
        for entry in page {
            if lock(taken).numbers.contains(&entry.number)
                || !shared.carries_out(&entry.command.run).await?
            {
                continue;
            }
            // One by one for each run, in the order in which they came.
            let Some(first) = lock(taken).take(entry) else {
                continue;
            };
            let (shared, taken) = (Arc::clone(shared), Arc::clone(taken));
            under_way.spawn(async move {
                let mut next = Some(first);
                while let Some(entry) = next {
                    let (number, run) = (entry.number, entry.command.run.clone());
                    let answered = carry_out(&shared, entry).await;
                    let mut inbox = lock(&taken);
                    if answered {
                        inbox.numbers.remove(&number);
                    }
                    next = inbox.next_of(&run);
                }
            });
        }
    }
}

/// Says whether the command has its answer, so that the store won't list it again.
async fn carry_out(shared: &Arc<Shared>, entry: CommandEntry) -> bool {
    let command = entry.command;
    let verb = command.verb.name();
    let mut stall = Stall(FIRST_STALL);
    let answer = loop {
        let asking = |answer| Asking {
            verb: command.verb.clone(),
            by: command.by.clone(),
            reason: command.reason.clone(),
            at: command.at,
            token: Some(command.token.clone()),
            answer,
        };
        match Shared::command(shared, &command.run, asking).await {
            Ok(Told::Signal(SignalTold::Late)) => break CommandAnswer::Late,
            Ok(Told::Cancel(told)) => break CommandAnswer::Accepted { told: Some(told) },
            Ok(Told::Done | Told::Signal(SignalTold::Accepted)) => {
                break CommandAnswer::Accepted { told: None };
            }
            Err(CommandError::Refused { why, legal, .. }) => break refused(why.to_string(), legal),
            Err(error @ CommandError::NoSuchRun { .. }) => {
                break refused(error.to_string(), Vec::new());
            }
            // The store may answer in a moment.
            Err(CommandError::Get(error)) if !shared.is_closing() => {
                tracing::warn!(run = %command.run, %verb, %error, "a command waits for the store");
                stall.wait().await;
            }
            Err(error) => {
                // Not carried out: whoever owns the run next finds it open.
                tracing::warn!(run = %command.run, %verb, %error, "a command waits for the run's next owner");
                return false;
            }
        }
    };
    tracing::info!(run = %command.run, %verb, ?answer, "a command was answered");
    let mut stall = Stall(FIRST_STALL);
    while let Err(error) = shared.store.answer_command(&command.token, &answer).await {
        if shared.is_closing() {
            return false;
        }
        tracing::error!(run = %command.run, %error, "the answer to a command could not be kept: trying again");
        stall.wait().await;
    }
    true
}

/// A pause that grows.
struct Stall(Duration);

impl Stall {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_STALL);
    }
}

fn refused(why: String, legal: Vec<VerbName>) -> CommandAnswer {
    CommandAnswer::Refused { why, legal }
}
