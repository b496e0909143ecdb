//! Being one of several coordinators on one store.
//!
//! A coordinator that joins a fleet is a *worker*: `member` is its lease as it sees it, `lease` renews that,
//! `work` takes up runs that belong to nobody, and `elsewhere` deals with runs that another worker
//! drives. Nothing here decides who owns a run: its journal does (rule W1), and a driver whose append collides goes
//! away, whatever it believed about its lease.

mod elsewhere;
mod lease;
mod member;
mod work;

pub(super) use elsewhere::{Elsewhere, look_elsewhere};
pub(super) use lease::{jittered, join, keep_lease};
pub(super) use member::Member;
pub(super) use work::take_up_free_runs;

use std::sync::Arc;

use crate::coordinator::Shared;
use crate::ids::RunId;
use crate::store::{Claim, StoreError};

impl Shared {
    /// Reserves a run before anything is done about it. A coordinator that has its store for itself has all.
    pub(super) async fn claim_run(&self, run: &RunId) -> Result<Claim, StoreError> {
        match self.store.fleet() {
            Some(fleet) => {
                let member: Arc<Member> = self.member();
                if member.is_over() {
                    // It has to join again first; until then all runs are others'.
                    return Ok(Claim::Theirs(String::new()));
                }
                fleet.claim(&member.worker, run).await
            }
            None => Ok(Claim::Mine),
        }
    }

    pub(super) fn is_in_fleet(&self) -> bool {
        self.store.fleet().is_some()
    }
}
