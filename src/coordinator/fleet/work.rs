//! Taking up runs that belong to nobody: started by somebody who drives none, or left by a worker that is gone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::lease::jittered;
use crate::coordinator::Shared;

/// So many runs are reserved in one go at most. Few enough that a worker that has just joined finds some left.
const PAGE: usize = 64;

/// How many runs a worker may reserve now, if it can drive so many more.
fn share_of_work(room: Option<usize>) -> usize {
    room.map_or(PAGE, |room| room.min(PAGE))
}

/// Looks for free runs, now and ever again, and drives them.
pub(crate) async fn take_up_free_runs(shared: Weak<Shared>) {
    loop {
        let Some(alive) = shared.upgrade() else {
            return;
        };
        if alive.is_closing() {
            return;
        }
        let look = alive.store.fleet().map(|fleet| fleet.terms().look);
        let Some(look) = look else { return };
        let share = share_of_work(alive.room_for_runs());
        let taken = take_up(&alive, share).await;
        if taken.is_ok_and(|taken| taken < share) {
            alive.scanned.set();
        }
        drop(alive);
        match taken {
            Ok(taken) if taken == share && share > 0 => {}
            Ok(_) => sleep(jittered(look)).await,
            Err(()) => sleep(jittered(look.max(Duration::from_millis(100)))).await,
        }
    }
}

/// Says how many runs were taken up.
async fn take_up(shared: &Arc<Shared>, share: usize) -> Result<usize, ()> {
    let member = shared.member();
    if share == 0 || member.is_over() {
        return Ok(0);
    }
    let Some(fleet) = shared.store.fleet() else {
        return Ok(0);
    };
    let definitions = &shared.joins_as.definitions;
    let free = fleet.claim_due(&member.worker, definitions, share).await;
    let free = free.map_err(|error| {
        tracing::error!(%error, "free runs can't be looked for: trying again");
    })?;
    for run in &free {
        let Some(permit) = shared.run_permit().await else {
            return Err(());
        };
        Shared::wake_claimed_run(shared, run, permit);
        shared.resumed.fetch_add(1, Ordering::AcqRel);
    }
    Ok(free.len())
}
