//! Runs whose code is not here: parked or left alone, they take the verbs that need none.

use std::sync::Arc;

use crate::coordinator::Shared;
use crate::coordinator::commands::Told;
use crate::coordinator::error::CommandError;
use crate::coordinator::resume::has_to_claim;
use crate::coordinator::slot::{Asking, Settled, Slot};
use crate::journal::{AppendId, Event, ParkReason, Parking, Record, Verb, VerbName};
use crate::machine::{Asked, Refused, State};
use crate::partial::Snapshot;
use crate::saga::Graph;
use crate::step::StepIx;
use crate::store::{Append, AppendError};

/// Verbs that only say what is so: no step is called because of them.
const NEED_NO_CODE: [VerbName; 3] = [
    VerbName::MarkCompensated,
    VerbName::Resolve,
    VerbName::Abandon,
];

/// A run that was read with the outline of its definition.
pub(super) struct Codeless {
    pub(super) state: State,
    pub(super) seq: u64,
    pub(super) graph: Arc<Graph>,
}

impl Shared {
    /// A changed definition never runs by accident: the run is parked, with the difference (promise 9). Says
    /// whether it has been migrated to a definition that is here.
    pub(super) async fn park_changed(
        &self,
        slot: &Arc<Slot>,
        mut run: Codeless,
        differences: &[String],
    ) -> bool {
        let message = format!(
            "saga `{}` version {} has changed since the run was started: {}. \
             Register the old structure, give the new one another version, or declare a migration",
            run.graph.saga,
            run.graph.version,
            differences.join("; ")
        );
        if !run.state.is_parked() && !run.state.is_ended() {
            let parking = Parking::new(ParkReason::DefinitionChanged, message.clone());
            let events = vec![Event::Parked(Box::new(parking))];
            if let Err(error) = self.append_without_code(slot, &mut run, events).await {
                tracing::error!(run = %slot.run, %error, "the run could not be parked: the next start tries again");
            }
        }
        if self
            .commands_without_code(slot, &mut run, Some(&message))
            .await
        {
            return true;
        }
        let why = "its definition has changed under the same version";
        self.settle_parked(slot, run.state, run.graph, why);
        false
    }

    /// A run of a saga that isn't registered waits for a coordinator that has it (rule I3). It can be given up.
    /// Says whether it has been migrated to a definition that is here.
    pub(super) async fn leave_alone(&self, slot: &Arc<Slot>, mut run: Codeless) -> bool {
        if self.commands_without_code(slot, &mut run, None).await {
            return true;
        }
        let why = format!(
            "saga `{}` version {} is not registered here",
            run.graph.saga, run.graph.version
        );
        self.refuse(slot, &why);
        false
    }

    /// Carries out what needs no code, one after the other. After a migration the run has code: what comes then
    /// is left to its driver.
    async fn commands_without_code(
        &self,
        slot: &Arc<Slot>,
        run: &mut Codeless,
        otherwise: Option<&str>,
    ) -> bool {
        let mut commands = slot.take_commands();
        while let Some(asking) = commands.pop_front() {
            let token = asking.token.as_deref();
            let known = token.is_some_and(|token| run.state.knows(token));
            match asking.verb {
                Verb::Migrate { to } if !known => {
                    let migrated = self.migrate_without_code(slot, run, asking, to, &NEED_NO_CODE);
                    if migrated.await {
                        slot.put_back(commands);
                        return true;
                    }
                }
                _ => {
                    let otherwise = otherwise.map(|why| Err(Refused::Unavailable(why.to_owned())));
                    self.command_without_code(slot, run, asking, otherwise)
                        .await;
                }
            }
        }
        false
    }

    /// Carries a command out that needs no code. Another gets `otherwise`, or is left for who has the code.
    async fn command_without_code(
        &self,
        slot: &Arc<Slot>,
        run: &mut Codeless,
        asking: Asking,
        otherwise: Option<Result<Vec<Event<StepIx>>, Refused>>,
    ) {
        let closed = |why: String| CommandError::Closed {
            run: slot.run.clone(),
            why,
        };
        let asked = Asked {
            by: &asking.by,
            reason: &asking.reason,
            at: asking.at,
        };
        let (graph, verb) = (Arc::clone(&run.graph), &asking.verb);
        let known = asking
            .token
            .as_deref()
            .is_some_and(|token| run.state.knows(token));
        let events = if known || NEED_NO_CODE.contains(&verb.name()) {
            // Judged as it will be once the run is claimed: what was in flight elsewhere is interrupted then.
            let mut claimed = run.state.clone();
            if let Some(claim) = self.claim(&claimed) {
                claimed.apply(&graph, &claim, self.clock.now());
            }
            claimed.command(&graph, verb, asked, asking.token.as_deref())
        } else if let Some(otherwise) = otherwise {
            otherwise
        } else {
            let why = format!(
                "saga `{}` version {} is not registered here",
                graph.saga, graph.version
            );
            drop(asking.answer.send(Err(closed(why))));
            return;
        };
        let answer = match events {
            Ok(events) if events.is_empty() => Ok(Told::Done),
            Ok(events) => self
                .append_without_code(slot, run, events)
                .await
                .map(|()| Told::Done)
                .map_err(|error| closed(error.to_string())),
            Err(why) => {
                let legal = self.legal_without_code(run, &NEED_NO_CODE);
                Err(CommandError::refused(&slot.run, why, legal))
            }
        };
        // Whoever asked may have gone.
        drop(asking.answer.send(answer));
    }

    /// The claim that comes before anything else, where another coordinator had the run (rule W1).
    pub(super) fn claim(&self, state: &State) -> Option<Event<StepIx>> {
        let worker = &*self.member().worker;
        has_to_claim(state, worker).then(|| Event::Claimed {
            fence: state.fence() + 1,
            worker: worker.to_owned(),
        })
    }

    /// Appends one record, and a claim in it where another coordinator had the run.
    async fn append_without_code(
        &self,
        slot: &Arc<Slot>,
        run: &mut Codeless,
        mut events: Vec<Event<StepIx>>,
    ) -> Result<(), AppendError> {
        let now = self.clock.now();
        if let Some(claim) = self.claim(&run.state) {
            events.insert(0, claim);
        }
        let mut state = run.state.clone();
        let registered = self.definition(&run.graph.saga, run.graph.version);
        let mut counts = registered.map(|registered| registered.meters.run(state.is_parked()));
        for event in &events {
            state.apply(&run.graph, event, now);
            if let Some(counts) = &mut counts {
                counts.note(event, |step| state.place_in_definition(&run.graph, step));
            }
        }
        let record = Record {
            seq: run.seq + 1,
            append_id: AppendId::random(),
            at: now,
            events,
        };
        let standing = state.standing(None);
        let append = Append::new(slot.run.clone(), record, state.table.clone(), standing);
        self.store.append(append).await?;
        if let Some(counts) = &mut counts {
            counts.durable(state.is_parked());
        }
        run.seq += 1;
        run.state = state;
        Ok(())
    }

    /// Tells whoever waits how the run rests, and why no command can be carried out.
    pub(super) fn settle_parked(
        &self,
        slot: &Arc<Slot>,
        state: State,
        graph: Arc<Graph>,
        why: &str,
    ) {
        let run = slot.run.clone();
        let ended = state.is_ended();
        let snapshot = Arc::new(Snapshot {
            run,
            state: Box::new(state),
            graph,
        });
        let settled = if ended {
            Settled::Ended(snapshot)
        } else {
            Settled::Parked(snapshot)
        };
        for command in slot.retire(settled) {
            let (run, why) = (slot.run.clone(), why.to_owned());
            drop(command.answer.send(Err(CommandError::Closed { run, why })));
        }
        self.forget_slot(slot);
    }
}
