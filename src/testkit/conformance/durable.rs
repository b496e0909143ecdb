//! What outlives a process.

use crate::journal::Standing;
use crate::saga::{Outline, OutlineStep, StepKind};
use crate::store::{Handling, KnownDefinition, RunFilter, Store};

use super::{Checked, MakeStore, Sample, chain, ensure, loaded, named, written};

fn outline(saga: &str, version: u32, fingerprint: &str) -> Outline {
    let step = |name: &str, wired: &[&str]| OutlineStep {
        name: name.to_owned(),
        kind: StepKind::Compensatable,
        wired: wired.iter().map(ToString::to_string).collect(),
        dependencies: wired.iter().map(ToString::to_string).collect(),
        pivot: false,
        checkpoint: false,
        conditional: false,
        inside: None,
        waits: None,
        undone_by: None,
    };
    Outline {
        saga: saga.to_owned(),
        version,
        fingerprint: fingerprint.to_owned(),
        steps: vec![step("first", &[]), step("second", &["first"])],
        gathers: crate::OutlineForm::default(),
    }
}

async fn recalled(
    store: &impl Store,
    saga: &str,
    version: u32,
    fingerprint: &str,
) -> Result<Option<Outline>, String> {
    store
        .recall(saga, version, fingerprint)
        .await
        .map_err(|error| chain(&error))
}

pub(super) async fn outlines_are_kept_once(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let unknown = recalled(&store, "ship", 1, "abc").await?;
    ensure!(
        unknown.is_none(),
        "an outline that nobody kept is {unknown:?}"
    );
    let kept = [
        outline("ship", 1, "abc"),
        outline("ship", 1, "def"),
        outline("ship", 2, "abc"),
        outline("sail", 1, "abc"),
    ];
    for outline in kept.iter().chain(&kept) {
        store
            .remember(outline)
            .await
            .map_err(|error| chain(&error))?;
    }
    for outline in &kept {
        let found = recalled(&store, &outline.saga, outline.version, &outline.fingerprint).await?;
        ensure!(
            found.as_ref() == Some(outline),
            "{outline:?} was kept, and came back as {found:?}"
        );
    }
    let other = recalled(&store, "ship", 3, "abc").await?;
    ensure!(
        other.is_none(),
        "an outline of another version is {other:?}"
    );
    Ok(())
}

pub(super) async fn definitions_say_who_handles_them(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let [first, second, third] = [("a", 1), ("a", 2), ("b", 1)]
        .map(|(saga, version)| outline(saga, version, &format!("{saga}{version}")));
    let of = |outline: &Outline, handling| KnownDefinition::new(outline.clone(), handling);
    let (runs, migrates) = (Some(Handling::Runs), Some(Handling::MigratesTo(2)));
    for (had, wanted) in [
        (
            vec![of(&third, None), of(&first, runs)],
            vec![of(&first, runs), of(&third, None)],
        ),
        (
            vec![of(&second, runs), of(&first, migrates)],
            vec![of(&first, migrates), of(&second, runs), of(&third, None)],
        ),
        (
            vec![of(&second, runs), of(&third, runs)],
            vec![of(&first, None), of(&second, runs), of(&third, runs)],
        ),
    ] {
        let kept = store.register(&had).await;
        kept.map_err(|error| chain(&error))?;
        let found = store.definitions().await.map_err(|error| chain(&error))?;
        ensure!(
            found == wanted,
            "once {had:?} are registered, the definitions are {found:?}"
        );
    }
    let found = recalled(&store, "a", 1, "a1").await?;
    ensure!(found == Some(first), "an outline came to be {found:?}");
    let before = store.definitions().await.map_err(|error| chain(&error))?;
    if let Some(store) = maker.reopen(store).await {
        let after = store.definitions().await.map_err(|error| chain(&error))?;
        ensure!(
            after == before,
            "the definitions were {before:?} and are {after:?}"
        );
    }
    Ok(())
}

pub(super) async fn a_store_that_is_opened_again_has_all(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut samples = Vec::new();
    let standings = [Standing::Running, Standing::Parked, Standing::Completed];
    for (number, standing) in standings.into_iter().enumerate() {
        let mut sample = Sample::new(format!("run-{number}"));
        written("a start", store.append(sample.start()).await)?;
        for step in 0..5 {
            written(
                "an append",
                store.append(sample.step(&format!("output {step}"))).await,
            )?;
        }
        written(
            "a change of standing",
            store.append(sample.stand(standing)).await,
        )?;
        samples.push(sample);
    }
    let mut last = samples[0].clone();
    let last = last.step("the last");
    written("an append", store.append(last.clone()).await)?;
    let outline = outline("ship", 1, "abc");
    store
        .remember(&outline)
        .await
        .map_err(|error| chain(&error))?;
    let mut before = Vec::new();
    for sample in &samples {
        before.push(named(&loaded(&store, sample.run()).await?));
    }
    let listed = store
        .scan(&RunFilter::all(), None, 100)
        .await
        .map_err(|error| chain(&error))?;

    let Some(store) = maker.reopen(store).await else {
        return Ok(());
    };
    for (sample, before) in samples.iter().zip(before) {
        let after = named(&loaded(&store, sample.run()).await?);
        ensure!(
            after == before,
            "run `{}` was {before:?} and is {after:?}",
            sample.run()
        );
    }
    let again = store
        .scan(&RunFilter::all(), None, 100)
        .await
        .map_err(|error| chain(&error))?;
    ensure!(again == listed, "the list was {listed:?} and is {again:?}");
    let found = recalled(&store, "ship", 1, "abc").await?;
    ensure!(found == Some(outline), "the outline is {found:?}");

    written(
        "the last append, sent again to the store that was opened again,",
        store.append(last).await,
    )?;
    samples[0].skip(1);
    written(
        "the append after it",
        store.append(samples[0].step("goes on")).await,
    )?;
    let mut new = Sample::new("run-new");
    written("a new start", store.append(new.start()).await)?;
    let runs = store
        .scan(&RunFilter::all(), None, 100)
        .await
        .map_err(|error| chain(&error))?;
    let newest = runs.last().map(|entry| entry.run.as_str());
    ensure!(
        runs.len() == 4 && newest == Some("run-new"),
        "after a new start the list is {runs:?}"
    );
    Ok(())
}

pub(super) async fn closing_finishes_what_was_appended(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    drop(store.append(sample.start()));
    for step in 0..100 {
        drop(store.append(sample.step(&step.to_string())));
    }
    store.close().await;
    store.close().await;
    let Some(store) = maker.reopen(store).await else {
        return Ok(());
    };
    let records = loaded(&store, sample.run()).await?.records.len();
    ensure!(
        records == 101,
        "of 101 appends before a close, {records} are there"
    );
    Ok(())
}
