//! Workers, their leases, and who drives what.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use crate::ids::{RunId, Timestamp};
use crate::journal::Standing;
use crate::store::{Claim, Fleet, Renewal, Store, StoreError, Worker};

use super::{Checked, Sample, chain, ensure, written};

/// Makes stores with leases of this length.
pub trait MakeFleet {
    /// What it makes.
    type Store: Store;

    /// A new store that holds nothing, whose leases last for so long.
    fn make(&self, lease: Duration) -> impl Future<Output = Self::Store>;
}

impl<S: Store, F: AsyncFn(Duration) -> S> MakeFleet for F {
    type Store = S;

    async fn make(&self, lease: Duration) -> S {
        self(lease).await
    }
}

/// A lease that outlasts a check, on however slow a machine.
const LONG: Duration = Duration::from_secs(600);

/// A lease that a check waits for, and in which a slow machine still gets something done.
const SHORT: Duration = Duration::from_secs(2);

/// What a look at the store gives, or what went wrong in words.
type Told<T> = Result<T, String>;

fn fleet(store: &impl Store) -> Told<&dyn Fleet> {
    store.fleet().ok_or_else(|| "it serves no fleet".to_owned())
}

fn told<T>(answer: Result<T, StoreError>) -> Told<T> {
    answer.map_err(|error| chain(&error))
}

async fn joined(store: &impl Store, id: &str) -> Checked {
    let worker = Worker::new(id, "w").drives("sample", 1);
    told(fleet(store)?.join(&worker).await)
}

/// Waits until short leases have run out.
async fn a_lease_later() {
    sleep(SHORT + Duration::from_millis(100)).await;
}

async fn started(store: &impl Store, run: &str, worker: &str) -> Told<Sample> {
    let mut sample = Sample::new(run).by(worker);
    written("a start", store.append(sample.start()).await)?;
    Ok(sample)
}

async fn due(store: &impl Store, worker: &str, limit: usize) -> Told<Vec<String>> {
    let of = [("sample".to_owned(), 1)];
    let given = told(fleet(store)?.claim_due(worker, &of, limit).await)?;
    let mut given: Vec<String> = given.iter().map(ToString::to_string).collect();
    given.sort();
    Ok(given)
}

async fn claim(store: &impl Store, worker: &str, run: &str) -> Told<Claim> {
    told(fleet(store)?.claim(worker, &RunId::new(run)).await)
}

async fn renewed(store: &impl Store, worker: &str) -> Told<Renewal> {
    told(fleet(store)?.renew(worker).await)
}

pub(super) async fn a_lease_lasts_as_long_as_it_is_renewed(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(SHORT * 2).await;
    joined(&store, "a").await?;
    started(&store, "run-1", "a").await?;
    joined(&store, "b").await?;
    for _ in 0..5 {
        sleep(SHORT / 2).await;
        for worker in ["a", "b"] {
            let answer = renewed(&store, worker).await?;
            ensure!(
                answer == Renewal::Renewed,
                "a renewal in time was {answer:?}"
            );
        }
    }
    let given = due(&store, "b", 10).await?;
    ensure!(
        given.is_empty(),
        "b was given {given:?} of a, whose lease lasts"
    );
    Ok(())
}

pub(super) async fn a_lease_that_has_run_out_is_lost_for_good(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(SHORT).await;
    joined(&store, "a").await?;
    started(&store, "run-1", "").await?;
    a_lease_later().await;
    for _ in 0..2 {
        let answer = renewed(&store, "a").await?;
        ensure!(
            answer == Renewal::Lost,
            "a renewal that came too late was {answer:?}"
        );
    }
    let given = due(&store, "a", 10).await?;
    ensure!(
        given.is_empty(),
        "a worker without a lease was given {given:?}"
    );
    let answer = renewed(&store, "stranger").await?;
    ensure!(
        answer == Renewal::Lost,
        "a renewal of who never joined was {answer:?}"
    );
    told(fleet(&store)?.leave("stranger").await)
}

pub(super) async fn runs_of_a_living_worker_are_its_own(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    joined(&store, "a").await?;
    joined(&store, "b").await?;
    started(&store, "run-1", "a").await?;
    let given = due(&store, "b", 10).await?;
    ensure!(
        given.is_empty(),
        "b was given {given:?} of a, whose lease lasts"
    );
    let theirs = claim(&store, "b", "run-1").await?;
    ensure!(
        theirs == Claim::Theirs("a".to_owned()),
        "b's claim of a's run was {theirs:?}"
    );
    let mine = claim(&store, "a", "run-1").await?;
    ensure!(mine == Claim::Mine, "a's claim of its own run was {mine:?}");
    Ok(())
}

pub(super) async fn runs_of_the_dead_are_free(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(SHORT).await;
    joined(&store, "a").await?;
    started(&store, "run-1", "a").await?;
    started(&store, "run-2", "a").await?;
    a_lease_later().await;
    joined(&store, "b").await?;
    let claimed = claim(&store, "b", "run-2").await?;
    ensure!(
        claimed == Claim::Mine,
        "b's claim of a dead worker's run was {claimed:?}"
    );
    let given = due(&store, "b", 10).await?;
    ensure!(
        given == ["run-1"],
        "of run-1, which a dead worker had, b was given {given:?}"
    );
    let again = due(&store, "b", 10).await?;
    ensure!(again.is_empty(), "b was given {again:?}, which it has");
    a_lease_later().await;
    let workers = told(fleet(&store)?.workers().await)?;
    let live = workers.iter().filter(|entry| entry.live).count();
    ensure!(
        live == 0,
        "{live} workers are listed as live after their leases"
    );
    Ok(())
}

pub(super) async fn runs_of_who_left_are_free_at_once(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    joined(&store, "a").await?;
    joined(&store, "b").await?;
    started(&store, "run-1", "a").await?;
    told(fleet(&store)?.leave("a").await)?;
    told(fleet(&store)?.leave("a").await)?;
    let given = due(&store, "b", 10).await?;
    ensure!(given == ["run-1"], "of who left, b was given {given:?}");
    let answer = renewed(&store, "a").await?;
    ensure!(
        answer == Renewal::Lost,
        "a renewal of who left was {answer:?}"
    );
    Ok(())
}

pub(super) async fn a_claim_in_the_journal_makes_the_owner(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    for worker in ["a", "b", "c"] {
        joined(&store, worker).await?;
    }
    let mut run = started(&store, "run-1", "a").await?;
    written("a claim", store.append(run.claim("b")).await)?;
    for (worker, expected) in [
        ("a", Claim::Theirs("b".to_owned())),
        ("c", Claim::Theirs("b".to_owned())),
        ("b", Claim::Mine),
    ] {
        let answer = claim(&store, worker, "run-1").await?;
        ensure!(
            answer == expected,
            "after b's claim in the journal, {worker}'s was {answer:?}"
        );
    }
    written("a step", store.append(run.step("done")).await)?;
    let answer = claim(&store, "a", "run-1").await?;
    ensure!(
        answer == Claim::Theirs("b".to_owned()),
        "after another append of b's, a's was {answer:?}"
    );
    Ok(())
}

pub(super) async fn only_what_can_be_driven_now_is_given(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    joined(&store, "a").await?;
    let now = Timestamp::now();
    let waiting = |until| Standing::Waiting { until };
    for (run, standing) in [
        ("due", waiting(now)),
        ("later", waiting(now.after(Duration::from_secs(3600)))),
        ("never", waiting(Timestamp::NEVER)),
        ("paused", Standing::Paused),
        ("parked", Standing::Parked),
        ("completed", Standing::Completed),
        ("abandoned", Standing::Abandoned),
    ] {
        let mut sample = started(&store, run, "").await?;
        written("a standing", store.append(sample.stand(standing)).await)?;
    }
    started(&store, "running", "").await?;
    for other in [
        Sample::new("other").of("other", 1),
        Sample::new("version").of("sample", 2),
    ] {
        let mut other = other.by("");
        written("a start", store.append(other.start()).await)?;
    }
    let given = due(&store, "a", 10).await?;
    ensure!(given == ["due", "running"], "it was given {given:?}");
    let of = [("other".to_owned(), 1), ("sample".to_owned(), 2)];
    let given = told(fleet(&store)?.claim_due("a", &of, 10).await)?;
    ensure!(
        given.len() == 2,
        "of two more definitions it was given {given:?}"
    );
    Ok(())
}

pub(super) async fn each_free_run_is_given_once(maker: &impl MakeFleet) -> Checked {
    const RUNS: usize = 60;
    let store = maker.make(LONG).await;
    let workers = ["a", "b", "c", "d"];
    for worker in workers {
        joined(&store, worker).await?;
    }
    for run in 0..RUNS {
        started(&store, &format!("run-{run}"), "").await?;
    }
    let (mut given, mut all) = (Vec::new(), BTreeSet::new());
    for _ in 0..RUNS {
        let [a, b, c, d] = workers.map(|worker| due(&store, worker, 5));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        let before = given.len();
        for pieces in [a, b, c, d] {
            let pieces = pieces?;
            ensure!(
                pieces.len() <= 5,
                "of 5 asked for {} were given",
                pieces.len()
            );
            all.extend(pieces.clone());
            given.extend(pieces);
        }
        if given.len() == before {
            break;
        }
    }
    ensure!(
        given.len() == RUNS && all.len() == RUNS,
        "of {RUNS} free runs {} were given, {} different ones",
        given.len(),
        all.len()
    );
    Ok(())
}

pub(super) async fn a_run_that_rests_is_reserved_by_its_name(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    joined(&store, "a").await?;
    joined(&store, "b").await?;
    let mut parked = started(&store, "parked", "").await?;
    written(
        "a standing",
        store.append(parked.stand(Standing::Parked)).await,
    )?;
    let mut ended = started(&store, "ended", "").await?;
    written(
        "an end",
        store.append(ended.stand(Standing::Completed)).await,
    )?;
    for (worker, run, expected) in [
        ("a", "parked", Claim::Mine),
        ("b", "parked", Claim::Theirs("a".to_owned())),
        ("a", "ended", Claim::Over),
        ("a", "nowhere", Claim::Over),
    ] {
        let answer = claim(&store, worker, run).await?;
        ensure!(
            answer == expected,
            "{worker}'s claim of `{run}` was {answer:?}"
        );
    }
    let runs = ["parked", "nowhere", "ended"].map(RunId::new);
    let mut found = told(fleet(&store)?.find_many(&runs).await)?;
    found.sort_by_key(|entry| entry.number);
    let found: Vec<(String, Standing)> = found
        .into_iter()
        .map(|entry| (entry.run.to_string(), entry.standing))
        .collect();
    let expected = [
        ("parked".to_owned(), Standing::Parked),
        ("ended".to_owned(), Standing::Completed),
    ];
    ensure!(found == expected, "of {runs:?} these were found: {found:?}");
    Ok(())
}

pub(super) async fn workers_are_listed_with_what_they_own(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    let fleet = fleet(&store)?;
    let mut one = Worker::new("one-1", "one")
        .drives("sample", 1)
        .label("zone", "a");
    one.definitions.push(("other".to_owned(), 2));
    told(fleet.join(&one).await)?;
    told(fleet.join(&Worker::new("two-1", "two")).await)?;
    started(&store, "run-1", "one-1").await?;
    started(&store, "run-2", "one-1").await?;
    started(&store, "run-3", "two-1").await?;
    let mut ended = started(&store, "run-4", "one-1").await?;
    written(
        "an end",
        store.append(ended.stand(Standing::Completed)).await,
    )?;
    let workers = told(fleet.workers().await)?;
    let listed: Vec<(&str, bool, u64)> = workers
        .iter()
        .map(|entry| (entry.worker.id.as_str(), entry.live, entry.runs))
        .collect();
    ensure!(
        listed == [("one-1", true, 2), ("two-1", true, 1)],
        "workers are listed as {listed:?}"
    );
    ensure!(
        workers[0].worker == one,
        "a worker is listed as {:?}",
        workers[0].worker
    );
    let entry = &workers[0];
    ensure!(
        entry.joined_at <= entry.renewed_at && entry.renewed_at < entry.until,
        "its instants are {:?}, {:?} and {:?}",
        entry.joined_at,
        entry.renewed_at,
        entry.until
    );
    Ok(())
}

pub(super) async fn permits_are_held_by_one_worker_each(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(LONG).await;
    let fleet = fleet(&store)?;
    joined(&store, "a").await?;
    joined(&store, "b").await?;
    let take = async |worker: &str, limit: &str, wanted| {
        let mut taken = told(fleet.take_permits(worker, limit, 3, wanted).await)?;
        taken.sort_unstable();
        Ok::<_, String>(taken)
    };
    let (a, b) = tokio::join!(take("a", "x", 2), take("b", "x", 2));
    let (a, b) = (a?, b?);
    let all: BTreeSet<u32> = a.iter().chain(&b).copied().collect();
    ensure!(
        all.len() == a.len() + b.len() && all.iter().all(|permit| (1..=3).contains(permit)),
        "of 3 permits a got {a:?} and b {b:?}"
    );
    // Of two who ask at once one may have been told that there are fewer than there are.
    let more = take("a", "x", 3).await?;
    ensure!(
        all.len() + more.len() == 3,
        "then a got {more:?}, after {a:?} and {b:?}"
    );
    let none = take("b", "x", 1).await?;
    ensure!(none.is_empty(), "beyond the limit b got {none:?}");
    let other = take("b", "y", 1).await?;
    ensure!(other == [1], "of another limit b got {other:?}");
    let held = told(fleet.give_back("b", "x", &a).await);
    held?;
    let none = take("b", "x", 1).await?;
    ensure!(
        none.is_empty(),
        "after b gave back what a has, it got {none:?}"
    );
    told(fleet.give_back("a", "x", &a).await)?;
    let given = take("b", "x", 3).await?;
    ensure!(given == a, "after a gave back {a:?}, b got {given:?}");
    Ok(())
}

pub(super) async fn permits_of_the_dead_are_free(maker: &impl MakeFleet) -> Checked {
    let store = maker.make(SHORT).await;
    joined(&store, "a").await?;
    told(fleet(&store)?.take_permits("a", "x", 3, 2).await)?;
    a_lease_later().await;
    joined(&store, "b").await?;
    let mut free = told(fleet(&store)?.take_permits("b", "x", 3, 9).await)?;
    free.sort_unstable();
    ensure!(
        free == [1, 2, 3],
        "after the lease of the holder b got {free:?}"
    );
    Ok(())
}
