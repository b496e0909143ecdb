//! The written form of a record's events: a JSON array of externally tagged objects, steps by name.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::journal::{End, Event};
use crate::step::{StepIx, StepTable, Value};

/// The newest version of the written form. A store keeps beside each record [which it has](form_of).
pub const FORM_VERSION: u32 = 3;

/// The version of a record with these events: the oldest that can hold them, so that an older reader is
/// stopped only by what it can't know.
#[must_use]
pub fn form_of<S>(events: &[Event<S>]) -> u32 {
    events.iter().map(Event::form).max().unwrap_or(1)
}

/// A record can't be written, or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// A payload can't be written as JSON.
    #[error("the events can't be written: {0}")]
    Encode(String),
    /// The text is not a list of events of this version.
    #[error("the events can't be read: {0}")]
    Decode(String),
    /// The record was written by a newer (or by no) version of this crate.
    #[error(
        "the record has form version {found}, and this build reads versions up to {FORM_VERSION}"
    )]
    Version {
        /// The version that the record says it has.
        found: u32,
    },
}

/// Writes events as JSON text.
///
/// # Errors
///
/// [`FormError::Encode`] where a payload can't be written.
pub fn encode_events(events: &[Event<StepIx>], steps: &StepTable) -> Result<String, FormError> {
    let mut text = String::with_capacity(2 + events.iter().map(room_for).sum::<usize>());
    text.push('[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_event(&mut text, event, steps)
            .map_err(|error: Box<dyn Error>| FormError::Encode(error.to_string()))?;
    }
    text.push(']');
    Ok(text)
}

/// About how long an event is when it is written, so that a large payload isn't moved while its text grows.
fn room_for(event: &Event<StepIx>) -> usize {
    let payload = match event {
        Event::RunStarted(started) => 400 + started.input.json_len(),
        Event::StepStarted { mapped, .. } => mapped.iter().map(Value::json_len).sum(),
        Event::StepDone { output, .. } | Event::Ended(End::Completed { output }) => {
            output.json_len()
        }
        _ => 0,
    };
    160 + payload
}

/// Writes one event. Those that each run has are written by hand, as their `Serialize` would: it looks at each
/// letter of each name, and needs the event with names for numbers, which is a copy of it.
fn push_event(
    text: &mut String,
    event: &Event<StepIx>,
    steps: &StepTable,
) -> Result<(), Box<dyn Error>> {
    match event {
        Event::RunStarted(started) => {
            text.push_str("{\"run_started\":");
            text.push_str(&serde_json::to_string(started)?);
        }
        Event::StepStarted {
            step,
            round,
            attempt,
            key,
            fed_by,
            mapped,
            items,
        } => {
            text.push_str("{\"step_started\":{\"step\":");
            push_text(text, &steps.name(*step))?;
            write!(text, ",\"round\":{round},\"attempt\":{attempt},\"key\":")?;
            push_text(text, key)?;
            if !fed_by.is_empty() {
                text.push_str(",\"fed_by\":");
                push_list(text, fed_by, |text, round| Ok(write!(text, "{round}")?))?;
            }
            if !mapped.is_empty() {
                text.push_str(",\"mapped\":");
                push_list(text, mapped, push_value)?;
            }
            if let Some(items) = items {
                write!(text, ",\"items\":{items}")?;
            }
            text.push('}');
        }
        Event::StepDone {
            step,
            output,
            partial: None,
            asks: false,
            took_us,
        } => {
            text.push_str("{\"step_done\":{\"step\":");
            push_text(text, &steps.name(*step))?;
            text.push_str(",\"output\":");
            push_value(text, output)?;
            write!(text, ",\"took_us\":{took_us}}}")?;
        }
        Event::Ended(End::Completed { output }) => {
            text.push_str("{\"ended\":{\"completed\":{\"output\":");
            push_value(text, output)?;
            text.push_str("}}");
        }
        other => {
            let named = other.clone().map_step(|step| steps.name(step));
            text.push_str(&serde_json::to_string(&named)?);
            return Ok(());
        }
    }
    text.push('}');
    Ok(())
}

fn push_list<T>(
    text: &mut String,
    items: &[T],
    push: impl Fn(&mut String, &T) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, item)?;
    }
    text.push(']');
    Ok(())
}

fn push_value(text: &mut String, value: &Value) -> Result<(), Box<dyn Error>> {
    text.push_str(value.to_json()?.get());
    Ok(())
}

fn push_text(text: &mut String, plain: &str) -> Result<(), Box<dyn Error>> {
    if plain
        .bytes()
        .any(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        text.push_str(&serde_json::to_string(plain)?);
    } else {
        text.push('"');
        text.push_str(plain);
        text.push('"');
    }
    Ok(())
}

/// Reads what [`encode_events`] wrote. Names are numbered by `names`, which all records of a run share.
///
/// # Errors
///
/// [`FormError::Version`] for another version, [`FormError::Decode`] for text that isn't events.
pub fn decode_events(
    version: u32,
    text: &str,
    names: &mut Interner,
) -> Result<Vec<Event<StepIx>>, FormError> {
    if !(1..=FORM_VERSION).contains(&version) {
        return Err(FormError::Version { found: version });
    }
    let read: Vec<Event<String>> =
        serde_json::from_str(text).map_err(|error| FormError::Decode(error.to_string()))?;
    Ok(read
        .into_iter()
        .map(|event| event.map_step(|step| names.number(step)))
        .collect())
}

/// Numbers step names in the order in which they are met.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, StepIx>,
}

impl Interner {
    /// The number of this name.
    pub fn number(&mut self, name: String) -> StepIx {
        if let Some(&step) = self.numbers.get(name.as_str()) {
            return step;
        }
        let name: Arc<str> = name.into();
        let step = StepIx::new(self.names.len());
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, step);
        step
    }

    /// The table of all names met.
    #[must_use]
    pub fn into_table(self) -> StepTable {
        StepTable::new(self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Timestamp;
    use crate::journal::RunStarted;

    #[test]
    fn what_is_written_by_hand_is_what_serde_writes() {
        let odd = "a \"b\" \\ \n \u{1} \u{7f} é 🦀";
        let steps = StepTable::new(vec!["reserve".into(), odd.into()]);
        let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        let started = RunStarted {
            saga: odd.into(),
            version: 3,
            fingerprint: "f".into(),
            uid: "u".into(),
            trace_id: "t".into(),
            traceparent: Some("00".to_owned()),
            tracestate: None,
            input: value("[1,\"é\"]"),
            input_digest: Some("d".to_owned()),
            deadline: Some(Timestamp::from_micros(7)),
            labels: [(odd.to_owned(), "v".to_owned())].into(),
            redo_of: None,
            worker: "w".into(),
        };
        let step_started = |step, fed_by, mapped, items| Event::StepStarted {
            step,
            round: 2,
            attempt: u32::MAX,
            key: odd.into(),
            fed_by,
            mapped,
            items,
        };
        let done = |output, asks| Event::StepDone {
            step: StepIx(1),
            output,
            partial: None,
            asks,
            took_us: u64::MAX,
        };
        let typed = Value::typed(Arc::new(odd.to_owned()));
        let both = vec![value("{\"a\":1}"), typed.clone()];
        let events = vec![
            Event::RunStarted(Arc::new(started)),
            step_started(StepIx(0), Vec::new(), Vec::new(), None),
            step_started(StepIx(1), vec![1, 2], both, Some(0)),
            // A number that the table doesn't have.
            step_started(StepIx(2), vec![7], Vec::new(), Some(9)),
            done(typed, false),
            done(value("null"), true),
            Event::StepNotStarted { step: StepIx(1) },
            Event::Ended(End::Completed {
                output: value("1.50"),
            }),
            Event::Ended(End::Compensated),
        ];
        let one_by_one = events.iter().map(|event| {
            let named = event.clone().map_step(|step| steps.name(step));
            (event, serde_json::to_string(&named).unwrap())
        });
        for (event, expected) in one_by_one {
            let written = encode_events(std::slice::from_ref(event), &steps).unwrap();
            assert_eq!(written, format!("[{expected}]"));
        }
        let named: Vec<_> = events
            .iter()
            .map(|event| event.clone().map_step(|step| steps.name(step)))
            .collect();
        assert_eq!(
            encode_events(&events, &steps).unwrap(),
            serde_json::to_string(&named).unwrap()
        );
        assert_eq!(encode_events(&[], &steps).unwrap(), "[]");
    }

    #[test]
    fn events_are_written_with_names_and_read_back() {
        let steps = StepTable::new(vec!["reserve".into(), "charge".into()]);
        let events = vec![
            Event::StepDone {
                step: StepIx(0),
                output: Value::typed(Arc::new(7_u32)),
                partial: None,
                asks: false,
                took_us: 12,
            },
            Event::StepStarted {
                step: StepIx(1),
                round: 1,
                attempt: 1,
                key: "u/charge/1".into(),
                fed_by: vec![2],
                mapped: vec![Value::typed(Arc::new("x".to_owned()))],
                items: None,
            },
        ];
        let text = encode_events(&events, &steps).unwrap();
        assert_eq!(
            text,
            r#"[{"step_done":{"step":"reserve","output":7,"took_us":12}},{"step_started":{"step":"charge","round":1,"attempt":1,"key":"u/charge/1","fed_by":[2],"mapped":["x"]}}]"#
        );
        let mut names = Interner::default();
        assert_eq!(decode_events(1, &text, &mut names).unwrap(), events);
        assert_eq!(
            names.into_table().names(),
            ["reserve", "charge"].map(Arc::<str>::from)
        );
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let error = decode_events(99, "[]", &mut Interner::default()).unwrap_err();
        assert_eq!(error, FormError::Version { found: 99 });
        assert!(error.to_string().contains("99"));
    }
}
