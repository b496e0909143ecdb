//! How runs stand, and what filters find.

use crate::ids::Timestamp;
use crate::journal::Standing;
use crate::store::{RunEntry, RunFilter, Store};

use super::{Checked, MakeStore, Sample, chain, ensure, written};

async fn entry(store: &impl Store, sample: &Sample) -> Result<RunEntry, String> {
    match store.find(sample.run()).await {
        Ok(Some(entry)) => Ok(entry),
        Ok(None) => Err(format!("run `{}` is not found", sample.run())),
        Err(error) => Err(chain(&error)),
    }
}

pub(super) async fn list(store: &impl Store, filter: &RunFilter) -> Result<Vec<RunEntry>, String> {
    store
        .scan(filter, None, 10_000)
        .await
        .map_err(|error| chain(&error))
}

/// Starts a run, and lets it stand so.
pub(super) async fn standing(
    store: &impl Store,
    mut sample: Sample,
    standing: Standing,
) -> Result<Sample, String> {
    written("a start", store.append(sample.start()).await)?;
    if standing != Standing::Running {
        written(
            "a change of standing",
            store.append(sample.stand(standing)).await,
        )?;
    }
    Ok(sample)
}

const UNTIL: Timestamp = Timestamp::from_micros(1_900_000_000_123_456);
const WAITING: Standing = Standing::Waiting { until: UNTIL };
const ALL: [Standing; 7] = [
    Standing::Running,
    WAITING,
    Standing::Parked,
    Standing::Completed,
    Standing::Compensated,
    Standing::Stopped,
    Standing::Abandoned,
];

pub(super) async fn a_run_stands_as_its_last_change_says(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run").of("place-order", 3);
    let start = sample.start();
    let started_at = start.record.at;
    written("a start", store.append(start).await)?;
    for standing in [
        WAITING,
        Standing::Running,
        Standing::Parked,
        Standing::Running,
        WAITING,
        Standing::Compensated,
    ] {
        written(
            "a change of standing",
            store.append(sample.stand(standing)).await,
        )?;
        let mut entries = list(&store, &RunFilter::all()).await?;
        entries.push(entry(&store, &sample).await?);
        for entry in entries {
            ensure!(
                entry.standing == standing,
                "after a change to {standing:?} the run stands {:?}",
                entry.standing
            );
            let rest = (
                entry.run.as_str(),
                entry.saga.as_str(),
                entry.version,
                entry.started_at,
            );
            ensure!(
                rest == ("run", "place-order", 3, started_at),
                "its entry is {entry:?}"
            );
        }
        if !standing.is_end() {
            // A record that changes nothing about it, and says so.
            written(
                "a record without a change of standing",
                store.append(sample.step("output")).await,
            )?;
            let after = entry(&store, &sample).await?.standing;
            ensure!(
                after == standing,
                "after a record that keeps {standing:?} the run stands {after:?}"
            );
        }
    }
    Ok(())
}

pub(super) async fn a_run_that_waits_keeps_its_instant(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = standing(&store, Sample::new("run"), WAITING).await?;
    let first = entry(&store, &sample).await?.standing;
    ensure!(
        first == WAITING,
        "a run that waits until {UNTIL} stands {first:?}"
    );
    let later = Standing::Waiting {
        until: UNTIL.after(std::time::Duration::from_micros(1)),
    };
    written("another instant", store.append(sample.stand(later)).await)?;
    let second = entry(&store, &sample).await?.standing;
    ensure!(
        second == later,
        "after a change of the instant it stands {second:?}"
    );
    let never = Standing::Waiting {
        until: Timestamp::NEVER,
    };
    written(
        "a wait for a signal",
        store.append(sample.stand(never)).await,
    )?;
    let third = entry(&store, &sample).await?.standing;
    ensure!(third == never, "a run that waits for ever stands {third:?}");
    Ok(())
}

pub(super) async fn an_ended_run_says_when_it_ended(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    for end in ALL.into_iter().filter(|standing| standing.is_end()) {
        let mut sample = Sample::new(end.as_str());
        written("a start", store.append(sample.start()).await)?;
        let open = entry(&store, &sample).await?;
        ensure!(
            open.ended_at.is_none(),
            "a run that has not ended says that it ended at {:?}",
            open.ended_at
        );
        let append = sample.stand(end);
        let at = append.record.at;
        written("an end", store.append(append).await)?;
        let ended = entry(&store, &sample).await?;
        let right = ended.standing == end && ended.ended_at == Some(at);
        ensure!(
            right,
            "a run that ended {end:?} at {at} has the entry {ended:?}"
        );
    }
    let open = list(&store, &RunFilter::open()).await?;
    ensure!(
        open.is_empty(),
        "runs that have ended are listed as open: {open:?}"
    );
    ensure!(
        list(&store, &RunFilter::all()).await?.len() == 4,
        "ended runs are not listed"
    );
    Ok(())
}

pub(super) async fn numbers_grow_with_starts(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut last = None;
    for id in ["b", "a", "d", "c"] {
        let sample = standing(&store, Sample::new(id), Standing::Running).await?;
        let number = entry(&store, &sample).await?.number;
        ensure!(
            last < Some(number),
            "run `{id}` has number {number}, and the one before it {last:?}"
        );
        last = Some(number);
    }
    let listed = list(&store, &RunFilter::all()).await?;
    let order: Vec<_> = listed.iter().map(|entry| entry.run.as_str()).collect();
    ensure!(
        order == ["b", "a", "d", "c"],
        "runs are listed in the order {order:?}"
    );
    Ok(())
}

pub(super) async fn filters_give_what_matches(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut all = Vec::new();
    for saga in ["place-order", "ship"] {
        for prefix in ["a-", "b-"] {
            for stands in ALL {
                let sample = Sample::new(format!("{prefix}{saga}-{stands}")).of(saga, 1);
                all.push(entry(&store, &standing(&store, sample, stands).await?).await?);
            }
        }
    }
    for open in [false, true] {
        for saga in [None, Some("place-order"), Some("nothing")] {
            for standing in [None].into_iter().chain(ALL.map(Some)) {
                for prefix in [None, Some("a-"), Some("b-ship-c"), Some("")] {
                    let mut filter = if open {
                        RunFilter::open()
                    } else {
                        RunFilter::all()
                    };
                    filter.saga = saga.map(str::to_owned);
                    filter.prefix = prefix.map(str::to_owned);
                    // Another instant: it is not compared.
                    filter.standing = standing.map(|standing| match standing {
                        Standing::Waiting { .. } => Standing::Waiting {
                            until: Timestamp::default(),
                        },
                        standing => standing,
                    });
                    let wanted: Vec<_> = all.iter().filter(|entry| filter.matches(entry)).collect();
                    let found = list(&store, &filter).await?;
                    let same = found.iter().eq(wanted.iter().copied());
                    ensure!(same, "{filter:?} gives {found:?}, and {wanted:?} match");
                }
            }
        }
    }
    Ok(())
}

pub(super) async fn prefixes_are_taken_literally(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let ids = [
        "a",
        "a%",
        "a%b",
        "a_",
        "ab",
        "A",
        "a\u{10ffff}",
        "a\u{10ffff}z",
        "\u{e9}t\u{e9}",
        "\u{e9}",
        "a*",
        "a'",
    ];
    for id in ids {
        standing(&store, Sample::new(id), Standing::Running).await?;
    }
    for prefix in [
        "",
        "a",
        "a%",
        "a_",
        "a*",
        "a'",
        "A",
        "\u{e9}",
        "a\u{10ffff}",
        "z",
    ] {
        let found = list(&store, &RunFilter::all().prefix(prefix)).await?;
        let found: Vec<_> = found.iter().map(|entry| entry.run.as_str()).collect();
        let wanted: Vec<_> = ids
            .into_iter()
            .filter(|id| id.starts_with(prefix))
            .collect();
        ensure!(
            found == wanted,
            "prefix `{prefix}` gives {found:?}, and {wanted:?} match"
        );
    }
    Ok(())
}

pub(super) async fn a_migrated_run_is_listed_under_its_new_version(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    let mut sample = standing(&store, Sample::new("run"), Standing::Running).await?;
    let other = standing(&store, Sample::new("other"), Standing::Running).await?;
    written("a migration", store.append(sample.migrate(2)).await)?;
    let found = entry(&store, &sample).await?;
    ensure!(
        found.version == 2,
        "a run that was migrated to version 2 is found as {found:?}"
    );
    let listed = list(&store, &RunFilter::open()).await?;
    let versions: Vec<u32> = listed.iter().map(|entry| entry.version).collect();
    ensure!(
        versions == [2, 1] && entry(&store, &other).await?.version == 1,
        "of two runs the first was migrated, and they are listed as {listed:?}"
    );
    let counts = store.counts().await.map_err(|error| chain(&error))?;
    let counted = counts.versions.get("sample").map(|versions| {
        let of = |version, word| versions.get(&version)?.get(word).copied();
        [of(1, "running"), of(2, "parked"), of(1, "parked")]
    });
    ensure!(
        counted == Some([Some(1), Some(1), None]),
        "they are counted as {:?}",
        counts.versions
    );
    Ok(())
}
