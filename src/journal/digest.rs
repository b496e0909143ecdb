//! The digest of an input (rule I1).

use std::fmt::Write;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::saga::hex;
use crate::step::{PayloadError, Value};

/// SHA-256 of the canonical JSON: objects with sorted keys, no white space.
///
/// Sorting is done here, since `serde_json` keeps the order of insertion where some crate of the build
/// turns on its feature `preserve_order`.
///
/// # Errors
///
/// Where the value can't be written as JSON.
pub(crate) fn digest(value: &Value) -> Result<String, PayloadError> {
    let json = value.to_json()?;
    let parsed: Json = serde_json::from_str(json.get()).map_err(|error| PayloadError::Decode {
        type_name: "JSON",
        message: error.to_string(),
    })?;
    Ok(digest_of(&parsed))
}

/// The same of JSON that is parsed already.
pub(crate) fn digest_of(json: &Json) -> String {
    let mut text = String::new();
    canonical(json, &mut text);
    hex(&Sha256::digest(text.as_bytes()))
}

fn canonical(json: &Json, out: &mut String) {
    match json {
        Json::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|one, two| one.0.cmp(two.0));
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(&Json::String(key.clone()), out);
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        // Writing to a String can't fail.
        plain => drop(write!(out, "{plain}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_order_of_keys_and_white_space_do_not_count() {
        let one: Value = serde_json::from_str(r#"{"b": [1, {"y":2,"x":"é"}], "a":null}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":null,"b":[1,{"x":"é","y":2}]}"#).unwrap();
        assert_eq!(digest(&one).unwrap(), digest(&two).unwrap());
        let other = Value::typed(Arc::new(1_u8));
        assert_ne!(digest(&one).unwrap(), digest(&other).unwrap());
        // Kept for ever: stored digests are compared with new ones.
        assert_eq!(
            digest(&other).unwrap(),
            "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
        );
    }
}
