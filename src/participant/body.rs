//! What is sent, as JSON that is the same however often it is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::step::Effect;

/// The value as JSON with sorted keys.
///
/// The same call may be made again by another process from a journalled input, and a participant compares
/// the digest of what is sent with that of the first time (rule W4); a `HashMap` has another order each time. Numbers stay as they
/// were written: a parsed number would not be as exact.
pub(super) fn sorted(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let raw = serde_json::value::to_raw_value(value)?;
    let mut text = String::with_capacity(raw.get().len());
    sort(&raw, &mut text)?;
    Ok(text)
}

fn sort(raw: &RawValue, out: &mut String) -> Result<(), serde_json::Error> {
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            // A key is compared as it is meant and written as it is written.
            let members: BTreeMap<String, &RawValue> = parsed(raw)?;
            out.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(&key)?);
                out.push(':');
                sort(value, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = parsed(raw)?;
            out.push('[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                sort(item, out)?;
            }
            out.push(']');
        }
        _ => out.push_str(raw.get()),
    }
    Ok(())
}

fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, serde_json::Error> {
    serde_json::from_str(raw.get())
}

/// What an undo sends.
#[derive(Serialize)]
struct Undo<'a, I, O> {
    input: &'a I,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a O>,
}

pub(super) fn undo<I: Serialize, O: Serialize>(
    input: &I,
    effect: Effect<&O>,
) -> Result<String, serde_json::Error> {
    let (effect, output) = match effect {
        Effect::Done(output) => ("done", Some(output)),
        Effect::InDoubt => ("in_doubt", None),
    };
    sorted(&Undo {
        input,
        effect,
        output,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth_and_numbers_stay_as_they_are() {
        let text = r#"{"b":[{"z":1.0,"a":18446744073709551616.10}],"a":"é\n","":null,"A":{}}"#;
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        assert_eq!(
            sorted(&raw).unwrap(),
            r#"{"":null,"A":{},"a":"é\n","b":[{"a":18446744073709551616.10,"z":1.0}]}"#
        );
    }

    #[test]
    fn an_undo_tells_the_output_only_where_it_is_known() {
        let done = undo(&7, Effect::Done(&json!(null))).unwrap();
        assert_eq!(done, r#"{"effect":"done","input":7,"output":null}"#);
        let in_doubt = undo(&7, Effect::<&u8>::InDoubt).unwrap();
        assert_eq!(in_doubt, r#"{"effect":"in_doubt","input":7}"#);
    }
}
