//! Values on their way through a run: typed while they are in the process, JSON once they are written.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What can be an input or an output: anything that serde can write and read, and that can be cloned.
///
/// Implemented for every type that qualifies. `Clone` is needed because a tuple of inputs is put together
/// from its parts; a single node is handed on as it is. Make large values an `Arc<T>`.
pub trait Payload: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Payload for T {}

/// A payload could not be turned into JSON, or JSON not into the payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value can't be written as JSON (a map with keys that aren't strings, for example).
    #[error("a value of type `{type_name}` can't be written as JSON: {message}")]
    Encode {
        /// Rust's name of the type.
        type_name: &'static str,
        /// What serde said.
        message: String,
    },
    /// The JSON isn't a value of the wanted type: its shape has changed since it was written.
    #[error("the stored JSON is not a `{type_name}`: {message}")]
    Decode {
        /// Rust's name of the type.
        type_name: &'static str,
        /// What serde said, without the value that it quotes.
        message: String,
    },
    /// User code that makes an input (a `map`) panicked.
    #[error("the `map` that makes an input panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// A part of an input panicked when it was cloned.
    #[error("a part of the input panicked when it was cloned: {message}")]
    ClonePanicked {
        /// The panic's message.
        message: String,
    },
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Calls a payload's own code. A panic there must not take a driver down with it (promise 10): it
/// becomes the message of an error.
fn guarded<T, E: fmt::Display>(code: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("it panicked: {}", panic_message(&*panic))),
    }
}

/// What serde says of JSON that doesn't fit quotes what it found, and that is a payload: it would be in
/// the failure's message, and with it in logs. What was expected, and where, is enough to find it.
fn without_value(message: &str) -> String {
    let quoting = [
        "invalid type",
        "invalid value",
        "unknown variant",
        "unknown field",
    ];
    let Some(what) = quoting.iter().find(|what| message.starts_with(**what)) else {
        return message.to_owned();
    };
    // The last one: the value may hold these words, too.
    let rest = message.rfind(", expected ").map_or("", |at| &message[at..]);
    format!("{what}{rest}")
}

/// A typed value behind an object: it can be written as JSON and be downcast.
trait Carried: Any + Send + Sync {
    fn to_json(&self) -> Result<Box<RawValue>, PayloadError>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Payload> Carried for T {
    fn to_json(&self) -> Result<Box<RawValue>, PayloadError> {
        guarded(|| serde_json::value::to_raw_value(self)).map_err(|message| PayloadError::Encode {
            type_name: std::any::type_name::<T>(),
            message,
        })
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A payload: as the shared value that its producer made, as JSON, or as both.
///
/// Cloning is cheap. A store that keeps values in the process never causes JSON to be made.
#[derive(Clone)]
pub struct Value {
    typed: Option<Arc<dyn Carried>>,
    json: Option<Arc<RawValue>>,
}

impl Value {
    /// Shares a typed value.
    pub fn typed<T: Payload>(value: Arc<T>) -> Self {
        Value {
            typed: Some(value),
            json: None,
        }
    }

    /// No value.
    pub(crate) fn null() -> Self {
        Value {
            typed: None,
            json: None,
        }
    }

    /// A value that is known as JSON only.
    #[must_use]
    pub fn json(json: Box<RawValue>) -> Self {
        Value {
            typed: None,
            json: Some(json.into()),
        }
    }

    /// The value as `T`: the very one that was made where it is still in the process, decoded otherwise.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Decode`] where the JSON isn't a `T`.
    pub fn get<T: Payload>(&self) -> Result<Arc<T>, PayloadError> {
        if let Some(typed) = &self.typed
            && let Ok(value) = Arc::clone(typed).into_any().downcast::<T>()
        {
            return Ok(value);
        }
        let decode = |json: &str| {
            guarded(|| serde_json::from_str(json))
                .map(Arc::new)
                .map_err(|message| PayloadError::Decode {
                    type_name: std::any::type_name::<T>(),
                    message: without_value(&message),
                })
        };
        match (&self.json, &self.typed) {
            (Some(json), _) => decode(json.get()),
            (None, Some(typed)) => decode(typed.to_json()?.get()),
            (None, None) => decode("null"),
        }
    }

    /// The value as JSON text, made now if it wasn't before.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Encode`] where serde refuses the value.
    pub fn to_json(&self) -> Result<Arc<RawValue>, PayloadError> {
        match (&self.json, &self.typed) {
            (Some(json), _) => Ok(Arc::clone(json)),
            (None, Some(typed)) => Ok(typed.to_json()?.into()),
            (None, None) => serde_json::from_str::<Box<RawValue>>("null")
                .map(Into::into)
                .map_err(|error| PayloadError::Encode {
                    type_name: "()",
                    message: error.to_string(),
                }),
        }
    }

    /// How long its JSON is, where that is made already; 0 otherwise.
    pub(crate) fn json_len(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.get().len())
    }

    /// Makes the JSON once, so that every later writer shares it.
    ///
    /// # Errors
    ///
    /// As [`to_json`](Self::to_json).
    pub fn encode(&mut self) -> Result<(), PayloadError> {
        if self.json.is_none() {
            self.json = Some(self.to_json()?);
        }
        Ok(())
    }
}

/// Two values are equal when their JSON is.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self.to_json(), other.to_json()) {
            (Ok(one), Ok(two)) => one.get() == two.get(),
            _ => false,
        }
    }
}

/// Payloads are never logged: this prints their size at most.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.json {
            Some(json) => write!(f, "Value({} bytes of JSON)", json.get().len()),
            None => f.write_str("Value(typed)"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = self.to_json().map_err(serde::ser::Error::custom)?;
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Value::json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_value_is_handed_on_as_it_is_and_json_is_decoded() {
        let made = Arc::new(vec![1_u8, 2]);
        let mut value = Value::typed(Arc::clone(&made));
        assert!(Arc::ptr_eq(&value.get::<Vec<u8>>().unwrap(), &made));
        value.encode().unwrap();
        assert_eq!(value.to_json().unwrap().get(), "[1,2]");
        let stored: Value = serde_json::from_str("[1,2]").unwrap();
        assert_eq!(stored, value);
        assert_eq!(*stored.get::<Vec<u8>>().unwrap(), vec![1, 2]);
        assert!(matches!(
            stored.get::<String>(),
            Err(PayloadError::Decode { .. })
        ));
    }

    #[test]
    fn what_json_cannot_hold_is_an_error_and_not_a_panic() {
        let odd = std::collections::BTreeMap::from([((1_u8, 2_u8), 3_u8)]);
        assert!(matches!(
            Value::typed(Arc::new(odd)).to_json(),
            Err(PayloadError::Encode { .. })
        ));
    }

    #[test]
    fn payloads_are_not_printed() {
        let mut secret = Value::typed(Arc::new("4111 1111".to_owned()));
        secret.encode().unwrap();
        assert!(!format!("{secret:?}").contains("4111"));
    }

    #[test]
    fn what_does_not_fit_is_told_without_what_it_is() {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        enum Card {
            Visa { number: u64 },
        }
        let message = |json| {
            let stored: Value = serde_json::from_str(json).unwrap();
            match stored.get::<Card>() {
                Err(PayloadError::Decode { message, .. }) => message,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            message(r#"{"Visa":{"number":"4111, expected 1111"}}"#),
            "invalid type, expected u64 at line 1 column 39"
        );
        assert_eq!(
            message(r#""4111""#),
            "unknown variant, expected `Visa` at line 1 column 6"
        );
        assert_eq!(
            message(r#"{"Visa":{"4111":1}}"#),
            "unknown field, expected `number` at line 1 column 15"
        );
        assert_eq!(
            message(r#"{"Visa":{}}"#),
            "missing field `number` at line 1 column 10"
        );
    }
}
