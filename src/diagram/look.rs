//! How states look: a colour, a symbol and a word for each, so that no one of them has to be seen.
//!
//! The hues are those of Okabe and Ito, which colour-blind readers tell apart; texts on them are dark.

use std::fmt::Write;

use crate::failure::Failure;
use crate::ids::Timestamp;
use crate::journal::{CancelTold, Cause, Standing};
use crate::partial::{CallKind, EffectReport, PartialResult, StepReport, StepStatus};
use crate::policy::RecoveryStrategy;

/// Fill, line, a character for the terminal, a shape for pictures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) fill: &'static str,
    pub(super) line: &'static str,
    pub(super) sign: char,
    /// A path in a square of 14.
    pub(super) shape: &'static str,
}

const BLUE: (&str, &str) = ("#dcebf8", "#1f5f99");
const TEAL: (&str, &str) = ("#d9f2ea", "#00694f");
const PALE: (&str, &str) = ("#ffffff", "#5c6773");
const AMBER: (&str, &str) = ("#fff0c7", "#8a5a00");
const RED: (&str, &str) = ("#fde3d5", "#b03a06");
const PURPLE: (&str, &str) = ("#ebe5f5", "#62479b");
const SLATE: (&str, &str) = ("#e6e9ed", "#3d4854");

const TICK: &str = "M2 7.5L5.5 11L12 3";
const CROSS: &str = "M3 3L11 11M11 3L3 11";
const BACK: &str = "M6 1.5L2 5L6 8.5M2 5H8.5A3.6 3.6 0 0 1 8.5 12.2H5";
const PLAY: &str = "M4 2.5V11.5L11.5 7z";
const PLAY_BACK: &str = "M10 2.5V11.5L2.5 7z";
const CLOCK: &str = "M7 1.5A5.5 5.5 0 1 1 6.9 1.5M7 4V7.3L9.5 9";
const RING: &str = "M7 2.5A4.5 4.5 0 1 1 6.9 2.5";
const BARS: &str = "M4.5 2.5V11.5M9.5 2.5V11.5";
const SKIP: &str = "M2.5 3L6.5 7L2.5 11M7.5 3L11.5 7L7.5 11";
/// Somebody is needed.
const NEEDED: &str = "M7 2V8M7 11.6V11.7";
const SQUARE: &str = "M3 3H11V11H3z";
const BARRED: &str = "M2.5 7A4.5 4.5 0 1 1 11.5 7A4.5 4.5 0 1 1 2.5 7M4 10L10 4";

fn look((fill, line): (&'static str, &'static str), sign: char, shape: &'static str) -> Look {
    Look {
        fill,
        line,
        sign,
        shape,
    }
}

pub(super) const STATUSES: [StepStatus; 13] = [
    StepStatus::Done,
    StepStatus::Skipped,
    StepStatus::Running,
    StepStatus::Retrying,
    StepStatus::Pending,
    StepStatus::Interrupted,
    StepStatus::Failed,
    StepStatus::Stopped,
    StepStatus::Undoing,
    StepStatus::Undone,
    StepStatus::UndoFailed,
    StepStatus::PassedOver,
    StepStatus::Waiting,
];

pub(super) fn of_step(status: StepStatus) -> Look {
    match status {
        StepStatus::Pending => look(PALE, '·', RING),
        StepStatus::Running => look(TEAL, '▶', PLAY),
        StepStatus::Retrying => look(TEAL, '◔', CLOCK),
        StepStatus::Interrupted => look(AMBER, '‖', BARS),
        StepStatus::Done => look(BLUE, '✓', TICK),
        StepStatus::Skipped => look(SLATE, '»', SKIP),
        StepStatus::Failed => look(RED, '✗', CROSS),
        StepStatus::Stopped => look(SLATE, '■', SQUARE),
        StepStatus::Undoing => look(PURPLE, '◀', PLAY_BACK),
        StepStatus::Undone => look(PURPLE, '↶', BACK),
        StepStatus::UndoFailed => look(RED, '⊘', BARRED),
        StepStatus::PassedOver => look(PALE, '»', SKIP),
        StepStatus::Waiting => look(TEAL, '◷', CLOCK),
    }
}

pub(super) fn step_word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "pending",
        StepStatus::Running => "running",
        StepStatus::Retrying => "waits to retry",
        StepStatus::Interrupted => "interrupted",
        StepStatus::Done => "done",
        StepStatus::Skipped => "skipped",
        StepStatus::Failed => "failed",
        StepStatus::Stopped => "asked to stop",
        StepStatus::Undoing => "undoing",
        StepStatus::Undone => "undone",
        StepStatus::UndoFailed => "undo failed",
        StepStatus::PassedOver => "passed over",
        StepStatus::Waiting => "waits",
    }
}

/// The status as one word that may stand in an identifier.
pub(super) fn class(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "pending",
        StepStatus::Running => "running",
        StepStatus::Retrying => "retrying",
        StepStatus::Interrupted => "interrupted",
        StepStatus::Done => "done",
        StepStatus::Skipped => "skipped",
        StepStatus::Failed => "failed",
        StepStatus::Stopped => "stopped",
        StepStatus::Undoing => "undoing",
        StepStatus::Undone => "undone",
        StepStatus::UndoFailed => "undo_failed",
        StepStatus::PassedOver => "passed_over",
        StepStatus::Waiting => "waiting",
    }
}

pub(super) fn of_run(standing: Standing) -> Look {
    match standing {
        Standing::Running => look(TEAL, '▶', PLAY),
        Standing::Waiting { .. } => look(TEAL, '◔', CLOCK),
        Standing::Paused => look(SLATE, '‖', BARS),
        Standing::Parked => look(AMBER, '!', NEEDED),
        Standing::Completed => look(BLUE, '✓', TICK),
        Standing::Compensated => look(PURPLE, '↶', BACK),
        Standing::Stopped => look(SLATE, '■', SQUARE),
        Standing::Abandoned => look(RED, '✗', CROSS),
    }
}

/// The status with what belongs to it: `failed · 3 attempts`.
pub(super) fn status_line(step: &StepReport) -> String {
    let mut line = step_word(step.status).to_owned();
    // Writing to a String can't fail.
    if step.attempts > 1 {
        let _ = write!(line, " · {} attempts", step.attempts);
    }
    // An undo opens the next round, in which nothing has happened yet.
    let begun = step
        .calls
        .last()
        .is_none_or(|call| call.round == step.round);
    if step.round > 1
        && (begun || step.status != StepStatus::Failed)
        && step.status != StepStatus::Undone
    {
        let _ = write!(line, " · round {}", step.round);
    }
    let undos = undos(step);
    if undos > 1 {
        let _ = write!(line, " · {undos} undos");
    }
    line
}

/// How often its `compensate` was called, as far as that is kept.
fn undos(step: &StepReport) -> u32 {
    let calls = step.calls.iter().rev();
    calls
        .filter(|call| call.call == CallKind::Compensate)
        .map(|call| call.attempt)
        .next()
        .unwrap_or(0)
}

/// What has to strike the eye at a step. Of one with steps inside, these tell what is in doubt.
pub(super) fn alarms(
    partial: &PartialResult,
    step: &StepReport,
    has_steps_inside: bool,
) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mode = partial
        .failure_mode
        .as_ref()
        .filter(|_| partial.failing_step.as_deref() == Some(step.name.as_str()));
    match (mode, step.status, &step.failure) {
        (
            Some(mode),
            StepStatus::Done | StepStatus::Skipped | StepStatus::Running | StepStatus::Pending,
            _,
        ) => {
            alarms.push(Alarm::new(Alert::Past, format!("failed before: {mode}")));
        }
        (Some(mode), ..) => {
            alarms.push(Alarm::new(Alert::Grave, format!("failing step: {mode}")));
        }
        (None, StepStatus::Failed, Some(failure)) => {
            alarms.push(Alarm::new(
                Alert::Grave,
                format!("failed: {}", failure.mode),
            ));
        }
        (None, ..) => {}
    }
    if let (StepStatus::UndoFailed, Some(failure)) = (step.status, last_undo_failure(step)) {
        let text = format!("undo failed: {}", failure.mode);
        alarms.push(Alarm::new(Alert::Grave, text));
    }
    if step.effect == EffectReport::InDoubt && !has_steps_inside {
        alarms.push(Alarm::new(Alert::Doubt, "effect in doubt".to_owned()));
    }
    let mut undone = partial.compensations.iter().rev();
    let last = undone.find(|undone| undone.step == step.name);
    if step.status == StepStatus::Undone && last.is_some_and(|undone| undone.by_hand.is_some()) {
        alarms.push(Alarm::new(Alert::Past, "undone by hand".to_owned()));
    }
    if partial.assumed_absent.contains(&step.name) {
        alarms.push(Alarm::new(Alert::Doubt, "assumed absent".to_owned()));
    }
    alarms
}

fn last_undo_failure(step: &StepReport) -> Option<&Failure> {
    let undos = step.calls.iter().rev();
    undos
        .filter(|call| call.call == CallKind::Compensate)
        .find_map(|call| call.failure.as_ref())
}

#[derive(Debug)]
pub(super) struct Alarm {
    pub(super) text: String,
    alert: Alert,
}

#[derive(Clone, Copy, Debug)]
enum Alert {
    /// Something has failed.
    Grave,
    /// Something isn't known.
    Doubt,
    /// Something had failed, and has gone on since.
    Past,
}

impl Alarm {
    fn new(alert: Alert, text: String) -> Self {
        Alarm { text, alert }
    }

    /// Fill and text.
    pub(super) fn colours(&self) -> (&'static str, &'static str) {
        match self.alert {
            Alert::Grave => (RED.1, "#ffffff"),
            Alert::Doubt => ("#f2b632", "#1c2733"),
            Alert::Past => ("#ffffff", SLATE.1),
        }
    }
}

/// The run as a whole, in words: one paragraph an item, the first under the title.
pub(super) fn story(partial: &PartialResult) -> Vec<String> {
    let mut lines = vec![
        format!(
            "run {}: {} of {} steps done",
            partial.run, partial.completed, partial.total
        ),
        format!(
            "started {}{}",
            instant(partial.started_at),
            partial.ended_at.map_or_else(String::new, |end| format!(
                ", took {}",
                span(
                    end.as_micros()
                        .saturating_sub(partial.started_at.as_micros())
                )
            ))
        ),
    ];
    if let Some(parked) = &partial.parked {
        lines.push(format!("parked ({}): {}", parked.reason, parked.message));
    }
    if let Some(paused) = &partial.paused {
        lines.push(format!("paused by {}: {}", paused.by, paused.reason));
    }
    if let Some(reason) = &partial.stopped {
        lines.push(format!("a step asked to end the run: {reason}"));
    }
    if let Some(cancel) = &partial.cancel {
        lines.push(format!(
            "cancel by {}, {}: {}",
            cancel.by,
            told(cancel.told),
            cancel.reason
        ));
    }
    if partial.deadline_passed {
        lines.push("the deadline has passed".to_owned());
    }
    // For a stop that keeps what is done the journal says `retry_failed`, which would mislead.
    let keeps = matches!(partial.cause, Some(Cause::Stop { .. }))
        && partial.strategy == Some(RecoveryStrategy::RetryFailed);
    if let Some(strategy) = partial.strategy.filter(|_| !keeps) {
        lines.push(format!(
            "decided last: {strategy}{}",
            match partial.recoveries {
                0 => String::new(),
                1 => ", after 1 recovery in all".to_owned(),
                more => format!(", after {more} recoveries in all"),
            }
        ));
    }
    lines
}

pub(super) fn told(told: CancelTold) -> &'static str {
    match told {
        CancelTold::Accepted => "accepted",
        CancelTold::Pending => "pending",
        CancelTold::TooLate => "too late",
    }
}

/// An instant to the second.
pub(super) fn instant(at: Timestamp) -> String {
    let whole = at.to_string();
    let seconds = whole.split('.').next().unwrap_or(&whole);
    format!("{}Z", seconds.replace('T', " "))
}

/// A span of time in the unit that suits it, or in two, of which the smaller is rounded.
pub(super) fn span(micros: i64) -> String {
    const SECOND: i64 = 1_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    let rounded = |unit: i64| micros.saturating_add(unit / 2) / unit;
    let parts = |whole: i64, small: i64, names: (&str, &str)| match (whole / small, whole % small) {
        (big, 0) => format!("{big} {}", names.0),
        (big, rest) => format!("{big} {} {rest} {}", names.0, names.1),
    };
    match micros {
        ..=0 => "0".to_owned(),
        1..1_000 => format!("{micros} µs"),
        1_000..SECOND => format!("{} ms", decimal(micros, 1_000)),
        SECOND..MINUTE => format!("{} s", decimal(micros, SECOND)),
        _ if rounded(SECOND) < 3_600 => parts(rounded(SECOND), 60, ("min", "s")),
        _ if rounded(MINUTE) < 1_440 => parts(rounded(MINUTE), 60, ("h", "min")),
        _ => parts(rounded(HOUR), 24, ("d", "h")),
    }
}

/// A place in a run's life to the millisecond, where a rounded span would make neighbours alike.
pub(super) fn offset(micros: i64) -> String {
    if micros < 60_000_000 {
        return span(micros);
    }
    let (seconds, millis) = (micros / 1_000_000, micros / 1_000 % 1_000);
    let (days, hour) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minute, second) = (seconds / 60 % 60, seconds % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}.{millis:03}");
    match days {
        0 => clock,
        days => format!("{days} d {clock}"),
    }
}

/// At most two digits behind the point, and at most three digits that count; what is more is left off.
fn decimal(micros: i64, unit: i64) -> String {
    let (whole, hundredths) = (micros / unit, micros % unit * 100 / unit);
    let hundredths = match whole {
        100.. => 0,
        10.. => hundredths / 10 * 10,
        _ => hundredths,
    };
    match (hundredths, hundredths % 10) {
        (0, _) => whole.to_string(),
        (_, 0) => format!("{whole}.{}", hundredths / 10),
        _ => format!("{whole}.{hundredths:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_unit_that_suits_them() {
        let told = [
            (0, "0"),
            (7, "7 µs"),
            (999, "999 µs"),
            (1_050, "1.05 ms"),
            (12_340, "12.3 ms"),
            (150_900, "150 ms"),
            (1_500_000, "1.5 s"),
            (59_999_999, "59.9 s"),
            (60_000_000, "1 min"),
            (125_000_000, "2 min 5 s"),
            (3_600_000_000, "1 h"),
            (12_000_000_000, "3 h 20 min"),
            (3_599_600_000, "1 h"),
            (86_399_900_000, "1 d"),
            (93_599_999_999, "1 d 2 h"),
            (i64::MAX, "106751991 d 4 h"),
        ];
        for (micros, text) in told {
            assert_eq!(span(micros), text);
        }
    }

    #[test]
    fn offsets_keep_their_milliseconds() {
        assert_eq!(offset(59_000_000), "59 s");
        assert_eq!(offset(61_002_900), "00:01:01.002");
        assert_eq!(offset(90_000_000_000), "1 d 01:00:00.000");
    }

    #[test]
    fn an_instant_is_told_to_the_second() {
        assert_eq!(instant(Timestamp::from_micros(1)), "1970-01-01 00:00:00Z");
    }
}
