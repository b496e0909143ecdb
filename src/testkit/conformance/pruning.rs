//! Runs that are forgotten, and counts of those that aren't.

use std::time::Duration;

use crate::journal::{Command, Standing, Timestamp, Verb};
use crate::store::{PruneFilter, Pruned, RunFilter, Store, Trouble, TroubleChange};

use super::runs::{list, standing};
use super::{Checked, MakeStore, Sample, chain, ensure, written};

/// Six runs: all that stand otherwise have ended.
async fn six(store: &impl Store) -> Checked {
    for (run, stands) in [
        ("run-1", Standing::Completed),
        ("run-2", Standing::Parked),
        ("run-3", Standing::Compensated),
        ("run-4", Standing::Running),
        ("run-5", Standing::Completed),
        ("run-6", Standing::Completed),
    ] {
        standing(store, Sample::new(run), stands).await?;
    }
    Ok(())
}

async fn names(store: &impl Store) -> Result<Vec<String>, String> {
    let all = list(store, &RunFilter::all()).await?;
    Ok(all.iter().map(|entry| entry.run.to_string()).collect())
}

/// Prunes piece by piece, and gives the sum.
async fn pruned(store: &impl Store, filter: &PruneFilter, limit: usize) -> Result<u64, String> {
    let (mut sum, mut after) = (0, None);
    loop {
        let piece = store.prune(filter, after, limit).await;
        let Pruned { runs, next, .. } = piece.map_err(|error| chain(&error))?;
        ensure!(
            runs <= limit as u64,
            "a piece of {limit} forgot {runs} runs"
        );
        sum += runs;
        match next {
            Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
            Some(next) => return Err(format!("a piece after {after:?} goes on at {next}")),
            None => return Ok(sum),
        }
    }
}

fn all_ended() -> PruneFilter {
    PruneFilter::ended_before(Timestamp::from_micros(i64::MAX))
}

pub(super) async fn only_ended_runs_are_forgotten_and_never_the_newest(
    maker: &impl MakeStore,
) -> Checked {
    for limit in [1, 2, 100] {
        let store = maker.make().await;
        six(&store).await?;
        let sum = pruned(&store, &all_ended(), limit).await?;
        let left = names(&store).await?;
        ensure!(
            (sum, left.join(" ").as_str()) == (3, "run-2 run-4 run-6"),
            "of four ended runs {sum} were forgotten, and {left:?} are left"
        );
        let gone = store.load(&"run-1".into()).await;
        ensure!(
            matches!(gone, Ok(None)),
            "a forgotten run is loaded as {gone:?}"
        );
        let again = pruned(&store, &all_ended(), limit).await?;
        ensure!(again == 0, "forgetting again forgot {again} more");
    }
    Ok(())
}

pub(super) async fn age_standing_and_number_choose_what_is_forgotten(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    six(&store).await?;
    let all = list(&store, &RunFilter::all()).await?;
    let Some(ended_at) = all.first().and_then(|entry| entry.ended_at) else {
        return Err("an ended run has no instant of its end".to_owned());
    };
    // The end itself is not before it.
    let too_early = pruned(&store, &PruneFilter::ended_before(ended_at), 9).await?;
    ensure!(too_early == 0, "{too_early} runs went before their time");
    let compensated = all_ended().standing(Standing::Compensated);
    let sum = pruned(&store, &compensated, 9).await?;
    ensure!(sum == 1, "of one compensated run {sum} were forgotten");
    let fifth = all_ended().numbers([all[4].number, all[1].number]);
    let sum = pruned(&store, &fifth, 9).await?;
    let left = names(&store).await?;
    ensure!(
        (sum, left.join(" ").as_str()) == (1, "run-1 run-2 run-4 run-6"),
        "of an ended and an open run by number {sum} were forgotten, and {left:?} are left"
    );
    Ok(())
}

pub(super) async fn a_forgotten_run_takes_everything_along(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run-1");
    written("a start", store.append(sample.start()).await)?;
    let command = Command::new("run-1", Verb::Cancel).token("a");
    let kept = store.submit(&command).await;
    kept.map_err(|error| chain(&error))?;
    let mut end = sample.stand(Standing::Compensated);
    end.trouble = TroubleChange::Now(Trouble::new("first", "system_network"));
    written("an end", store.append(end).await)?;
    standing(&store, Sample::new("run-2"), Standing::Running).await?;
    let sum = pruned(&store, &all_ended(), 9).await?;
    ensure!(sum == 1, "of one ended run {sum} were forgotten");
    for filter in [
        RunFilter::all().label("customer", "42").prefix("run-1"),
        RunFilter::all().mode("system_network"),
        RunFilter::all().step("first"),
    ] {
        let found = list(&store, &filter).await?;
        ensure!(found.is_empty(), "{filter:?} still finds {found:?}");
    }
    let open = store.open_commands(None, 9).await;
    let open = open.map_err(|error| chain(&error))?;
    ensure!(open.is_empty(), "its command still waits: {open:?}");
    // The id is free, and the new run is a younger one.
    let newest = list(&store, &RunFilter::all()).await?;
    let mut again = Sample::new("run-1");
    written(
        "a start under a forgotten id",
        store.append(again.start()).await,
    )?;
    let now = list(&store, &RunFilter::all()).await?;
    let (before, after) = (newest.last(), now.last());
    ensure!(
        now.len() == 2 && before.map(|entry| entry.number) < after.map(|entry| entry.number),
        "after a forgotten id was started again there are {now:?}"
    );
    Ok(())
}

/// Whoever looks for commands remembers how far it has come: one with an old number would never be found.
pub(super) async fn the_number_of_a_forgotten_command_is_not_given_again(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    let mut ends = Sample::new("run-1");
    written("a start", store.append(ends.start()).await)?;
    standing(&store, Sample::new("run-2"), Standing::Running).await?;
    let mut last = None;
    for (run, token) in [("run-1", "a"), ("run-2", "b")] {
        let command = Command::new(run, Verb::Cancel).token(token);
        let kept = store.submit(&command).await;
        kept.map_err(|error| chain(&error))?;
        let told = tokio::time::timeout(Duration::from_secs(30), store.commands_arrived()).await;
        ensure!(told.is_ok(), "nobody was told of command {token}");
        let found = store.find_command(token).await;
        let found = found.map_err(|error| chain(&error))?;
        let number = found.map(|entry| entry.number);
        ensure!(
            number > last,
            "command {token} has number {number:?}, and one before it had {last:?}"
        );
        last = number;
        if token == "a" {
            let end = ends.stand(Standing::Compensated);
            written("an end", store.append(end).await)?;
            let sum = pruned(&store, &all_ended(), 9).await?;
            ensure!(sum == 1, "of one ended run {sum} were forgotten");
        }
    }
    Ok(())
}

pub(super) async fn an_append_to_a_forgotten_run_is_a_conflict(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run-1");
    written("a start", store.append(sample.start()).await)?;
    written(
        "an end",
        store.append(sample.stand(Standing::Stopped)).await,
    )?;
    standing(&store, Sample::new("run-2"), Standing::Running).await?;
    pruned(&store, &all_ended(), 9).await?;
    super::conflict(
        "an append to a forgotten run",
        store.append(sample.stand(Standing::Running)).await,
    )
}

pub(super) async fn runs_are_counted_by_saga_and_standing(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    six(&store).await?;
    let mut sample = Sample::new("run-7").of("other", 2);
    written("a start", store.append(sample.start()).await)?;
    let mut parked = sample.stand(Standing::Parked);
    parked.trouble = TroubleChange::Now(Trouble::new("first", "system_network"));
    written("a change", store.append(parked).await)?;
    let until = Timestamp::now().after(Duration::from_secs(60));
    standing(&store, Sample::new("run-8"), Standing::Waiting { until }).await?;
    let kept = store.submit(&Command::new("run-7", Verb::Cancel)).await;
    kept.map_err(|error| chain(&error))?;
    let counts = store.counts().await.map_err(|error| chain(&error))?;
    let of = |saga: &str, word| counts.runs.get(saga).and_then(|of| of.get(word)).copied();
    let found = [
        of("sample", "completed"),
        of("sample", "compensated"),
        of("sample", "parked"),
        of("sample", "running"),
        of("sample", "waiting"),
        of("other", "parked"),
        counts.parked.get(&None).copied(),
        counts
            .parked
            .get(&Some(Trouble::new("first", "system_network")))
            .copied(),
    ];
    ensure!(
        found == [3, 1, 1, 1, 1, 1, 1, 1].map(Some)
            && counts.all() == 8
            && counts.standing(Standing::Parked) == 2
            && counts.open_commands == 1,
        "eight runs are counted as {counts:?}"
    );
    Ok(())
}

pub(super) async fn journals_come_with_their_entries(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    six(&store).await?;
    let filter = RunFilter::all().standing(Standing::Completed);
    let first = store.scan_journals(&filter, None, 2).await;
    let first = first.map_err(|error| chain(&error))?;
    let after = first.last().map(|(entry, _)| entry.number);
    let rest = store.scan_journals(&filter, after, 2).await;
    let rest = rest.map_err(|error| chain(&error))?;
    let mut runs = Vec::new();
    for (entry, journal) in first.into_iter().chain(rest) {
        let found = store
            .find(&entry.run)
            .await
            .map_err(|error| chain(&error))?;
        let alone = super::loaded(&store, &entry.run).await?;
        let journal = journal.map_err(|error| chain(&error))?;
        ensure!(
            found.as_ref() == Some(&entry)
                && journal.as_ref().map(super::named) == Some(super::named(&alone)),
            "run `{}` comes as {entry:?} with {journal:?}",
            entry.run
        );
        runs.push(entry.run.to_string());
    }
    ensure!(
        runs == ["run-1", "run-5", "run-6"],
        "three completed runs come as {runs:?}"
    );
    Ok(())
}
