//! What came with form 3 is written word for word as `docs/format.md` says, and a record that has none of it
//! keeps the form that it always had.
#![allow(clippy::unwrap_used)] // Helpers of tests; the lint knows test functions only.

use amends::journal::{Interner, decode_events, encode_events, form_of};

/// A record's form, and one event as it is written.
const EVENTS: [(u32, &str); 17] = [
    (
        3,
        r#"{"step_started":{"step":"reserve","round":1,"attempt":1,"key":"u/reserve/1","items":3}}"#,
    ),
    // The steps inside are events like any other: their paths are all that is new.
    (
        1,
        r#"{"step_started":{"step":"ship[2]/items[0]/label","round":1,"attempt":1,"key":"u/ship[2]/items[0]/label/1"}}"#,
    ),
    (
        1,
        r#"{"undo_started":{"step":"pay[undo]/refund","round":1,"attempt":1,"key":"k"}}"#,
    ),
    (3, r#"{"passed_over":{"step":"insure"}}"#),
    (
        3,
        r#"{"decided":{"cause":"absorbed","scope":"pay","strategy":"retry_failed","failed":["pay/primary"],"recovery":0}}"#,
    ),
    (
        3,
        r#"{"decided":{"cause":"failures","scope":"ship","strategy":"compensate","failed":["ship/label"],"recovery":0}}"#,
    ),
    (
        1,
        r#"{"decided":{"cause":"failures","strategy":"compensate","failed":["ship"],"recovery":0}}"#,
    ),
    (
        3,
        r#"{"wait_began":{"step":"approved","round":1,"until":1795392060000000}}"#,
    ),
    (3, r#"{"wait_began":{"step":"approved","round":1}}"#),
    (
        3,
        r#"{"wait_over":{"step":"approved","expired":false,"output":"yes"}}"#,
    ),
    (
        3,
        r#"{"wait_over":{"step":"approved","expired":true,"failure":{"mode":"agent_timeout","message":"no signal","causes":[],"step":"approved","round":1,"attempt":0,"effect":"not_done","retryable":false}}}"#,
    ),
    (
        3,
        r#"{"signalled":{"name":"approved","token":"t","sent":{"ok":true},"kept":true,"at":1795392060000000,"late":true,"by":"ann","reason":"looks good"}}"#,
    ),
    (3, r#"{"progress":{"step":"copy","value":{"bytes":7}}}"#),
    (
        3,
        r#"{"step_done":{"step":"reserve","output":[1],"partial":{"done":2,"of":3,"message":"one is torn","mode":"partial_step_failures"},"asks":true,"took_us":9}}"#,
    ),
    (
        1,
        r#"{"step_done":{"step":"reserve","output":[1],"took_us":9}}"#,
    ),
    (2, r#"{"paused":{"by":"ann","reason":"lunch"}}"#),
    (1, r#"{"ended":"compensated"}"#),
];

#[test]
fn each_event_is_read_and_written_word_for_word_in_its_form() {
    for (form, written) in EVENTS {
        let written = format!("[{written}]");
        let mut names = Interner::default();
        let events = decode_events(3, &written, &mut names).unwrap();
        assert_eq!(form_of(&events), form, "{written}");
        let again = encode_events(&events, &names.into_table()).unwrap();
        assert_eq!(again, written);
    }
}

#[test]
fn the_page_names_each_event_and_each_field_that_came_with_it() {
    let page = include_str!("../docs/format.md");
    for event in [
        "passed_over",
        "wait_began",
        "wait_over",
        "signalled",
        "progress",
        "migrated",
    ] {
        assert!(page.contains(&format!("| `{event}` |")), "{event}");
    }
    for (event, fields) in [
        ("step_started", vec!["items"]),
        ("decided", vec!["scope"]),
        ("step_done", vec!["partial", "asks"]),
        ("signalled", vec!["token", "sent", "kept", "late"]),
        ("wait_over", vec!["expired", "output", "failure"]),
    ] {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{event}` |")))
            .unwrap();
        for field in fields {
            assert!(row.contains(&format!("`{field}`")), "{event}: {field}");
        }
    }
    assert!(page.contains(r#""absorbed""#));
}
