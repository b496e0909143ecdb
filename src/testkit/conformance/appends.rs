//! What an append promises, and what a load gives back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::RunId;
use crate::journal::{Event, Journal};
use crate::step::Value;
use crate::store::{Append, AppendError, RunFilter, Store};

use super::{Checked, MakeStore, Sample, chain, conflict, ensure, loaded, named, written};

/// What a load has to give after these appends.
fn expected(appends: &[Append]) -> super::Named {
    let journal = |append: &Append| Journal {
        run: append.run.clone(),
        steps: append.steps.clone(),
        records: vec![append.record.clone()],
    };
    appends
        .iter()
        .flat_map(|append| named(&journal(append)))
        .collect()
}

/// Compares a journal with what was appended.
async fn holds(store: &impl Store, appends: &[Append]) -> Checked {
    let Some(first) = appends.first() else {
        return Ok(());
    };
    let journal = loaded(store, &first.run).await?;
    ensure!(
        journal.run == first.run,
        "the journal of `{}` says it is that of `{}`",
        first.run,
        journal.run
    );
    let (found, wanted) = (named(&journal), expected(appends));
    ensure!(
        found == wanted,
        "the journal is {found:?}, and what was appended is {wanted:?}"
    );
    Ok(())
}

pub(super) async fn a_start_is_loaded_as_it_was_written(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let start = Sample::new("run").start();
    written("a start", store.append(start.clone()).await)?;
    holds(&store, &[start]).await
}

pub(super) async fn a_start_sent_again_is_the_same_start(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let (start, next) = (sample.start(), sample.step("one"));
    written("a start", store.append(start.clone()).await)?;
    written("the same start again", store.append(start.clone()).await)?;
    written("what follows", store.append(next.clone()).await)?;
    written(
        "the same start once more",
        store.append(start.clone()).await,
    )?;
    holds(&store, &[start, next]).await
}

pub(super) async fn another_start_of_the_same_id_is_a_conflict(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let mut rival = sample.rival().of("another", 2);
    let start = sample.start();
    written("a start", store.append(start.clone()).await)?;
    conflict(
        "another start of the same id",
        store.append(rival.start()).await,
    )?;
    holds(&store, &[start]).await?;
    let runs = store
        .scan(&RunFilter::all(), None, 10)
        .await
        .map_err(|error| chain(&error))?;
    ensure!(
        runs.len() == 1,
        "after a start that was refused there are {} runs",
        runs.len()
    );
    Ok(())
}

pub(super) async fn a_first_record_that_is_no_start_is_refused(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let answer = store.append(sample.step("no start")).await;
    ensure!(
        answer.is_err(),
        "a first record that does not begin with the run's start was acknowledged"
    );
    let found = store
        .load(sample.run())
        .await
        .map_err(|error| chain(&error))?;
    ensure!(found.is_none(), "a run is there that was never started");
    Ok(())
}

pub(super) async fn appends_follow_one_another(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let mut appends = vec![sample.start()];
    appends.extend((0..200).map(|number| sample.step(&format!("output {number}"))));
    for append in &appends {
        written("the next append", store.append(append.clone()).await)?;
    }
    holds(&store, &appends).await
}

pub(super) async fn a_gap_is_a_conflict(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let mut ahead = sample.rival();
    let (start, next) = (sample.start(), sample.step("two"));
    ahead.skip(2);
    written("a start", store.append(start.clone()).await)?;
    conflict(
        "an append that leaves a gap",
        store.append(ahead.step("three")).await,
    )?;
    holds(&store, std::slice::from_ref(&start)).await?;
    written(
        "the append at the right place",
        store.append(next.clone()).await,
    )?;
    holds(&store, &[start, next]).await
}

pub(super) async fn an_append_to_an_unknown_run_is_a_conflict(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let _ = sample.start();
    conflict(
        "an append to a run that was never started",
        store.append(sample.step("two")).await,
    )?;
    let found = store
        .load(sample.run())
        .await
        .map_err(|error| chain(&error))?;
    ensure!(found.is_none(), "a run is there that was never started");
    Ok(())
}

pub(super) async fn an_append_sent_again_succeeds_and_writes_nothing(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let appends = [
        sample.start(),
        sample.step("one"),
        sample.step("two"),
        sample.step("three"),
    ];
    for append in &appends {
        written("an append", store.append(append.clone()).await)?;
        written("the same append again", store.append(append.clone()).await)?;
    }
    for append in &appends {
        let what = format!(
            "the append at {}, sent again after later ones,",
            append.record.seq
        );
        written(&what, store.append(append.clone()).await)?;
    }
    holds(&store, &appends).await
}

pub(super) async fn another_append_at_a_taken_place_is_a_conflict(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let appends = [sample.start(), sample.step("one"), sample.step("two")];
    for append in &appends {
        written("an append", store.append(append.clone()).await)?;
    }
    for back in 1..=2 {
        let mut rival = sample.rival();
        rival.skip(-back);
        let append = rival.step("another");
        let what = format!("another append at {}", append.record.seq);
        conflict(&what, store.append(append).await)?;
    }
    holds(&store, &appends).await
}

pub(super) async fn values_come_back_as_they_were(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let id = "id 'quoted' \"twice\" %_*? \u{1f980} \u{e9}\u{301}".to_owned();
    let mut sample = Sample::new(RunId::new(format!(
        "{id}{}",
        "x".repeat(RunId::MAX_LEN - id.len())
    )));
    let json = |text: &str| {
        serde_json::from_str(text)
            .map(Value::json)
            .map_err(|error| error.to_string())
    };
    let values = [
        Value::typed(Arc::new(())),
        Value::typed(Arc::new((i64::MIN, u64::MAX, 0.1_f64, 1e300_f64))),
        Value::typed(Arc::new(
            "na\u{ef}ve \u{1f980}\u{200d}\u{1f468} \"\\ \u{0} \u{7f} \u{2028}".to_owned(),
        )),
        Value::typed(Arc::new(BTreeMap::from(
            [("", vec![None, Some(true)])].map(|(key, value)| (key.to_owned(), value)),
        ))),
        Value::typed(Arc::new("\u{e9}".repeat(1 << 19))),
        json(
            r#"{"nested":[{"b":1,"a":[]},null,1.50,"\u00e9"],"big":123456789012345678901234567890}"#,
        )?,
        json("null")?,
    ];
    let mut appends = vec![sample.start()];
    appends.extend(values.into_iter().map(|value| sample.step_with(value)));
    for append in &appends {
        written("an append", store.append(append.clone()).await)?;
    }
    let journal = loaded(&store, sample.run()).await?;
    // Values differ in size by orders of magnitude: a message that prints them all would say nothing.
    for (found, wanted) in named(&journal).iter().zip(expected(&appends)) {
        ensure!(
            *found == wanted,
            "record {} came back as another than was written",
            wanted.0
        );
    }
    ensure!(
        journal.records.len() == appends.len(),
        "{} records of {}",
        journal.records.len(),
        appends.len()
    );
    let [_, _, record, ..] = &journal.records[..] else {
        return Err("records are missing".to_owned());
    };
    let Some(Event::StepDone { output, .. }) = record.events.first() else {
        return Err("no output".to_owned());
    };
    let numbers = output
        .get::<(i64, u64, f64, f64)>()
        .map_err(|error| chain(&error))?;
    let same = *numbers == (i64::MIN, u64::MAX, 0.1, 1e300);
    ensure!(same, "numbers came back as {numbers:?}");
    Ok(())
}

pub(super) async fn a_value_that_cannot_be_written_stops_its_own_append_only(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    if store.keeps_values() {
        return Ok(());
    }
    let (mut sample, mut other) = (Sample::new("run"), Sample::new("other"));
    written("a start", store.append(sample.start()).await)?;
    // JSON has no map whose keys are pairs.
    let odd = Value::typed(Arc::new(BTreeMap::from([((1_u8, 2_u8), 3_u8)])));
    let (bad, good) = (
        store.append(sample.step_with(odd)),
        store.append(other.start()),
    );
    match bad.await {
        Err(AppendError::NotWritten(_)) => {}
        answer => {
            return Err(format!(
                "an append that can't be written as JSON was answered {answer:?}"
            ));
        }
    }
    written("the append of another run meanwhile", good.await)?;
    sample.skip(-1);
    written(
        "another append at the same place",
        store.append(sample.step("plain")).await,
    )
}

pub(super) async fn an_append_that_nobody_awaits_is_written(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let appends = [
        sample.start(),
        sample.step("one"),
        sample.step("two"),
        sample.step("three"),
    ];
    let mut answers: Vec<_> = appends
        .iter()
        .map(|append| store.append(append.clone()))
        .collect();
    // Calls for one run are in order, so the answer to the last one says that the others are there.
    let last = answers.pop();
    drop(answers);
    match last {
        Some(last) => written("the append after those that nobody awaits", last.await)?,
        None => return Err("no appends".to_owned()),
    }
    holds(&store, &appends).await
}

pub(super) async fn what_was_acknowledged_is_seen_at_once(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    written("a start", store.append(sample.start()).await)?;
    let listed = store
        .scan(&RunFilter::open(), None, 10)
        .await
        .map_err(|error| chain(&error))?;
    ensure!(
        listed.len() == 1,
        "a run that was just started is not listed"
    );
    ensure!(
        store
            .find(sample.run())
            .await
            .is_ok_and(|found| found.is_some()),
        "it is not found either"
    );
    for done in 2..=50 {
        written("an append", store.append(sample.step("output")).await)?;
        let journal = loaded(&store, sample.run()).await?;
        ensure!(
            journal.records.len() == done,
            "after the answer to append {done} a load gave {} records",
            journal.records.len()
        );
    }
    Ok(())
}

pub(super) async fn an_unknown_run_is_nothing(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let run = RunId::new("nobody");
    let (journal, entry) = (store.load(&run).await, store.find(&run).await);
    ensure!(
        matches!(journal, Ok(None)),
        "the journal of an unknown run is {journal:?}"
    );
    ensure!(
        matches!(entry, Ok(None)),
        "the entry of an unknown run is {entry:?}"
    );
    Ok(())
}

pub(super) async fn the_rest_of_a_journal_is_what_follows(maker: &impl MakeStore) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run");
    let appends = [
        sample.start(),
        sample.step("one"),
        sample.step("two"),
        sample.step("three"),
    ];
    for append in &appends {
        written("an append", store.append(append.clone()).await)?;
    }
    for after in 0..=5 {
        let rest = store.load_after(sample.run(), after).await;
        let Some(rest) = rest.map_err(|error| chain(&error))? else {
            return Err(format!("after record {after} there is no run"));
        };
        let from = usize::try_from(after)
            .unwrap_or(usize::MAX)
            .min(appends.len());
        let same = named(&rest) == expected(&appends[from..]);
        ensure!(
            same,
            "after record {after} of 4 there is {:?}",
            rest.records
        );
    }
    let nobody = store.load_after(&RunId::new("nobody"), 0).await;
    ensure!(
        matches!(nobody, Ok(None)),
        "of an unknown run there is {nobody:?}"
    );
    Ok(())
}

pub(super) async fn steps_keep_their_names_however_they_are_numbered(
    maker: &impl MakeStore,
) -> Checked {
    let store = maker.make().await;
    let mut sample = Sample::new("run-1");
    written("a start", store.append(sample.start()).await)?;
    let mut sample = sample.renumbered();
    written("an append", store.append(sample.step("done")).await)?;
    let journal = loaded(&store, sample.run()).await?;
    let names: Vec<String> = named(&journal)
        .into_iter()
        .flat_map(|(_, _, _, events)| events)
        .filter_map(|event| match event {
            Event::StepStarted { step, .. } | Event::StepDone { step, .. } => Some(step),
            _ => None,
        })
        .collect();
    ensure!(
        names == ["first", "second", "first"],
        "steps of two appends that number them otherwise are {names:?}"
    );
    Ok(())
}
