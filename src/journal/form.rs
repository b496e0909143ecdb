//! The written form of a record's events: a JSON array of externally tagged objects, steps by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::journal::Event;
use crate::step::{StepIx, StepTable};

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
    let named: Vec<Event<Arc<str>>> = events
        .iter()
        .map(|event| event.clone().map_step(|step| steps.name(step)))
        .collect();
    serde_json::to_string(&named).map_err(|error| FormError::Encode(error.to_string()))
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
    use crate::step::Value;

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
