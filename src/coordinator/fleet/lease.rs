//! Joining a fleet, and staying in it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::member::{Member, id_for};
use crate::coordinator::Shared;
use crate::ids::random_u128;
use crate::store::{Fleet, Renewal, StoreError, Worker};

/// Joins as a worker of this name and kind, under an id that nobody ever had.
pub(crate) async fn join(fleet: &dyn Fleet, like: &Worker) -> Result<Arc<Member>, StoreError> {
    let mut worker = like.clone();
    let id = id_for(&worker.name);
    id.as_ref().clone_into(&mut worker.id);
    // The lease begins at the store after this instant, so it ends there after what is reckoned from here.
    let sent = Instant::now();
    fleet.join(&worker).await?;
    let until = sent + acts_for(fleet.terms().lease);
    Ok(Arc::new(Member::leased(id, until)))
}

/// A worker stops itself when so much of its lease has passed: the rest is for what is on its way, and for
/// clocks that don't run alike.
fn acts_for(lease: Duration) -> Duration {
    lease / 3 * 2
}

/// Renews the lease for as long as it can be renewed, and joins again when it is lost.
pub(crate) async fn keep_lease(shared: Weak<Shared>) {
    loop {
        let Some(member) = shared.upgrade().map(|alive| alive.member()) else {
            return;
        };
        let Some(why) = renew_until_lost(&shared, &member).await else {
            return;
        };
        member.end();
        tracing::error!(
            worker = %member.worker, %why,
            "this worker has lost its lease: it starts nothing more, and what it drove is others' to take up"
        );
        if let Some(alive) = shared.upgrade() {
            alive.wake_drivers();
        }
        if !join_again(&shared).await {
            return;
        }
    }
}

/// Says why the lease is lost; nothing when the coordinator goes away.
async fn renew_until_lost(shared: &Weak<Shared>, member: &Arc<Member>) -> Option<String> {
    let mut failed = None;
    loop {
        let pause = {
            let alive = shared.upgrade()?;
            let lease = alive.store.fleet()?.terms().lease;
            // After an error there is no time to lose, and no need to hurry the store either.
            let pause = if failed.is_some() {
                lease / 20
            } else {
                lease / 3
            };
            jittered(pause).min(member.left())
        };
        sleep(pause).await;
        let alive = shared.upgrade()?;
        if alive.is_closing() && alive.is_idle() {
            return None;
        }
        if member.is_over() {
            let why: Option<String> = failed;
            return Some(why.unwrap_or_else(|| "it was not renewed in time".to_owned()));
        }
        let fleet = alive.store.fleet()?;
        let sent = Instant::now();
        match timeout(member.left(), fleet.renew(&member.worker)).await {
            Ok(Ok(Renewal::Renewed)) => {
                if !member.extend(sent + acts_for(fleet.terms().lease)) {
                    return Some("the store answered too late".to_owned());
                }
                failed = None;
            }
            Ok(Ok(Renewal::Lost)) => return Some("it has run out in the store".to_owned()),
            Ok(Err(error)) => {
                tracing::warn!(worker = %member.worker, %error, "the lease could not be renewed: trying again");
                failed = Some(error.to_string());
            }
            Err(_) => return Some("the store did not answer in time".to_owned()),
        }
    }
}

/// Joins under a new id. Says no when the coordinator goes away.
async fn join_again(shared: &Weak<Shared>) -> bool {
    let mut pause = Duration::from_millis(100);
    loop {
        let Some(alive) = shared.upgrade() else {
            return false;
        };
        if alive.is_closing() {
            return false;
        }
        let Some(fleet) = alive.store.fleet() else {
            return false;
        };
        match join(fleet, &alive.joins_as).await {
            Ok(member) => {
                tracing::info!(worker = %member.worker, "this worker has joined again");
                alive.set_member(member);
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "joining the fleet failed: trying again");
            }
        }
        drop(alive);
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Give or take a fifth, so that workers that began together don't go on together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // The low bits of a random number: the remainder is what is wanted.
    #[allow(clippy::cast_possible_truncation)]
    let part = (random_u128() % 401) as u32;
    pause / 1_000 * (800 + part)
}
