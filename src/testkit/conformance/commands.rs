//! Commands on their way to the owner of their run.

use std::time::Duration;

use crate::ids::{RunId, Timestamp};
use crate::journal::{Command, CommandAnswer, Standing, Verb, VerbName};
use crate::store::{CommandEntry, Store, SubmitError};

use super::runs::standing;
use super::{Checked, MakeStore, Sample, chain, ensure};

async fn submitted(store: &impl Store, command: &Command) -> Checked {
    let answer = store.submit(command).await;
    answer.map_err(|error| format!("a command was refused: {}", chain(&error)))
}

async fn open(store: &impl Store) -> Result<Vec<CommandEntry>, String> {
    let open = store.open_commands(None, 100).await;
    open.map_err(|error| chain(&error))
}

fn tokens(entries: &[CommandEntry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry.command.token.as_str())
        .collect()
}

fn cancel(token: &str) -> Command {
    Command::new("run-1", Verb::Cancel)
        .by("a test")
        .reason("because")
        .token(token)
}

pub(super) async fn commands_wait_in_the_order_in_which_they_came(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    let commands = ["b", "a", "c"].map(cancel);
    for command in &commands {
        submitted(&store, command).await?;
    }
    let entries = open(&store).await?;
    ensure!(
        tokens(&entries) == ["b", "a", "c"],
        "commands b, a and c wait as {:?}",
        tokens(&entries)
    );
    ensure!(
        entries
            .iter()
            .zip(&commands)
            .all(|(entry, command)| entry.command.asks_the_same_as(command)),
        "commands came back as {entries:?}"
    );
    ensure!(
        entries
            .windows(2)
            .all(|pair| pair[0].number < pair[1].number),
        "the numbers of commands don't grow: {entries:?}"
    );
    let rest = store.open_commands(Some(entries[0].number), 1).await;
    let rest = rest.map_err(|error| chain(&error))?;
    ensure!(
        tokens(&rest) == ["a"],
        "the one after the first is {:?}",
        tokens(&rest)
    );
    Ok(())
}

pub(super) async fn a_command_sent_again_is_kept_once(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    submitted(&store, &cancel("a")).await?;
    let first = open(&store).await?;
    // Handed in again later, which is all that differs.
    let mut again = cancel("a");
    again.at = again.at.after(Duration::from_secs(1));
    submitted(&store, &again).await?;
    let entries = open(&store).await?;
    ensure!(
        entries.len() == 1,
        "a command that was sent twice waits {} times",
        entries.len()
    );
    ensure!(
        entries == first,
        "a command that was sent again is another one: {entries:?} after {first:?}"
    );
    let other = cancel("a").reason("another");
    match store.submit(&other).await {
        Err(SubmitError::TokenTaken { token }) if token == "a" => Ok(()),
        answer => Err(format!(
            "another command under a taken token was answered {answer:?}"
        )),
    }
}

/// Whether a signal came in time is the store's word (rule I5), not its sender's.
pub(super) async fn the_store_says_when_it_accepted_a_command(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    let said = [Timestamp::NEVER, Timestamp::from_micros(1)];
    for (token, at) in ["a", "b"].into_iter().zip(said) {
        let mut command = cancel(token);
        command.at = at;
        submitted(&store, &command).await?;
    }
    let at: Vec<Timestamp> = open(&store)
        .await?
        .into_iter()
        .map(|entry| entry.command.at)
        .collect();
    ensure!(
        at.iter().all(|at| !said.contains(at)),
        "commands are kept as of when their senders say: {at:?}"
    );
    ensure!(
        at.is_sorted(),
        "a later command was accepted earlier: {at:?}"
    );
    let found = store
        .find_command("a")
        .await
        .map_err(|error| chain(&error))?;
    let again = found.map(|entry| entry.command.at);
    ensure!(
        again == at.first().copied(),
        "a command was accepted at {at:?}, and found as of {again:?}"
    );
    Ok(())
}

pub(super) async fn the_commands_of_a_run_are_its_own(maker: &impl MakeStore) -> Checked {
    // More than the pages in which they may be read.
    const MANY: usize = 300;
    let store = maker.make().await;
    for run in ["run-1", "run-2"] {
        standing(&store, Sample::new(run), Standing::Running).await?;
    }
    let name = |run: &str, number: usize| format!("{run} {number}");
    for number in 0..MANY {
        for run in ["run-1", "run-2"] {
            let command = Command::new(run, Verb::Cancel).token(name(run, number));
            submitted(&store, &command).await?;
        }
    }
    let answered = CommandAnswer::Accepted { told: None };
    let kept = store.answer_command(&name("run-1", 7), &answered).await;
    kept.map_err(|error| chain(&error))?;
    let open = async |run: &str| {
        let open = store.open_commands_of(&RunId::new(run)).await;
        open.map_err(|error| chain(&error))
    };
    let entries = open("run-1").await?;
    let wanted: Vec<String> = (0..MANY)
        .filter(|number| *number != 7)
        .map(|number| name("run-1", number))
        .collect();
    ensure!(
        tokens(&entries) == wanted,
        "of {MANY} commands to a run, one of them answered, there wait {:?}",
        tokens(&entries)
    );
    let nobodys = open("run-3").await?;
    ensure!(
        nobodys.is_empty(),
        "an unknown run has commands: {nobodys:?}"
    );
    Ok(())
}

pub(super) async fn a_command_for_an_unknown_run_is_refused(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    match store.submit(&cancel("a")).await {
        Err(SubmitError::NoSuchRun { .. }) => {}
        answer => {
            return Err(format!(
                "a command for an unknown run was answered {answer:?}"
            ));
        }
    }
    let entries = open(&store).await?;
    ensure!(entries.is_empty(), "it waits all the same: {entries:?}");
    Ok(())
}

pub(super) async fn an_answered_command_waits_no_more(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    submitted(&store, &cancel("a")).await?;
    submitted(&store, &cancel("b")).await?;
    let first = CommandAnswer::Refused {
        why: "the run has ended".to_owned(),
        legal: vec![VerbName::Retry],
    };
    let accepted = CommandAnswer::Accepted { told: None };
    for answer in [&first, &accepted] {
        let kept = store.answer_command("a", answer).await;
        kept.map_err(|error| chain(&error))?;
    }
    let entries = open(&store).await?;
    ensure!(
        tokens(&entries) == ["b"],
        "after a was answered there wait {:?}",
        tokens(&entries)
    );
    let found = store
        .find_command("a")
        .await
        .map_err(|error| chain(&error))?;
    let answer = found.and_then(|entry| entry.answer);
    ensure!(
        answer.as_ref() == Some(&first),
        "the first answer was {first:?}, and what is kept is {answer:?}"
    );
    let unknown = store
        .find_command("c")
        .await
        .map_err(|error| chain(&error))?;
    ensure!(unknown.is_none(), "an unknown token has {unknown:?}");
    // Sent again it is known, with its answer, and doesn't wait anew.
    submitted(&store, &cancel("a")).await?;
    let entries = open(&store).await?;
    ensure!(
        tokens(&entries) == ["b"],
        "an answered command that was sent again waits anew"
    );
    Ok(())
}

pub(super) async fn whoever_waits_for_commands_is_told(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    submitted(&store, &cancel("a")).await?;
    let told = tokio::time::timeout(Duration::from_secs(30), store.commands_arrived()).await;
    ensure!(told.is_ok(), "nobody was told of a command");
    Ok(())
}

pub(super) async fn commands_outlive_the_store(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    standing(&store, Sample::new("run-1"), Standing::Running).await?;
    submitted(&store, &cancel("a")).await?;
    submitted(&store, &cancel("b")).await?;
    let accepted = CommandAnswer::Accepted { told: None };
    let kept = store.answer_command("a", &accepted).await;
    kept.map_err(|error| chain(&error))?;
    let Some(store) = maker.reopen(store).await else {
        return Ok(());
    };
    let entries = open(&store).await?;
    ensure!(
        tokens(&entries) == ["b"],
        "after the store was opened again there wait {:?}",
        tokens(&entries)
    );
    let found = store
        .find_command("a")
        .await
        .map_err(|error| chain(&error))?;
    let answer = found.and_then(|entry| entry.answer);
    ensure!(
        answer == Some(accepted),
        "the answer is {answer:?} after the store was opened again"
    );
    Ok(())
}
