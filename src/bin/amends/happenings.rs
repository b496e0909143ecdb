//! Events in words, one line each: what `journal` and `watch` print.

use amends::failure::{FailedEffect, Failure};
use amends::journal::{CancelTold, Cause, Decision, End, Event, SkippedEffect};
use amends::policy::{Explanation, GiveUp};
use amends::{Probed, Timestamp, Value};

use crate::instants::to_the_second;
use crate::output::Hue;
use crate::span;

/// What happened, in words and a hue. Payloads are told where they are to be shown.
pub(crate) fn told(event: &Event<String>, payloads: bool) -> (Hue, String) {
    let told = |value: &Value| {
        if payloads {
            format!(": {}", json(value))
        } else {
            String::new()
        }
    };
    match event {
        Event::RunStarted(started) => {
            let (saga, version, worker) = (&started.saga, started.version, &started.worker);
            let input = told(&started.input);
            (
                Hue::Bold,
                format!("started {saga} v{version} by {worker}{input}"),
            )
        }
        Event::Claimed { fence, worker } => (
            Hue::Yellow,
            format!("taken over by {worker}, fence {fence}"),
        ),
        Event::StepStarted {
            step,
            round,
            attempt,
            mapped,
            items,
            ..
        } => {
            let mapped: String = mapped.iter().map(told).collect();
            let items = match items {
                None => String::new(),
                Some(1) => ", 1 item".to_owned(),
                Some(items) => format!(", {items} items"),
            };
            (
                Hue::Cyan,
                format!("▶ {step} starts{}{items}{mapped}", call(*round, *attempt)),
            )
        }
        Event::StepDone {
            step,
            output,
            partial,
            took_us,
            ..
        } => {
            let part = partial
                .as_ref()
                .map_or(String::new(), |part| format!(", in part, {part}"));
            let (took, output) = (took(*took_us), told(output));
            (
                Hue::Green,
                format!("✓ {step} done after {took}{part}{output}"),
            )
        }
        Event::StepFailed {
            step,
            failure,
            retry_at,
            gave_up,
            took_us,
        } => {
            let next = next(*retry_at, *gave_up);
            let (took, failure) = (took(*took_us), failed(failure));
            (
                Hue::Red,
                format!("✗ {step} failed after {took}: {failure}{next}"),
            )
        }
        Event::StepStopped {
            step,
            reason,
            took_us,
        } => (
            Hue::Plain,
            format!("■ {step} asked to stop after {}: {reason}", took(*took_us)),
        ),
        Event::StepInterrupted { step, took_us } => (
            Hue::Yellow,
            format!("‖ {step} interrupted after {}", took(*took_us)),
        ),
        Event::Progress { step, value } => (Hue::Dim, format!("… {step} comes on{}", told(value))),
        Event::StepNotStarted { step } => (Hue::Dim, format!("· {step} was not called")),
        Event::WaitBegan { step, until, .. } => {
            let until = until.map_or(String::new(), |at| format!(" until {}", to_the_second(at)));
            (Hue::Cyan, format!("◷ {step} waits{until}"))
        }
        Event::WaitOver {
            step,
            expired,
            output,
            failure,
        } => {
            let why = if *expired {
                "its time is up"
            } else {
                "its signal is there"
            };
            if let Some(failure) = failure {
                let failure = failed(failure);
                (Hue::Red, format!("✗ {step} has waited, {why}: {failure}"))
            } else {
                let output: String = output.iter().map(told).collect();
                (Hue::Green, format!("✓ {step} has waited, {why}{output}"))
            }
        }
        Event::Signalled(signalled) => {
            let (name, sent) = (&signalled.name, &signalled.sent);
            let (by, reason) = (&signalled.by, &signalled.reason);
            let late = if signalled.late {
                ", after its wait was over"
            } else {
                ""
            };
            (
                Hue::Yellow,
                format!("signal {name}{}{late}{}", asked(by, reason), told(sent)),
            )
        }
        Event::PassedOver { step } => (
            Hue::Dim,
            format!("» {step} is passed over: its condition does not hold"),
        ),
        Event::Probed {
            step,
            answer,
            error,
        } => {
            let error = error
                .as_ref()
                .map_or(String::new(), |error| format!(" ({error})"));
            let answer = answered(answer, &told);
            (Hue::Plain, format!("? {step} probed: {answer}{error}"))
        }
        Event::Decided(decision) => (Hue::Bold, decided(decision)),
        Event::UndoStarted {
            step,
            round,
            attempt,
            ..
        } => (
            Hue::Magenta,
            format!("◀ {step} is undone{}", call(*round, *attempt)),
        ),
        Event::Undone { step, took_us } => (
            Hue::Magenta,
            format!("↶ {step} undone after {}", took(*took_us)),
        ),
        Event::UndoFailed {
            step,
            failure,
            retry_at,
            gave_up,
            took_us,
        } => {
            let next = next(*retry_at, *gave_up);
            let (took, failure) = (took(*took_us), failed(failure));
            (
                Hue::Red,
                format!("⊘ undo of {step} failed after {took}: {failure}{next}"),
            )
        }
        Event::UndoNotStarted { step } => {
            (Hue::Dim, format!("· the undo of {step} was not called"))
        }
        Event::CancelRequested { by, reason, told } => {
            let told = match told {
                CancelTold::Accepted => "accepted",
                CancelTold::Pending => "the pivot is under way, and decides",
                CancelTold::TooLate => "too late, the pivot is done",
            };
            (
                Hue::Yellow,
                format!("cancel asked{}: {told}", asked(by, reason)),
            )
        }
        Event::CancelTooLate => (
            Hue::Yellow,
            "the cancel came too late: the pivot is done".to_owned(),
        ),
        Event::DeadlinePassed { past_pivot } => {
            let past = if *past_pivot {
                ", past the pivot: it goes on"
            } else {
                ""
            };
            (Hue::Yellow, format!("the deadline passed{past}"))
        }
        Event::Resolved {
            step,
            answer,
            by,
            reason,
        } => {
            let answer = answered(answer, &told);
            (
                Hue::Yellow,
                format!("{step} resolved{}: {answer}", asked(by, reason)),
            )
        }
        Event::Commanded { token } => (Hue::Dim, format!("on the command {token}")),
        Event::InputEdited {
            step,
            round,
            input,
            by,
            reason,
        } => (
            Hue::Yellow,
            format!(
                "{step} gets another input for round {round}{}{}",
                asked(by, reason),
                told(input)
            ),
        ),
        Event::Skipped {
            step,
            effect,
            output,
            by,
            reason,
        } => {
            let effect = match effect {
                SkippedEffect::None => "nothing to undo",
                SkippedEffect::Done => "done by hand",
            };
            (
                Hue::Yellow,
                format!(
                    "» {step} skipped{}, {effect}{}",
                    asked(by, reason),
                    told(output)
                ),
            )
        }
        Event::MarkedCompensated {
            step,
            round,
            by,
            reason,
        } => (
            Hue::Yellow,
            format!(
                "{step} marked as undone in round {round}{}",
                asked(by, reason)
            ),
        ),
        Event::UndosRetried { by, reason } => (
            Hue::Yellow,
            format!("undos are tried again{}", asked(by, reason)),
        ),
        Event::Paused { by, reason } => (Hue::Yellow, format!("paused{}", asked(by, reason))),
        Event::Resumed { by, reason } => (Hue::Yellow, format!("resumed{}", asked(by, reason))),
        Event::AbandonRequested { by, reason } => {
            (Hue::Yellow, format!("giving up asked{}", asked(by, reason)))
        }
        Event::Migrated(migrated) => {
            let (from, to) = (migrated.from.version, migrated.version);
            let asked = asked(&migrated.by, &migrated.reason);
            (
                Hue::Yellow,
                format!("migrated from v{from} to v{to}{asked}"),
            )
        }
        Event::Parked(parking) => (
            Hue::Yellow,
            format!("! parked ({}): {}", parking.reason, parking.message),
        ),
        Event::Ended(end) => ended(end, &told),
        _ => (
            Hue::Plain,
            "something that this build does not know".to_owned(),
        ),
    }
}

fn ended(end: &End, told: &impl Fn(&Value) -> String) -> (Hue, String) {
    match end {
        End::Completed { output } => (Hue::Green, format!("✓ completed{}", told(output))),
        End::Compensated => (Hue::Magenta, "↶ compensated".to_owned()),
        End::Stopped { reason } => (Hue::Bold, format!("■ stopped: {reason}")),
        End::Abandoned { by, reason } => (Hue::Red, format!("✗ abandoned{}", asked(by, reason))),
    }
}

/// One decision in a line.
pub(crate) fn decided(decision: &Decision<String>) -> String {
    let inside = decision
        .scope
        .as_ref()
        .map_or(String::new(), |scope| format!(" inside {scope}"));
    if decision.cause == Cause::Absorbed {
        let without = match decision.failed.as_slice() {
            [] => "what isn't needed".to_owned(),
            failed => failed.join(", "),
        };
        return format!("decided{inside} to go on without {without}");
    }
    let cause = cause(decision);
    let what = if decision.stop {
        "keep what is done"
    } else {
        decision.strategy.as_str()
    };
    let which = match decision.recovery {
        0 => String::new(),
        number => format!(", recovery {number}"),
    };
    let then = decision.resume_at.map_or(String::new(), |at| {
        format!(", goes on at {}", to_the_second(at))
    });
    format!("decided{inside} {what}{which}, because {cause}{then}")
}

fn cause(decision: &Decision<String>) -> String {
    let in_part = |why: &Explanation| why.saw.effect == FailedEffect::Done;
    match &decision.cause {
        Cause::Failures if !decision.why.is_empty() && decision.why.iter().all(in_part) => {
            "of what is done in part".to_owned()
        }
        Cause::Failures => "of what failed".to_owned(),
        Cause::Absorbed => "the run goes on without what failed".to_owned(),
        Cause::Cancel => "the run was cancelled".to_owned(),
        Cause::Stop { reason } => format!("a step asked to stop: {reason}"),
        Cause::Operator { by, reason } => format!("an operator said so{}", asked(by, reason)),
    }
}

/// Who asked, and why, as far as they said.
pub(crate) fn asked(by: &str, reason: &str) -> String {
    match (by, reason) {
        ("", "") => String::new(),
        (by, "") => format!(" by {by}"),
        ("", reason) => format!(" ({reason})"),
        (by, reason) => format!(" by {by} ({reason})"),
    }
}

/// A failure without its place, which the line names already.
pub(crate) fn failed(failure: &Failure) -> String {
    let mut what = failure.message.clone();
    for cause in &failure.causes {
        what = format!("{what}: {cause}");
    }
    format!("{what} ({}, {})", failure.mode, failure.effect)
}

/// The first call of the first round needs no numbers.
fn call(round: u32, attempt: u32) -> String {
    match (round, attempt) {
        (1, 1) => String::new(),
        (1, attempt) => format!(", attempt {attempt}"),
        (round, attempt) => format!(", round {round}, attempt {attempt}"),
    }
}

fn next(retry_at: Option<Timestamp>, gave_up: Option<GiveUp>) -> String {
    match (retry_at, gave_up) {
        (Some(at), _) => format!("; tried again at {}", to_the_second(at)),
        (None, Some(why)) => format!("; not tried again: {}", gave_up_because(why)),
        (None, None) => String::new(),
    }
}

fn gave_up_because(why: GiveUp) -> &'static str {
    match why {
        GiveUp::Terminal => "the failure is terminal",
        GiveUp::NotRetryable => "the failure is not retryable",
        GiveUp::AttemptsUsedUp => "its attempts are used up",
        GiveUp::TimeUsedUp => "its time is used up",
        GiveUp::AtMostOnce => "it must not run twice",
    }
}

fn answered(answer: &Probed<Value>, told: &impl Fn(&Value) -> String) -> String {
    match answer {
        Probed::Done(output) => format!("it happened{}", told(output)),
        Probed::Never => "it did not happen".to_owned(),
        Probed::Unknown => "nobody can tell".to_owned(),
    }
}

fn took(micros: u64) -> String {
    span::format(std::time::Duration::from_micros(micros))
}

fn json(value: &Value) -> String {
    value
        .to_json()
        .map_or_else(|error| format!("({error})"), |json| json.get().to_owned())
}
