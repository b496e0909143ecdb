//! What has to hold of every run, whatever happened to it.
//!
//! The oracles know nothing of the machine. They read the journal as it is, and the world's log, into
//! which acknowledged appends are written in their order among everything else.

mod ends;
mod places;
mod watched;

use std::collections::HashMap;

use crate::ids::RunId;
use crate::journal::Journal;
use crate::machine::audit;
use crate::partial::PartialResult;
use crate::saga::Graph;
use crate::testkit::keys::step_of;
use crate::testkit::log::Entry;
use crate::testkit::oracle::watched::Watched;
use crate::testkit::world::World;

/// A run that has come to rest.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) run: RunId,
    pub(super) word: &'static str,
    pub(super) partial: PartialResult,
    pub(super) journal: Journal,
}

/// Says what is wrong, if something is.
pub(super) fn check(graph: &Graph, world: &World, rests: &[Rest]) -> Result<(), String> {
    if let Some(complaint) = world.complaints().first() {
        return Err(complaint.clone());
    }
    for rest in rests {
        audit::check(graph, &rest.journal)
            .and_then(|()| audit::check_times(&rest.journal))
            .map_err(|what| format!("journal of `{}`: {what}", rest.run))?;
    }
    let mut watched: Vec<Watched<'_>> = rests.iter().map(|rest| Watched::of(graph, rest)).collect();
    let by_uid: HashMap<String, usize> = watched
        .iter()
        .enumerate()
        .map(|(at, watched)| (watched.uid.clone(), at))
        .collect();
    for entry in world.entries() {
        match entry {
            Entry::Acknowledged { run, seq } => {
                if let Some(watched) = watched.iter_mut().find(|watched| watched.rest.run == run) {
                    watched
                        .acknowledged(seq)
                        .map_err(|what| format!("run `{run}`: {what}"))?;
                }
            }
            Entry::World(event) => {
                let (_, uid) = step_of(&event.key);
                let Some(&at) = by_uid.get(&uid) else {
                    return Err(format!(
                        "intent before effect: {event}, and no run with that key has a journal"
                    ));
                };
                watched[at]
                    .happened(&event)
                    .map_err(|what| format!("run `{}`: {what}", rests[at].run))?;
            }
            Entry::Crash(_) | Entry::Process => {}
        }
    }
    for watched in &mut watched {
        watched
            .at_the_end()
            .map_err(|what| format!("run `{}`: {what}", watched.rest.run))?;
    }
    Ok(())
}
