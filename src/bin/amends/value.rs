//! Payloads that come in as arguments.

use std::fs;

use amends::Value;
use serde_json::value::RawValue;

use crate::error::{CliError, Exit};

/// Reads JSON, or with `@FILE` the JSON of a file.
pub(crate) fn read(text: &str) -> Result<Value, CliError> {
    let json = match text.strip_prefix('@') {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| CliError::failed(&format!("reading `{file}`"), &error))?,
        None => text.to_owned(),
    };
    RawValue::from_string(json.trim().to_owned())
        .map(Value::json)
        .map_err(|error| {
            CliError::new(Exit::Usage, format!("`{text}` is not JSON: {error}"))
                .hint("a text has its own quotes: '\"like this\"'; `@FILE` reads a file")
        })
}
