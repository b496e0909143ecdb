//! Wrong wiring does not compile, and the compiler's message names what to change.
//!
//! The messages are stored beside the cases in `tests/wiring/`. After a change of the compiler or of a
//! bound, look at each new message as a user would, then store it with `TRYBUILD=overwrite`.

#[test]
fn wrong_wiring_does_not_compile_and_the_message_names_what_to_change() {
    trybuild::TestCases::new().compile_fail("tests/wiring/*.rs");
}
