//! Writing how far attempts have come, seldom enough that a chatty step costs no commit per report.

use std::sync::Arc;

use tokio::time::Instant;

use super::Driver;
use crate::ids::Timestamp;
use crate::journal::Event;
use crate::step::{Reports, StepContext, StepIx, Value};

/// Reports that were heard and are not written yet.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) reports: Arc<Reports>,
    calls: Vec<StepContext>,
    /// From when on the first of them may be written with something else.
    along: Option<Instant>,
    /// When the first of them is written for its own sake.
    due: Option<Instant>,
}

impl Unwritten {
    /// Notices new reports. Says when the driver has to write them, if it has nothing to write before.
    pub(super) fn listen(&mut self) -> Option<Instant> {
        for call in self.reports.take() {
            self.wait_for(call);
        }
        self.due
    }

    fn wait_for(&mut self, call: StepContext) {
        let Some((along, due)) = call.pulse().news_from() else {
            return;
        };
        let first = |one: Option<Instant>, other: Instant| one.map_or(other, |one| one.min(other));
        self.along = Some(first(self.along, along));
        self.due = Some(first(self.due, due));
        self.calls.push(call);
    }

    /// The news whose time has come. Where a record is written anyway, that is sooner.
    fn take(&mut self, now: Instant, goes_along: bool) -> Vec<(StepIx, Value)> {
        let time = if goes_along { self.along } else { self.due };
        if time.is_none_or(|time| time > now) {
            return Vec::new();
        }
        (self.along, self.due) = (None, None);
        let mut taken = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            let Some((along, due)) = call.pulse().news_from() else {
                continue;
            };
            // A record is written now for one of them, so others may go along with it.
            if along <= now || due <= now {
                taken.extend(news_of(&call, now));
            } else {
                self.wait_for(call);
            }
        }
        taken
    }

    /// All the news, whatever the time.
    fn take_all(&mut self, now: Instant) -> Vec<(StepIx, Value)> {
        self.listen();
        (self.along, self.due) = (None, None);
        std::mem::take(&mut self.calls)
            .into_iter()
            .filter_map(|call| news_of(&call, now))
            .collect()
    }
}

fn news_of(call: &StepContext, now: Instant) -> Option<(StepIx, Value)> {
    let pulse = call.pulse();
    Some((pulse.step(), pulse.take_news(now)?))
}

impl Driver {
    /// Puts the progress whose time has come into the batch.
    pub(super) fn note_news(&mut self) {
        if self.unwritten.listen().is_none() {
            return;
        }
        let news = self.unwritten.take(Instant::now(), !self.batch.is_empty());
        if !news.is_empty() {
            let now = self.shared.clock.now();
            for (step, value) in news {
                self.note_progress(step, value, now);
            }
        }
    }

    /// Progress is the step's own to use, and never a reason to fail it.
    pub(super) fn note_progress(&mut self, step: StepIx, mut value: Value, now: Timestamp) {
        let written = if self.shared.store.keeps_values() {
            Ok(())
        } else {
            value.encode()
        };
        match written {
            Ok(()) => self.note(Event::Progress { step, value }, now),
            Err(error) => {
                let (run, step) = (&self.slot.run, self.state.table.name(step));
                tracing::warn!(%run, %step, %error, "progress that can't be written is left out");
            }
        }
    }

    /// Before calls are dropped at the end of a shutdown's grace period, what they told last is written, so
    /// that the next process goes on from there.
    pub(super) async fn last_words(&mut self) {
        if !self.shared.is_out_of_grace() {
            return;
        }
        let now = self.shared.clock.now();
        for (step, value) in self.unwritten.take_all(Instant::now()) {
            self.note_progress(step, value, now);
        }
        if !self.batch.is_empty() {
            // Without it the run goes on from an older report; the driver is leaving either way.
            drop(self.append().await);
        }
    }
}
