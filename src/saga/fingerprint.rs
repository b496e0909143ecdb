//! The structural fingerprint (rule I2): the same in every process and every build.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::saga::{Form, Gathering, GraphStep, StepKind};

/// SHA-256 over a canonical text of the structure, cut to 128 bits.
///
/// Steps are sorted by name: the order of adding them is not structure. Retries, time-outs, policies and
/// Rust's type names are left out on purpose: changing them leaves a run's past valid. Names stand with
/// their length and byte for byte: how Rust escapes a name in `{:?}` changes with its Unicode tables, and
/// a newer compiler must not park every run.
pub(super) fn fingerprint(saga: &str, steps: &[GraphStep], returned: &[String]) -> String {
    let mut text = format!("amends fingerprint 1\nsaga {}\n", counted(saga));
    let mut sorted: Vec<&GraphStep> = steps.iter().collect();
    sorted.sort_by(|one, two| one.name.cmp(&two.name));
    for step in sorted {
        let kind = match step.kind {
            StepKind::Compensatable => "compensatable",
            StepKind::ReadOnly => "read_only",
            StepKind::Irreversible => "irreversible",
        };
        let mut dependencies: Vec<&str> = step
            .dependencies
            .iter()
            .map(|&ix| &*steps[ix.at()].name)
            .collect();
        dependencies.sort_unstable();
        // Writing to a String can't fail.
        let form = match &step.form {
            Form::Inside(inside) => format!(" {}={}", form(inside.gathers), inside.fingerprint),
            Form::Wait { signal: true, .. } => " wait".to_owned(),
            Form::Wait { signal: false, .. } => " delay".to_owned(),
            Form::Call => String::new(),
        };
        let undo = match step.undone_by() {
            Some(undo) => format!(" undone_by={}", undo.fingerprint),
            None => String::new(),
        };
        let condition = if step.conditional { " conditional" } else { "" };
        let _ = writeln!(
            text,
            "step {} {kind} pivot={} checkpoint={} input={} after={}{form}{undo}{condition}",
            counted(&step.name),
            step.pivot,
            step.checkpoint,
            list(&step.wired),
            list(&dependencies),
        );
    }
    let _ = writeln!(text, "returns {}", list(returned));
    hex(&Sha256::digest(text.as_bytes())[..16])
}

fn form(gathers: Gathering) -> &'static str {
    match gathers {
        Gathering::Saga => "saga",
        Gathering::Each { tolerate: None, .. } => "each",
        // Its output has another type.
        Gathering::Each {
            tolerate: Some(_), ..
        } => "some_of_each",
        Gathering::Fallback => "fallback",
        Gathering::Race => "first_of",
    }
}

/// A text that can't run into what follows it, whatever characters it has.
fn counted(text: &str) -> String {
    format!("{}:{text}", text.len())
}

fn list(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| counted(text.as_ref())).collect();
    format!("{}[{}]", texts.len(), texts.join(","))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |four_bits: u8| char::from_digit(u32::from(four_bits), 16).unwrap_or('?');
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}
