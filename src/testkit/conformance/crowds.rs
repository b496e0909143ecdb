//! Many callers at once.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::journal::{Event, Standing};
use crate::store::{AppendError, RunFilter, Store};

use super::{Checked, MakeStore, Sample, chain, ensure, loaded, written};

/// Awaits all tasks and gives what they give; the first error ends it.
async fn all<T: 'static>(mut tasks: JoinSet<Result<T, String>>) -> Result<Vec<T>, String> {
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        results.push(joined.map_err(|error| error.to_string())??);
    }
    Ok(results)
}

/// The outputs that a run's journal holds, in order.
async fn outputs(store: &impl Store, sample: &Sample) -> Result<Vec<String>, String> {
    let journal = loaded(store, sample.run()).await?;
    let seqs = journal.records.iter().map(|record| record.seq);
    ensure!(
        seqs.clone().eq(1..=journal.records.len() as u64),
        "places of `{}`: {:?}",
        sample.run(),
        seqs.collect::<Vec<_>>()
    );
    let events = journal.records.iter().flat_map(|record| &record.events);
    let texts = events.filter_map(|event| match event {
        Event::StepDone { output, .. } => Some(output.get::<String>()),
        _ => None,
    });
    texts
        .map(|text| {
            text.map(|text| text.to_string())
                .map_err(|error| chain(&error))
        })
        .collect()
}

pub(super) async fn many_runs_at_once_each_keep_their_order(maker: &impl MakeStore) -> Checked {
    let store = Arc::new(maker.make().await);
    let mut tasks = JoinSet::new();
    for number in 0..64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut sample = Sample::new(format!("run-{number}"));
            written("a start", store.append(sample.start()).await)?;
            for step in 0..20 {
                written(
                    "an append",
                    store.append(sample.step(&format!("{number}/{step}"))).await,
                )?;
            }
            if number % 2 == 0 {
                written(
                    "an end",
                    store.append(sample.stand(Standing::Completed)).await,
                )?;
            }
            Ok((number, sample))
        });
    }
    for (number, sample) in all(tasks).await? {
        let wanted: Vec<String> = (0..20).map(|step| format!("{number}/{step}")).collect();
        let found = outputs(&*store, &sample).await?;
        ensure!(
            found == wanted,
            "run {number} holds {found:?}, and {wanted:?} was appended"
        );
    }
    let open = store
        .scan(&RunFilter::open(), None, 100)
        .await
        .map_err(|error| chain(&error))?
        .len();
    ensure!(
        open == 32,
        "of 64 runs, of which half have ended, {open} are open"
    );
    Ok(())
}

pub(super) async fn of_two_owners_one_wins_each_place(maker: &impl MakeStore) -> Checked {
    let store = Arc::new(maker.make().await);
    let mut sample = Sample::new("run");
    written("a start", store.append(sample.start()).await)?;
    for place in 2..=50 {
        let mut tasks = JoinSet::new();
        for owner in 0..2 {
            let (store, mut owned) = (Arc::clone(&store), sample.rival());
            tasks.spawn(async move {
                let text = format!("{owner} at {place}");
                match store.append(owned.step(&text)).await {
                    Ok(()) => Ok(Some(text)),
                    Err(AppendError::Conflict) => Ok(None),
                    Err(error) => Err(chain(&error)),
                }
            });
        }
        let won: Vec<String> = all(tasks).await?.into_iter().flatten().collect();
        ensure!(
            won.len() == 1,
            "of two appends at place {place}, {} were acknowledged",
            won.len()
        );
        let found = outputs(&*store, &sample).await?;
        ensure!(
            found.last() == won.last(),
            "at place {place} `{}` won, and the journal has {:?}",
            won[0],
            found.last()
        );
        sample.skip(1);
    }
    Ok(())
}

pub(super) async fn of_many_starts_one_wins(maker: &impl MakeStore) -> Checked {
    let store = Arc::new(maker.make().await);
    let sample = Sample::new("run");
    let mut tasks = JoinSet::new();
    for version in 1..=16 {
        let (store, mut owned) = (Arc::clone(&store), sample.rival().of("sample", version));
        tasks.spawn(async move {
            match store.append(owned.start()).await {
                Ok(()) => Ok(Some(version)),
                Err(AppendError::Conflict) => Ok(None),
                Err(error) => Err(chain(&error)),
            }
        });
    }
    let won: Vec<u32> = all(tasks).await?.into_iter().flatten().collect();
    ensure!(
        won.len() == 1,
        "of 16 starts of one id, {} were acknowledged",
        won.len()
    );
    let runs = store
        .scan(&RunFilter::all(), None, 100)
        .await
        .map_err(|error| chain(&error))?;
    let versions: Vec<u32> = runs.iter().map(|entry| entry.version).collect();
    ensure!(
        versions == won,
        "the start of version {won:?} was acknowledged, and the list has {versions:?}"
    );
    Ok(())
}

pub(super) async fn the_same_append_twice_at_once_is_one_record(maker: &impl MakeStore) -> Checked {
    let store = Arc::new(maker.make().await);
    let mut sample = Sample::new("run");
    let mut appends = vec![sample.start()];
    appends.extend((0..20).map(|number| sample.step(&number.to_string())));
    for append in appends {
        let mut tasks = JoinSet::new();
        for _ in 0..3 {
            let (store, append) = (Arc::clone(&store), append.clone());
            tasks.spawn(async move {
                written(
                    "one append, sent three times at once,",
                    store.append(append).await,
                )
            });
        }
        all(tasks).await?;
    }
    let found = outputs(&*store, &sample).await?;
    ensure!(
        found.len() == 20,
        "20 appends, each sent three times, made {} records",
        found.len()
    );
    Ok(())
}
