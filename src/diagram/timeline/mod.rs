//! What happened when: one row per step, its calls as bars, and marks for what concerns the whole run.

mod scale;
mod svg;
mod text;

pub use svg::timeline_svg;
pub(super) use text::head;
pub use text::{timeline_text, timeline_text_within};

use std::fmt::Write;

use crate::diagram::page::{cut, wrapped};
use crate::diagram::{columns, look, readable, rows};
use crate::ids::Timestamp;
use crate::journal::Cause;
use crate::machine::{Happened, Moment};
use crate::partial::{CallEnd, CallKind, CallReport, PartialResult, StepReport, StepStatus};

/// A run's times, in microseconds since its start.
struct Story<'a> {
    rows: Vec<Row<'a>>,
    marks: Vec<Mark>,
    /// The last instant that anything is known of, or planned for.
    end: i64,
}

/// So many items of a fan-out have a row of their own.
const ITEMS: usize = 12;

struct Row<'a> {
    name: String,
    /// How many steps it is inside of.
    depth: usize,
    /// Whether there are steps inside it: then its bars are not calls, but reach over theirs.
    spans: bool,
    /// Nothing for items that have no rows of their own.
    step: Option<&'a StepReport>,
    /// How the items stand that have no rows of their own.
    more: String,
    bars: Vec<Bar<'a>>,
    /// Waits before another attempt.
    waits: Vec<Wait>,
}

impl<'a> Row<'a> {
    fn of(row: &rows::Row<'a>, since: impl Fn(Timestamp) -> i64, end: i64) -> Self {
        let (step, depth, spans) = match row {
            rows::Row::Step {
                depth,
                step,
                inside,
            } => (*step, *depth, inside.is_some()),
            rows::Row::More { depth, items } => {
                return Row {
                    name: format!("{} more", items.total()),
                    depth: *depth,
                    spans: false,
                    step: None,
                    more: items.each(),
                    bars: Vec::new(),
                    waits: Vec::new(),
                };
            }
        };
        let bar = |call: &'a CallReport| {
            let from = since(call.started_at);
            let to = call.ended_at.map_or(end, &since).max(from);
            Bar { call, from, to }
        };
        let name = if depth > 0 {
            step.own_name()
        } else {
            step.name.as_str()
        };
        Row {
            name: readable(name),
            depth,
            spans,
            bars: step.calls.iter().map(bar).collect(),
            waits: waits(step, &since),
            step: Some(step),
            more: String::new(),
        }
    }

    /// The sign and the word for how it stands.
    fn stands(&self) -> String {
        self.step.map_or_else(String::new, |step| {
            let sign = look::of_step(step.status).sign;
            format!("{sign} {}", look::step_word(step.status))
        })
    }
}

struct Bar<'a> {
    call: &'a CallReport,
    from: i64,
    /// Where it is under way: the end of the picture.
    to: i64,
}

struct Wait {
    undo: bool,
    from: i64,
    to: i64,
}

/// Something that concerns the run as a whole.
struct Mark {
    at: i64,
    word: &'static str,
    detail: String,
}

impl<'a> Story<'a> {
    fn of(partial: &'a PartialResult) -> Self {
        let start = partial.started_at.as_micros();
        let since = |at: Timestamp| at.as_micros().saturating_sub(start).max(0);
        let marks = marks(partial, since);
        let calls = partial.steps.iter().flat_map(|step| &step.calls);
        let end = calls
            .flat_map(|call| [Some(call.started_at), call.ended_at])
            .flatten()
            .chain(partial.steps.iter().filter_map(planned))
            .map(since)
            .chain(marks.iter().map(|mark| mark.at))
            .max()
            .unwrap_or(0);
        let rows = rows::rows(partial, ITEMS);
        let rows = rows.iter().map(|row| Row::of(row, since, end)).collect();
        Story { rows, marks, end }
    }

    /// Each instant at which something began or ended, in order.
    fn instants(&self) -> Vec<i64> {
        let bars = self.rows.iter().flat_map(|row| &row.bars);
        let waits = self.rows.iter().flat_map(|row| &row.waits);
        let mut instants: Vec<i64> = bars
            .flat_map(|bar| [bar.from, bar.to])
            .chain(waits.flat_map(|wait| [wait.from, wait.to]))
            .chain(self.marks.iter().map(|mark| mark.at))
            .chain([0, self.end])
            .collect();
        instants.sort_unstable();
        instants.dedup();
        instants
    }

    /// The marks in words, in lines of at most so many columns; no more than `most` of them.
    fn list(&self, width: usize, most: usize) -> Vec<String> {
        let offsets: Vec<String> = self
            .marks
            .iter()
            .take(most)
            .map(|mark| look::offset(mark.at))
            .collect();
        let wide = offsets.iter().map(|offset| columns(offset)).max();
        let (wide, mut lines) = (wide.unwrap_or(0), Vec::new());
        let indent = 3 + 2 + wide + 2;
        for (index, (mark, offset)) in self.marks.iter().zip(&offsets).enumerate() {
            let mut lead = format!("{:>3}  {offset:>wide$}  ", index + 1);
            let text = readable(&format!("{}: {}", mark.word, mark.detail));
            for line in wrapped(&cut(&text, 600), width.saturating_sub(indent).max(20)) {
                lines.push(lead + &line);
                lead = " ".repeat(indent);
            }
        }
        if self.marks.len() > most {
            lines.push(format!("     and {} more", self.marks.len() - most));
        }
        lines
    }

    /// How long calls took that took any time, in order.
    fn lengths(&self) -> Vec<i64> {
        let bars = self.rows.iter().flat_map(|row| &row.bars);
        let mut lengths: Vec<i64> = bars
            .map(|bar| bar.to - bar.from)
            .filter(|&length| length > 0)
            .collect();
        lengths.sort_unstable();
        lengths
    }
}

/// When a step that waits is to be called again.
fn planned(step: &StepReport) -> Option<Timestamp> {
    let waits = matches!(step.status, StepStatus::Retrying | StepStatus::Undoing);
    step.calls.last()?.retry_at.filter(|_| waits)
}

fn waits(step: &StepReport, since: impl Fn(Timestamp) -> i64) -> Vec<Wait> {
    let next = step.calls.iter().skip(1).map(Some).chain([None]);
    let pairs = step.calls.iter().zip(next);
    pairs
        .filter_map(|(call, next)| {
            let ended = call.ended_at?;
            call.retry_at?;
            let until = match next {
                // Another recovery may have come before, but it did wait.
                Some(next) if next.call == call.call => next.started_at,
                Some(_) => return None,
                None => planned(step)?,
            };
            Some(Wait {
                undo: call.call == CallKind::Compensate,
                from: since(ended),
                to: since(until).max(since(ended)),
            })
        })
        .collect()
}

fn marks(partial: &PartialResult, since: impl Fn(Timestamp) -> i64) -> Vec<Mark> {
    let mut marks: Vec<Mark> = partial
        .moments
        .iter()
        .map(|moment| {
            let (word, detail) = told(moment);
            Mark {
                at: since(moment.at),
                word,
                detail,
            }
        })
        .collect();
    if let Some(ended) = partial.ended_at {
        marks.push(Mark {
            at: since(ended),
            word: partial.standing.as_str(),
            detail: "the run ended".to_owned(),
        });
    }
    marks
}

/// A word for the mark, and the rest of it for the list.
fn told(moment: &Moment) -> (&'static str, String) {
    match &moment.what {
        Happened::Claimed { fence } => (
            "taken over",
            format!("by another owner (fence {fence}); what was in flight is lost"),
        ),
        Happened::Decided { stop: true, .. } => (
            "stop",
            "what is done is kept, doubts are settled".to_owned(),
        ),
        Happened::Decided {
            cause,
            scope,
            strategy,
            failed,
            recovery,
            ..
        } => {
            let mut detail = cause_words(cause);
            // Writing to a String can't fail.
            if let Some(scope) = scope {
                let _ = write!(detail, "; inside {scope}");
            }
            if !failed.is_empty() {
                let _ = write!(detail, "; failed: {}", failed.join(", "));
            }
            if *recovery > 0 {
                let _ = write!(detail, "; recovery {recovery}");
            }
            match cause {
                Cause::Absorbed => ("goes on", detail),
                _ => (strategy.as_str(), detail),
            }
        }
        Happened::CancelRequested { by, reason, told } => (
            "cancel",
            format!("by {by}, {}: {reason}", look::told(*told)),
        ),
        Happened::CancelTooLate => ("too late", "for the cancel: the pivot is done".to_owned()),
        Happened::DeadlinePassed { past_pivot: true } => (
            "deadline",
            "passed, past the pivot: the run goes on".to_owned(),
        ),
        Happened::DeadlinePassed { past_pivot: false } => ("deadline", "passed".to_owned()),
        Happened::Probed { step, answer } => ("probe", format!("of {step}: {answer}")),
        Happened::Resolved {
            step,
            answer,
            by,
            reason,
        } => ("resolved", format!("{step}: {answer}, by {by}: {reason}")),
        Happened::InputEdited { step, by, reason } => {
            ("new input", format!("of {step}, by {by}: {reason}"))
        }
        Happened::Skipped { step, by, reason } => ("skipped", format!("{step}, by {by}: {reason}")),
        Happened::MarkedCompensated { step, by, reason } => {
            ("undone by hand", format!("{step}, by {by}: {reason}"))
        }
        Happened::UndosRetried { by, reason } => ("undos again", format!("by {by}: {reason}")),
        Happened::Paused { by, reason } => ("paused", format!("by {by}: {reason}")),
        Happened::Resumed { by, reason } => ("resumed", format!("by {by}: {reason}")),
        Happened::AbandonRequested { by, reason } => ("given up", format!("by {by}: {reason}")),
        Happened::Signalled {
            name,
            late,
            by,
            reason,
        } => {
            let late = if *late { ", too late" } else { "" };
            let by = match (by.as_str(), reason.as_str()) {
                ("", _) => String::new(),
                (by, "") => format!(", by {by}"),
                (by, reason) => format!(", by {by}: {reason}"),
            };
            ("signal", format!("{name}{late}{by}"))
        }
        Happened::Migrated {
            from,
            to,
            by,
            reason,
        } => (
            "migrated",
            format!("from version {from} to {to} by {by}: {reason}"),
        ),
        Happened::Parked { reason, message } => ("parked", format!("({reason}) {message}")),
    }
}

fn cause_words(cause: &Cause) -> String {
    match cause {
        Cause::Failures => "by the policy".to_owned(),
        Cause::Absorbed => "without what failed or lost".to_owned(),
        Cause::Cancel => "for the cancel".to_owned(),
        Cause::Stop { reason } => format!("a step asked to end: {reason}"),
        Cause::Operator { by, reason } => format!("by {by}: {reason}"),
    }
}

/// The word for how a call ended.
fn end_word(end: CallEnd) -> &'static str {
    match end {
        CallEnd::UnderWay => "under way",
        CallEnd::Done => "done",
        CallEnd::Failed => "failed",
        CallEnd::Stopped => "asked to stop",
        CallEnd::Interrupted => "interrupted",
        CallEnd::Lost => "lost with its process",
    }
}
