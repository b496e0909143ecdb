//! The list of runs, page by page.

use std::sync::Arc;

use crate::journal::Standing;
use crate::store::{RunEntry, RunFilter, Store};

use super::runs::{list, standing};
use super::{Checked, MakeStore, Sample, chain, ensure};

/// All pages of a scan, joined.
async fn pages(
    store: &impl Store,
    filter: &RunFilter,
    limit: usize,
) -> Result<Vec<RunEntry>, String> {
    let mut all: Vec<RunEntry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.number);
        let page = store
            .scan(filter, after, limit)
            .await
            .map_err(|error| chain(&error))?;
        ensure!(
            page.len() <= limit,
            "a page of {limit} has {} runs",
            page.len()
        );
        for entry in &page {
            let grows = all.last().is_none_or(|last| last.number < entry.number);
            ensure!(
                grows,
                "run {} comes after run {:?}",
                entry.number,
                all.last().map(|last| last.number)
            );
            all.push(entry.clone());
        }
        if page.len() < limit {
            return Ok(all);
        }
    }
}

pub(super) async fn pages_give_each_run_once(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    for number in 0..23 {
        let stands = if number % 3 == 0 {
            Standing::Stopped
        } else {
            Standing::Running
        };
        standing(&store, Sample::new(format!("run-{number:02}")), stands).await?;
    }
    let filters = [
        RunFilter::all(),
        RunFilter::open(),
        RunFilter::all().standing(Standing::Stopped),
        RunFilter::all().prefix("run-1"),
        RunFilter::open().prefix("run-1"),
    ];
    for filter in filters {
        let whole = list(&store, &filter).await?;
        for limit in [1, 2, 5, 7, 23, 100] {
            let joined = pages(&store, &filter, limit).await?;
            ensure!(
                joined == whole,
                "pages of {limit} with {filter:?} give {joined:?}, and in one there are {whole:?}"
            );
        }
    }
    let none = store
        .scan(&RunFilter::all(), None, 0)
        .await
        .map_err(|error| chain(&error))?;
    ensure!(none.is_empty(), "a page of no runs has {}", none.len());
    let after_all = store
        .scan(&RunFilter::all(), Some(u64::MAX), 5)
        .await
        .map_err(|error| chain(&error))?;
    ensure!(
        after_all.is_empty(),
        "after the last number there are {after_all:?}"
    );
    Ok(())
}

pub(super) async fn pages_stay_in_order_while_runs_start(maker: &impl MakeStore) -> Checked {
    let store = Arc::new(maker.make().await);
    for number in 0..100 {
        standing(
            &*store,
            Sample::new(format!("before-{number}")),
            Standing::Running,
        )
        .await?;
    }
    let starting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..100 {
                standing(
                    &*store,
                    Sample::new(format!("during-{number}")),
                    Standing::Running,
                )
                .await?;
            }
            Ok::<_, String>(())
        })
    };
    while !starting.is_finished() {
        let seen = pages(&*store, &RunFilter::open(), 7).await?;
        let before = seen
            .iter()
            .filter(|entry| entry.run.as_str().starts_with("before-"))
            .count();
        ensure!(
            before == 100,
            "of 100 runs that were there all the time, pages gave {before}"
        );
        // A store that answers at once would otherwise keep the only thread.
        tokio::task::yield_now().await;
    }
    starting.await.map_err(|error| error.to_string())??;
    let all = pages(&*store, &RunFilter::open(), 7).await?;
    ensure!(all.len() == 200, "of 200 runs, pages gave {}", all.len());
    Ok(())
}
