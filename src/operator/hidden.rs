//! Taking payloads out of what is shown: they may hold what not everybody may see.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::journal::{End, Event};
use crate::partial::PartialResult;
use crate::step::{Probed, Value};

/// The same event without its payloads: in place of each stands a text that says how long it is.
///
/// Messages of failures and reasons that people gave stay: they were written to be read.
///
/// ```
/// use amends::Value;
/// use amends::journal::Event;
/// use amends::operator::hide_payloads;
/// use std::sync::Arc;
///
/// let output = Value::typed(Arc::new("secret".to_owned()));
/// let done = Event::StepDone { step: "charge".to_owned(), output, partial: None, asks: false, took_us: 5 };
/// let shown = serde_json::to_string(&hide_payloads(done))?;
/// assert_eq!(shown, r#"{"step_done":{"step":"charge","output":"(hidden: 8 bytes)","took_us":5}}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn hide_payloads<S>(event: Event<S>) -> Event<S> {
    // Without a catch-all: a new event has to be looked at here.
    match event {
        Event::RunStarted(mut shared) => {
            let started = Arc::make_mut(&mut shared);
            started.input = hidden(&started.input);
            // Whoever guesses a short input could see by its digest that the guess is right.
            started.input_digest = None;
            Event::RunStarted(shared)
        }
        Event::StepStarted {
            step,
            round,
            attempt,
            key,
            fed_by,
            mapped,
            items,
        } => Event::StepStarted {
            step,
            round,
            attempt,
            key,
            fed_by,
            mapped: mapped.iter().map(hidden).collect(),
            items,
        },
        Event::StepDone {
            step,
            output,
            partial,
            asks,
            took_us,
        } => Event::StepDone {
            step,
            output: hidden(&output),
            partial,
            asks,
            took_us,
        },
        Event::PassedOver { step } => Event::PassedOver { step },
        Event::WaitBegan { step, round, until } => Event::WaitBegan { step, round, until },
        Event::WaitOver {
            step,
            expired,
            output,
            failure,
        } => Event::WaitOver {
            step,
            expired,
            output: output.as_ref().map(hidden),
            failure,
        },
        Event::Signalled(mut signalled) => {
            signalled.sent = hidden(&signalled.sent);
            signalled.kept = hidden(&signalled.kept);
            Event::Signalled(signalled)
        }
        Event::Probed {
            step,
            answer,
            error,
        } => Event::Probed {
            step,
            answer: hidden_answer(answer),
            error,
        },
        Event::Resolved {
            step,
            answer,
            by,
            reason,
        } => Event::Resolved {
            step,
            answer: hidden_answer(answer),
            by,
            reason,
        },
        Event::InputEdited {
            step,
            round,
            input,
            by,
            reason,
        } => Event::InputEdited {
            step,
            round,
            input: hidden(&input),
            by,
            reason,
        },
        Event::Skipped {
            step,
            effect,
            output,
            by,
            reason,
        } => Event::Skipped {
            step,
            effect,
            output: hidden(&output),
            by,
            reason,
        },
        Event::Progress { step, value } => Event::Progress {
            step,
            value: hidden(&value),
        },
        Event::Ended(End::Completed { output }) => Event::Ended(End::Completed {
            output: hidden(&output),
        }),
        event @ (Event::Claimed { .. }
        | Event::StepFailed { .. }
        | Event::StepStopped { .. }
        | Event::StepInterrupted { .. }
        | Event::StepNotStarted { .. }
        | Event::Decided(_)
        | Event::UndoStarted { .. }
        | Event::Undone { .. }
        | Event::UndoFailed { .. }
        | Event::UndoNotStarted { .. }
        | Event::CancelRequested { .. }
        | Event::CancelTooLate
        | Event::DeadlinePassed { .. }
        | Event::Commanded { .. }
        | Event::MarkedCompensated { .. }
        | Event::UndosRetried { .. }
        | Event::Paused { .. }
        | Event::Resumed { .. }
        | Event::AbandonRequested { .. }
        | Event::Migrated(_)
        | Event::Parked(_)
        | Event::Ended(End::Compensated | End::Stopped { .. } | End::Abandoned { .. })) => event,
    }
}

impl PartialResult {
    /// The same result without the outputs of its steps, and without what they reported.
    #[must_use]
    pub fn without_payloads(mut self) -> Self {
        for step in &mut self.steps {
            step.output = None;
            step.progress = None;
        }
        self
    }
}

fn hidden_answer(answer: Probed<Value>) -> Probed<Value> {
    match answer {
        Probed::Done(output) => Probed::Done(hidden(&output)),
        answer => answer,
    }
}

fn hidden(payload: &Value) -> Value {
    let says = match payload.to_json() {
        Ok(json) => format!("\"(hidden: {} bytes)\"", json.get().len()),
        Err(_) => "\"(hidden)\"".to_owned(),
    };
    // A text without quotes or backslashes in it is JSON as it stands.
    RawValue::from_string(says).map_or_else(|_| Value::json(RawValue::NULL.to_owned()), Value::json)
}
