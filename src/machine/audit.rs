//! What has to hold of a journal by itself, whatever the world says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::journal::{Event, Journal, Record, StepMoves};
use crate::saga::{Graph, UNDO, UndoOrder};
use crate::step::StepIx;

/// Says what is wrong, if something is.
pub(crate) fn check(graph: &Graph, journal: &Journal) -> Result<(), String> {
    let mut folded = JournalFold::default();
    for (index, record) in journal.records.iter().enumerate() {
        let wanted = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
        if record.seq != wanted {
            return Err(format!("record {wanted} has number {}", record.seq));
        }
        if record.events.is_empty() {
            return Err(format!("record {wanted} is empty"));
        }
        folded.record(graph, journal, record)?;
    }
    Ok(())
}

/// Says which record is older than the one before it, if one is: no fault where clocks may be set back.
#[cfg(feature = "testkit")]
pub(crate) fn check_times(journal: &Journal) -> Result<(), String> {
    let mut pairs = journal.records.windows(2);
    match pairs.find(|pair| pair[1].at < pair[0].at) {
        Some(pair) => Err(format!(
            "record {} is older than the one before it",
            pair[1].seq
        )),
        None => Ok(()),
    }
}

#[derive(Default)]
struct JournalFold {
    begun: bool,
    ended: bool,
    fence: u64,
    appends: HashSet<[u8; 16]>,
    /// The key of each step's round, and the highest round.
    rounds: HashMap<(StepIx, u32), String>,
    highest: HashMap<StepIx, u32>,
    undone: HashMap<StepIx, u32>,
    /// When each step was done, for the order of its undo.
    completed: HashMap<StepIx, usize>,
    count: usize,
    /// What is being undone, for each graph by the path of the step around it.
    undos: HashMap<String, Undos>,
    /// Commands that have become events.
    tokens: HashSet<String>,
    paused: bool,
    /// Steps that wait: whether they have a limit, and how many decisions there were when they began.
    waiting: HashMap<StepIx, (bool, usize)>,
    decisions: usize,
    /// Signals that came in time and that no wait has taken, by name.
    signals: HashMap<String, usize>,
}

/// The undos of one graph.
#[derive(Default)]
struct Undos {
    under_way: HashSet<StepIx>,
    /// When what was undone last was done.
    last: Option<usize>,
}

/// The path of the step around the one with this path.
fn around(path: &str) -> &str {
    let (item, step) = (path.rfind('['), path.rfind('/'));
    let end = if path.ends_with(']') { item } else { step };
    &path[..end.unwrap_or_default()]
}

/// The graph inside the step with this path; the saga's where there is none.
fn inside<'a>(root: &'a Graph, path: &str) -> Option<&'a Graph> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.into_iter().try_fold(root, |graph, part| {
        let (name, items) = part.split_at(part.find('[').unwrap_or(part.len()));
        let mut step = graph.steps.get(graph.step_named(name)?.at())?;
        for item in items.split_inclusive(']') {
            if item == UNDO {
                return step.undone_by();
            }
            step = step.inside()?.steps.first()?;
        }
        step.inside()
    })
}

impl JournalFold {
    fn record(&mut self, graph: &Graph, journal: &Journal, record: &Record) -> Result<(), String> {
        let seq = record.seq;
        if !self.appends.insert(record.append_id.to_bytes()) {
            return Err(format!("record {seq} was written twice"));
        }
        for event in &record.events {
            if self.ended {
                return Err(format!("one end: record {seq} goes on after it"));
            }
            self.event(graph, journal, event)
                .map_err(|what| format!("record {seq}: {what}"))?;
        }
        Ok(())
    }

    /// What is known of steps is known of them under their new names.
    fn rename(&mut self, journal: &Journal, moves: &StepMoves) {
        let names = journal.steps.names().into_iter();
        let numbers: HashMap<Arc<str>, StepIx> = names.zip((0..).map(StepIx)).collect();
        let now = |step: StepIx| {
            let new = moves.new_name(&journal.steps.name(step))?;
            numbers.get(new.as_str()).copied()
        };
        let rounds = std::mem::take(&mut self.rounds).into_iter();
        self.rounds = rounds
            .filter_map(|((step, round), key)| Some(((now(step)?, round), key)))
            .collect();
        for counts in [&mut self.highest, &mut self.undone] {
            let before = std::mem::take(counts).into_iter();
            *counts = before
                .filter_map(|(step, round)| Some((now(step)?, round)))
                .collect();
        }
        let completed = std::mem::take(&mut self.completed).into_iter();
        self.completed = completed
            .filter_map(|(step, count)| Some((now(step)?, count)))
            .collect();
        // Nothing is being undone in a run that is parked, and what comes next is decided anew.
        self.undos.clear();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting
            .filter_map(|(step, wait)| Some((now(step)?, wait)))
            .collect();
        let signals = std::mem::take(&mut self.signals).into_iter();
        self.signals = signals
            .filter_map(|(name, count)| Some((moves.new_name(&name)?, count)))
            .collect();
    }

    fn wait_began(&mut self, step: StepIx, name: &str, limited: bool) -> Result<(), String> {
        // Only a decision to go back has a step wait anew that waits.
        let before = self.waiting.insert(step, (limited, self.decisions));
        if before.is_some_and(|(_, decisions)| decisions == self.decisions) {
            return Err(format!("`{name}` begins to wait while it waits"));
        }
        Ok(())
    }

    fn wait_over(&mut self, step: StepIx, name: &str, expired: bool) -> Result<(), String> {
        match self.waiting.remove(&step) {
            None => Err(format!("`{name}` has waited, and never began to")),
            Some((false, _)) if expired => {
                Err(format!("`{name}` had no limit, and its time was up"))
            }
            // It takes a signal, and each signal is taken once (rule I5).
            Some(_) if !expired => match self.signals.get_mut(name) {
                Some(signals) if *signals > 0 => {
                    *signals -= 1;
                    Ok(())
                }
                _ => Err(format!("`{name}` took a signal that never came")),
            },
            Some(_) => Ok(()),
        }
    }

    fn event(
        &mut self,
        graph: &Graph,
        journal: &Journal,
        event: &Event<StepIx>,
    ) -> Result<(), String> {
        let name = |step: &StepIx| journal.steps.name(*step).to_string();
        let path = event.step().map(|step| name(&step)).unwrap_or_default();
        let scope = around(&path);
        match event {
            Event::RunStarted(_) if std::mem::replace(&mut self.begun, true) => {
                return Err("the run starts a second time".to_owned());
            }
            _ if !self.begun => return Err("it doesn't begin with the start".to_owned()),
            Event::Claimed { fence, .. } => {
                if *fence <= self.fence {
                    return Err(format!("fence {fence} after {}", self.fence));
                }
                self.fence = *fence;
                for undos in self.undos.values_mut() {
                    undos.under_way.clear();
                }
            }
            Event::StepStarted { step, .. }
            | Event::UndoStarted { step, .. }
            | Event::WaitBegan { step, .. }
                if self.paused =>
            {
                return Err(format!("`{}` starts in a pause", name(step)));
            }
            Event::StepStarted {
                step, round, key, ..
            } => {
                let known = self
                    .rounds
                    .entry((*step, *round))
                    .or_insert_with(|| key.to_string());
                if **known != **key {
                    return Err(format!("round {round} of `{}` has two keys", name(step)));
                }
                let highest = self.highest.entry(*step).or_insert(1);
                if round < highest {
                    return Err(format!("`{}` goes back to round {round}", name(step)));
                }
                *highest = *round;
                if self.undone.get(step).is_some_and(|undone| undone >= round) {
                    return Err(format!(
                        "round {round} of `{}` was undone, and runs again",
                        name(step)
                    ));
                }
            }
            Event::WaitOver { step, .. } if self.paused => {
                return Err(format!("`{}` has waited in a pause", name(step)));
            }
            Event::WaitBegan { step, until, .. } => {
                self.wait_began(*step, &name(step), until.is_some())?;
            }
            Event::WaitOver { step, expired, .. } => {
                self.wait_over(*step, &name(step), *expired)?;
            }
            Event::Signalled(signalled) => {
                if let Some(token) = &signalled.token
                    && !self.tokens.insert(token.to_string())
                {
                    return Err(format!("command {token} was carried out twice"));
                }
                if !signalled.late {
                    *self.signals.entry(signalled.name.to_string()).or_default() += 1;
                }
            }
            Event::Commanded { token } => {
                if !self.tokens.insert(token.to_string()) {
                    return Err(format!("command {token} was carried out twice"));
                }
            }
            Event::InputEdited { step, round, .. } => {
                let highest = self.highest.entry(*step).or_insert(1);
                if round <= highest {
                    return Err(format!(
                        "an edited input of `{}` opens no new round",
                        name(step)
                    ));
                }
                *highest = *round;
            }
            Event::Paused { .. } => self.paused = true,
            Event::Resumed { .. } | Event::Parked(_) => self.paused = false,
            Event::StepDone { step, .. } | Event::Skipped { step, .. } => {
                self.waiting.remove(step);
                self.count += 1;
                self.completed.insert(*step, self.count);
            }
            Event::StepFailed { step, .. } | Event::StepInterrupted { step, .. } => {
                self.completed.remove(step);
            }
            Event::Decided(_) => {
                self.decisions += 1;
                for undos in self.undos.values_mut() {
                    undos.last = None;
                }
            }
            Event::UndoStarted { step, .. } => {
                let sequential = inside(graph, scope)
                    .is_some_and(|graph| graph.undo_order == UndoOrder::Sequential);
                // What is inside it is undone from its end.
                self.undos.remove(&path);
                let undos = self.undos.entry(scope.to_owned()).or_default();
                if sequential && !undos.under_way.is_empty() {
                    return Err(format!(
                        "two undos at once, `{}` is one of them",
                        name(step)
                    ));
                }
                let done = self.completed.get(step).copied();
                if sequential
                    && let (Some(done), Some(last)) = (done, undos.last)
                    && done > last
                {
                    return Err(format!(
                        "`{}` is undone after a step that completed before it",
                        name(step)
                    ));
                }
                undos.last = done.or(undos.last);
                undos.under_way.insert(*step);
            }
            Event::UndoFailed { step, .. } | Event::UndoNotStarted { step } => {
                self.undo_over(scope, *step);
            }
            Event::Undone { step, .. } => {
                self.undo_over(scope, *step);
                self.completed.remove(step);
                let round = self.highest.get(step).copied().unwrap_or(1);
                self.undone.insert(*step, round);
            }
            Event::MarkedCompensated { step, round, .. } => {
                self.completed.remove(step);
                self.undone.insert(*step, *round);
            }
            Event::Migrated(migrated) => self.rename(journal, &migrated.steps),
            Event::Ended(_) => self.ended = true,
            Event::RunStarted(_)
            | Event::StepStopped { .. }
            | Event::StepNotStarted { .. }
            | Event::Progress { .. }
            | Event::PassedOver { .. }
            | Event::Probed { .. }
            | Event::CancelRequested { .. }
            | Event::CancelTooLate
            | Event::DeadlinePassed { .. }
            | Event::Resolved { .. }
            | Event::UndosRetried { .. }
            | Event::AbandonRequested { .. } => {}
        }
        Ok(())
    }

    fn undo_over(&mut self, scope: &str, step: StepIx) {
        if let Some(undos) = self.undos.get_mut(scope) {
            undos.under_way.remove(&step);
        }
    }
}
